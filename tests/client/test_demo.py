"""What `intaglio demo` says where something that it needs is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio import extras
from intaglio.errors import IntaglioError, MissingExtra
from intaglio_client import demo


def test_all_extras_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"psutil", "torch", "onnx"}
    monkeypatch.setattr(extras, "is_installed", lambda module: module not in absent)

    def no_triton() -> None:
        raise MissingExtra("tritonserver", extra="triton")

    monkeypatch.setattr(demo, "find_triton", no_triton)
    with pytest.raises(IntaglioError) as told:
        demo.check_extras()
    without = "psutil, torch, onnx, tritonserver"
    assert str(told.value) == f"without {without}; run: pip install 'intaglio[serve,export,triton]'"


def test_nothing_is_missing_here() -> None:
    demo.check_extras()


def test_a_base_installation_names_the_extras(tmp_path: Path) -> None:
    """As a user sees it: no module of an extra can be imported, not even gRPC, and no Triton is there."""
    modules = [module for one in extras.MODULES.values() for module in one]
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {[one.partition('.')[0] for one in modules]!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "sys.modules['pytriton'] = None\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "intaglio", "demo"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("intaglio demo: without tritonclient, ")
    assert done.stderr.endswith("run: pip install 'intaglio[client,serve,export,triton]'\n")
