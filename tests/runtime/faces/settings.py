"""How the tests read faces: with the networks that the repository carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intaglio.contract.identity import Identity

__all__ = ["FACES", "identity"]

FACES = Path(__file__).parents[3] / "miniature/faces"


def identity(characters: Path, **changes: Any) -> Identity:
    """The setting that docs/characters.md shows, with `changes`."""
    values = {
        "characters": characters,
        "detector": FACES / "blazeface.onnx",
        "recognition": FACES / "dlib-face-resnet.onnx",
        "template": "dlib",
        "mean": 0,
        "std": 1,
        "confidence": 0.7,
        "measure": "euclidean",
        "threshold": 0.355,
    }
    return Identity.model_validate(values | changes)
