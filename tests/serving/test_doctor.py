"""The doctor finds what is missing and names the command that fixes it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from intaglio.cli import main
from intaglio.serving import installation
from intaglio.serving.doctor import examine, examine_config
from intaglio.serving.findings import Finding

from ..hub import without_hub

ROOT = Path(__file__).parents[2]
CONFIG = (
    f"base: [{{folder: {ROOT / 'miniature/model'}}}]\n"
    + "profiles: {sizes: [[64, 64]]}\nserver: {http_port: %d}\n"
)


def finding(findings: Iterable[Finding], what: str) -> Finding:
    return next(one for one in findings if one.what == what)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG % 18999)
    return path


def test_this_machine_can_run_the_demo(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(config)]) == 0
    report = capsys.readouterr().out
    assert f"nothing is missing: intaglio build {config}" in report
    assert "intaglio build" in report, "nothing is built yet: it says how"


def test_the_demo_is_named_where_it_can_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["doctor"]) == 0
    assert "the demo can run: make demo" in capsys.readouterr().out


def test_sdxl_is_missing_where_nothing_of_it_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_hub(tmp_path, monkeypatch)
    monkeypatch.chdir(ROOT)
    assert main(["doctor", "configs/sdxl.yaml"]) == 1
    report = capsys.readouterr().out
    assert "can run" not in report
    end = report[report.index("missing:") :]
    for source in ("base: hub:stabilityai", "vae: hub:madebyollin", "controlnet.pose: hub:xinsir"):
        assert source in end
    assert end.count("intaglio build configs/sdxl.yaml") == 3
    assert "lora character" in report


def test_a_source_of_the_hub_needs_the_library_of_the_hub(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    config.write_text(CONFIG.replace("{folder: ", "{hub: a/b}, {folder: ") % 18999)
    found = finding(examine_config(config), "sources")
    assert (found.state, found.fix) == ("missing", "pip install 'intaglio[export]'")


def test_a_missing_config_stops_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "no/such.yaml"]) == 1
    assert "no such file" in capsys.readouterr().out


def test_numpy_2_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: None)
    monkeypatch.setattr(installation, "version", lambda name: "2.1.0")
    found = finding(examine(), "tritonserver")
    assert (found.state, found.fix) == ("missing", "pip install 'numpy<2'")


def test_no_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: None)
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    found = finding(examine(), "tritonserver")
    assert (found.state, found.fix) == ("missing", "pip install 'intaglio[serve]'")


def test_a_triton_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation.shutil, "which", lambda name: "/opt/tritonserver/bin/tritonserver")
    found = installation.find_triton()
    assert (found.origin, found.stub, found.make_backend_folder(Path("/nowhere"))) == ("PATH", None, None)


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
