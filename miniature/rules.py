"""Read attire, background and keypoints from a picture of the miniature's world, by rules on pixels.

Nothing is learned. Pictures are [256, 256, 3] RGB uint8. The acrobat is found by the four limb colours that
nothing else in the world has. Attire is what joins the limbs. Every rule is tested on rendered truth
(tests/miniature/test_rules.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from miniature import palette
from miniature.backgrounds import BACKGROUNDS, SIZE
from miniature.skeleton import INDEX
from miniature.world import render, sample_scene

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Field = NDArray[np.float32]
Joints = dict[str, NDArray[np.float64]]  # x, y in pixels by name

LIMB_JOINTS = tuple(
    f"{side}_{joint}" for joint in ("elbow", "wrist", "knee", "ankle") for side in ("right", "left")
)
_SHADES = (1.06, 0.9, 0.74)  # the renderer's shading runs over about this range
_NEAR = 24.0  # Lab distance within which a pixel counts as a colour
_SMALLEST_PATCH = 25
_ROUND = 2.5  # standard deviation of lightness that shading gives a limb, and a flat background has not
_FEWEST, _SHARE = 8, 0.5
_BEYOND = 8.4  # pixels past a boot's end, where the trousers are
_TAPER = 4.0  # a forearm narrows by an eighth, sleeve and hand fill their windows
_TOUCH = 7  # pixels between a limb and the attire that joins it: two outlines and the autoencoder's blur
_ROWS, _COLUMNS = np.ogrid[:SIZE, :SIZE]
_NEIGHBOURHOOD = np.ones((2 * _TOUCH + 1,) * 2, np.uint8)


def lab(picture: Any) -> Field:
    """CIE Lab (L 0..100) of RGB 0..255."""
    return np.asarray(
        cv2.cvtColor(np.ascontiguousarray(picture, dtype=np.float32) / np.float32(255), cv2.COLOR_RGB2LAB),
        np.float32,
    )


@cache
def _names() -> tuple[str, ...]:
    """Every colour of the figure as "group.colour"; the place in this tuple is its class number."""
    tables = (
        ("attire", palette.ATTIRE),
        ("skin", palette.SKIN),
        ("hair", palette.HAIR),
        ("limb", palette.LIMBS),
    )
    return tuple(f"{group}.{name}" for group, table in tables for name in table)


@cache
def _lookup() -> NDArray[np.int16]:
    """[64, 64, 64] class number of the nearest figure colour for RGB in 64 levels, -1 where none is near."""
    named = [*palette.ATTIRE.values(), *palette.SKIN.values(), *palette.HAIR.values()]
    colours = [colour.rgb for colour in named] + list(palette.LIMBS.values())
    levels = np.arange(64, dtype=np.float32) * 4 + 2
    every = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)
    grid = lab(every.reshape(64, 4096, 3)).reshape(-1, 3)
    best = np.full(len(grid), np.inf, np.float32)
    which = np.full(len(grid), -1, np.int16)
    for number, rgb in enumerate(colours):
        shaded = [np.clip(np.array(rgb) * share, 0, 255) for share in _SHADES]
        for shade in lab(np.array([shaded], np.float32))[0]:
            distance = np.linalg.norm(grid - shade, axis=-1)
            closer = distance < best
            best[closer], which[closer] = distance[closer], number
    which[best >= _NEAR] = -1
    return which.reshape(64, 64, 64)


@dataclass(frozen=True)
class Reading:
    """What the rules see: masks of every colour, of the four limbs, and of top and bottom where found."""

    colours: dict[str, Mask]
    limbs: dict[str, Mask]
    top_mask: Mask
    bottom_mask: Mask

    @property
    def figure(self) -> Mask:
        """Limbs, top and bottom together."""
        return np.asarray(np.any([*self.limbs.values(), self.top_mask, self.bottom_mask], 0))


def _largest(candidate: Mask) -> Mask:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(candidate.astype(np.uint8))
    if count < 2:
        return np.zeros_like(candidate)
    best = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.asarray(
        labels == best if stats[best, cv2.CC_STAT_AREA] >= _SMALLEST_PATCH else np.zeros_like(candidate)
    )


def _joining(candidate: Mask, around: Mask, lightness: Field) -> tuple[Mask, int]:
    """Patches of `candidate` that reach into `around`, and how many pixels do.

    Backgrounds of the same colour are told apart by reaching the picture's edge, or by being flat where a
    figure is shaded round.
    """
    candidate = np.asarray(
        cv2.morphologyEx(candidate.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)) > 0
    )  # outlines
    count, labels, stats, _ = cv2.connectedComponentsWithStats(candidate.astype(np.uint8))
    edge = set(np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])))
    contact = np.bincount(labels[around & candidate], minlength=count)
    kept = [
        i
        for i in range(1, count)
        if i not in edge
        and contact[i] >= 8
        and stats[i, cv2.CC_STAT_AREA] >= _SMALLEST_PATCH
        and lightness[labels == i].std() >= _ROUND
    ]
    return np.isin(labels, kept), int(contact[kept].sum()) if kept else 0


def read_figure(picture: Image) -> Reading:
    """Limbs are found by their colours.

    The bottom is the attire colour that most joins the boots, the top the one that most joins the gloves.
    """
    levels = picture >> 2
    numbers = _lookup()[levels[..., 0], levels[..., 1], levels[..., 2]]
    lightness = lab(picture)[..., 0]
    where = {name: numbers == number for number, name in enumerate(_names())}
    limbs = {name: _largest(where[f"limb.{name}"]) for name in palette.LIMBS}
    around = {part: _around(limbs[f"right_{part}"] | limbs[f"left_{part}"]) for part in ("forearm", "shin")}
    bottoms = {name: _joining(where[f"attire.{name}"], around["shin"], lightness) for name in palette.ATTIRE}
    bottom = max(bottoms, key=lambda name: bottoms[name][1])
    tops = {name: _joining(where[f"attire.{name}"], around["forearm"], lightness) for name in palette.ATTIRE}
    top = max(
        (name for name in tops if name != bottom),
        key=lambda name: tops[name][1] + 0.1 * int(tops[name][0].sum()),
    )
    return Reading(colours=where, limbs=limbs, top_mask=tops[top][0], bottom_mask=bottoms[bottom][0])


def _around(mask: Mask) -> Mask:
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _NEIGHBOURHOOD) > 0) & ~mask


def find_keypoints(reading: Reading, *, top: str, bottom: str, skin: str) -> Joints:
    """x, y of the eight LIMB_JOINTS that limb colours give; a limb that was not found gives none.

    The long axis of a glove or a boot ends in its two joints. What was asked for tells them apart. The knee
    is the end that goes on into trousers of colour `bottom`. The elbow is the wider end, with more sleeve of
    colour `top` and less hand of colour `skin` around it.
    """
    found = {}
    sleeve, trousers, hand = (
        reading.colours[name] for name in (f"attire.{top}", f"attire.{bottom}", f"skin.{skin}")
    )
    for side in ("right", "left"):
        glove, boot = reading.limbs[f"{side}_forearm"], reading.limbs[f"{side}_shin"]
        if boot.any():
            ends = _ends(boot)
            beyond = (ends[1] - ends[0]) / max(float(np.linalg.norm(ends[1] - ends[0])), 1.0) * _BEYOND
            near = int(
                _count(trousers & ~boot, ends[1] + beyond, 12)
                > _count(trousers & ~boot, ends[0] - beyond, 12)
            )
            found[f"{side}_knee"], found[f"{side}_ankle"] = ends[near], ends[1 - near]
        if glove.any():
            ends = _ends(glove)
            sleeves, hands = ([_count(mask & ~glove, end, 10) for end in ends] for mask in (sleeve, hand))
            near = int(_lead(sleeves, 20) - _lead(hands, 20) + _TAPER * _lead(_widths(glove, ends), 1) > 0)
            found[f"{side}_elbow"], found[f"{side}_wrist"] = ends[near], ends[1 - near]
    return found


def wears(reading: Reading, joints: Joints, piece: str, colour: str) -> bool:
    """Whether the `piece`, "top" or "bottom", is of that attire colour, given the joints found.

    The colour must fill at least half as much of the piece's place as any other one does. The place of a top
    is around the elbows, and the elbows' third of the body between elbows and knees. That of a bottom is
    likewise the knees'.
    """
    elbows, knees = (
        [joints[f"{side}_{joint}"] for side in ("right", "left") if f"{side}_{joint}" in joints]
        for joint in ("elbow", "knee")
    )
    place = _disks(elbows if piece == "top" else knees, 10)
    if elbows and knees:
        down = np.mean(knees, 0) - np.mean(elbows, 0)
        along = (_COLUMNS - np.mean(elbows, 0)[0]) * down[0] + (_ROWS - np.mean(elbows, 0)[1]) * down[1]
        third = along < 0.35 * float(down @ down) if piece == "top" else along > 0.65 * float(down @ down)
        place |= _hull([*elbows, *knees]) & third
    place &= ~np.any(list(reading.limbs.values()), 0)
    filled = {name: int((reading.colours[f"attire.{name}"] & place).sum()) for name in palette.ATTIRE}
    return filled[colour] >= max(_FEWEST, _SHARE * max(filled.values()))


def _disks(points: list[NDArray[np.float64]], radius: float) -> Mask:
    disks = [(_COLUMNS - x) ** 2 + (_ROWS - y) ** 2 <= radius**2 for x, y in points]
    return np.asarray(np.any(disks, 0) if disks else np.zeros((SIZE, SIZE), bool))


def _hull(points: list[NDArray[np.float64]]) -> Mask:
    filled = np.zeros((SIZE, SIZE), np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.round(points).astype(np.int32)), (1,))
    return np.asarray(filled > 0)


def _count(mask: Mask, point: NDArray[np.float64], radius: int) -> int:
    """Pixels of the mask within `radius` of a point."""
    return int((mask & _disks([point], radius)).sum())


def _lead(counts: list[int], floor: int) -> float:
    """How far the second is ahead, -1..1; small counts say little."""
    return (counts[1] - counts[0]) / (sum(counts) + floor)


def _widths(mask: Mask, ends: tuple[NDArray[np.float64], NDArray[np.float64]]) -> list[int]:
    """Pixels of the mask in the third before each end."""
    rows, columns = np.nonzero(mask)
    span = ends[1] - ends[0]
    along = (np.stack([columns, rows], 1) - ends[0]) @ span / max(float(span @ span), 1.0)
    return [int(((along > low) & (along < low + 0.3)).sum()) for low in (0.05, 0.65)]


def _ends(mask: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, columns = np.nonzero(mask)
    points = np.stack([columns, rows], 1).astype(np.float64)
    centre = points.mean(0)
    axis = np.linalg.svd(points - centre, full_matrices=False)[2][0]
    along = (points - centre) @ axis
    low, high = np.percentile(along, 6), np.percentile(along, 94)
    return centre + low * axis, centre + high * axis


def pck(found: Joints, truth: NDArray[np.float64], joints: tuple[str, ...] = LIMB_JOINTS) -> tuple[int, int]:
    """PCK@0.1: how many joints are right, and how many are judged.

    A joint is right within a tenth of the person's larger extent of the truth. One that was not found is
    wrong.
    """
    limit = 0.1 * float((truth.max(0) - truth.min(0)).max())
    right = sum(
        name in found and float(np.linalg.norm(found[name] - truth[INDEX[name]])) <= limit for name in joints
    )
    return right, len(joints)


@cache
def _templates(places: tuple[str, ...]) -> tuple[Field, ...]:
    rng = np.random.default_rng(0)
    return tuple(
        np.stack([_cells(render(sample_scene(rng, backgrounds=(place,))).picture) for _ in range(16)]).mean(0)
        for place in places
    )


def _cells(picture: Image) -> Field:
    """Lab of the outer cells of an 8x8 grid: the top two rows, the sides, the bottom row.

    The acrobat is seldom there.
    """
    small = lab(cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA))
    keep = np.ones((8, 8), bool)
    keep[2:7, 1:7] = False
    return np.asarray(small[keep])


def background_of(picture: Image, *, meadow: bool = False) -> str:
    """The place whose typical outer cells are nearest.

    The median over cells is not disturbed by an arm in some of them.
    """
    places = (*BACKGROUNDS, "meadow") if meadow else BACKGROUNDS
    cells = _cells(picture)
    scores = [float(np.median(np.linalg.norm(cells - template, axis=-1))) for template in _templates(places)]
    return places[int(np.argmin(scores))]


def mean_lab(picture: Image) -> NDArray[np.float64]:
    """Mean L, a, b of the picture."""
    return np.asarray(lab(picture).mean((0, 1)), np.float64)


def colourfulness(picture: Image) -> float:
    """Mean chroma in Lab units: what pencil drawings lack."""
    values = lab(picture)
    return float(np.hypot(values[..., 1], values[..., 2]).mean())


def share_of_colour(picture: Image, rgb: palette.RGB) -> float:
    """Share of the picture within reach of a colour in any of its shades."""
    shaded = np.array([rgb], np.float32) * np.array(_SHADES, np.float32)[:, None]
    shades = lab(np.clip(shaded, 0, 255)[None])[0]
    values = lab(picture)
    distances = np.stack([np.linalg.norm(values - shade, axis=-1) for shade in shades])
    return float((distances.min(0) < 14).mean())
