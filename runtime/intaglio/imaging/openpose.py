"""OpenPose keypoints: read from JSON, written as JSON, drawn as the map that pose ControlNets are trained on.

Order and colours are OpenPose's COCO-18 (CMU-Perceptual-Computing-Lab/openpose); limbs are ellipses of half
width 4 and joints discs of radius 4 on a 512 pixel map, limbs at 60 % brightness, as controlnet_aux 0.0.10
`draw_bodypose` draws them. People who were read with their hands and faces have 128 keypoints: the 18 of the
body, 21 of the left hand, 21 of the right one and 68 of the face (`intaglio.imaging.hands_and_face`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from intaglio.imaging.hands_and_face import (
    FACE_KEYPOINTS,
    HAND_KEYPOINTS,
    document_of_parts,
    draw_hands_and_face,
)

__all__ = [
    "KEYPOINTS",
    "LEAST_BLACK",
    "MOST_PEOPLE",
    "WHOLE_KEYPOINTS",
    "Keypoints",
    "black_share",
    "draw_pose",
    "mirrored_pose",
    "people_from_values",
    "pose_document",
    "read_pose",
]

KEYPOINTS: Final = 18
WHOLE_KEYPOINTS: Final = KEYPOINTS + 2 * HAND_KEYPOINTS + FACE_KEYPOINTS
LIMBS: Final = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10),
    (1, 11), (11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLORS: Final = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
MIRRORED_ORDER: Final = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
"""For each keypoint, the one that takes its place in a mirrored picture."""
LIMB_BRIGHTNESS: Final = 0.6
MOST_PEOPLE: Final = 32
"""Most people of a pose."""
LEAST_BLACK: Final = 0.5
"""Least black share of a pose map. Limbs cover a few hundredths of it; a photograph has little black."""
_BLACK: Final = 32
"""Brightest channel of a pixel that counts as black: JPEG leaves noise around limbs."""
_SAMPLED: Final = 128 * 128
"""Pixels whose blackness is looked at. At 1024x1024 all of them take 25 ms, as long as decoding a PNG."""
_STROKE: Final = 4.0
_STROKE_CANVAS: Final = 512
_OVERSAMPLE: Final = 4
"""Pixels are drawn this many times as wide and high, which smooths edges."""
_MOST_DRAWN: Final = (2048 * _OVERSAMPLE) ** 2
"""Most pixels that are drawn before they are averaged, 256 MiB. Larger maps are drawn less finely."""

Keypoints = NDArray[np.float64]
"""[people, 18, 3]: x and y as fractions of width and height, confidence (0 = not seen)."""


def black_share(pixels: NDArray[np.uint8]) -> float:
    """Share of [H, W, 3] `pixels` that are black; of a large picture a regular sample counts."""
    height, width = pixels.shape[:2]
    step = max(1, math.isqrt(height * width // _SAMPLED))
    return float((pixels[::step, ::step].max(axis=-1) < _BLACK).mean())


def read_pose(document: Any) -> Keypoints:
    """Keypoints of an OpenPose document.

    It has `people[].pose_keypoints_2d`, in pixels of `canvas_width` x `canvas_height`.

    Raises:
        ValueError, KeyError, TypeError: it is something else.
    """
    width = float(document["canvas_width"])
    height = float(document["canvas_height"])
    people = np.array([person["pose_keypoints_2d"] for person in document["people"]], dtype=np.float64)
    if len(people) > MOST_PEOPLE:
        raise ValueError(f"has {len(people)} people; at most {MOST_PEOPLE} are allowed")
    if not (math.isfinite(width) and math.isfinite(height)):
        raise ValueError(f"canvas {width:g} x {height:g}; both sides must be finite")
    has_triples = people.size > 0 and people.shape[1:] == (3 * KEYPOINTS,)
    if width <= 0 or height <= 0 or not has_triples or not np.isfinite(people).all():
        raise ValueError(f"needs a canvas and {KEYPOINTS} finite x, y, confidence triples a person")
    scaled: Keypoints = people.reshape(-1, KEYPOINTS, 3) / np.array([width, height, 1.0])
    return scaled


def pose_document(people: Keypoints, *, width: int, height: int) -> dict[str, Any]:
    """OpenPose's document of [people, 18 or 128, 3] x, y in pixels of `width` x `height`, and confidence."""
    return {
        "canvas_width": width,
        "canvas_height": height,
        "people": [_document_of(person) for person in np.round(people, 3)],
    }


def _document_of(person: Keypoints) -> dict[str, list[float]]:
    document = {"pose_keypoints_2d": person[:KEYPOINTS].reshape(-1).tolist()}
    return document | document_of_parts(person[KEYPOINTS:]) if len(person) > KEYPOINTS else document


