"""Slices make the picture of one run, whatever is drawn between them."""

from __future__ import annotations

import json
import weakref
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.contract.models import Scheduler
from intaglio.stages.diffuse.conditioning import read_conditioning
from intaglio.stages.diffuse.control_schedule import ResidualSums, step_controls
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.links import ControlLink, ControlPlan, chain_links
from intaglio.stages.diffuse.slices import slice_ends
from intaglio.stages.diffuse.stage import Diffuse

SEVERAL = json.dumps(
    [
        {"type": "pose", "pose": "waving-01", "every": 3, "end": 0.8},
        {"type": "canny", "pose": "waving-01", "every": 2, "begin": 0.2},
    ]
)


def drawn(diffuse: Diffuse, arrays: Any, *, slice_steps: int, between: Any = None) -> Any:
    """The state after all slices; `between` is drawn after each of them."""
    drawing = Drawing(diffuse.read(arrays), slice_steps=slice_steps)
    while not drawing.finished:
        diffuse.advance(drawing)
        if between is not None:
            diffuse(between, wanted=["state"])
    return drawing.state


@pytest.mark.parametrize("scheduler", get_args(Scheduler))
def test_every_solver_is_the_same_in_slices(diffuse: Diffuse, tensors_of: Any, scheduler: str) -> None:
    """With several images, one solver after another."""
    arrays = tensors_of(prompt="a fox", seed=1, steps=4, scheduler=scheduler, num_images=2)
    other = tensors_of(prompt="a cat", seed=2, steps=1)
    whole = diffuse(arrays, wanted=["state"])["state"]
    np.testing.assert_array_equal(drawn(diffuse, arrays, slice_steps=1), whole)
    np.testing.assert_array_equal(drawn(diffuse, arrays, slice_steps=2, between=other), whole)


@pytest.mark.parametrize("slice_steps", [1, 2, 4])
@pytest.mark.parametrize(
    "values",
    [
        {"controls": SEVERAL},
        {"controls": SEVERAL, "guidance_begin": 0.3, "guidance_end": 0.7},
        {"controls": SEVERAL, "guidance_scale": 1.0, "num_images": 3},
    ],
    ids=["controls", "a guidance window", "no guidance, passes"],
)
def test_controls_and_guidance_are_the_same_in_slices(
    diffuse: Diffuse, tensors_of: Any, values: dict[str, Any], slice_steps: int
) -> None:
    """The other picture uses the same buffers."""
    arrays = tensors_of(prompt="a fox", seed=1, steps=8, **values)
    other = tensors_of(prompt="a cat", seed=2, steps=1, controls=SEVERAL)
    whole = diffuse(arrays, wanted=["state"])["state"]
    np.testing.assert_array_equal(drawn(diffuse, arrays, slice_steps=slice_steps), whole)
    np.testing.assert_array_equal(drawn(diffuse, arrays, slice_steps=slice_steps, between=other), whole)


def test_what_no_step_changes_is_computed_once(diffuse: Diffuse, backend: Any, tensors_of: Any) -> None:
    """Unless another picture was drawn in between."""
    arrays = tensors_of(prompt="a fox", seed=1, steps=6, controls=SEVERAL)
    backend.runs.clear()
    drawn(diffuse, arrays, slice_steps=1)
    assert backend.runs.count("unet_context") == 1
    assert backend.runs.count("text_encoder") == 1


def test_a_slice_begins_where_all_controlnets_run(tiny: Any, tensors_of: Any) -> None:
    plain = read_conditioning(tensors_of(prompt="a fox", steps=7), tiny.manifest)
    assert slice_ends(plain, 3) == (3, 6, 7)
    assert slice_ends(plain, 150) == (7,)
    third = tensors_of(
        prompt="a fox", steps=7, control_every=3, controls='[{"type": "pose", "pose": "waving-01"}]'
    )
    assert slice_ends(read_conditioning(third, tiny.manifest), 2) == (3, 6, 7)


@given(
    every=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    united=st.lists(st.booleans(), min_size=3, max_size=3),
    windows=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=3),
    cut=st.integers(1, 9),
)
def test_a_cut_changes_nothing_that_runs_later(
    every: list[int], united: list[bool], windows: list[tuple[int, int]], cut: int
) -> None:
    """Where `slice_ends` allows it: from there on the same ControlNets run in the same steps. Those `united`
    are controls of one union.
    """
    steps = 10
    pixels = np.zeros((8, 8, 3), np.uint8)
    plans = []
    for number, (one, union, window) in enumerate(zip(every, united, windows, strict=False)):
        begin, end = sorted(window)
        network, mode = ("union", number) if union else (f"c{number}", None)
        plans.append(ControlPlan(network, pixels, 1.0, begin / steps, (end + 1) / steps, one, mode))
    links = chain_links(plans)
    request: Any = _Steps(links, steps)
    ends = slice_ends(request, cut)
    whole = _runs(links, 0, steps)
    sliced: list[tuple[int, ...]] = []
    begin = 0
    for end in ends:
        assert end - begin >= min(cut, steps - begin)
        sliced += _runs(links, begin, end)
        begin = end
    assert sliced == whole


class _Steps:
    """A request of steps and controls alone, without guidance."""

    guidance = False
    begin = 0

    def __init__(self, links: tuple[ControlLink, ...], steps: int) -> None:
        self.links = links
        self.steps = self.end = steps


def _runs(links: tuple[ControlLink, ...], begin: int, end: int) -> list[tuple[int, ...]]:
    sums = ResidualSums()
    found = []
    for step in range(begin, end):
        runs, _ = sums.advance(step_controls(links, step, 10))
        found.append(tuple(run.place for run in runs))
    return found


def test_slices_of_one_picture_run_different_networks_on_different_shapes(
    diffuse: Diffuse, tensors_of: Any
) -> None:
    """Guidance and controls have their parts of the trajectory."""
    request = diffuse.read(
        tensors_of(
            prompt="a fox",
            steps=8,
            guidance_begin=0.5,
            controls='[{"type": "pose", "pose": "waving-01", "begin": 0.25, "end": 0.75}]',
        )
    )
    drawing = Drawing(request, slice_steps=1)
    shapes = []
    for step in range(9):
        drawing.step = step
        shapes.append(drawing.slice_shapes)
    assert shapes[8] is None, "an empty slice runs nothing"
    # Neither; the ControlNet; both; guidance alone, and nothing is prepared for the ControlNet any more.
    assert [step for step in range(8) if shapes[step] != shapes[step - 1]] == [0, 2, 4, 6]
    assert len(set(shapes)) == 5
    assert Drawing(request, slice_steps=2).slice_shapes == shapes[0]
    assert Drawing(request, slice_steps=8).slice_shapes not in shapes


def test_a_picture_that_is_over_is_not_kept(diffuse: Diffuse, tensors_of: Any) -> None:
    """Not even where it ended early: its maps and noise may have hundreds of megabytes."""
    drawing = Drawing(diffuse.read(tensors_of(prompt="a fox", seed=1, steps=4)), slice_steps=1)
    diffuse.advance(drawing)
    kept = weakref.ref(drawing)
    del drawing
    assert kept() is None
