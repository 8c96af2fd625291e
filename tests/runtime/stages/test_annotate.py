"""Requests to `annotate`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.contract.ports import string_tensor
from intaglio.detectors.pose import PoseDetector
from intaglio.detectors.served import ServedDetectors
from intaglio.detectors.sizing import sized
from intaglio.errors import InvalidRequest
from intaglio.imaging.canny import canny_map
from intaglio.imaging.openpose import pose_document
from intaglio.stages.annotate import annotate

from ...photographs import nobody, one_person, two_people

FILES = Path(__file__).parents[3] / "miniature/detectors"
Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask(tiny: Any) -> Iterator[Ask]:
    """Ask `annotate` of a deployment that names one detector."""
    pose = DetectorSource(
        kind="movenet", file=FILES / "movenet-lightning.onnx", persons=FILES / "nanodet.onnx"
    )
    limits = tiny.manifest.limits.model_copy(update={"input_bytes": 2 << 20, "input_pixels": 1100 * 600})
    manifest = tiny.manifest.model_copy(update={"detectors": {"people": pose}, "limits": limits})
    with ServedDetectors(manifest, tiny.folder) as detectors:

        def make(photo: Any, detector: str = "pose", **values: Any) -> dict[str, Any]:
            tensors = {"photo": string_tensor(encoded(photo)), "detector": string_tensor(detector)}
            for name, value in values.items():
                text = isinstance(value, str)
                tensors[name] = string_tensor(value) if text else np.array([value], np.int32)
            found = annotate(tensors, detectors)
            return {name: tensor[0] for name, tensor in found.items()}

        yield make


def encoded(photo: Any) -> bytes:
    if isinstance(photo, bytes):
        return photo
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    return buffer.getvalue()


def pixels(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("photo", [one_person, two_people], ids=["one", "two"])
def test_map_and_keypoints_are_the_detectors_own(ask: Ask, photo: Callable[[], Image.Image]) -> None:
    own = PoseDetector(FILES / "movenet-lightning.onnx", FILES / "nanodet.onnx")(photo(), name="a")
    found = ask(photo())
    np.testing.assert_array_equal(pixels(found["map"]), own.map)
    assert own.people is not None
    width, height = photo().size
    assert json.loads(found["keypoints"]) == pose_document(own.people, width=width, height=height)
    about = json.loads(found["annotation"])
    assert (about["detector"], about["type"]) == ("people", "pose")
    assert json.loads(ask(photo())["annotation"])["cached"]
    small = sized(own, (96, 64), "fill")
    again = ask(photo(), width=96, height=64, resize="fill")
    np.testing.assert_array_equal(pixels(again["map"]), small.map)
    assert json.loads(again["keypoints"])["canvas_width"] == 96


def test_edges_have_no_keypoints_and_may_travel_as_text(ask: Ask) -> None:
    found = ask(nobody(), "canny", response_format="b64")
    np.testing.assert_array_equal(pixels(base64.b64decode(found["map"])), canny_map(np.asarray(nobody())))
    assert found["keypoints"] == b""


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"detector": "hed"},
            "detector: this deployment has no detector 'hed'; allowed: canny, people, pose",
        ),
        ({"detector": "../../etc/passwd"}, "detector: this deployment has no detector"),
        ({"detector": "x" * 100}, "detector: 100 bytes; allowed: at most 64 bytes"),
        ({"detector": "pose"}, "photo: no person was found"),
        ({"photo": b""}, "photo: 0 bytes; allowed: 1 to 2097152 bytes"),
        ({"photo": bytes(3 << 20)}, "photo: 3145728 bytes; allowed: 1 to 2097152 bytes"),
        ({"photo": b"GIF89a"}, "photo: not an image"),
        ({"photo": Image.new("RGB", (1200, 600))}, "photo: .*; allowed: .*at most 660000 pixels"),
        ({"width": 64}, "height: missing; allowed: width and height, or neither"),
        ({"width": 4, "height": 64}, "width: 4 is out of range; allowed: 8 to 4096"),
        ({"width": 4096, "height": 4096}, "width: 4096x4096; allowed: at most 660000 pixels"),
        ({"resize": "crop"}, "resize: 'crop' is unknown; allowed: one of stretch, fit, fill"),
        ({"colour": 1}, "colour: unknown input"),
    ],
)
def test_what_is_wrong_is_named(ask: Ask, values: dict[str, Any], says: str) -> None:
    given = {"photo": nobody(), "detector": "canny", **values}
    with pytest.raises(InvalidRequest, match=f"^{says}"):
        ask(given.pop("photo"), given.pop("detector"), **given)
    assert ask(nobody(), "canny")["map"]
