"""The command group: help without imports, errors as one line and exit code 2."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from intaglio.cli import GROUP, main

MODULE = """
import typer
from intaglio.errors import ConfigError
app = typer.Typer()

@app.command()
def run(fail: bool = False, code: int = 0, read: str = "") -> None:
    if read:
        open(read)
    if fail:
        raise ConfigError("configs/x.yaml: [bold] no\\nsuch file")
    if code:
        raise typer.Exit(code)
    print("ran")

def plain(arguments):
    return len(arguments)
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    (tmp_path / "intaglio_commands_example.py").write_text(MODULE)
    (tmp_path / "intaglio_commands_heavy.py").write_text("import some_gpu_library")
    monkeypatch.syspath_prepend(str(tmp_path))
    values = {
        "build": "intaglio_commands_example:app",
        "count": "intaglio_commands_example:plain",
        "generate": "intaglio_commands_heavy:app",
        "absent": "intaglio_client.no_such_module:app",
    }
    return {name: EntryPoint(name, value, GROUP) for name, value in values.items()}


def test_help_imports_nothing(commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], commands=commands) == 0
    assert main([], commands=commands) == 0
    out = capsys.readouterr().out
    assert "weights -> fused -> ONNX" in out
    assert out.index("build") < out.index("generate") < out.index("absent")
    assert "intaglio_commands_example" not in sys.modules


def test_commands_run_with_their_arguments(
    commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build"], commands=commands) == 0
    assert capsys.readouterr().out == "ran\n"
    assert main(["build", "--code", "7"], commands=commands) == 7
    assert main(["build", "--colour"], commands=commands) == 2
    assert main(["count", "a", "b", "c"], commands=commands) == 3


def test_errors_are_one_line(commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--fail"], commands=commands) == 2
    assert capsys.readouterr().err == "intaglio build: configs/x.yaml: [bold] no such file\n"
    assert main(["build", "--read", "no/such.png"], commands=commands) == 2
    assert capsys.readouterr().err == "intaglio build: no/such.png: No such file or directory\n"
    assert main(["paint"], commands=commands) == 2
    assert "no command 'paint'; commands: absent, build" in capsys.readouterr().err


def test_a_missing_extra_is_named(
    commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate"], commands=commands) == 2
    assert "some_gpu_library is not installed; run: pip install 'intaglio[" in capsys.readouterr().err
    with pytest.raises(
        ModuleNotFoundError
    ):  # a module of our own that is not there is a defect, not an extra
        main(["absent"], commands=commands)
