"""Which processes train ControlNets and LoRAs."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from miniature.architecture import CONTROL_TYPES
from miniature.styles import LESSONS
from miniature.training import adapters
from miniature.training.adapters import adapter_files, train_controlnets_and_loras
from miniature.training.settings import Settings


class Process:
    def __init__(self, code: int) -> None:
        self._code = code

    def wait(self) -> int:
        return self._code


@pytest.fixture
def started(trial: Settings, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The arguments of every process, in the order in which they begin."""
    (trial.work / "train").mkdir()
    commands: list[list[str]] = []

    def start(command: list[str], **_: Any) -> Process:
        commands.append(command)
        return Process(1 if "configs/training/mara.yaml" in command and "--fail" in command else 0)

    monkeypatch.setattr(adapters.subprocess, "Popen", start)
    return commands


def test_the_others_start_once_the_segmentation_controlnet_is_there(
    trial: Settings, started: list[list[str]]
) -> None:
    train_controlnets_and_loras(replace(trial, adapter_options=("--steps", "3")))
    assert len(started) == len(CONTROL_TYPES) + len(LESSONS) + 1
    assert started[-1][3:5] == ["lcm", "configs/training/lcm.yaml"]
    assert started[0][3:5] == ["controlnet", "configs/training/controlnet_segmentation.yaml"]
    assert {command[3] for command in started[1 : 1 + len(LESSONS)]} == {"lora"}
    for command in started:
        assert command[:3] == [sys.executable, "-m", "intaglio_train"]
        assert command[-2:] == ["--steps", "3"]


def test_a_training_that_fails_is_named(trial: Settings, started: list[list[str]]) -> None:
    with pytest.raises(SystemExit, match="training failed: mara; see"):
        train_controlnets_and_loras(replace(trial, adapter_options=("--fail",)))
    assert len(started) == 1 + len(LESSONS), "nothing else begins"


def test_every_adapter_leaves_a_file() -> None:
    assert len(adapter_files()) == len(CONTROL_TYPES) + len(LESSONS) + 1
