"""BDD100K's label files -> what each picture shows.

The layouts are those of https://github.com/ucbdrive/bdd100k (doc/format.md, and format.md of its first years)
and of Scalabel, https://doc.bdd100k.com/format.html:

* a list of frames `{name, attributes, labels}`: `bdd100k_labels_images_train.json`, and `det_train.json`
* `{"frames": [...], "config": ...}` with such frames, as Scalabel exports them
* a file a picture: `{name, attributes, frames: [{objects}]}`, or a single frame

The large files are read in parts: a gigabyte of JSON takes several as Python objects.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any, Final

import ijson

from intaglio_train.errors import DataError
from intaglio_train.pictures import SUFFIXES

__all__ = ["ATTRIBUTES", "Scene", "label_files", "scenes_of"]

ATTRIBUTES: Final = ("weather", "scene", "timeofday")
_UNDEFINED: Final = ("", "undefined")
_EXPECTED: Final = "BDD100K's labels: frames with name, attributes and labels"


@dataclass(frozen=True, slots=True)
class Scene:
    """What a label file says of one picture."""

    name: str
    """The picture's file; BDD100K's pictures are JPEGs, and some layouts leave the ending out."""
    attributes: Mapping[str, str]
    """Those of `ATTRIBUTES` that are defined."""
    objects: Mapping[str, int]
    """How many boxes each category has. Lanes and drivable areas have none."""


def label_files(given: list[Path]) -> list[Path]:
    """Files as they are named, and in place of a folder its JSON files, by name.

    Raises:
        DataError: there is no such file, or a folder holds none.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            if not path.is_file():
                raise DataError(f"{path}: no such file or folder; name label files of BDD100K")
            found.append(path)
            continue
        inside = sorted(path.glob("*.json"))
        if not inside:
            raise DataError(f"{path}: holds no .json file; name a folder of label files")
        found += inside
    return found


def scenes_of(path: Path, *, read: Callable[[int], None]) -> Iterator[Scene]:
    """Every picture of one file, in its order. `read` is told how many bytes of the file are done.

    Raises:
        DataError: the file is no JSON, or its frames are not BDD100K's; the message names the frame.
    """
    try:
        with path.open("rb") as file:
            for number, frame in enumerate(_frames_of(path, file), start=1):
                yield _scene_of(frame, f"{path}: frame {number}")
                read(file.tell())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (ijson.JSONError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error


def _frames_of(path: Path, file: IO[bytes]) -> Iterator[Any]:
    first = _first_sign(file)
    if first == b"[":
        yield from ijson.items(file, "item", use_float=True)
        return
    if first != b"{":
        raise DataError(f"{path}: holds no JSON list and no object; allowed: {_EXPECTED}")
    frames = ijson.items(file, "frames.item", use_float=True)
    frame = next(frames, None)
    if isinstance(frame, dict) and "name" in frame and "objects" not in frame:  # Scalabel's
        yield frame
        yield from frames
        return
    file.seek(0)
    yield _frame_of_picture(json.load(file), path)


def _first_sign(file: IO[bytes]) -> bytes:
    sign = file.read(1)
    while sign.isspace():
        sign = file.read(1)
    file.seek(0)
    return sign


def _frame_of_picture(document: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The document of one picture, in the layout of a frame of a list."""
    if "name" not in document:
        raise DataError(f"{path}: has no frames and no name; allowed: {_EXPECTED}")
    if "frames" not in document:
        return document
    frames = document["frames"] or []
    if len(frames) > 1:  # their objects together would be counted several times
        raise DataError(f"{path}: has {len(frames)} frames, a film; allowed: a file of one picture")
    objects: list[Any] = []
    for frame in frames:
        if not isinstance(frame, dict) or not isinstance(frame.get("objects"), list):
            raise DataError(f"{path}: a frame has no list of objects; allowed: {_EXPECTED}")
        objects += frame["objects"]
    return {**document, "labels": objects}


def _scene_of(frame: Any, where: str) -> Scene:
    if not isinstance(frame, dict) or not isinstance(frame.get("name"), str) or not frame["name"]:
        raise DataError(f"{where} has no name; allowed: {_EXPECTED}")
    where = f"{where}, {frame['name']}"
    if PurePath(frame["name"]).name != frame["name"]:  # text files are written by this name
        raise DataError(f"{where}: the name has folders; allowed: the name of a file")
    attributes = _present(frame.get("attributes"), {})
    labels = _present(frame.get("labels"), [])
    if not isinstance(attributes, dict) or not isinstance(labels, list):
        raise DataError(f"{where}: attributes must be an object, labels a list; allowed: {_EXPECTED}")
    objects: Counter[str] = Counter()
    for label in labels:
        if not isinstance(label, dict) or not isinstance(label.get("category"), str):
            raise DataError(f"{where}: a label has no category; allowed: {_EXPECTED}")
        objects[label["category"]] += bool(label.get("box2d"))
    defined = {key: attributes.get(key) for key in ATTRIBUTES}
    return Scene(
        name=_file_name(frame["name"]),
        attributes={key: value for key, value in defined.items() if isinstance(value, str) and _says(value)},
        objects={category: count for category, count in objects.items() if count},
    )


def _present(value: Any, otherwise: Any) -> Any:
    """A picture without boxes has no labels, or null."""
    return otherwise if value is None else value


def _says(value: str) -> bool:
    return value.strip().lower() not in _UNDEFINED


def _file_name(name: str) -> str:
    return name if name.lower().endswith(SUFFIXES) else f"{name}.jpg"
