"""The modules that a stage's key names: they exist, they are all, and none is imported to be read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio_export.plan.source_modules import (
    ENGINE_MODULES,
    SEEDED_MODULES,
    STAGE_MODULES,
    module_files,
    source_digest,
)

EVERY = {"seeded": SEEDED_MODULES, **STAGE_MODULES, **ENGINE_MODULES}
IN_THE_KEY_AS_VALUES = (
    "intaglio.builds",
    "intaglio.contract",
    "intaglio.loras.sets",
    "intaglio.loras.targets",
    "intaglio_export.engines.platform",
    "intaglio_export.weights.sources",
)
"""What these say is among the inputs: specs, profiles, digests of files, the platform."""
WITHOUT_EFFECT = (
    "intaglio.errors",
    "intaglio.whole_files",
    "intaglio.onnx_runtime",
    "intaglio.engines.tensorrt",
)
ENTRIES = {
    "fuse": ("weights.load", "weights.fuse"),
    "onnx": ("weights.load", "graphs.export"),
    "pristine": ("weights.load", "graphs.pristine"),
    "verify": ("weights.load", "engines.verify"),
    "onnxruntime": ("engines.compile", "engines.onnxruntime"),
    "tensorrt-rtx": ("engines.compile", "engines.tensorrt"),
    "tensorrt": ("engines.compile", "engines.tensorrt"),
}
"""What `plan.make` calls for each kind of stage, or for the engine of each runtime."""


def imported(module: str) -> Iterator[str]:
    """Our modules that `module` imports anywhere, also inside functions."""
    for path in module_files(module):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("intaglio"):
                yield str(node.module)


def closure(entries: tuple[str, ...], *, beyond: tuple[str, ...]) -> set[str]:
    """`entries` and all of ours that they import, directly or through other modules of export.

    Modules that begin with one of `beyond` are left out.
    """
    found: set[str] = set()
    waiting = [f"intaglio_export.{name}" for name in entries]
    while waiting:
        module = waiting.pop()
        if module in found or module.startswith(beyond):
            continue
        found.add(module)
        # `compile` imports the module of one runtime, which is an entry of its own.
        if module.startswith("intaglio_export.") and module != "intaglio_export.engines.compile":
            waiting += imported(module)
    return found


@pytest.mark.parametrize("kind", EVERY)
def test_named_modules_exist(kind: str) -> None:
    for module in EVERY[kind]:
        assert module_files(module)
    assert len(set(EVERY[kind])) == len(EVERY[kind])


@pytest.mark.parametrize("kind", ENTRIES)
def test_nothing_that_a_stage_imports_is_missing(kind: str) -> None:
    # Weights of a seed have a key of their own.
    beyond = (*IN_THE_KEY_AS_VALUES, *WITHOUT_EFFECT, *SEEDED_MODULES)
    named = {path for module in EVERY[kind] for path in module_files(module)}
    for module in closure(ENTRIES[kind], beyond=beyond):
        assert set(module_files(module)) <= named, f"{kind} imports {module}: name it in source_modules"


def test_a_missing_module_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"no module intaglio_export\.nowhere"):
        source_digest(["intaglio_export.nowhere"])


def test_a_package_stands_for_all_its_modules() -> None:
    room = Path(module_files("intaglio.engines.onnxruntime")[0]).parent
    assert module_files("intaglio.engines") == sorted(room.rglob("*.py"))
    assert source_digest(["intaglio.engines"]) != source_digest(["intaglio.engines.onnxruntime"])


def test_planning_imports_no_torch() -> None:
    modules = sorted(set().union(*EVERY.values()))
    code = (
        "import sys, intaglio_export.build\n"
        "from intaglio_export.plan.source_modules import source_digest\n"
        f"source_digest({modules!r})\n"
        "print({'torch', 'diffusers', 'transformers', 'onnx', 'onnxruntime'} & set(sys.modules))\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "set()\n"
