"""The acrobat's skeleton: joint angles to the 18 OpenPose keypoints, and the library of named poses.

Angles are degrees in the picture plane; 0 hangs straight down, positive turns towards the picture's right, as
the viewer sees it. The character faces the viewer, so its right side is on the picture's left. Keypoint order
is OpenPose's COCO-18 (CMU-Perceptual-Computing-Lab/openpose).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

KEYPOINTS = (
    "nose", "neck",
    "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear",
)  # fmt: skip
INDEX = {name: index for index, name in enumerate(KEYPOINTS)}
CANVAS = 256

_JITTERED = (
    "right_arm", "right_elbow", "left_arm", "left_elbow",
    "right_leg", "right_knee", "left_leg", "left_knee",
)  # fmt: skip

# Lengths in pixels of the 256 canvas at scale 1.
TORSO, NECK, SHOULDER, HIP = 46.0, 7.0, 19.0, 10.0
UPPER_ARM, FOREARM, THIGH, SHIN = 27.0, 27.0, 33.0, 33.0
HEAD = 17.0


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees.

    `lift` raises the whole figure by that share of a leg's length (jumps). `thigh_length` foreshortens.
    """

    lean: float = 0.0
    head: float = 0.0
    right_arm: float = -12.0
    right_elbow: float = -8.0
    left_arm: float = 12.0
    left_elbow: float = 8.0
    right_leg: float = -6.0
    right_knee: float = 0.0
    left_leg: float = 6.0
    left_knee: float = 0.0
    thigh_length: float = 1.0
    lift: float = 0.0

    def mirrored(self) -> Pose:
        """The same pose with left and right exchanged."""
        return Pose(
            lean=-self.lean,
            head=-self.head,
            right_arm=-self.left_arm,
            right_elbow=-self.left_elbow,
            left_arm=-self.right_arm,
            left_elbow=-self.right_elbow,
            right_leg=-self.left_leg,
            right_knee=-self.left_knee,
            left_leg=-self.right_leg,
            left_knee=-self.right_knee,
            thigh_length=self.thigh_length,
            lift=self.lift,
        )

    def livelier(self) -> Pose:
        """A variant that moves more, the left side less than the right."""
        return replace(
            self,
            lean=self.lean + 5,
            head=self.head - 6,
            right_arm=self.right_arm - 12,
            left_arm=self.left_arm + 10,
            right_elbow=self.right_elbow * 0.8 + 6,
            left_elbow=self.left_elbow * 0.8 - 6,
            right_leg=self.right_leg - 4,
            left_leg=self.left_leg + 4,
        )

    def jittered(self, rng: np.random.Generator, degrees: float) -> Pose:
        """The pose with normal noise of that many degrees on every joint."""
        noise = {name: getattr(self, name) + float(rng.normal(0, degrees)) for name in _JITTERED}
        return replace(
            self,
            lean=self.lean + float(rng.normal(0, degrees / 3)),
            head=self.head + float(rng.normal(0, degrees / 3)),
            **noise,
        )


def _step(origin: NDArray[np.float64], degrees: float, length: float) -> NDArray[np.float64]:
    radians = math.radians(degrees)
    return origin + length * np.array([math.sin(radians), math.cos(radians)])


