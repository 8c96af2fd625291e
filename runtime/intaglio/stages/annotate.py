"""Photograph -> control map: the request to `annotate` is checked, and the detection gets its size."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Final, get_args

from intaglio.contract.models import ANNOTATE, Resize
from intaglio.contract.ports import Tensors, read_tensors, scalar, string_tensor
from intaglio.detectors.detection import Detection
from intaglio.detectors.served import ServedDetectors
from intaglio.detectors.sizing import sized
from intaglio.engines.interface import Array
from intaglio.errors import InvalidRequest
from intaglio.imaging.openpose import pose_document
from intaglio.imaging.png import png_from_pixels
from intaglio.imaging.resizing import Size
from intaglio.request.texts import read_bytes, read_choice, read_text

__all__ = ["annotate"]

_LONGEST_NAME: Final = 64


def annotate(tensors: Tensors, detectors: ServedDetectors) -> dict[str, Array]:
    """Every output of `models.ANNOTATE`.

    Raises:
        InvalidRequest: anything that the table, the limits or the deployment do not allow, and a photograph
            without what the detector looks for.
        ConfigError, DetectorFailed: see `ServedDetectors`.
    """
    started = time.perf_counter()
    given = read_tensors(tensors, ANNOTATE.inputs)
    size = _size(given, most_pixels=detectors.most_pixels)
    how = _choice(given, "resize")
    delivery = _choice(given, "response_format")
    found = detectors(
        read_text(given, "detector", most=_LONGEST_NAME),
        read_bytes(given["photo"][0], field="photo"),
        name="photo",
        until=detectors.deadline(),
    )
    detection = found.annotated.detection
    if size is not None:
        detection = sized(detection, size, _resize(how))
    encoded = png_from_pixels(detection.map, text={})
    annotation = {
        "detector": found.chosen.name,
        "type": found.chosen.type,
        "cached": found.annotated.cached,
        "seconds": time.perf_counter() - started,
    }
    return {
        "map": string_tensor(base64.b64encode(encoded) if delivery == "b64" else encoded),
        "keypoints": string_tensor(_keypoints(detection)),
        "annotation": string_tensor(json.dumps(annotation)),
    }


def _size(given: Tensors, *, most_pixels: int) -> Size | None:
    """The size that the map shall have; None: the photograph's."""
    if ("width" in given) != ("height" in given):
        absent = "height" if "width" in given else "width"
        raise InvalidRequest(absent, "missing", allowed="width and height, or neither")
    if "width" not in given:
        return None
    width: int = scalar(given, ANNOTATE.input("width"))
    height: int = scalar(given, ANNOTATE.input("height"))
    if width * height > most_pixels:
        raise InvalidRequest("width", f"{width}x{height}", allowed=f"at most {most_pixels} pixels")
    return width, height


def _choice(given: Tensors, name: str) -> str:
    port = ANNOTATE.input(name)
    return read_choice(given, port) if name in given else str(port.default)


def _resize(text: str) -> Resize:
    return next(how for how in get_args(Resize) if how == text)


def _keypoints(detection: Detection) -> str:
    if detection.people is None:
        return ""
    height, width = detection.map.shape[:2]
    document: dict[str, Any] = pose_document(detection.people, width=width, height=height)
    return json.dumps(document)
