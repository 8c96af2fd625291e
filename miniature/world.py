"""Scenes of the miniature's world: sample one, render it, and read off every ground truth.

A scene is one acrobat in one pose before one place. `H = W = 256` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from intaglio.imaging.openpose import draw_pose
from miniature import palette
from miniature.architecture import CONTROL_TYPES
from miniature.backgrounds import BACKGROUNDS, SIZE, paint_background
from miniature.canvas import CLASSES, RGB, Array, Canvas, Limb
from miniature.skeleton import HEAD, INDEX, Pose, library, place

Image = NDArray[np.uint8]
BUILDS = {"slim": 0.88, "average": 1.0, "sturdy": 1.17}
HAIRSTYLES = ("short", "long")
SEGMENTATION_COLOURS = np.array(
    [
        (6, 230, 230), (120, 120, 80), (9, 7, 230), (180, 120, 120),
        (255, 200, 160), (96, 56, 24), (255, 51, 7), (150, 5, 61),
        (255, 122, 0), (0, 255, 245), (255, 0, 165), (112, 224, 30),
    ],
    np.uint8,
)  # fmt: skip
"""RGB by class number."""
assert len(SEGMENTATION_COLOURS) == len(CLASSES)


@dataclass(frozen=True)
class Scene:
    """Everything that a picture shows.

    Names of colours index the tables of `palette`; `*_rgb` override them (for the character LoRA).
    """

    family: str
    pose: Pose
    scale: float
    centre_x: float
    floor_y: float
    skin: str
    hair: str
    hairstyle: str
    top: str
    bottom: str
    build: str
    background: str
    variation: int
    hair_rgb: RGB | None = None
    top_rgb: RGB | None = None
    bottom_rgb: RGB | None = None

    @property
    def keypoints(self) -> NDArray[np.float64]:
        """[18, 2] x, y in pixels, OpenPose order."""
        return place(self.pose, scale=self.scale, centre_x=self.centre_x, floor_y=self.floor_y)

    @property
    def people(self) -> NDArray[np.float64]:
        """[1, 18, 3] keypoints in fractions of the canvas and confidence 1, as `draw_pose` takes them."""
        one: NDArray[np.float64] = np.concatenate([self.keypoints / SIZE, np.ones((18, 1))], 1)
        return one[None]

    @property
    def figure_colours(self) -> dict[str, RGB]:
        """RGB of hair, top and bottom as painted."""
        return {
            "hair": self.hair_rgb or palette.HAIR[self.hair].rgb,
            "top": self.top_rgb or palette.ATTIRE[self.top].rgb,
            "bottom": self.bottom_rgb or palette.ATTIRE[self.bottom].rgb,
        }


@dataclass(frozen=True)
class Render:
    """A scene's picture and its ground truth.

    picture [H, W, 3]; depth [H, W], 0 is far and 1 near; normals [H, W, 3]; classes [H, W] into CLASSES.
    """

    picture: Image
    depth: Array
    normals: Array
    classes: Image


def sample_scene(rng: np.random.Generator, *, backgrounds: tuple[str, ...] = BACKGROUNDS) -> Scene:
    """A random scene whose acrobat is inside the picture."""
    poses = _LIBRARY or list(library().values())
    _LIBRARY[:] = poses
    family, pose = poses[int(rng.integers(len(poses)))]
    pose = pose.jittered(rng, 7.0)
    top, bottom = rng.choice(list(palette.ATTIRE), 2, replace=False)
    # The order of these lines is part of every data set: each draws from the same generator.
    scene = Scene(
        family=family,
        pose=pose,
        scale=float(rng.uniform(0.82, 1.28)),
        centre_x=SIZE / 2,
        floor_y=float(rng.uniform(206, 246)),
        skin=str(rng.choice(list(palette.SKIN))),
        hair=str(rng.choice(list(palette.HAIR))),
        hairstyle=str(rng.choice(HAIRSTYLES)),
        top=str(top),
        bottom=str(bottom),
        build=str(rng.choice(list(BUILDS))),
        background=str(rng.choice(backgrounds)),
        variation=int(rng.integers(2**31)),
    )
    return fit_scene(scene, position=float(rng.uniform()))


_LIBRARY: list[tuple[str, Pose]] = []
_MARGIN = 12.0


def fit_scene(scene: Scene, *, position: float) -> Scene:
    """The scene moved sideways to `position`, and made smaller where it would not fit.

    0 is the left end of the room that there is, and 1 the right end.
    """
    k = scene.keypoints
    head = np.array([[k[0, 0], k[0, 1] - HEAD * scene.scale * 1.2]])
    extent = np.concatenate([k, head])
    span = extent.max(0) - extent.min(0)
    room = SIZE - 2 * _MARGIN
    overshoot = max(span[0] / room, (scene.floor_y - extent[:, 1].min()) / (scene.floor_y - _MARGIN))
    if overshoot > 1:
        return fit_scene(replace(scene, scale=scene.scale / overshoot * 0.995), position=position)
    left, right = _MARGIN - extent[:, 0].min(), SIZE - _MARGIN - extent[:, 0].max()
    return replace(scene, centre_x=scene.centre_x + left + position * (right - left))


def render(scene: Scene) -> Render:
    """Paint the scene."""
    canvas = paint_background(scene.background, np.random.default_rng(scene.variation))
    k = scene.keypoints.astype(np.float32)
    _shadow(canvas, scene)
    _figure(canvas, scene, {name: k[index] for name, index in INDEX.items()})
    return Render(
        np.clip(canvas.picture + 0.5, 0, 255).astype(np.uint8), canvas.depth, canvas.normals, canvas.classes
    )


def _shadow(canvas: Canvas, scene: Scene) -> None:
    ankles = scene.keypoints[[INDEX["right_ankle"], INDEX["left_ankle"]], 0]
    y = np.arange(SIZE, dtype=np.float32)[:, None] - (scene.floor_y + 5)
    x = np.arange(SIZE, dtype=np.float32)[None, :] - float(ankles.mean())
    distance = np.sqrt((x / (34 * scene.scale)) ** 2 + (y / (7 * scene.scale)) ** 2)
    canvas.picture *= 1 - 0.35 * np.clip(1.3 - distance, 0, 1)[..., None]


def _figure(canvas: Canvas, scene: Scene, k: dict[str, Array]) -> None:
    unit, wide = scene.scale, scene.scale * BUILDS[scene.build]
    colours, skin = scene.figure_colours, palette.SKIN[scene.skin].rgb
    up = (k["neck"] - (k["right_hip"] + k["left_hip"]) / 2) / np.float32(46 * unit)
    head = k["neck"] + (k["nose"] - k["neck"]) * np.float32((7 + HEAD) / (4 + HEAD))
    if scene.hairstyle == "long":
        canvas.capsule(
            Limb(head, k["neck"] - up * 8 * unit, (HEAD * 1.12 * unit, 13 * unit)),
            colours["hair"],
            part="hair",
            depth=0.6,
        )
    for side, facing in (("right", -1), ("left", 1)):
        boot = palette.LIMBS[f"{side}_shin"]
        toe = k[f"{side}_ankle"] + np.array([facing * 9, 4], np.float32) * unit
        canvas.capsule(
            Limb(k[f"{side}_hip"], k[f"{side}_knee"], (10.5 * wide, 8.5 * wide)),
            colours["bottom"],
            part="bottom",
            depth=0.66,
        )
        heel = k[f"{side}_ankle"] + np.array([0, 2], np.float32) * unit
        canvas.capsule(Limb(heel, toe, (6 * unit, 5 * unit)), boot, part=f"{side}_shin", depth=0.68)
        canvas.capsule(
            Limb(k[f"{side}_knee"], k[f"{side}_ankle"], (8.2 * wide, 6.4 * wide)),
            boot,
            part=f"{side}_shin",
            depth=0.68,
        )
    canvas.capsule(
        Limb(k["right_hip"], k["left_hip"], (11 * wide, 11 * wide)),
        colours["bottom"],
        part="bottom",
        depth=0.69,
    )
    torso = Limb(k["neck"] - up * 16 * unit, k["neck"] - up * 38 * unit, (17.5 * wide, 13 * wide))
    canvas.capsule(torso, colours["top"], part="top", depth=0.7)
    canvas.capsule(Limb(k["neck"] - up * 2 * unit, head, (6 * unit, 6 * unit)), skin, part="skin", depth=0.71)
    _head(canvas, scene, k, head)
    for side in ("right", "left"):
        glove = palette.LIMBS[f"{side}_forearm"]
        hand = k[f"{side}_wrist"] + (k[f"{side}_wrist"] - k[f"{side}_elbow"]) * np.float32(0.22)
        shoulder = k[f"{side}_shoulder"] - up * 4 * unit
        canvas.capsule(
            Limb(shoulder, k[f"{side}_elbow"], (8.5 * wide, 7.2 * wide)),
            colours["top"],
            part="top",
            depth=0.8,
        )
        canvas.capsule(Limb(hand, hand, (6.2 * unit, 6.2 * unit)), skin, part="skin", depth=0.82)
        canvas.capsule(
            Limb(k[f"{side}_elbow"], k[f"{side}_wrist"], (7.2 * wide, 6.2 * wide)),
            glove,
            part=f"{side}_forearm",
            depth=0.84,
        )


def _head(canvas: Canvas, scene: Scene, k: dict[str, Array], head: Array) -> None:
    unit = scene.scale
    hair, skin = scene.figure_colours["hair"], palette.SKIN[scene.skin].rgb
    across = (k["left_eye"] - k["right_eye"]) / np.float32(12 * unit)
    down = np.array([-across[1], across[0]], np.float32)
    for side in ("right", "left"):
        canvas.capsule(
            Limb(k[f"{side}_ear"], k[f"{side}_ear"], (4 * unit, 4 * unit)), skin, part="skin", depth=0.72
        )
    canvas.capsule(
        Limb(head - down * 4 * unit, head - down * 4 * unit, (HEAD * 1.06 * unit,) * 2),
        hair,
        part="hair",
        depth=0.73,
    )
    canvas.capsule(
        Limb(head + down * 2.5 * unit, head + down * 2.5 * unit, (14 * unit, 14 * unit)),
        skin,
        part="skin",
        depth=0.74,
    )
    middle = head - down * 10.5 * unit
    fringe = Limb(middle - across * 8 * unit, middle + across * 7 * unit, (5.4 * unit, 5.8 * unit))
    canvas.capsule(fringe, hair, part="hair", depth=0.76, outline=False)
    for side in ("right", "left"):
        eye = k[f"{side}_eye"] + down * 1.5 * unit
        canvas.capsule(
            Limb(eye, eye + down * 1.5 * unit, (2.2 * unit, 2.2 * unit)),
            (36, 28, 34),
            part="skin",
            depth=0.75,
            outline=False,
        )
    middle = head + down * 9.5 * unit
    mouth = Limb(middle - across * 3 * unit, middle + across * 3 * unit, (1.4 * unit, 1.4 * unit))
    canvas.capsule(mouth, (176, 70, 66), part="skin", depth=0.75, outline=False)


def canny_map(picture: Image) -> Image:
    """[H, W, 3] Canny edges, thresholds 100/200 as the canny ControlNets were trained with."""
    edges = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 100, 200)
    return np.repeat(edges[..., None], 3, -1).astype(np.uint8)


def depth_map(depth: Array) -> Image:
    """[H, W, 3] grey, near is bright."""
    return np.repeat(np.clip(depth * 255, 0, 255).astype(np.uint8)[..., None], 3, -1)


def normal_map(normals: Array) -> Image:
    """[H, W, 3] with x, y, z of -1..1 as red, green, blue of 0..255."""
    return np.clip((normals + 1) * 127.5, 0, 255).astype(np.uint8)


def control_map(scene: Scene, rendered: Render, kind: str) -> Image:
    """[H, W, 3] RGB control map of one of CONTROL_TYPES, from ground truth.

    Raises:
        ValueError: the kind is another one.
    """
    if kind == "pose":
        return draw_pose(scene.people, width=SIZE, height=SIZE)
    if kind == "canny":
        return canny_map(rendered.picture)
    if kind == "depth":
        return depth_map(rendered.depth)
    if kind == "segmentation":
        return np.asarray(SEGMENTATION_COLOURS[rendered.classes])
    if kind == "normals":
        return normal_map(rendered.normals)
    raise ValueError(f"control map {kind!r}: it must be one of {', '.join(CONTROL_TYPES)}")
