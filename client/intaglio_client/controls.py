"""A control of a request, and the images it may come from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import PIL.Image

from intaglio.contract.detectors import NO_DETECTOR
from intaglio.contract.models import PaletteName, Resize
from intaglio.errors import InvalidRequest

__all__ = ["POSE", "Control", "Encoded", "encoded_image"]

POSE: Final = "pose"
"""Type of the control that `pose=...` stands for."""
_PNG_MODES: Final = ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16")
"""Pillow's modes that its PNG writer takes."""

Encoded = bytes | Path | PIL.Image.Image
"""Where an image comes from: encoded bytes, a file, or a Pillow image (sent as PNG)."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control: its ControlNet, and an image or a pose of the server's library."""

    type: str
    """Id of a ControlNet or the type that one has: `pose`, `canny`, ..."""
    image: Encoded | None = None
    pose: str | None = None
    weight: float = 1.0
    begin: float = 0.0
    """Share of the steps after which it starts."""
    end: float = 1.0
    every: int | None = None
    """2: its ControlNet runs in every second step; None is the request's `control_every`."""
    preprocess: str = NO_DETECTOR
    """What makes the map of a photograph: a detector of the server, or `auto` for that of the control's type;
    `none` takes the image as the map.
    """
    resize: Resize = "stretch"
    """How an image gets the size of the picture."""
    palette: PaletteName | None = None
    """The colours that a segmentation map is in; None: the server recognises them."""


def encoded_image(image: Encoded, *, field: str) -> bytes:
    """The bytes to send; InvalidRequest, naming `field`, where a file cannot be read."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, PIL.Image.Image):
        buffer = io.BytesIO()
        writable = image if image.mode in _PNG_MODES else image.convert("RGB")
        writable.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()
    try:
        return Path(image).read_bytes()
    except OSError as error:
        problem = f"{image}: {error.strerror}"
        raise InvalidRequest(field, problem, allowed="a file that can be read") from error