def keypoints_from_pose(pose: Pose) -> NDArray[np.float64]:
    """[18, 2] x, y in pixels at scale 1 with the middle of the hips at (0, 0)."""
    k = np.zeros((18, 2))
    up = 180.0 - pose.lean
    neck = _step(np.zeros(2), up, TORSO)
    across = np.array([math.cos(math.radians(pose.lean)), math.sin(math.radians(pose.lean))])
    head_centre = _step(neck, 180.0 - pose.lean - pose.head, NECK + HEAD)
    tilt = math.radians(pose.lean + pose.head)
    face_across = np.array([math.cos(tilt), math.sin(tilt)])
    face_down = np.array([-math.sin(tilt), math.cos(tilt)])
    k[INDEX["neck"]] = neck
    k[INDEX["nose"]] = head_centre + 3 * face_down
    for side, sign in (("right", -1.0), ("left", 1.0)):
        arm = getattr(pose, f"{side}_arm")
        forearm = arm + getattr(pose, f"{side}_elbow")
        leg = getattr(pose, f"{side}_leg")
        shin = leg + getattr(pose, f"{side}_knee")
        shoulder = neck + sign * SHOULDER * across
        elbow = _step(shoulder, arm, UPPER_ARM)
        hip = sign * HIP * across
        knee = _step(hip, leg, THIGH * pose.thigh_length)
        k[INDEX[f"{side}_shoulder"]] = shoulder
        k[INDEX[f"{side}_elbow"]] = elbow
        k[INDEX[f"{side}_wrist"]] = _step(elbow, forearm, FOREARM)
        k[INDEX[f"{side}_hip"]] = hip
        k[INDEX[f"{side}_knee"]] = knee
        k[INDEX[f"{side}_ankle"]] = _step(knee, shin, SHIN)
        k[INDEX[f"{side}_eye"]] = head_centre + sign * 6 * face_across - 1 * face_down
        k[INDEX[f"{side}_ear"]] = head_centre + sign * 15 * face_across
    return k


