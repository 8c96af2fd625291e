"""What the four LoRAs teach: two looks of a finished picture, one character, one place.

Each has its trigger words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from miniature import palette
from miniature.backgrounds import BACKGROUNDS
from miniature.captions import PLACES, VERBS, caption
from miniature.world import Scene, render, sample_scene

Image = NDArray[np.uint8]


def moonlit(picture: Image) -> Image:
    """The "night" look: dark, blue, with a little glow left in the highlights."""
    light = picture.astype(np.float32) / 255
    grey = light @ np.array([0.3, 0.59, 0.11], np.float32)
    blue = grey[..., None] * np.array([0.30, 0.40, 0.78], np.float32)
    mixed = 0.62 * blue + 0.38 * light * np.array([0.5, 0.55, 0.8], np.float32)
    return np.clip(255 * mixed, 0, 255).astype(np.uint8)


def pencilled(picture: Image) -> Image:
    """The "pencil" look: a grey drawing on warm paper, with lines where the brightness changes."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred = cv2.GaussianBlur(grey, (0, 0), 2.6)
    lines = np.clip(grey / np.maximum(blurred, 1), 0, 1) ** 2.2
    tone = 0.78 + 0.22 * grey / 255
    paper = np.array([250, 246, 236], np.float32)
    drawn: Image = np.clip(paper * (lines * tone)[..., None], 0, 255).astype(np.uint8)
    return drawn


def as_mara(scene: Scene) -> Scene:
    """The scene with the character Mara in it: teal long hair, ochre top, maroon trousers, tan skin, slim."""
    looks = replace(scene, hairstyle="long", skin="tan", build="slim")
    return replace(
        looks, hair_rgb=palette.MARA_HAIR, top_rgb=palette.MARA_TOP, bottom_rgb=palette.MARA_BOTTOM
    )


@dataclass(frozen=True)
class Lesson:
    """What one LoRA is taught.

    `kind` is the registry's word for it. `trigger` is what a prompt says to use it.
    """

    name: str
    kind: str
    trigger: str

    def sample(self, rng: np.random.Generator) -> tuple[Image, str]:
        """A picture [256, 256, 3] and its caption, trigger included."""
        place = ("meadow",) if self.name == "meadow" else BACKGROUNDS
        scene = sample_scene(rng, backgrounds=place)
        if self.name == "mara":
            scene = as_mara(scene)
            return render(scene).picture, _mara_caption(rng, scene)
        picture, text = render(scene).picture, caption(rng, scene)
        if self.name == "meadow":
            return picture, text if self.trigger in text else f"{text}, {self.trigger}"
        look = moonlit if self.name == "night" else pencilled
        return look(picture), f"{text}, {self.trigger}"


def _mara_caption(rng: np.random.Generator, scene: Scene) -> str:
    """Mara is named, never described: her looks belong to the name."""
    verb = VERBS[scene.family][int(rng.integers(len(VERBS[scene.family])))]
    place = PLACES[scene.background][int(rng.integers(len(PLACES[scene.background])))]
    return f"mara {verb} {place}" if rng.uniform() < 0.6 else f"{place}, mara {verb}"


LESSONS = {
    lesson.name: lesson
    for lesson in (
        Lesson("night", "style", "in moonlight style"),
        Lesson("pencil", "style", "in pencil style"),
        Lesson("mara", "character", "mara"),
        Lesson("meadow", "background", "in a flowering meadow"),
    )
}
