"""Photographs that packages carry. They are read where they are installed; the repository holds none."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

__all__ = ["nobody", "one_person", "photograph", "street", "two_people"]


def photograph(package: str, path: str) -> Image.Image:
    """The RGB picture `path` of an installed package; the test is skipped where that is missing."""
    spec = find_spec(package)
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent / path
    if file is None or not file.is_file():
        pytest.skip(f"needs the photograph {path} of the package {package}, which is not installed")
    with Image.open(file) as image:
        return image.convert("RGB")


def one_person() -> Image.Image:
    """A portrait to the hips."""
    return photograph("skimage", "data/astronaut.png")


def nobody() -> Image.Image:
    """A cup of coffee on a table."""
    return photograph("skimage", "data/coffee.png")


def two_people() -> Image.Image:
    """Two photographs of one person each, side by side."""
    other = photograph("skimage", "data/camera.png")
    pixels = np.concatenate([np.asarray(one_person()), np.asarray(other)], axis=1)
    return Image.fromarray(pixels)


def street() -> Image.Image:
    """People on a street, small in the picture."""
    return photograph("ultralytics", "assets/bus.jpg")
