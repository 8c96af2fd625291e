"""Which controls one pass of a ControlNet computes, and in which steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intaglio.engines.interface import Array
from intaglio.stages.diffuse.conditioning import read_conditioning
from intaglio.stages.diffuse.control_schedule import step_controls
from intaglio.stages.diffuse.links import ControlLink, ControlPlan, chain_links

from .inputs import int_tensor

STEPS = 10


def plan(network: str = "controlnet.pose", **values: Any) -> ControlPlan:
    usual: dict[str, Any] = {"weight": 1.0, "begin": 0.0, "end": 1.0, "every": 1}
    return ControlPlan(network=network, map=np.zeros((1, 1, 3), np.uint8), **(usual | values))


def member(mode: int, network: str = "controlnet_union.all", **values: Any) -> ControlPlan:
    return plan(network, mode=mode, **values)


def kept(begin: float, end: float) -> list[int]:
    """diffusers: keep = 1 - (i / n < start or (i + 1) / n > end)."""
    return [step for step in range(STEPS) if not (step / STEPS < begin or (step + 1) / STEPS > end)]


def test_windows_are_those_of_diffusers() -> None:
    windows = [(0.0, 1.0), (0.25, 0.75), (0.1, 0.3)]
    links = chain_links([plan(begin=begin, end=end) for begin, end in windows])
    for link, (begin, end) in zip(links, windows, strict=True):
        assert [step for step in range(STEPS) if link.active(step, STEPS)] == kept(begin, end)


def test_places_are_those_active_in_the_slice(tiny: Any, arrays: dict[str, Array]) -> None:
    request = read_conditioning(arrays, tiny.manifest)
    assert [step_controls(request.links, step, 5).chain for step in range(5)] == [
        (0, 1),
        (0, 1),
        (1,),
        (1,),
        (1,),
    ]
    late = read_conditioning(arrays | {"begin": int_tensor(3)}, tiny.manifest)
    assert step_controls(late.links, late.begin, late.steps).chain == (1,), "the pose ends at 0.5"


@pytest.mark.parametrize(
    ("begin", "every", "due"),
    [(0.0, 1, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), (0.0, 4, [0, 4, 8]), (0.25, 3, [3, 6, 9]), (0.25, 150, [3])],
)
def test_a_control_is_due_in_steps_counted_from_its_first(begin: float, every: int, due: list[int]) -> None:
    (link,) = chain_links([plan(begin=begin, every=every)])
    active = [step for step in range(STEPS) if link.active(step, STEPS)]
    assert [step for step in active if link.due(step, STEPS)] == due


def test_controls_of_one_union_are_one_link() -> None:
    plans = [
        member(1, weight=0.5),
        plan(),
        member(5, weight=0.7, end=0.5),
        plan(),
        member(2, weight=0),
        member(4, "controlnet_union.other"),
    ]
    links = chain_links(plans)
    assert links == (
        ControlLink(plans[0].network, (plans[0], plans[2])),
        ControlLink("controlnet.pose", (plans[1],)),
        ControlLink("controlnet.pose", (plans[3],)),
        ControlLink("controlnet_union.other", (plans[5],)),
    )
    assert np.flatnonzero(links[0].types).tolist() == [1, 5]


def test_one_control_of_a_union_scales_residuals_and_several_their_embeddings() -> None:
    one, other = member(1, weight=0.5), member(5, weight=0.7)
    (alone,) = chain_links([one])
    assert (alone.scale, alone.embedding_weight(one)) == (0.5, 1.0)
    (both,) = chain_links([one, other])
    assert (both.scale, both.embedding_weight(one), both.embedding_weight(other)) == (1.0, 0.5, 0.7)


def test_several_controls_of_a_union_run_in_every_step() -> None:
    (link,) = chain_links([member(1, end=0.3, every=7), member(5, begin=0.6, every=4)])
    assert all(link.active(step, STEPS) for step in range(STEPS))
    present = [link.present(step, STEPS) for step in range(STEPS)]
    assert present == [(0,)] * 3 + [()] * 3 + [(1,)] * 4
    due = [step for step in range(STEPS) if link.due(step, STEPS)]
    assert due == [0, 3, 4, 6, 8], "every fourth, and where other controls are present"
