"""docs/clients.md is run as it is written; only the ports are those of the test's server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from intaglio.images import read_metadata
from intaglio.serving.server import Server

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_works_as_written(server: Server, tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [language for language, _ in blocks] == ["python", "bash", "bash", "bash", "bash"]
    for language, text in blocks:
        code = text.replace("localhost:8001", server.grpc_url).replace("localhost:8000", server.http_url)
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-eu", "-o", "pipefail", "-c", code]
        environment = {**os.environ, "no_proxy": "127.0.0.1,localhost"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
    python, curl = tmp_path / "tritonclient.png", tmp_path / "curl.png"
    pixels = [np.asarray(PIL.Image.open(path)) for path in (python, curl)]
    assert pixels[0].shape == (256, 256, 3)
    np.testing.assert_array_equal(*pixels, err_msg="the same request over gRPC and HTTP")
    metadata = read_metadata(curl.read_bytes())
    assert metadata is not None
    assert metadata["seed"] == 7
    answered = json.loads((tmp_path / "metadata.json").read_text())
    assert {output["name"] for output in answered["outputs"]} == {"metadata", "timings"}