P = Pose  # short, for the table
# Base poses of every family, before mirroring. The family's name is the verb of the caption.
_FAMILIES: dict[str, list[Pose]] = {
    "standing": [
        P(), P(right_arm=-4, right_elbow=0, left_arm=4, left_elbow=0, right_leg=-3, left_leg=3),
        P(right_arm=-42, right_elbow=85, left_arm=42, left_elbow=-85),
        P(right_arm=-42, right_elbow=85, left_arm=14, left_elbow=4),
        P(right_arm=-20, left_arm=20, right_leg=-16, left_leg=16),
        P(head=14, right_arm=-8, left_arm=30, left_elbow=-50),
    ],
    "walking": [
        P(lean=2, right_arm=22, right_elbow=24, left_arm=-20, left_elbow=30, right_leg=-22, right_knee=-8,
          left_leg=24, left_knee=-14),
        P(lean=3, right_arm=-26, right_elbow=34, left_arm=24, left_elbow=26, right_leg=24, right_knee=-6,
          left_leg=-24, left_knee=-22),
        P(lean=1, right_arm=-16, right_elbow=14, left_arm=16, left_elbow=10, right_leg=12, right_knee=-18,
          left_leg=-10, left_knee=-4),
        P(lean=4, right_arm=30, right_elbow=40, left_arm=-30, left_elbow=40, right_leg=-28, right_knee=-10,
          left_leg=34, left_knee=-22),
    ],
    "running": [
        P(lean=12, right_arm=-48, right_elbow=88, left_arm=44, left_elbow=82, right_leg=52, right_knee=-62,
          left_leg=-28, left_knee=-48),
        P(lean=14, right_arm=40, right_elbow=86, left_arm=-46, left_elbow=80, right_leg=-38, right_knee=-40,
          left_leg=58, left_knee=-78),
        P(lean=16, right_arm=-58, right_elbow=70, left_arm=60, left_elbow=70, right_leg=64, right_knee=-50,
          left_leg=-44, left_knee=-22, lift=0.15),
        P(lean=10, right_arm=-30, right_elbow=95, left_arm=28, left_elbow=95, right_leg=34, right_knee=-80,
          left_leg=-14, left_knee=-30),
    ],
    "dancing": [
        P(lean=-6, head=8, right_arm=-140, right_elbow=30, left_arm=60, left_elbow=40, right_leg=-10,
          left_leg=30, left_knee=-40),
        P(lean=8, head=-10, right_arm=-95, right_elbow=-60, left_arm=95, left_elbow=60, right_leg=-24,
          right_knee=20, left_leg=20),
        P(lean=5, right_arm=-70, right_elbow=-70, left_arm=130, left_elbow=-40, right_leg=-6,
          left_leg=44, left_knee=-70),
        P(lean=-10, head=-6, right_arm=-165, right_elbow=-20, left_arm=40, left_elbow=-90, right_leg=-34,
          right_knee=8, left_leg=12, left_knee=14),
        P(lean=0, right_arm=-120, right_elbow=-70, left_arm=120, left_elbow=70, right_leg=-40, right_knee=60,
          left_leg=40, left_knee=-60),
    ],
    "sitting": [
        P(right_arm=-14, right_elbow=30, left_arm=14, left_elbow=-30, right_leg=-38, right_knee=38,
          left_leg=38, left_knee=-38, thigh_length=0.55),
        P(lean=-4, right_arm=-30, right_elbow=10, left_arm=20, left_elbow=-60, right_leg=66, right_knee=-66,
          left_leg=74, left_knee=-70),
        P(lean=6, right_arm=-34, right_elbow=50, left_arm=34, left_elbow=-50, right_leg=-72, right_knee=118,
          left_leg=72, left_knee=-118),
        P(lean=-12, right_arm=-40, right_elbow=0, left_arm=16, left_elbow=30, right_leg=80, right_knee=-10,
          left_leg=84, left_knee=-30),
    ],
    "jumping": [
        P(right_arm=-150, right_elbow=-10, left_arm=150, left_elbow=10, right_leg=-30, right_knee=12,
          left_leg=30, left_knee=-12, lift=0.45),
        P(right_arm=-100, right_elbow=-20, left_arm=100, left_elbow=20, right_leg=-48, right_knee=76,
          left_leg=48, left_knee=-76, lift=0.5),
        P(lean=6, right_arm=-130, right_elbow=20, left_arm=110, left_elbow=10, right_leg=-66, right_knee=10,
          left_leg=60, left_knee=-10, lift=0.55),
        P(right_arm=-168, right_elbow=6, left_arm=168, left_elbow=-6, right_leg=-6, right_knee=-40,
          left_leg=6, left_knee=-50, lift=0.4),
    ],
    "reaching": [
        P(lean=6, right_arm=-14, left_arm=150, left_elbow=12),
        P(lean=10, right_arm=-30, left_arm=100, left_elbow=-4, right_leg=-14, left_leg=18),
        P(lean=0, right_arm=-172, right_elbow=4, left_arm=172, left_elbow=-4),
        P(lean=16, right_arm=60, right_elbow=10, left_arm=78, left_elbow=6, left_leg=22),
    ],
    "waving": [
        P(left_arm=118, left_elbow=48),
        P(left_arm=95, left_elbow=85, head=8),
        P(left_arm=140, left_elbow=30, right_arm=-42, right_elbow=85),
        P(right_arm=-112, right_elbow=-62, left_arm=112, left_elbow=62),
    ],
    "kicking": [
        P(lean=-10, right_arm=-60, right_elbow=-20, left_arm=40, left_elbow=60, left_leg=82, left_knee=-4),
        P(lean=-16, right_arm=-80, right_elbow=20, left_arm=20, left_elbow=80, left_leg=104,
          left_knee=-10, right_leg=-4),
        P(lean=-6, right_arm=-44, right_elbow=70, left_arm=50, left_elbow=-60, left_leg=56, left_knee=-6),
    ],
    "bowing": [
        P(lean=46, head=20, right_arm=10, right_elbow=0, left_arm=40, left_elbow=-10),
        P(lean=34, head=26, right_arm=-60, right_elbow=-20, left_arm=30, left_elbow=-70),
        P(lean=60, head=14, right_arm=30, left_arm=50, left_elbow=0),
    ],
    "lunging": [
        P(lean=8, right_arm=-40, right_elbow=60, left_arm=70, left_elbow=-20, right_leg=-50, right_knee=2,
          left_leg=62, left_knee=-62),
        P(lean=0, right_arm=-90, right_elbow=0, left_arm=90, left_elbow=0, right_leg=-56, right_knee=0,
          left_leg=66, left_knee=-64),
        P(lean=14, right_arm=-150, right_elbow=10, left_arm=150, left_elbow=-10, right_leg=-44,
          right_knee=-14, left_leg=56, left_knee=-60),
    ],
    "squatting": [
        P(right_arm=-50, right_elbow=90, left_arm=50, left_elbow=-90, right_leg=-70, right_knee=92,
          left_leg=70, left_knee=-92),
        P(lean=4, right_arm=-86, right_elbow=10, left_arm=86, left_elbow=-10, right_leg=-58, right_knee=70,
          left_leg=58, left_knee=-70),
        P(right_arm=-20, right_elbow=40, left_arm=20, left_elbow=-40, right_leg=-84, right_knee=104,
          left_leg=84, left_knee=-104),
    ],
    "stretching": [
        P(lean=-22, right_arm=-20, right_elbow=10, left_arm=200, left_elbow=10),
        P(lean=20, right_arm=-40, right_elbow=85, left_arm=158, left_elbow=-60),
        P(right_arm=-160, right_elbow=-70, left_arm=160, left_elbow=70, right_leg=-18, left_leg=18),
    ],
    "cheering": [
        P(right_arm=-145, right_elbow=0, left_arm=145, left_elbow=0, right_leg=-14, left_leg=14),
        P(right_arm=-125, right_elbow=-40, left_arm=125, left_elbow=40),
        P(right_arm=-150, right_elbow=-20, left_arm=42, left_elbow=-85, head=-8),
    ],
    "boxing": [
        P(lean=6, right_arm=-20, right_elbow=130, left_arm=84, left_elbow=4, right_leg=-24, left_leg=26,
          left_knee=-14),
        P(lean=2, right_arm=-24, right_elbow=140, left_arm=30, left_elbow=120, right_leg=-20, right_knee=8,
          left_leg=22, left_knee=-16),
        P(lean=10, right_arm=64, right_elbow=20, left_arm=30, left_elbow=125, right_leg=-30, left_leg=24,
          left_knee=-20),
    ],
    "balancing": [
        P(right_arm=-90, right_elbow=0, left_arm=90, left_elbow=0, right_leg=0, left_leg=50, left_knee=-100),
        P(lean=-30, right_arm=-100, right_elbow=0, left_arm=80, left_elbow=0, right_leg=0, left_leg=74,
          left_knee=0),
        P(right_arm=-165, right_elbow=40, left_arm=165, left_elbow=-40, right_leg=2, left_leg=62,
          left_knee=-128),
    ],
}  # fmt: skip
FAMILIES = tuple(_FAMILIES)


