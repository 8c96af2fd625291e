"""ONNX Runtime sends nothing to anybody."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.errors import MissingExtra
from intaglio.onnx_runtime import TELEMETRY_VARIABLE, onnx_runtime, refuse_telemetry

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("benchmarks", "client", "export", "miniature", "reference", "runtime", "training")


def imported(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports when it runs, not those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body.clear()
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Import):
            found |= {name.name.split(".")[0] for name in inner.names}
        elif isinstance(inner, ast.ImportFrom) and inner.module and not inner.level:
            found.add(inner.module.split(".")[0])
    return found


def test_it_is_imported_in_one_place() -> None:
    files = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    places = [path.name for path in files if "onnxruntime" in imported(path)]
    assert places == ["onnx_runtime.py"]


def test_the_import_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """With the telemetry on, the wheel 1.31 leaves a database and a device id there."""
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", TELEMETRY_VARIABLE}}
    environment = kept | {"HOME": str(tmp_path)}
    program = "from intaglio.onnx_runtime import onnx_runtime; onnx_runtime().SessionOptions()"
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_who_wants_it_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TELEMETRY_VARIABLE, "0")
    refuse_telemetry()
    assert os.environ[TELEMETRY_VARIABLE] == "0"
    monkeypatch.delenv(TELEMETRY_VARIABLE)
    refuse_telemetry()
    assert os.environ[TELEMETRY_VARIABLE] == "1"


def test_without_it_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match="export"):
        onnx_runtime(extra="export")
