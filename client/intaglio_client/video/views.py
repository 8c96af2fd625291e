"""A picture in the video's size, and how Ken Burns moves in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from PIL import Image

from intaglio.contract.models import Resize
from intaglio.imaging.resizing import Size, resized

__all__ = ["View"]

_ANCHORS: Final = ((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5))
"""To which corner Ken Burns moves, in turn: shares of the width and of the height."""


@dataclass(frozen=True, slots=True)
class View:
    """How pictures get the video's size.

    Ken Burns moves into every other picture and out of the ones between, each towards another corner.
    """

    size: Size
    fit: Resize
    ken_burns: float = 0.0
    """How much larger the picture is at its closest: 0.2 is a fifth; 0 does not move."""

    def holds(self, picture: Size) -> bool:
        """Whether a picture of that size is shown as it is, but for the last pixel of an odd side. To fit the
        rest of it in would add a black line.
        """
        return all(side - own in (0, 1) for side, own in zip(picture, self.size, strict=True))

    def prepared(self, image: Image.Image) -> Image.Image:
        """`image` in the largest size that is shown of it."""
        width, height = self.size
        if self.holds(image.size):
            image = image.crop((0, 0, width, height))
        closest = 1 + self.ken_burns
        return resized(
            image,
            (round(width * closest), round(height * closest)),
            self.fit,
            method=Image.Resampling.LANCZOS,
        )

    def shown(self, prepared: Image.Image, index: int, progress: float) -> Image.Image:
        """The frame of picture number `index` at `progress` (0 to 1)."""
        if not self.ken_burns:
            return prepared
        closeness = _eased(progress if index % 2 == 0 else 1 - progress)
        share = 1 / (1 + self.ken_burns * closeness)
        width, height = prepared.width * share, prepared.height * share
        across, down = _ANCHORS[index % len(_ANCHORS)]
        left, top = (prepared.width - width) * across, (prepared.height - height) * down
        box = (left, top, left + width, top + height)
        return prepared.resize(self.size, Image.Resampling.BICUBIC, box=box)


def _eased(progress: float) -> float:
    """Slow at both ends: 3 p^2 - 2 p^3."""
    return progress * progress * (3 - 2 * progress)
