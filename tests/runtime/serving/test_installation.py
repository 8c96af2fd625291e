"""Where Triton is found."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from intaglio.errors import ConfigError, Unavailable
from intaglio.serving import installation

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_a_triton_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: "/opt/tritonserver/bin/tritonserver")
    found = installation.find_triton()
    assert (found.origin, found.stub, found.make_backend_folder(Path("/nowhere"))) == ("PATH", None, None)


def test_a_machine_without_a_packaged_triton_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra installs nothing there, so its name would be no help."""
    monkeypatch.setattr(installation.shutil, "which", lambda name: None)
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    monkeypatch.setattr(installation, "has_package", lambda python, machine: False)
    with pytest.raises(ConfigError, match=r"tritonserver is not on PATH.*; serve in NVIDIA's Triton image"):
        installation.find_triton()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", [(3, 11), (3, 12), (3, 13)])
def test_the_extra_brings_a_triton_where_its_markers_hold(python: tuple[int, int], machine: str) -> None:
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    where = {"python_version": ".".join(map(str, python)), "platform_machine": machine}
    for line in project["optional-dependencies"]["triton"]:
        marker = Requirement(line).marker
        assert marker is not None
        assert marker.evaluate(where) == installation.has_package(python, machine)


def test_a_triton_that_hangs_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tritonserver"
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    program.chmod(0o755)
    monkeypatch.setattr(installation, "_HELP_SECONDS", 0.1)
    with pytest.raises(Unavailable, match=r"--help has not ended after 0\.1 s"):
        _ = installation.TritonInstallation(program).options
