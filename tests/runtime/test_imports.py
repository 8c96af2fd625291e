"""What a serving process imports."""

from __future__ import annotations

import subprocess
import sys

SERVING = (
    "intaglio.triton_models.diffuse",
    "intaglio.stages.diffuse.stage",
    "intaglio.stages.preprocess.stage",
    "intaglio.stages.postprocess",
    "intaglio.contract.config",
    "intaglio.engines.onnxruntime",
    "intaglio.detectors.opening",
    "intaglio.engines.opening",
)
HEAVY = (
    "torch",
    "tritonclient",
    "tensorrt",
    "tensorrt_rtx",
    "cuda",
    "onnxruntime",
    "diffusers",
    "cv2",
    "opentelemetry",
    "typer",
)


def test_serving_code_imports_no_torch() -> None:
    code = f"import sys, {', '.join(SERVING)}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
