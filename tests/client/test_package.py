"""What importing the client pulls in."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "intaglio_client",
        "intaglio_client.generate.command",
        "intaglio.serving.doctor",
        "intaglio.serving.command",
    ],
)
def test_importing_pulls_in_no_torch(module: str) -> None:
    heavy = ("torch", "diffusers", "transformers", "onnxruntime", "intaglio_export", "intaglio_train")
    code = f"import sys, {module}; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


BLOCKED = (
    "fcntl",
    "intaglio.serving",
    "onnxruntime",
    "psutil",
    "tokenizers",
    "torch",
    "triton_python_backend_utils",
)


@pytest.mark.parametrize(
    "module", ["intaglio_client", "intaglio_client.generate.command", "intaglio_client.watch_command"]
)
def test_the_client_needs_values_only(module: str) -> None:
    """As on a machine without POSIX file locks and without anything of the server."""
    code = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); import {module}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
