"""Which of our modules the result of each kind of stage depends on.

Their sources are part of the stage's key. So whoever changes how a stage works need not remember to raise a
version number. Modules are named as they are imported, and a package stands for all of its modules. Not named
are modules whose effect on a result is in the key as a value: the contract (tensors, profiles, architecture),
the choice of files (`weights.sources`), the platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from intaglio.contract.config import RuntimeName
from intaglio_export.plan.stages import StageKind

__all__ = ["ENGINE_MODULES", "SEEDED_MODULES", "STAGE_MODULES", "module_files", "source_digest"]

SEEDED_MODULES: Final = (
    "intaglio_export.weights.seeded",
    "intaglio_export.weights.text_encoders",  # a weight's name chooses its values
    "intaglio.sampling.noise",
)
"""What draws weights from a seed."""
_NETWORK: Final = (
    "intaglio_export.plan.make",
    "intaglio_export.weights.load",
    "intaglio_export.weights.configuration",  # what an absent key means
    "intaglio_export.weights.controlnet_files",
    "intaglio_export.weights.checkpoint_files",
    "intaglio_export.weights.latents",
    "intaglio_export.weights.single_file",
    "intaglio_export.weights.text_encoders",
    "intaglio_export.weights.vae_range",
    "intaglio.loras.tensor_files",  # reads what a single file holds
    "intaglio.text_encoder_names",
)
"""What makes the PyTorch network of a stage."""
STAGE_MODULES: Final[Mapping[StageKind, tuple[str, ...]]] = {
    "fuse": (
        *_NETWORK,
        "intaglio_export.weights.fuse",
        "intaglio.loras.adapters",
        "intaglio.loras.files",
        "intaglio.loras.layer_names",
        "intaglio.loras.layer_shapes",
        "intaglio.loras.layers",
    ),
    "onnx": (
        *_NETWORK,
        "intaglio_export.graphs.examples",
        "intaglio_export.graphs.export",
        "intaglio_export.graphs.onnx_weights",
        "intaglio_export.graphs.attention",
        "intaglio_export.graphs.controlnets",
        "intaglio_export.graphs.sdxl",
    ),
    "pristine": (
        *_NETWORK,
        "intaglio_export.graphs.pristine",
        "intaglio_export.graphs.attention",
        "intaglio_export.graphs.controlnets",
        "intaglio_export.graphs.sdxl",
        "intaglio_export.weights.swapped_weights",
        "intaglio.engines.onnx_file",
        "intaglio.loras.files",
    ),
    "verify": (
        *_NETWORK,
        "intaglio_export.engines.verify",
        "intaglio_export.graphs.examples",
        "intaglio_export.graphs.attention",
        "intaglio_export.graphs.controlnets",
        "intaglio_export.graphs.sdxl",
        "intaglio.engines",
    ),
}
"""By kind of stage; engines are below."""
_ENGINE: Final = (
    "intaglio_export.plan.make",
    "intaglio_export.engines.compile",
    "intaglio_export.engines.job",
)
_TENSORRT: Final = (
    *_ENGINE,
    "intaglio_export.engines.tensorrt",
    "intaglio_export.weights.swapped_weights",
    "intaglio.engines.onnx_file",  # reads the names of a graph's weights
)
ENGINE_MODULES: Final[Mapping[RuntimeName, tuple[str, ...]]] = {
    "onnxruntime": (*_ENGINE, "intaglio_export.engines.onnxruntime"),
    "tensorrt-rtx": _TENSORRT,
    "tensorrt": _TENSORRT,
}
"""Of an engine, by its runtime."""


def module_files(name: str) -> list[Path]:
    """The source files of a module or, for a package, of all its modules; nothing of them is imported.

    Raises:
        ModuleNotFoundError: there is no such module.
    """
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {name}; a stage's key depends on its source", name=name)
    if spec.submodule_search_locations is None:
        return [Path(spec.origin)]
    return sorted(Path(spec.origin).parent.rglob("*.py"))


def source_digest(modules: Iterable[str]) -> str:
    """Digest of the sources of `modules`, in their order."""
    digest = hashlib.sha256()
    for name in modules:
        for file in module_files(name):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
