"""Picture and character -> how much they are alike: the request to `identity` is checked and answered."""

from __future__ import annotations

import json
import time
from typing import Any, Final, get_args

from intaglio.contract.identity import FacesWanted
from intaglio.contract.models import IDENTITY
from intaglio.contract.ports import Tensors, read_tensors, scalar, shortest_float32, string_tensor
from intaglio.engines.interface import Array
from intaglio.errors import InvalidRequest
from intaglio.faces.likeness import FaceScores, check_threshold
from intaglio.faces.served import ServedFaces, criterion_of
from intaglio.imaging.images import decode_image
from intaglio.request.texts import read_bytes, read_choice, read_text

__all__ = ["identify"]

_LONGEST_NAME: Final = 64
_DIGITS: Final = 6
"""Of scores after the point: more would help to rebuild an embedding."""
_PIXEL_DIGITS: Final = 1


def identify(tensors: Tensors, faces: ServedFaces) -> dict[str, Array]:
    """Every output of `models.IDENTITY`.

    Raises:
        InvalidRequest: anything that the table or the limits do not allow, and a character that is not
            enrolled.
        ConfigError: a file is missing, damaged or open to others.
    """
    started = time.perf_counter()
    given = read_tensors(tensors, IDENTITY.inputs)
    threshold = scalar(given, IDENTITY.input("threshold"))
    if threshold is not None:
        threshold = shortest_float32(threshold)
    check_threshold(threshold, faces.setting.measure)
    data = read_bytes(given["image"][0], field="image")
    if not 0 < len(data) <= faces.limits.input_bytes:
        allowed = f"1 to {faces.limits.input_bytes} bytes of PNG, JPEG or WEBP"
        raise InvalidRequest("image", f"{len(data)} bytes", allowed=allowed)
    wanted = _faces_wanted(given)
    name = read_text(given, "character", most=_LONGEST_NAME)
    character = faces.character(name)
    criterion = criterion_of(faces.setting, character, threshold=threshold, faces=wanted)
    picture = decode_image(data, field="image", most_pixels=faces.limits.input_pixels)
    judgement = faces(picture, character, criterion)
    about = {
        "character": name,
        "references": len(character.references),
        "measure": criterion.measure,
        "reference": criterion.reference,
        "threshold": criterion.threshold,
        "seconds": time.perf_counter() - started,
    }
    return {
        "likeness": string_tensor(judgement.likeness),
        "scores": string_tensor(json.dumps([_values(scores) for scores in judgement.faces])),
        "identity": string_tensor(json.dumps(about)),
    }


def _faces_wanted(given: Tensors) -> FacesWanted:
    port = IDENTITY.input("faces")
    text = read_choice(given, port) if port.name in given else port.default
    return next(choice for choice in get_args(FacesWanted) if choice == text)


def _values(scores: FaceScores) -> dict[str, Any]:
    values: dict[str, Any] = {
        "box": [round(value, _PIXEL_DIGITS) for value in scores.box],
        "confidence": round(scores.confidence, _DIGITS),
    }
    for measure in ("cosine", "euclidean"):
        values[measure] = {
            "nearest": round(scores.value(measure, "nearest"), _DIGITS),
            "mean": round(scores.value(measure, "mean"), _DIGITS),
        }
    return values
