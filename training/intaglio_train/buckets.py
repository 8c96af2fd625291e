"""How an image of any size becomes one of a size that is trained: aspect-ratio buckets, a centre crop, or
none.

Buckets are NovelAI's (https://blog.novelai.net/novelai-improvements-on-stable-diffusion-e10d38db82ac) as
kohya's sd-scripts compute them (`library/train_util.py`, `BucketManager`; `library/model_util.py`,
`make_bucket_resolutions`). All sizes are (width, height) in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = [
    "LATENT_SCALE",
    "BucketPlacing",
    "CropPlacing",
    "ExactPlacing",
    "Placement",
    "Placing",
    "Size",
    "bucket_sizes",
]

LATENT_SCALE: Final = 8
"""Pixels a latent: SDXL's autoencoder has three downsamplings."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """An image is scaled to `resized`, then cut at the centre to `size`."""

    resized: Size
    size: Size

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the cut in the resized image: SDXL's crop coordinates (arXiv 2307.01952)."""
        return (self.resized[1] - self.size[1]) // 2, (self.resized[0] - self.size[0]) // 2


class Placing(Protocol):
    """A rule for the images of a data set."""

    def place(self, image: Size) -> Placement:
        """Where an image of this size goes. Raises `ValueError`, whose text continues "FILE: "."""


@dataclass(frozen=True)
class ExactPlacing:
    """Images have the size that is trained."""

    size: Size

    def place(self, image: Size) -> Placement:
        if image != self.size:
            raise ValueError(
                f"is {_by(image)}; resolution asks for {_by(self.size)} (or set fit: buckets or fit: crop)"
            )
        return Placement(image, image)


@dataclass(frozen=True)
class CropPlacing:
    """Every image is scaled to cover one size."""

    size: Size

    def place(self, image: Size) -> Placement:
        return Placement(_covering(image, self.size), self.size)


@dataclass(frozen=True)
class BucketPlacing:
    """Every image goes to the bucket that is nearest to its aspect ratio.

    `upscale` scales images up and down to one of `bucket_sizes`. Without it, images are only scaled down, and
    the buckets follow from the images: their sides, cut to multiples of `step`.
    """

    resolution: Size
    step: int
    smallest: int
    largest: int
    upscale: bool

    def place(self, image: Size) -> Placement:
        if not self.upscale:
            return self._place_downwards(image)
        sizes = bucket_sizes(self.resolution, step=self.step, smallest=self.smallest, largest=self.largest)
        size = image if image in sizes else _nearest(sizes, _aspect(image))
        return Placement(_covering(image, size), size)

    def _place_downwards(self, image: Size) -> Placement:
        resized = image
        if image[0] * image[1] > self.resolution[0] * self.resolution[1]:
            resized = self._scaled_down(image)
        size = (resized[0] - resized[0] % self.step, resized[1] - resized[1] % self.step)
        if 0 in size:
            raise ValueError(
                f"is {_by(image)}, too small or narrow for a bucket with sides in steps of {self.step};"
                " set bucket_no_upscale: false, or take it out"
            )
        return Placement(resized, size)

    def _scaled_down(self, image: Size) -> Size:
        """As large as `resolution` in area; the side that changes the aspect less is a multiple of `step`."""
        area = self.resolution[0] * self.resolution[1]
        aspect = _aspect(image)
        width = self._stepped(math.sqrt(area * aspect))
        height = self._stepped(math.sqrt(area / aspect))
        by_width = (width, _rounded(width / aspect))
        by_height = (_rounded(height * aspect), height)
        return min(by_height, by_width, key=lambda size: self._aspect_error(size, aspect))

    def _aspect_error(self, size: Size, aspect: float) -> float:
        width, height = (self._stepped(side) for side in size)
        return abs(width / height - aspect) if width and height else math.inf

    def _stepped(self, side: float) -> int:
        whole = _rounded(side)
        return whole - whole % self.step


def bucket_sizes(resolution: Size, *, step: int, smallest: int, largest: int) -> tuple[Size, ...]:
    """All buckets for images of about the area of `resolution`, sorted: for every width the greatest height
    whose area is not larger, and the same on its side; the largest square; and `resolution` itself.
    """
    area = resolution[0] * resolution[1]
    square = int(math.sqrt(area)) // step * step
    sizes = {resolution}
    if square:
        sizes.add((square, square))
    for width in range(smallest, largest + 1, step):
        height = min(largest, area // width // step * step)
        if height >= smallest:
            sizes.update(((width, height), (height, width)))
    return tuple(sorted(sizes))


def _rounded(value: float) -> int:
    return int(value + 0.5)


def _nearest(sizes: Sequence[Size], aspect: float) -> Size:
    return min(sizes, key=lambda size: abs(_aspect(size) - aspect))


def _covering(image: Size, size: Size) -> Size:
    """`image` scaled so that it covers `size` with nothing to spare in one direction."""
    scale = max(size[0] / image[0], size[1] / image[1])
    return max(size[0], _rounded(image[0] * scale)), max(size[1], _rounded(image[1] * scale))


def _aspect(size: Size) -> float:
    return size[0] / size[1]


def _by(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
