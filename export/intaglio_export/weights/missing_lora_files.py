"""What to say of a LoRA file that is missing: the command that trains it, where one is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import yaml

__all__ = ["missing_file"]

_CONFIGURATIONS: Final = ("*.yaml", "configs/training/*.yaml")
"""Where training configurations lie, seen from a folder above the file."""


def missing_file(path: Path) -> str:
    """That `path` is missing, and the command that trains it where a training configuration writes it."""
    for root in path.parents:
        for pattern in _CONFIGURATIONS:
            for config in sorted(root.glob(pattern)):
                if _output_of(config) == path.parent:
                    command = f"intaglio train lora {os.path.relpath(config)}"
                    return f"{os.path.relpath(path)}: no such file; train it: {command}"
    return f"{path}: no such file; train it or correct its path"


def _output_of(config: Path) -> Path | None:
    """The folder that the training writes to, by default trained/NAME beside `config`; None where `config` is
    no training configuration.
    """
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        return None
    output = values.get("output") or f"trained/{values['name']}"
    return Path(os.path.normpath(config.parent / str(output)))
