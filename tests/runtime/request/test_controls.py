"""Which controls a request may ask for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from intaglio.errors import InvalidRequest
from intaglio.request.controls import check_controls, with_detectors
from intaglio.request.read import read_request
from intaglio.request.request import ControlRequest, Request

CONTROLNETS = {"openpose-xl": "pose", "canny": "canny"}


@pytest.fixture
def request_with(tiny: Any, request_tensors: Any) -> Any:
    """(controls, number of images) -> a request."""
    plain = read_request(request_tensors(prompt="a"), tiny.manifest)

    def make(*controls: ControlRequest, images: int = 0) -> Request:
        values = {name: getattr(plain, name) for name in plain.__slots__}
        return Request(**{**values, "controls": controls, "images": (b"x",) * images})

    return make


def test_a_type_or_an_id_names_a_control(request_with: Any) -> None:
    for name in ("pose", "openpose-xl"):
        check_controls(request_with(ControlRequest(type=name, pose="waving-01")), CONTROLNETS)


@pytest.mark.parametrize(
    ("control", "images", "says"),
    [
        ({"type": "depth", "image": 0}, 1, "type: 'depth' is unknown; allowed: openpose-xl, canny, pose"),
        ({"type": "canny"}, 0, "needs an image or a pose"),
        ({"type": "canny", "image": 0, "pose": "a"}, 1, "needs an image or a pose"),
        ({"type": "canny", "image": 1}, 1, "image: 1 is out of range; allowed: 0 to 0"),
        ({"type": "canny", "image": 0}, 0, "no index: images is absent"),
        ({"type": "pose", "pose": "a", "preprocess": "canny"}, 0, "'canny' with a pose"),
        ({"type": "pose", "pose": "a", "begin": 0.5, "end": 0.5}, 0, "0.5 is not before end 0.5"),
        ({"type": "canny", "image": 0}, 2, r"images\[1\]: no control refers to it"),
    ],
)
def test_what_is_wrong_is_named(request_with: Any, control: dict[str, Any], images: int, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        check_controls(request_with(ControlRequest(**control), images=images), CONTROLNETS)


def test_control_every_needs_a_control(request_with: Any) -> None:
    asked = dataclasses.replace(request_with(), control_every=2)
    with pytest.raises(InvalidRequest, match="control_every: 2, but there are no controls; allowed: 1 or"):
        check_controls(asked, CONTROLNETS)
    check_controls(dataclasses.replace(asked, control_every=1), CONTROLNETS)


@pytest.mark.parametrize(
    ("type", "preprocess", "made_by"),
    [
        ("openpose-xl", "auto", "more"),
        ("pose", "auto", "more"),
        ("canny", "auto", "canny"),
        ("canny", "pose", "more"),
        ("canny", "people", "people"),
        ("pose", "none", "none"),
    ],
)
def test_a_request_says_which_detector_makes_the_map(type: str, preprocess: str, made_by: str) -> None:
    control = ControlRequest(type=type, image=0, preprocess=preprocess)
    (found,) = with_detectors([control], CONTROLNETS, {"people": "pose", "more": "pose"})
    assert found == control.model_copy(update={"preprocess": made_by})


@pytest.mark.parametrize("preprocess", ["auto", "depth"])
def test_a_detector_that_this_deployment_lacks(preprocess: str) -> None:
    control = ControlRequest(type="deep", image=0, preprocess=preprocess)
    says = (
        r"^controls\[0\]\.preprocess: this deployment has no detector 'depth'; allowed: none, canny, people"
    )
    with pytest.raises(InvalidRequest, match=says):
        with_detectors([control], {"deep": "depth"}, {"people": "pose"})
