"""Faces in the place that a recognition network expects."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from intaglio.faces.alignment import TEMPLATES, aligned, similarity


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_a_moved_turned_and_scaled_template_comes_back(template: str) -> None:
    _, target = TEMPLATES[template]
    turn = 1.7 * np.exp(0.4j)
    moved = (target @ [1, 1j]) * turn + (30 - 12j)
    points = np.stack([moved.real, moved.imag], axis=1)
    matrix = similarity(points, target)
    np.testing.assert_allclose(points @ matrix[:, :2].T + matrix[:, 2], target, atol=1e-9)


def test_the_least_squares_are_those_of_a_solver() -> None:
    """Of points that no similarity maps exactly."""
    rng = np.random.default_rng(3)
    points, target = rng.normal(size=(2, 5, 2))
    rows = []
    for x, y in points:
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
    a, b, x, y = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity(points, target), [[a, -b, x], [b, a, y]], atol=1e-12)


def test_points_that_coincide_give_a_shift() -> None:
    matrix = similarity(np.full((5, 2), 3.0), np.full((5, 2), 5.0))
    assert matrix.tolist() == [[1, 0, 2], [0, 1, 2]]


@pytest.mark.parametrize("count", [4, 5])
def test_the_eyes_lie_where_the_template_has_them(count: int) -> None:
    side, target = TEMPLATES["arcface"]
    points = target * 3 + [100, 50]
    picture = Image.new("RGB", (600, 500))
    for x, y in points[:2]:
        ImageDraw.Draw(picture).ellipse([x - 9, y - 9, x + 9, y + 9], fill="white")
    given = points if count == 5 else np.stack([*points[:3], points[3:].mean(axis=0)])
    face = aligned(picture, given, template="arcface", side=side).astype(int)
    for x, y in target[:2].round().astype(int):
        assert face[y, x].min() > 200
    assert face[int(target[2, 1]), int(target[2, 0])].max() == 0
