"""What `intaglio tune` says of a call that cannot work."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from intaglio.cli import main

from .deployments import deployment

COMMANDS = {"tune": EntryPoint("tune", "intaglio_client.tune.command:app", "intaglio.commands")}


def tune(*arguments: str) -> int:
    return main(["tune", *arguments], commands=COMMANDS)


def test_without_a_build_the_command_that_builds_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deployment(tmp_path)
    assert tune(str(tmp_path / "small.yaml")) == 1
    assert "rebuild with: intaglio build" in capfd.readouterr().err


def test_two_configurations_of_one_name_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deployment(tmp_path)
    path = str(tmp_path / "small.yaml")
    assert tune(path, path) == 1
    assert "two configurations are named small" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("option", "text", "problem"),
    [
        ("--prompts", "- a\n- {prompt: b, seeed: 1}\n", "line 2: unknown key seeed"),
        ("--grid", "settings: [{inputs: {sheduler: euler}}]\n", "settings[0]: sheduler: no input"),
    ],
)
def test_a_bad_file_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str, text: str, problem: str
) -> None:
    deployment(tmp_path)
    (tmp_path / "bad.yaml").write_text(text)
    assert tune(str(tmp_path / "small.yaml"), option, str(tmp_path / "bad.yaml")) == 1
    assert problem in capfd.readouterr().err