def library() -> dict[str, tuple[str, Pose]]:
    """Family and pose of every id.

    Every base pose comes in four variants: as drawn, mirrored, livelier, and livelier mirrored.
    """
    poses: dict[str, tuple[str, Pose]] = {}
    for family, bases in _FAMILIES.items():
        for number, base in enumerate(bases, 1):
            name = f"{family}-{number:02d}"
            lively = base.livelier()
            poses[name] = (family, base)
            poses[f"{name}-mirrored"] = (family, base.mirrored())
            poses[f"{name}-lively"] = (family, lively)
            poses[f"{name}-lively-mirrored"] = (family, lively.mirrored())
    return poses


def place(pose: Pose, *, scale: float, centre_x: float, floor_y: float) -> NDArray[np.float64]:
    """[18, 2] keypoints on the canvas, the hips at `centre_x`.

    The lowest ankle stands on `floor_y`, or above it by the pose's lift.
    """
    k = keypoints_from_pose(pose) * scale
    lowest = max(k[INDEX["right_ankle"], 1], k[INDEX["left_ankle"], 1], 0.0)
    offset = np.array([centre_x, floor_y - lowest - pose.lift * (THIGH + SHIN) * scale])
    placed: NDArray[np.float64] = k + offset
    return placed


def openpose_json(keypoints: NDArray[np.float64]) -> str:
    """OpenPose's own JSON for one person: x, y in pixels, confidence 1, and the size of the canvas."""
    flat = [round(float(value), 2) for x, y in keypoints for value in (x, y, 1.0)]
    people = [{"pose_keypoints_2d": flat}]
    return json.dumps({"canvas_width": CANVAS, "canvas_height": CANVAS, "people": people}) + "\n"


def library_files() -> Iterator[tuple[str, str]]:
    """(file name, text) of every named pose, centred on the canvas."""
    for name, (_, pose) in library().items():
        yield f"{name}.json", openpose_json(place(pose, scale=1.15, centre_x=CANVAS / 2, floor_y=224.0))


def write_library(folder: Path) -> int:
    """Write the library as one JSON a pose; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    files = list(library_files())
    for name, text in files:
        (folder / name).write_text(text)
    return len(files)
