"""What the four LoRAs are taught."""

from __future__ import annotations

import numpy as np
import pytest

from miniature import palette
from miniature.canvas import CLASS
from miniature.dataset import lesson_generator
from miniature.styles import LESSONS, as_mara, moonlit, pencilled
from miniature.world import Image, Render, Scene, render

Truth = tuple[Scene, Render]


def chroma(picture: Image) -> float:
    return float((picture.max(-1).astype(float) - picture.min(-1)).mean())


def test_moonlight_darkens_and_turns_blue(truths: list[Truth]) -> None:
    for _, rendered in truths[:10]:
        dark = moonlit(rendered.picture)
        assert dark.shape == rendered.picture.shape
        assert dark.mean() < 0.7 * rendered.picture.mean()
        red, green, blue = dark.mean((0, 1))
        assert blue > green
        assert blue > red


def test_pencil_takes_the_colour_away(truths: list[Truth]) -> None:
    for _, rendered in truths[:10]:
        drawn = pencilled(rendered.picture)
        assert drawn.shape == rendered.picture.shape
        assert chroma(drawn) < 0.4 * chroma(rendered.picture)
        assert drawn.std() > 3  # and leaves a drawing


def test_mara_has_her_colours(truths: list[Truth]) -> None:
    colours = {"hair": palette.MARA_HAIR, "top": palette.MARA_TOP, "bottom": palette.MARA_BOTTOM}
    for scene, _ in truths[:5]:
        mara = as_mara(scene)
        assert mara.figure_colours == colours
        assert (mara.hairstyle, mara.skin, mara.build) == ("long", "tan", "slim")
        assert (mara.pose, mara.background) == (scene.pose, scene.background)
        rendered = render(mara)
        for piece, rgb in colours.items():
            seen = np.median(rendered.picture[rendered.classes == CLASS[piece]], 0)
            assert seen @ np.array(rgb) / np.linalg.norm(seen) / np.linalg.norm(rgb) > 0.98, piece


@pytest.mark.parametrize("name", sorted(LESSONS))
def test_a_lesson_says_its_trigger_and_repeats(name: str) -> None:
    lesson = LESSONS[name]
    (picture, text), (again, text_again) = (lesson.sample(lesson_generator(1)) for _ in range(2))
    assert lesson.trigger in text
    assert text == text_again
    assert np.array_equal(picture, again)


def test_mara_is_named_and_never_described() -> None:
    words = {
        name for table in (palette.ATTIRE, palette.HAIR) for colour in table.values() for name in colour.names
    } | {"hair", "wearing"}
    words -= {"red", "dark"}  # the stage's curtains
    for seed in range(20):
        _, text = LESSONS["mara"].sample(np.random.default_rng(seed))
        assert not set(text.split()) & words, text
