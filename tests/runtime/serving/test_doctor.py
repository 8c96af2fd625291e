"""The doctor finds what is missing and names the command that fixes it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from intaglio.cli import main
from intaglio.engines import card
from intaglio.engines.card import CardMemory
from intaglio.serving import doctor, installation, memory_limits
from intaglio.serving.doctor import examine, examine_config
from intaglio.serving.findings import Finding
from intaglio.serving.memory import GIB

CONTROL = {"architecture": "sdxl-base-1.0", "seed": 1, "type": "pose"}


def write(folder: Path, **changes: Any) -> Path:
    values: dict[str, Any] = {
        "base": {"architecture": "sdxl-base-1.0", "seed": 0},
        "controlnets": {"pose": CONTROL},
        "profiles": {"sizes": [[1024, 1024]], "text_chunks": 1},
        "build": "build",
    }
    path = folder / "plate.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    return path


def test_doctor_prints_the_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        memory_limits, "read_card_memory", lambda gpu: CardMemory(total=16 * GIB, used=GIB, free=15 * GIB)
    )
    shown = CliRunner().invoke(doctor.app, ["--memory", str(write(tmp_path))])
    assert shown.exit_code == 0
    assert "weights unet" in shown.output
    assert "not built: an estimate" in shown.output
    few = write(
        tmp_path, controlnets={"pose": CONTROL, "canny": CONTROL}, execution={"resident_controlnets": 1}
    )
    shown = CliRunner().invoke(doctor.app, ["--memory", str(few)])
    assert "1 of 2 ControlNets at the same time" in shown.output
    refused = CliRunner().invoke(doctor.app, ["--memory", str(write(tmp_path, memory_limit_gib=2.0))])
    assert refused.exit_code == 1
    assert "does not fit: plate needs" in refused.output


CONFIG = "base: [{folder: weights}]\nprofiles: {sizes: [[64, 64]]}\nserver: {http_port: %d}\n"


def finding(findings: Iterable[Finding], what: str) -> Finding:
    return next(one for one in findings if one.what == what)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG % 18999)
    return path


def test_a_card_that_is_not_here_is_missing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text(f"{config.read_text()}execution: {{gpu: 2}}\n")
    monkeypatch.setattr(card, "gpu_count", lambda: 2)
    found = finding(examine_config(config), "execution.gpu")
    assert (found.state, found.detail) == ("missing", "2: no such card, CUDA sees 2 here")
    assert found.fix.startswith("allowed: 0 to 1")


def test_a_missing_config_stops_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "no/such.yaml"]) == 1
    assert "no such file" in capsys.readouterr().out


def test_a_source_of_the_hub_needs_the_library_of_the_hub(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    config.write_text("base: {hub: a/b}\n" + "\n".join((CONFIG % 0).splitlines()[1:]))
    found = finding(examine_config(config), "sources")
    assert (found.state, found.fix) == ("missing", "pip install 'intaglio[export]'")


def test_numpy_2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: None)
    monkeypatch.setattr(installation, "version", lambda name: "2.1.0")
    found = finding(examine(), "tritonserver")
    assert (found.state, found.fix) == ("missing", "pip install 'numpy<2'")


def test_no_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: None)
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    found = finding(examine(), "tritonserver")
    assert (found.state, found.fix) == ("missing", "pip install 'intaglio[triton]'")


@pytest.mark.parametrize(
    ("installed", "state"),
    [(("tensorrt_rtx", "cuda.bindings"), "ok"), (("tensorrt_rtx",), "missing"), ((), "note")],
)
def test_a_card_needs_tensorrt_and_cuda_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: tuple[str, ...], state: str
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho RTX\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(doctor, "is_installed", lambda name: name in installed)
    found = finding(examine(), "tensorrt")
    assert found.state == state
    assert (found.fix == "pip install 'intaglio[tensorrt]'") == (state != "ok")


def test_a_port_of_zero_is_never_in_use(config: Path) -> None:
    config.write_text(CONFIG % 0)
    found = finding(examine_config(config), "http port")
    assert (found.state, found.detail) == ("ok", "any free one of 127.0.0.1")


def test_a_port_in_use_is_named(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        config.write_text(CONFIG % busy.getsockname()[1])
        found = finding(examine_config(config), "http port")
    assert found.state == "note"
    assert "--http-port 0" in found.fix


def test_each_card_that_is_not_here_is_missing(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text((CONFIG % 18999).replace("server: {", "server: {gpus: [0, 4], "))
    monkeypatch.setattr(card, "gpu_count", lambda: 2)
    found = finding(examine_config(config), "server.gpus")
    assert (found.state, found.detail) == ("missing", "4: no such card, CUDA sees 2 here")
