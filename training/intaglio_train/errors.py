"""What can go wrong in training; every message is one line: what was wrong, then what would be right.

    TrainingError
    ├── ConfigError        the YAML, the model or the machine does not fit
    ├── DataError          an image, caption or control is missing, damaged or of a wrong size
    └── CheckpointError    the checkpoint found belongs to another run

The command prints the line and ends with 1.
"""

from __future__ import annotations

__all__ = ["CheckpointError", "ConfigError", "DataError", "TrainingError"]


class TrainingError(Exception):
    """Any failure of training that its user can put right; `str()` is one line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(TrainingError):
    """The configuration asks for something impossible."""


class DataError(TrainingError):
    """The data set cannot be trained on; the message names the file."""


class CheckpointError(TrainingError):
    """A checkpoint cannot be resumed from."""
