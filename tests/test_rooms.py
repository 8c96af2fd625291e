"""The floors of the house: pyproject.toml's contracts hold, and they notice an import that goes up."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "runtime/intaglio",
    "export/intaglio_export",
    "client/intaglio_client",
    "training/intaglio_train",
    "miniature",
    "benchmarks",
    "reference",
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Check the packages of `folder` against the project's contracts."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
    ]
    options = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every package beside the others, as an installation has them."""
    folder = tmp_path_factory.mktemp("packages")
    for package in PACKAGES:
        source = ROOT / package
        for file in source.rglob("*.py"):
            target = folder / source.name / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder


def test_contracts_hold(copy: Path) -> None:
    result = lint(copy)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("intaglio/contract/tensors.py", "import intaglio.engines.interface", "Floors of runtime/intaglio"),
        ("intaglio/errors.py", "import intaglio.serving.server", "Floors of runtime/intaglio"),
        ("intaglio/engines/interface.py", "import intaglio_client", "Packages"),
        ("intaglio_client/client.py", "import intaglio_export", "Packages"),
        ("intaglio_train/config.py", "import intaglio.contract.config", "Training stands alone"),
        ("intaglio_export/build.py", "import intaglio_train", "Nobody imports training"),
        ("miniature/canvas.py", "import miniature.evaluate", "No cycles"),
    ],
)
def test_planted_import_is_found(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    before = path.read_text()
    # As the last line: nothing is run, and no docstring or __future__ import is moved from its place.
    path.write_text(f"{before}\n{line}\n")
    try:
        result = lint(copy)
    finally:
        path.write_text(before)
    assert result.returncode == 1, result.stdout
    broken = [row for row in result.stdout.splitlines() if row.endswith("BROKEN")]
    assert any(row.startswith(contract) for row in broken), result.stdout
