"""What `intaglio demo` says where something that it needs is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio import extras
from intaglio.contract.config import load_deployment
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


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, "-m", "intaglio", "demo", *words]
    return subprocess.run(done, cwd=folder, capture_output=True, text=True, check=False)


def test_a_folder_without_the_repository_is_told_what_to_name(tmp_path: Path) -> None:
    done = command(tmp_path)
    assert done.returncode == 1
    assert "intaglio demo --miniature REPOSITORY/miniature" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--miniature", "."], "miniature: . has no model/unet; allowed: the folder miniature/"),
        (["other.yaml", "--miniature", "."], "miniature: beside other.yaml; allowed: one of the two"),
    ],
)
def test_another_folder_is_refused(tmp_path: Path, words: list[str], says: str) -> None:
    done = command(tmp_path, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_weights_are_linked_and_their_deployment_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = Path(__file__).parents[2] / "miniature"
    for _ in range(2):  # the second demo builds nothing again
        config = demo._config_of(demo.CONFIG, weights)
        deployment = load_deployment(config)
        assert deployment.build_folder == tmp_path / "miniature-demo/build/miniature"
        assert (tmp_path / "miniature-demo/miniature/model/unet").is_dir()
