"""What is in a picture: the network that finds objects, and rules about what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from intaglio.contract.yaml_files import Strict, resolved_path

__all__ = ["ClassRule", "Forbidden", "Layout", "ObjectNetwork", "ObjectRules", "Required"]

Layout = Literal["auto", "nanodet", "yolov5", "yolov8", "end-to-end"]
"""How a network writes what it finds. `yolov5` is also YOLOv7's, `yolov8` also YOLO11's and YOLO12's, and
`end-to-end` that of YOLOv10 and of exports with `nms=True`.
"""
_Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class ObjectNetwork(Strict):
    """Keys that say which network finds objects, and what counts as found."""

    network: Path
    """ONNX file of a detector: of the YOLO family, or NanoDet."""
    classes: Path | None = None
    """File of the names of its classes: one a line, or a YAML file with `names`. Absent: what the ONNX file
    says, as ultralytics writes it, or COCO's names for NanoDet.
    """
    layout: Layout = "auto"
    """How the network writes what it finds; `auto` sees it from its outputs."""
    size: Annotated[int, Field(ge=32, le=4096, multiple_of=32)] | None = None
    """Width and height in pixels of its input. Only a file whose input has no fixed size needs it."""
    confidence: _Share = 0.25
    """Least confidence of what counts as found."""
    overlap: _Share = 0.45
    """Intersection over union above which the less certain of two boxes of one class goes."""

    @field_validator("network", "classes")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)


class ClassRule(Strict):
    """Objects of one class."""

    name: Annotated[str, Field(alias="class", min_length=1)]
    """The class, by its name."""
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    """Only objects of at least this confidence count."""


class Required(ClassRule):
    """A picture needs so many objects of a class."""

    at_least: Annotated[int, Field(ge=0)] = 1
    """Least number of objects."""
    at_most: Annotated[int, Field(ge=0)] | None = None
    """Greatest number of objects; absent: any."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is above at_most {self.at_most}")
        return self


class Forbidden(ClassRule):
    """A picture may have no object of a class."""


class ObjectRules(Strict):
    """What a picture must fulfil; without rules every picture does."""

    require: tuple[Required, ...] = ()
    """Classes that a picture needs, each with a count and a least confidence."""
    forbid: tuple[Forbidden, ...] = ()
    """Classes that no picture may show, each with a least confidence."""
