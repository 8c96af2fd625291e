"""Requests that warm a stage up."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.stages.diffuse.conditioning import read_conditioning
from intaglio.stages.diffuse.warm_up import warm_up_controls, warm_up_tensors


@pytest.mark.parametrize(
    ("places", "controls", "expected"),
    [
        ("auto", 4, [("edges",), ("pose", "mask", "depth", "canny")]),
        (2, 4, [("edges",), ("depth", "canny"), ("pose", "mask")]),
        (4, 1, [("edges",), ("canny",), ("depth",), ("mask",), ("pose",)]),
        (2, 0, [()]),
    ],
)
def test_every_control_is_asked_for_and_the_first_ones_last(
    tiny: Any, places: Any, controls: int, expected: list[tuple[str, ...]]
) -> None:
    """So those are open when the first caller comes."""
    manifest = tiny.manifest.model_copy(
        update={
            "controlnets": dict.fromkeys(("pose", "mask", "depth", "canny", "edges"), "pose"),
            "execution": tiny.manifest.execution.model_copy(update={"resident_controlnets": places}),
            "limits": tiny.manifest.limits.model_copy(update={"controls": controls}),
        }
    )
    groups = list(warm_up_controls(manifest))
    assert groups == expected
    for group in groups:
        for guidance in (True, False):
            tensors = warm_up_tensors(manifest, guidance=guidance, controls=group)
            read = read_conditioning(tensors, manifest)
            assert read.active_controlnets == [f"controlnet.{control}" for control in group]


def test_a_deployment_without_controlnets_is_warmed_up_once(tiny: Any) -> None:
    assert list(warm_up_controls(tiny.manifest.model_copy(update={"controlnets": {}}))) == [()]
