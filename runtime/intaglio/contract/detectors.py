"""What turns a photograph into a control map: the detectors that a deployment names, and their process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from intaglio.contract.yaml_files import Strict, resolved_path
from intaglio.errors import InvalidRequest

__all__ = [
    "AUTO",
    "CANNY",
    "DETECTED_TYPES",
    "NO_DETECTOR",
    "DetectorKind",
    "DetectorProcess",
    "DetectorSource",
    "detector_named",
]

AUTO: Final = "auto"
"""In a request: the detector that makes maps of the control's type."""
NO_DETECTOR: Final = "none"
"""In a request: the image is the map."""
CANNY: Final = "canny"
"""The one detector that no deployment has to name."""

DetectorKind = Literal["movenet", "depth"]
DETECTED_TYPES: Final[Mapping[DetectorKind, str]] = {"movenet": "pose", "depth": "depth"}
"""Which type of control map each kind of detector makes."""
_OWN_KEYS: Final[Mapping[DetectorKind, frozenset[str]]] = {
    "movenet": frozenset({"persons"}),
    "depth": frozenset({"mean", "std", "size", "near"}),
}
"""Keys that only one kind of detector reads."""


class DetectorProcess(Strict):
    """The process of a server that runs its detectors. It starts with the first photograph."""

    idle_seconds: float = Field(default=300.0, gt=0, le=86_400, allow_inf_nan=False)
    """It ends when no photograph came for so many seconds, and gives its memory back."""
    deadline_seconds: float = Field(default=60.0, gt=0, le=3600, allow_inf_nan=False)
    """Most seconds for the photographs of one request, the start of the process included. After that the
    process is ended and the request is refused.
    """


class DetectorSource(Strict):
    """A detector: its kind and its ONNX files."""

    kind: DetectorKind
    """`movenet`: one person's 17 COCO keypoints, in the layout of MoveNet SinglePose; its map is of type
    `pose`. `depth`: relative depth of one image, such as MiDaS or Depth Anything; its map is of type `depth`.
    """
    file: Path
    """The detector's ONNX file."""
    persons: Path | None = None
    """ONNX file of NanoDet, which finds the people that `movenet` then reads. Without it the whole picture is
    taken for one person.
    """
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue of 0 to 1 before `depth` reads them; the default is ImageNet's."""
    std: tuple[
        Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
    ] = (0.229, 0.224, 0.225)
    """What red, green and blue are divided by after `mean` is subtracted; the default is ImageNet's."""
    size: Annotated[int, Field(ge=14, le=4096)] | None = None
    """Width and height in pixels of the input of `depth`. Only a file whose input has no fixed size needs it.
    """
    near: Literal["large", "small"] = "large"
    """Whether what is near has large values in the output of `depth` (inverse depth, as MiDaS and Depth
    Anything give it) or small ones (depth in metres). In the map, what is near is bright.
    """

    @field_validator("file", "persons")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Self:
        foreign = frozenset[str]().union(*(keys for kind, keys in _OWN_KEYS.items() if kind != self.kind))
        defaults = type(self).model_fields
        # A build hands its deployment on with every default written out.
        if wrong := sorted(key for key in foreign if getattr(self, key) != defaults[key].default):
            raise ValueError(f"{wrong[0]} is no key of kind {self.kind}; take it out")
        return self

    @property
    def type(self) -> str:
        """The type of the control maps that it makes."""
        return DETECTED_TYPES[self.kind]

    @property
    def named(self) -> dict[str, Path]:
        """Every file that it reads, by the key that names it."""
        given = {"file": self.file, "persons": self.persons}
        return {key: path for key, path in given.items() if path is not None}

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it reads."""
        return tuple(self.named.values())

    def moved(self, files: Mapping[str, Path]) -> Self:
        """The same detector with other places of its files, by key."""
        return self.model_copy(update=dict(files))

    def below(self, folder: Path) -> Self:
        """The same detector; relative paths of its files start at `folder`."""
        return self.moved({key: folder / path for key, path in self.named.items()})


def detector_named(wanted: str, types: Mapping[str, str], *, field: str) -> str:
    """The id `wanted` of a detector, else the first detector that makes maps of that type, else `canny`.

    `types` are the types of map of the deployment's detectors, by id.

    Raises:
        InvalidRequest: there is none; it names `field`.
    """
    of_type = [name for name, made in types.items() if made == wanted]
    name = wanted if wanted in types else next(iter(of_type), None)
    if name is not None:
        return name
    if wanted == CANNY:
        return CANNY
    known = dict.fromkeys([CANNY, *types, *types.values()])
    raise InvalidRequest(
        field,
        f"this deployment has no detector {wanted!r}",
        allowed=f"{', '.join(known)}; its key `detectors` names more",
    )
