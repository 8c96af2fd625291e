"""What importing the client pulls in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .fake_server import fake_server, stream_of


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
    "grp",
    "intaglio.serving",
    "onnxruntime",
    "psutil",
    "pwd",
    "resource",
    "termios",
    "tokenizers",
    "torch",
    "triton_python_backend_utils",
)


MODULES = [
    "intaglio_client",
    "intaglio_client.async_client",
    "intaglio_client.client",
    "intaglio_client.batch.command",
    "intaglio_client.batch.run",
    "intaglio_client.batch.sheet",
    "intaglio_client.batch.stopping",
    "intaglio_client.filters.opening",
    "intaglio_client.generate.command",
    "intaglio_client.video.command",
    "intaglio_client.watch_command",
]


@pytest.mark.parametrize("module", MODULES)
def test_the_client_needs_values_only(module: str) -> None:
    """As on Windows or macOS: without modules of POSIX, and without anything of the server."""
    code = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); import {module}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_picture_is_drawn_and_streamed_without_modules_of_posix(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED}))
from intaglio.cli import main
from intaglio_client import Client
with Client(sys.argv[1]) as client:
    client.stream("a fox").result()[0].save(sys.argv[2] + "/streamed.png")
sys.exit(main(["generate", "a fox", "--preview", "--url", sys.argv[1], "--out", sys.argv[2] + "/x.png"]))
"""
    with fake_server(stream_of()) as server:
        command = [sys.executable, "-c", code, server.url, str(tmp_path)]
        subprocess.run(command, check=True, timeout=60)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"image 0"}
    assert len(list(tmp_path.iterdir())) == 2


LONGEST_IMPORT = 0.3
"""Seconds."""


def test_the_import_is_fast() -> None:
    """Of the processor, the least of several tries; a process that imports nothing is taken off."""

    def least(code: str) -> float:
        report = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
        words = [sys.executable, "-c", f"{code}\n{report}"]
        return min(float(subprocess.check_output(words, text=True, timeout=60)) for _ in range(3))

    assert least("import intaglio_client") - least("pass") <= LONGEST_IMPORT
