"""Captions name what is asked, and say it in many ways."""

from __future__ import annotations

import re

import numpy as np
import pytest

from miniature import palette
from miniature.captions import BOTTOMS, PLACES, TOPS, VERBS, caption
from miniature.dataset import held_out_scene
from miniature.world import Scene


def named(text: str, names: tuple[str, ...], nouns: tuple[str, ...]) -> bool:
    return any(re.search(rf"\b{re.escape(f'{name} {noun}')}\b", text) for name in names for noun in nouns)


@pytest.mark.parametrize("index", range(100))
def test_with_nothing_omitted_everything_judged_is_named(index: int) -> None:
    scene, rng = held_out_scene(index)
    text = caption(rng, scene, omit=0)
    assert named(text, palette.ATTIRE[scene.top].names, TOPS), text
    assert named(text, palette.ATTIRE[scene.bottom].names, BOTTOMS), text
    assert named(text, palette.HAIR[scene.hair].names, ("hair",)), text
    assert any(place in text for place in PLACES[scene.background]), text
    assert any(verb in text for verb in VERBS[scene.family]), text
    wrong = [
        name for colour in palette.ATTIRE if colour != scene.top for name in palette.ATTIRE[colour].names
    ]
    assert not named(text, tuple(wrong), TOPS), text


def test_with_everything_omitted_no_attire_hair_or_place_is_named() -> None:
    for index in range(50):
        scene, rng = held_out_scene(index)
        text = caption(rng, scene, omit=1)
        assert not set(re.findall(r"[\w-]+", text)) & {*TOPS, *BOTTOMS, "hair"}, text
        assert not any(place in text for places in PLACES.values() for place in places), text


@pytest.fixture
def scene() -> Scene:
    return held_out_scene(0)[0]


def test_captions_of_one_scene_vary(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    texts = [caption(rng, scene) for _ in range(100)]
    assert len(set(texts)) >= 90
    assert len({text.split()[0] for text in texts}) >= 3


def test_a_caption_is_a_function_of_the_generator(scene: Scene) -> None:
    one, same, other = (caption(np.random.default_rng(seed), scene) for seed in (1, 1, 2))
    assert one == same != other


def test_captions_are_tidy() -> None:
    for index in range(200):
        scene, rng = held_out_scene(index)
        text = caption(rng, scene, omit=0.5)
        assert text == text.strip()
        assert "  " not in text, text
        assert " ," not in text, text
        assert not re.search(r"\ba [aeiou]", text), text
