"""Videos read back with ffmpeg: what they say of themselves, and their frames."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio_client.video.binary import find_ffmpeg

BITS = 6
SIZE = (96, 64)
SHADES = ((220, 60, 40), (40, 90, 220))
"""Of a bit that is not set, and of one that is."""


@dataclass(frozen=True)
class Read:
    """What a file says of itself, and its frames [N, H, W, 3]."""

    codec: str
    size: tuple[int, int]
    fps: float
    seconds: float
    frames: NDArray[np.uint8]
    said: str


def numbered(number: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A picture whose upper half has the bits of `number` as colours, and whose lower half is green."""
    width, height = size
    pixels = np.full((height, width, 3), (60, 200, 90), np.uint8)
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        pixels[: height // 2, left:right] = SHADES[number >> bit & 1]
    return Image.fromarray(pixels)


def number_in(frame: NDArray[np.uint8]) -> int:
    """The number that a frame shows. Fails where a block has neither colour."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        block = frame[height // 8 : height // 2 - height // 8, left + 4 : right - 4]
        distances = [np.abs(block.mean((0, 1)) - shade).max() for shade in SHADES]
        assert min(distances) < 25, (bit, block.mean((0, 1)))
        number |= int(np.argmin(distances)) << bit
    return number


def numbers_in(read: Read) -> list[int]:
    return [number_in(frame) for frame in read.frames]


def read_video(path: Path) -> Read:
    """Decode the whole file. The test fails where ffmpeg finds an error in it."""
    ffmpeg = find_ffmpeg().path
    command = [ffmpeg, "-hide_banner", "-nostdin", "-i", str(path)]
    raw = ["-map", "0:v", "-f", "rawvideo", "-pix_fmt", "rgb24", "-fps_mode", "passthrough", "pipe:1"]
    done = subprocess.run([*command, *raw], capture_output=True, timeout=60, check=True)
    said = done.stderr.decode()
    codec, width, height = re.search(r"Video: (\w+).*?, (\d+)x(\d+)", said).groups()  # type: ignore[union-attr]
    hours, minutes, seconds = re.search(r"Duration: (\d+):(\d+):([\d.]+)", said).groups()  # type: ignore[union-attr]
    fps = re.search(r"([\d.]+) fps", said)
    assert fps is not None, said
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, int(height), int(width), 3)
    length = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return Read(codec, (int(width), int(height)), float(fps[1]), length, frames, said)
