"""What to say of a LoRA file that is missing: the command that trains it, where one is known."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

__all__ = ["missing_file"]

_CONFIGURATIONS: Final = ("*.yaml", "configs/training/*.yaml")
"""Where training configurations lie, seen from a folder above the file."""
_NAME: Final = ("name", "output_name")
_OUTPUT: Final = ("output", "output_dir")
"""Keys of a training configuration, and the names of other trainers that it may use instead."""


def missing_file(path: Path) -> str:
    """That `path` is missing, and the command that trains it where a training configuration writes it."""
    for root in path.parents:
        for pattern in _CONFIGURATIONS:
            for config in sorted(root.glob(pattern)):
                if path in _files_of(config):
                    command = f"intaglio train lora {os.path.relpath(config)}"
                    return f"{os.path.relpath(path)}: no such file; train it: {command}"
    return f"{path}: no such file; train it or correct its path"


def _files_of(config: Path) -> tuple[Path, ...]:
    """The LoRA files that the training may write, by default to trained/NAME beside `config`; none where
    `config` is no training configuration.
    """
    try:
        values = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ()
    if not isinstance(values, dict):
        return ()
    name = _first_of(values, _NAME)
    if not isinstance(name, str):
        return ()
    output = Path(str(_first_of(values, _OUTPUT) or f"trained/{name}")).expanduser()
    folder = Path(os.path.normpath(config.parent / output))
    return tuple(folder / f"{name}{end}.safetensors" for end in ("", "_kohya"))


def _first_of(values: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((values[key] for key in keys if key in values), None)
