"""Labels as the YOLO trainers read them: a text file for each picture, and data.yaml.

A line of a label is `class x y width height`: the class's number, then the middle and the size of the box as
shares of the picture's width and height.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import yaml

from intaglio.objects.found import FoundObject

__all__ = ["data_yaml", "label_text"]

_DIGITS = 6


def label_text(objects: Iterable[FoundObject], *, width: int, height: int) -> str:
    """The label of a picture of this size; empty where there is nothing in it."""
    lines = []
    for one in objects:
        left, top, right, bottom = one.box
        shares = ((left + right) / 2 / width, (top + bottom) / 2 / height)
        sizes = ((right - left) / width, (bottom - top) / height)
        numbers = " ".join(f"{value:.{_DIGITS}f}" for value in (*shares, *sizes))
        lines.append(f"{one.class_id} {numbers}\n")
    return "".join(lines)


def data_yaml(names: Sequence[str]) -> str:
    """data.yaml of a folder with images/ and labels/. All pictures are in one part: split them yourself.

    Without `path`, trainers start at the folder of the file.
    """
    values = {"train": "images", "val": "images", "names": dict(enumerate(names))}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
