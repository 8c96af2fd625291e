"""Tensors that do not fit each other or the build are refused; windows are those of diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intaglio.engines.interface import Array
from intaglio.errors import InvalidRequest
from intaglio.stages.diffuse.conditioning import (
    ControlPlan,
    active_controls,
    active_places,
    read_conditioning,
)

from .inputs import int_tensor


def test_what_is_absent_has_defaults(tiny: Any, arrays: dict[str, Array]) -> None:
    without = {name: value for name, value in arrays.items() if name not in ("guidance_window", "timings")}
    request = read_conditioning(without, tiny.manifest)
    assert (request.begin, request.end, request.steps) == (0, 5, 5)
    assert request.guidance_window == (0, 1)
    assert request.timings == {}
    assert request.guidance
    assert [plan.control for plan in request.controls] == ["pose", "edges"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"begin": int_tensor(3), "end": int_tensor(2)}, "begin"),
        ({"end": int_tensor(6)}, "begin"),
        ({"state": np.zeros((4, 1, 4, 8, 8), np.float32)}, "state"),
        ({"state": np.zeros((4, 1, 3, 12, 8), np.float32)}, "state"),
        ({"state": np.zeros((3, 1, 4, 12, 8), np.float32)}, "state"),
        ({"state": np.zeros((4, 1, 4, 12, 8), np.float64)}, "state"),
        ({"noise": np.zeros((2, 1, 4, 12, 8), np.float32)}, "noise"),
        ({"input_scale": np.ones(4, np.float32)}, "input_scale"),
        ({"time_ids": np.zeros((1, 6), np.float32)}, "time_ids"),
        ({"token_ids": np.zeros((2, 3, 1, 77), np.int64)}, "token_ids"),
        ({"token_ids": np.zeros((2, 2, 3, 77), np.int64)}, "token_ids"),
        ({"control_maps": np.zeros((1, 96, 64, 3), np.uint8)}, "control_maps"),
        ({"control_maps": np.zeros((2, 8, 8, 3), np.uint8)}, "control_maps"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    tiny: Any, arrays: dict[str, Array], change: dict[str, Array], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_conditioning(arrays | change, tiny.manifest)
    assert caught.value.field == field


def test_an_unknown_control_is_refused(tiny: Any, arrays: dict[str, Array]) -> None:
    controls = np.array([arrays["controls"][0].replace(b'"pose"', b'"depth"')], object)
    with pytest.raises(InvalidRequest, match="controls: 'depth' is unknown; allowed: pose, edges"):
        read_conditioning(arrays | {"controls": controls}, tiny.manifest)


def test_a_set_of_loras_that_is_not_resolved_is_refused(tiny: Any, arrays: dict[str, Array]) -> None:
    loras = np.array([b'[{"id": "knight"}]'], object)
    with pytest.raises(InvalidRequest, match="loras: not a resolved set"):
        read_conditioning(arrays | {"loras": loras}, tiny.manifest)


def test_a_window_needs_a_build_without_guidance(tiny: Any, arrays: dict[str, Array]) -> None:
    profiles = tiny.manifest.profiles.model_copy(update={"guidance": ("on",)})
    manifest = tiny.manifest.model_copy(update={"profiles": profiles})
    window = {"guidance_window": np.array([0, 0.5], np.float32)}
    with pytest.raises(InvalidRequest, match=r"guidance_window: \[0.0, 0.5\]; allowed: \[0, 1\]"):
        read_conditioning(arrays | window, manifest)


def test_a_window_means_the_decimal_that_was_sent(tiny: Any, arrays: dict[str, Array]) -> None:
    window = {"guidance_window": np.array([0, 0.7], np.float32)}
    assert read_conditioning(arrays | window, tiny.manifest).guidance_window == (0, 0.7)


def test_windows_are_those_of_diffusers() -> None:
    def plan(weight: float, begin: float, end: float) -> ControlPlan:
        return ControlPlan("pose", np.zeros((3, 1, 1), np.uint8), weight, begin, end)

    windows = [(0.0, 1.0), (0.25, 0.75)]
    plans = [*(plan(1, begin, end) for begin, end in windows), plan(0, 0, 1)]
    steps = 6
    for step in range(steps):
        kept = []
        for place, (start, end) in enumerate(windows):
            # diffusers: keep = 1 - (i / n < start or (i + 1) / n > end)
            if not (step / steps < start or (step + 1) / steps > end):
                kept.append(place)
        assert active_controls(plans, step, steps) == kept


def test_places_are_those_active_in_the_slice(tiny: Any, arrays: dict[str, Array]) -> None:
    assert active_places(read_conditioning(arrays, tiny.manifest)) == [0, 1]
    late = read_conditioning(arrays | {"begin": int_tensor(3)}, tiny.manifest)
    assert active_places(late) == [1], "the pose ends at 0.5"
