"""A file with sound."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

SECONDS = 3
_RATE = 8000


def write_tone(path: Path) -> None:
    """Three seconds of 440 Hz."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        tone = 8000 * np.sin(np.arange(SECONDS * _RATE) * 2 * np.pi * 440 / _RATE)
        file.writeframes(tone.astype(np.int16).tobytes())
