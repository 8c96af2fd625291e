"""Rendered truth that the rules are held to, shared by the tests of this folder."""

from __future__ import annotations

import pytest

from miniature.dataset import held_out_scene
from miniature.world import Render, Scene, render

Truth = tuple[Scene, Render]


@pytest.fixture(scope="session")
def truths() -> list[Truth]:
    """Forty held-out scenes that the evaluation does not use, and their renderings."""
    scenes = [held_out_scene(1000 + index)[0] for index in range(40)]
    return [(scene, render(scene)) for scene in scenes]