def people_from_values(values: Any) -> Keypoints:
    """[people, 18 or 128, 3] of nested lists.

    Raises:
        ValueError, TypeError: they are something else.
    """
    people = np.array(values, np.float64)
    if not people.size:
        return np.zeros((0, KEYPOINTS, 3))
    if people.ndim != 3 or people.shape[1] not in (KEYPOINTS, WHOLE_KEYPOINTS) or people.shape[2] != 3:
        raise ValueError(f"people have {KEYPOINTS} or {WHOLE_KEYPOINTS} keypoints, not {people.shape}")
    return people


def mirrored_pose(keypoints: Keypoints) -> Keypoints:
    """The mirror image of [people, 18, 3] `keypoints` in fractions: left and right change places."""
    mirrored = keypoints[:, MIRRORED_ORDER].copy()
    seen = mirrored[..., 2] > 0
    mirrored[seen, 0] = 1 - mirrored[seen, 0]
    return mirrored


def draw_pose(keypoints: Keypoints, *, width: int, height: int) -> NDArray[np.uint8]:
    """[height, width, RGB] map of `keypoints` [people, 18 or 128, 3] on black.

    Strokes grow with the shorter side above 512 pixels.
    """
    finer = min(_OVERSAMPLE, max(1, math.isqrt(_MOST_DRAWN // (width * height))))
    unit = finer * max(min(width, height) / _STROKE_CANVAS, 1.0)
    radius = _STROKE * unit
    drawn = np.zeros((height, width, 3), np.uint8)
    placed = keypoints[..., :2] * np.array([width * finer, height * finer])
    left, top, right, bottom = _bounds(placed[keypoints[..., 2] > 0], radius, finer, (width, height))
    if right <= left or bottom <= top:
        return drawn
    # Most of the canvas is black, and is not drawn.
    size = (right - left, bottom - top)
    image = Image.new("RGB", (size[0] * finer, size[1] * finer))
    draw = ImageDraw.Draw(image)
    shown = placed - np.array([left, top]) * finer
    seen = keypoints[..., 2] > 0
    for points, visible in zip(shown[:, :KEYPOINTS], seen[:, :KEYPOINTS], strict=True):
        _draw_body(draw, points, visible, radius)
    if keypoints.shape[1] > KEYPOINTS:
        for points, visible in zip(shown[:, KEYPOINTS:], seen[:, KEYPOINTS:], strict=True):
            draw_hands_and_face(draw, points, visible, unit=unit)
    drawn[top:bottom, left:right] = np.asarray(image.reduce(finer))
    return drawn


def _draw_body(
    draw: ImageDraw.ImageDraw, points: NDArray[np.float64], seen: NDArray[np.bool_], radius: float
) -> None:
    """Draw the limbs and then the joints of one person: [18, 2] `points` in pixels of the canvas."""
    for (start, end), color in zip(LIMBS, COLORS, strict=False):
        if seen[start] and seen[end]:
            dark = tuple(int(channel * LIMB_BRIGHTNESS) for channel in color)
            draw.polygon(_ellipse(points[start], points[end], radius), fill=dark)
    for (x, y), visible, color in zip(points, seen, COLORS, strict=True):
        if visible:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _bounds(
    points: NDArray[np.float64], radius: float, finer: int, size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, in pixels of the map of `size`, of what is drawn around [n, 2] `points`,
    which are in pixels that are `finer`. Empty where there are none.
    """
    if not len(points):
        return 0, 0, 0, 0
    first = np.floor((points.min(axis=0) - radius - 1) / finer).clip(0, size).astype(int)
    last = np.ceil((points.max(axis=0) + radius + 1) / finer).clip(0, size).astype(int)
    return int(first[0]), int(first[1]), int(last[0]), int(last[1])


def _ellipse(
    start: Sequence[float] | Keypoints, end: Sequence[float] | Keypoints, half_width: float
) -> list[tuple[float, float]]:
    """Polygon of the ellipse whose long axis joins both points."""
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0) / 2
    angle = math.atan2(y1 - y0, x1 - x0)
    polygon = []
    for degree in range(0, 360, 6):
        along = length * math.cos(math.radians(degree))
        across = half_width * math.sin(math.radians(degree))
        x = (x0 + x1) / 2 + along * math.cos(angle) - across * math.sin(angle)
        y = (y0 + y1) / 2 + along * math.sin(angle) + across * math.cos(angle)
        polygon.append((float(x), float(y)))
    return polygon
