"""The command group: help without imports, suggestions, completion, errors as one line and an exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from intaglio import cli
from intaglio.cli import COMMANDS, GROUP, main
from intaglio.extras import Extras

MODULE = """
import typer
from intaglio.errors import ConfigError, InvalidRequest, Unavailable
app = typer.Typer(add_completion=False)

@app.command()
def run(problem: str = "", code: int = 0, read: str = "") -> None:
    "Run."
    if read:
        open(read)
    if problem == "config":
        raise ConfigError("configs/x.yaml: [bold] no\\nsuch file")
    if problem == "request":
        raise InvalidRequest("steps", "is 0", allowed="at least 1")
    if problem == "busy":
        raise Unavailable("the server is busy")
    if problem == "interrupt":
        raise KeyboardInterrupt
    if problem == "defect":
        raise ValueError("a defect")
    if code:
        raise typer.Exit(code)
    print("ran")
"""


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    (tmp_path / "intaglio_commands_example.py").write_text(MODULE)
    (tmp_path / "intaglio_commands_heavy.py").write_text("import some_gpu_library")
    monkeypatch.syspath_prepend(str(tmp_path))
    values = {
        "build": "intaglio_commands_example:app",
        "generate": "intaglio_commands_heavy:app",
        "absent": "intaglio_client.no_such_module:app",
    }
    sys.modules.pop("intaglio_commands_example", None)  # an earlier test imported it
    return {name: EntryPoint(name, value, GROUP) for name, value in values.items()}


def test_help_imports_nothing(commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["-h"], []):
        assert main(arguments, commands=commands) == 0
        out = capsys.readouterr().out
        assert COMMANDS["build"] in out
        assert out.index("  build") < out.index("  generate") < out.index("  absent")
    assert "intaglio_commands_example" not in sys.modules


def test_every_command_has_one_whole_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.partition("Commands:")[2].splitlines()
    for name, line in COMMANDS.items():
        assert any(row.split() == [name, *line.split()] for row in listed), name


def test_commands_run_with_their_arguments(
    commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build"], commands=commands) == 0
    assert capsys.readouterr().out == "ran\n"
    assert main(["build", "--code", "7"], commands=commands) == 7
    for option in ("-h", "--help"):
        assert main(["build", option], commands=commands) == 0
        assert "Usage: intaglio build" in capsys.readouterr().out
    assert main(["--version"], commands=commands) == 0
    assert capsys.readouterr().out.startswith("intaglio ")


def test_a_typo_is_answered_with_the_nearest_name(
    commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bild"], commands=commands) == 2
    assert "Did you mean 'build'?" in capsys.readouterr().err
    assert main(["build", "--problm", "x"], commands=commands) == 2
    assert "--problem" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "code", "line"),
    [
        ("config", 1, "intaglio build: configs/x.yaml: [bold] no such file"),
        ("request", 2, "intaglio build: steps: is 0; allowed: at least 1"),
        ("busy", 75, "intaglio build: the server is busy"),
        ("interrupt", 130, "intaglio build: interrupted"),
    ],
)
def test_errors_are_one_line_and_a_code(
    commands: dict[str, EntryPoint],
    capsys: pytest.CaptureFixture[str],
    problem: str,
    code: int,
    line: str,
) -> None:
    assert main(["build", "--problem", problem], commands=commands) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"{line}\n")


def test_a_file_that_cannot_be_read_is_named(
    commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "--read", "no/such.png"], commands=commands) == 1
    assert capsys.readouterr().err == "intaglio build: no/such.png: No such file or directory\n"


def test_a_defect_is_not_hidden(commands: dict[str, EntryPoint]) -> None:
    with pytest.raises(ValueError, match="a defect"):
        main(["build", "--problem", "defect"], commands=commands)
    with pytest.raises(ModuleNotFoundError):  # a module of our own that is not there
        main(["absent"], commands=commands)


def test_a_missing_extra_is_named(
    commands: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    extras = Extras.of(['some-gpu-library>=2; extra == "tensorrt"', 'psutil; extra == "serve"'])
    monkeypatch.setattr(cli.Extras, "installed", lambda: extras)
    assert main(["generate"], commands=commands) == 1
    said = "some_gpu_library is not installed; run: pip install 'intaglio[tensorrt]'"
    assert said in capsys.readouterr().err


def completed(words: str, **environment: str) -> list[str]:
    """What bash offers for the last word of `words`, by the script that `intaglio` gives it."""
    program = f"""
        eval "$(_INTAGLIO_COMPLETE=source_bash intaglio)"
        COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        _intaglio_completion intaglio
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("intaglio re", ["reload"]),
        ("intaglio loras re", ["remove"]),
        ("intaglio build --keep", ["--keep", "--keep-all"]),
        ("intaglio train con", ["controlnet"]),
    ],
)
def test_a_shell_completes_commands_options_and_choices(words: str, offered: list[str]) -> None:
    assert completed(words) == offered


def test_a_shell_offers_nothing_for_what_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "tritonclient").mkdir()
    (tmp_path / "tritonclient" / "__init__.py").write_text("raise ModuleNotFoundError(name='tritonclient')")
    found = completed("intaglio generate --", PYTHONPATH=str(tmp_path))
    assert "--prompt" not in found
    assert "--out" not in found
