"""Passes cover all images, and slices are cut where guidance begins and ends."""

from __future__ import annotations

from typing import Any

import numpy as np

from intaglio.engines.interface import Array
from intaglio.stages.diffuse.conditioning import read_conditioning
from intaglio.stages.diffuse.passes import guidance_slices, image_passes


def test_passes() -> None:
    assert image_passes(5, (1, 2)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert image_passes(1, (1, 4)) == [slice(0, 1)]


def test_slices_are_cut_where_guidance_begins_and_ends(tiny: Any, arrays: dict[str, Array]) -> None:
    window = {"guidance_window": np.array([0.2, 0.8], np.float32)}
    request = read_conditioning(arrays | window, tiny.manifest)
    pieces = guidance_slices(request)
    assert [(piece.begin, piece.end, piece.guidance) for piece in pieces] == [
        (0, 1, False),
        (1, 4, True),
        (4, 5, False),
    ]
    np.testing.assert_array_equal(pieces[0].token_ids, request.token_ids[:, 1:])
    assert pieces[0].time_ids.shape == (1, 6)


def test_a_whole_window_is_no_window(tiny: Any, arrays: dict[str, Array]) -> None:
    request = read_conditioning(arrays, tiny.manifest)
    assert [(piece.begin, piece.end) for piece in guidance_slices(request)] == [(0, 5)]


def test_without_guidance_there_is_nothing_to_cut(tiny: Any, tensors_of: Any) -> None:
    request = read_conditioning(tensors_of(prompt="a fox", guidance_scale=1.0), tiny.manifest)
    assert guidance_slices(request) == [request]
