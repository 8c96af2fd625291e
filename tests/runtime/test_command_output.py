"""Results on stdout, progress on stderr, one row one line in a pipe, JSON where it is asked for."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from intaglio.command_output import Output, table_of

LONG = "a/" * 80 + "file.safetensors"


def show(printed: Output) -> None:
    printed.progress.print("at work")
    printed.note("a note")
    table = table_of([("ok", LONG, "[bold]"), ("refused", "b", "")], header=("state", "file", "words"))
    printed.result(table, "the end", data={"file": Path("x"), "kept": (1, 2)}, brief="x")


def test_a_pipe_gets_one_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    show(Output())
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert [line.split() for line in lines] == [
        ["state", "file", "words"], ["ok", LONG, "[bold]"], ["refused", "b"], ["the", "end"],
    ]  # fmt: skip
    assert lines == [line.rstrip() for line in lines]
    assert said.err == "at work\na note\n"


def test_a_terminal_folds_and_keeps_every_character(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    Output().result(table_of([("ok", LONG)]), data=None)
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert LONG in "".join(line.removeprefix("ok").strip() for line in lines)


def test_json_alone_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    show(Output(json=True))
    said = capsys.readouterr()
    assert json.loads(said.out) == {"file": "x", "kept": [1, 2]}
    assert said.err == "at work\na note\n"
    show(Output(json=True, quiet=True))
    said = capsys.readouterr()
    assert json.loads(said.out)["file"] == "x"
    assert said.err == ""


def test_quiet_prints_what_a_script_needs_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    show(Output(quiet=True))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("x\n", "")
    Output(quiet=True).problem("it [failed]")
    assert capsys.readouterr().err == "it [failed]\n"


def test_what_json_cannot_hold_is_a_defect() -> None:
    with pytest.raises(TypeError, match="object"):
        Output(json=True).result(data={"x": object()})
