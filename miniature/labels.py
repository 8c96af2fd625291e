"""A scene's nameable attributes as class numbers: what the text encoders learn to read off a caption."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from miniature import palette
from miniature.backgrounds import BACKGROUNDS
from miniature.skeleton import FAMILIES
from miniature.world import HAIRSTYLES, Scene

_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "top": tuple(palette.ATTIRE),
    "bottom": tuple(palette.ATTIRE),
    "hair": tuple(palette.HAIR),
    "hairstyle": HAIRSTYLES,
    "background": BACKGROUNDS,
    "family": FAMILIES,
}
CLASS_COUNTS = tuple(len(values) for values in _ATTRIBUTES.values())


def labels_of(scene: Scene) -> NDArray[np.int64]:
    """[6] class numbers in the order of CLASS_COUNTS."""
    return np.array([values.index(getattr(scene, name)) for name, values in _ATTRIBUTES.items()], np.int64)
