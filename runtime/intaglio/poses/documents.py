"""Poses from other programs -> the library's own documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.imaging.openpose import KEYPOINTS, pose_document, read_pose
from intaglio.imaging.pose_library import PoseLibrary, read_pose_json
from intaglio.whole_files import write_whole

__all__ = ["document_from_json", "write_pose"]

_BODY_25: Final = 25
_BODY_25_ORDER: Final = (*range(8), *range(9, 19))
"""OpenPose's model BODY_25 without the middle of the hips and the feet is COCO-18 in the same order."""
_DECIMALS: Final = 2
"""Of pixels, in files."""


def document_from_json(path: Path, *, canvas: tuple[int, int] | None) -> dict[str, Any]:
    """The pose in the JSON file `path`.

    It is OpenPose's own output (18 or 25 keypoints a person), which does not say the size of the picture, or
    that of a pose editor, which does. `canvas` is that size, width and height in pixels.

    Raises:
        InvalidRequest: the file does not say the size, and `canvas` is None.
        ConfigError: it holds no pose.
    """
    try:
        found = read_pose_json(path)
        document = found[0] if isinstance(found, list) and len(found) == 1 else found
        width, height = _canvas(path, document, canvas)
        people = np.array([_coco(person["pose_keypoints_2d"]) for person in document["people"]], np.float64)
        made = pose_document(people.reshape(-1, KEYPOINTS, 3), width=width, height=height)
        read_pose(made)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path}: not OpenPose JSON, people[].pose_keypoints_2d with {KEYPOINTS} or {_BODY_25} triples: "
            f"{error!r}"
        ) from error
    return made


def _canvas(path: Path, document: Any, canvas: tuple[int, int] | None) -> tuple[int, int]:
    if canvas is not None:
        return canvas
    try:
        return int(document["canvas_width"]), int(document["canvas_height"])
    except KeyError as error:
        raise InvalidRequest(
            "canvas", f"{path} does not say the size of its picture", allowed="--canvas WIDTH HEIGHT"
        ) from error


def _coco(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[18, 3] of a person's flat triples."""
    points = np.array(values, np.float64).reshape(-1, 3)
    return points[list(_BODY_25_ORDER)] if len(points) == _BODY_25 else points.reshape(KEYPOINTS, 3)


def write_pose(
    folder: Path, name: str, document: dict[str, Any], *, tags: Sequence[str], replace: bool
) -> Path:
    """Write `document` as pose `name` of the library in `folder`; returns its file.

    Raises:
        InvalidRequest: the name is taken, and `replace` is false.
        OSError: the folder cannot be written; the old file is untouched.
    """
    path = folder / f"{name}.json"
    if name in PoseLibrary(folder).names() and not replace:
        raise InvalidRequest("name", f"{path} exists already", allowed="another name, or --replace")
    people = [
        {"pose_keypoints_2d": [round(value, _DECIMALS) for value in person["pose_keypoints_2d"]]}
        for person in document["people"]
    ]
    values = {**document, "people": people}
    if tags:
        values["tags"] = list(dict.fromkeys(tags))
    write_whole(path, (json.dumps(values) + "\n").encode())
    return path
