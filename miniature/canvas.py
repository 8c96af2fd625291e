"""A drawing surface that holds colour, depth, surface normal and class of every pixel.

Coordinates are pixels, x to the right and y down; normals are x right, y up, z towards the viewer; depth is 0
(far) to 1 (near).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
RGB = tuple[int, int, int]

_LIGHT = np.array([-0.42, 0.55, 0.72], np.float32)
_AMBIENT, _DIFFUSE = 0.66, 0.42
_OUTLINE, _OUTLINE_SHADE = 1.4, 0.55

CLASSES = (
    "sky", "ground", "water", "structure",
    "skin", "hair", "top", "bottom",
    "right_forearm", "left_forearm", "right_shin", "left_shin",
)  # fmt: skip
CLASS = {name: index for index, name in enumerate(CLASSES)}


def light_on(normals: Array) -> Array:
    """[...] share of the full light that surfaces with these normals [..., 3] catch, ambient included."""
    return (_AMBIENT + _DIFFUSE * np.clip(normals @ _LIGHT, 0, 1)).astype(np.float32)


class Patch(NamedTuple):
    """Coverage 0..1 of a window of the canvas whose first row and column are `top` and `left`."""

    cover: Array
    top: int = 0
    left: int = 0


class Limb(NamedTuple):
    """A rounded stroke from `start` to `end`, whose radius runs from radii[0] to radii[1]."""

    start: Array
    end: Array
    radii: tuple[float, float]


@dataclass
class Canvas:
    """picture [H, W, 3] 0..255, depth [H, W], normals [H, W, 3], classes [H, W]."""

    picture: Array
    depth: Array
    normals: Array
    classes: NDArray[np.uint8]

    @classmethod
    def blank(cls, size: int) -> Canvas:
        """A far, viewer-facing sky."""
        normals = np.zeros((size, size, 3), np.float32)
        normals[..., 2] = 1
        picture = np.zeros((size, size, 3), np.float32)
        depth = np.full((size, size), 0.02, np.float32)
        return cls(picture, depth, normals, np.zeros((size, size), np.uint8))

    def lay(
        self,
        patch: Patch,
        colour: RGB | Array,
        *,
        part: str,
        depth: float | Array,
        normal: tuple[float, float, float] = (0, 0, 1),
    ) -> None:
        """Paint a flat region. A colour or depth given as an array covers the whole canvas."""
        rows, columns = patch.cover.shape
        window = (slice(patch.top, patch.top + rows), slice(patch.left, patch.left + columns))
        paint = np.asarray(colour, np.float32)
        self.picture[window] += patch.cover[..., None] * (
            (paint[window] if paint.ndim == 3 else paint) - self.picture[window]
        )
        inside = patch.cover > 0.5
        self.depth[window][inside] = depth[window][inside] if isinstance(depth, np.ndarray) else depth
        self.normals[window][inside] = normal
        self.classes[window][inside] = CLASS[part]

    def capsule(self, limb: Limb, colour: RGB, *, part: str, depth: float, outline: bool = True) -> None:
        """Paint a rounded, shaded limb."""
        start, end, radii = limb
        size = self.depth.shape[0]
        reach = max(radii) + 2
        low = np.maximum(np.floor(np.minimum(start, end) - reach).astype(int), 0)
        high = np.minimum(np.ceil(np.maximum(start, end) + reach).astype(int) + 1, size)
        if (low >= high).any():
            return
        x = np.arange(low[0], high[0], dtype=np.float32)[None, :]
        y = np.arange(low[1], high[1], dtype=np.float32)[:, None]
        span = (end - start).astype(np.float32)
        along = ((x - start[0]) * span[0] + (y - start[1]) * span[1]) / max(float(span @ span), 1e-6)
        along = np.clip(along, 0, 1)
        radius = radii[0] + along * (radii[1] - radii[0])
        dx, dy = x - start[0] - along * span[0], y - start[1] - along * span[1]
        edge = np.sqrt(dx * dx + dy * dy) - radius
        cover = np.clip(0.5 - edge, 0, 1)
        nx, ny = dx / radius, -dy / radius
        nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.02, 1))
        shade = _AMBIENT + _DIFFUSE * np.clip(nx * _LIGHT[0] + ny * _LIGHT[1] + nz * _LIGHT[2], 0, 1)
        if outline:
            shade = shade * (1 - (1 - _OUTLINE_SHADE) * np.clip(edge + _OUTLINE + 0.5, 0, 1))
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        painted = np.clip(shade[..., None] * np.asarray(colour, np.float32), 0, 255)
        self.picture[window] += cover[..., None] * (painted - self.picture[window])
        inside = cover > 0.5
        self.depth[window][inside] = (depth + 0.004 * nz * radius)[inside]
        self.normals[window][inside] = np.stack([nx, ny, nz], -1)[inside]
        self.classes[window][inside] = CLASS[part]
