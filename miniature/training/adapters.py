"""ControlNets and LoRAs, each trained by a process of `intaglio train`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from miniature import architecture
from miniature.styles import LESSONS
from miniature.training.settings import MODEL, Settings

__all__ = ["adapter_files", "train_controlnets_and_loras"]

_CONTROLNETS: Final = MODEL.parent / "controlnets"
_LORAS: Final = MODEL.parent / "loras"
_FIRST: Final = "segmentation"
"""The ControlNet that the four others start from."""
_FEW_STEPS: Final = "lcm"
"""The LoRA that no lesson teaches: it is distilled from the base."""


def train_controlnets_and_loras(settings: Settings) -> None:
    """The segmentation ControlNet and the LoRAs of lessons side by side, then the others of both."""
    loras = {name: _lora_command(name, settings) for name in LESSONS}
    _train_together({_FIRST: _controlnet_command(_FIRST)} | loras, settings)
    others = [name for name in architecture.CONTROL_TYPES if name != _FIRST]
    controlnets = {name: _controlnet_command(name) for name in others}
    _train_together(controlnets | {_FEW_STEPS: _few_steps_command(settings)}, settings)


def _controlnet_command(name: str) -> list[str]:
    config = f"configs/training/controlnet_{name}.yaml"
    return ["controlnet", config, "--install", str(_CONTROLNETS)]


def _lora_command(name: str, settings: Settings) -> list[str]:
    data = str(settings.work / "data" / name)
    return ["lora", f"configs/training/{name}.yaml", "--data", data, "--install", str(_LORAS)]


def _few_steps_command(settings: Settings) -> list[str]:
    data = str(settings.work / "data" / "base")
    return ["lcm", f"configs/training/{_FEW_STEPS}.yaml", "--data", data, "--install", str(_LORAS)]


def _train_together(commands: Mapping[str, Sequence[str]], settings: Settings) -> None:
    """One process for every command at the same time: alone, none of them fills a GPU."""
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    running = {}
    for name, command in commands.items():
        told = [sys.executable, "-m", "intaglio_train", *command, *settings.adapter_options]
        with (settings.work / "train" / f"{name}.log").open("w") as log:
            running[name] = subprocess.Popen(told, stdout=log, stderr=log, env=environment)
    failed = [name for name, process in running.items() if process.wait() != 0]
    if failed:
        raise SystemExit(f"training failed: {', '.join(failed)}; see {settings.work}/train/NAME.log")


def adapter_files() -> list[Path]:
    """What `train_controlnets_and_loras` leaves."""
    controlnets = [_CONTROLNETS / name / "config.json" for name in architecture.CONTROL_TYPES]
    return controlnets + [_LORAS / f"{name}.safetensors" for name in (*LESSONS, _FEW_STEPS)]
