"""What turns a photograph into a control map: the detectors that a deployment names, and their process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationInfo, field_validator, model_validator

from intaglio.contract.yaml_files import RegistryId, Strict, resolved_path
from intaglio.errors import InvalidRequest
from intaglio.validation_errors import Allowed

__all__ = [
    "AUTO",
    "AUX_DETECTORS",
    "CANNY",
    "CHECKPOINT_FILES",
    "NO_DETECTOR",
    "AuxDetector",
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

DetectorKind = Literal["movenet", "dwpose", "depth", "controlnet-aux", "transformers"]
AuxDetector = Literal[
    "openpose",
    "midas",
    "leres",
    "zoe",
    "normal-bae",
    "lineart",
    "lineart-anime",
    "lineart-standard",
    "hed",
    "pidinet",
    "mlsd",
]
"""Detectors of controlnet-aux. Its others draw at random or need more than it brings: mediapipe, or mmpose,
which the kind `dwpose` does without.
"""
AUX_DETECTORS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "openpose": ("pose", ("body_pose_model.pth",)),
    "midas": ("depth", ("dpt_hybrid-midas-501f0c75.pt",)),
    "leres": ("depth", ("res101.pth", "latest_net_G.pth")),
    "zoe": ("depth", ("ZoeD_M12_N.pt",)),
    "normal-bae": ("normals", ("scannet.pt",)),
    "lineart": ("lineart", ("sk_model.pth", "sk_model2.pth")),
    "lineart-anime": ("lineart", ("netG.pth",)),
    "lineart-standard": ("lineart", ()),
    "hed": ("softedge", ("ControlNetHED.pth",)),
    "pidinet": ("softedge", ("table5_pidinet.pth",)),
    "mlsd": ("mlsd", ("mlsd_large_512_fp32.pth",)),
}
"""The type of the maps of each, and its files of weights, as lllyasviel/Annotators has them."""
CHECKPOINT_FILES: Final = ("config.json", "preprocessor_config.json", "model.safetensors")
"""Files of a checkpoint of `transformers`."""
_TYPES: Final[Mapping[DetectorKind, str]] = {"movenet": "pose", "dwpose": "pose", "depth": "depth"}
_OWN_KEYS: Final[Mapping[DetectorKind, frozenset[str]]] = {
    "movenet": frozenset({"file", "persons"}),
    "dwpose": frozenset({"file", "persons", "hands", "face"}),
    "depth": frozenset({"file", "mean", "std", "size", "near"}),
    "controlnet-aux": frozenset({"detector", "folder", "hub", "revision", "size"}),
    "transformers": frozenset({"folder", "hub", "revision", "near"}),
}
"""Keys that not every kind of detector reads."""


class DetectorProcess(Strict):
    """The process of a server that runs its detectors. It starts with the first photograph."""

    idle_seconds: float = Field(default=300.0, gt=0, le=86_400, allow_inf_nan=False)
    """It ends when no photograph came for so many seconds, and gives its memory back."""
    deadline_seconds: float = Field(default=60.0, gt=0, le=3600, allow_inf_nan=False)
    """Most seconds for the photographs of one request, the start of the process included. After that the
    process is ended and the request is refused.
    """


class DetectorSource(Strict):
    """A detector: its kind and its files."""

    kind: DetectorKind
    """`movenet`: one person's 17 COCO keypoints, in the layout of MoveNet SinglePose. `dwpose`: one person's
    133 COCO-WholeBody keypoints, or 17 of the body alone, by DWPose or RTMPose. `depth`: relative depth of
    one image, such as MiDaS or Depth Anything. These three are ONNX files. `controlnet-aux`: a detector of
    that package. `transformers`: a checkpoint of depth estimation or of semantic segmentation. These two need
    torch, and the extra `controlnet-aux`.
    """
    type: RegistryId = ""
    """Type of its maps; `auto` in a request finds it by that. Absent: `pose` for `movenet` and `dwpose`,
    `depth` for `depth`, and that of `detector` for `controlnet-aux`. `transformers` needs it.
    """
    file: Path | None = None
    """The ONNX file of `movenet`, `dwpose` (`dw-ll_ucoco_384.onnx`) and `depth`."""
    folder: Path | None = None
    """Folder of the weights of `controlnet-aux`, or the checkpoint of `transformers`."""
    hub: Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$"), Allowed("owner/name")] | None = None
    """Instead of `folder`: a repository on the Hugging Face hub. A build downloads what it needs of it."""
    revision: str | None = None
    """Branch, tag or commit of the `hub` repository."""
    detector: AuxDetector | None = None
    """Which detector of `controlnet-aux`."""
    persons: Path | None = None
    """ONNX file of NanoDet or YOLOX (`yolox_l.onnx`), which finds the people that `movenet` or `dwpose` then
    reads. Without it the whole picture is taken for one person.
    """
    hands: bool = False
    """Whether `dwpose` draws hands, too. ControlNets that were trained on bodies alone need it off."""
    face: bool = False
    """Whether `dwpose` draws the 68 keypoints of faces, too."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from red, green and blue of 0 to 1 before `depth` reads them; the default is ImageNet's."""
    std: tuple[
        Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]
    ] = (0.229, 0.224, 0.225)
    """What red, green and blue are divided by after `mean` is subtracted; the default is ImageNet's."""
    size: Annotated[int, Field(ge=14, le=4096)] | None = None
    """Width and height in pixels of the input of `depth`; only a file whose input has no fixed size needs it.
    For `controlnet-aux` the shorter side of what the detector reads; absent: 512.
    """
    near: Literal["large", "small"] = "large"
    """Whether what is near has large values in the output of `depth` or `transformers` (inverse depth, as
    MiDaS and Depth Anything give it) or small ones (depth in metres). In the map, what is near is bright.
    """

    @field_validator("file", "persons", "folder")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @model_validator(mode="before")
    @classmethod
    def _typed(cls, values: Any) -> Any:
        """The type of the maps, where the kind or the detector says it."""
        if not isinstance(values, dict) or values.get("type"):
            return values
        detector, kind = values.get("detector"), values.get("kind")
        if isinstance(detector, str) and detector in AUX_DETECTORS:
            return {**values, "type": AUX_DETECTORS[detector][0]}
        return {**values, "type": _TYPES[kind]} if kind in tuple(_TYPES) else values

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Self:
        own = _OWN_KEYS[self.kind]
        foreign = frozenset[str]().union(*_OWN_KEYS.values()) - own
        defaults = type(self).model_fields
        # A build hands its deployment on with every default written out.
        if wrong := sorted(key for key in foreign if getattr(self, key) != defaults[key].default):
            raise ValueError(f"{wrong[0]} is no key of kind {self.kind}; take it out")
        for key in ("file", "detector"):
            if key in own and getattr(self, key) is None:
                raise ValueError(f"kind {self.kind} needs {key}")
        if not self.type:
            raise ValueError(f"kind {self.kind} needs type, the type of its maps")
        given = [self.folder, self.hub].count(None)
        if "folder" in own and (self.kind == "transformers" or self.weights) and given != 1:
            raise ValueError("give exactly one of folder and hub")
        if self.revision is not None and self.hub is None:
            raise ValueError("revision goes with hub only")
        return self

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of its files in `folder` or `hub`, where they are known without looking there."""
        if self.detector is not None:
            return AUX_DETECTORS[self.detector][1]
        return CHECKPOINT_FILES if self.kind == "transformers" else ()

    @property
    def named(self) -> dict[str, Path]:
        """Every file that it reads, by a name that tells them apart. None of a `hub`."""
        given = {"file": self.file, "persons": self.persons}
        found = {f"{key}/{path.name}": path for key, path in given.items() if path is not None}
        if self.folder is not None:
            found |= {f"folder/{name}": self.folder / name for name in self.weights}
        return found

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that it reads."""
        return tuple(self.named.values())

    def below(self, folder: Path) -> Self:
        """The same detector; relative paths of its files start at `folder`."""
        paths = {key: getattr(self, key) for key in ("file", "persons", "folder")}
        return self.model_copy(update={key: folder / path for key, path in paths.items() if path is not None})

    def placed(self, folder: Path) -> Self:
        """The same detector, with its files in `folder` under their names of `named`."""
        places = {
            key: folder / key / path.name
            for key, path in (("file", self.file), ("persons", self.persons))
            if path is not None
        }
        if self.folder is not None:
            places["folder"] = folder / "folder"
        return self.model_copy(update=places)

    def fetched(self, folder: Path) -> Self:
        """The same detector, with `folder` instead of the hub."""
        return self.model_copy(update={"folder": folder, "hub": None, "revision": None})


def detector_named(wanted: str, types: Mapping[str, str], *, field: str, also: Sequence[str] = ()) -> str:
    """The id `wanted` of a detector, else the first id that makes maps of that type, else `canny`.

    `types` are the types of map of the deployment's detectors, by id. Their order does not count, since a
    build does not keep it. An error names `also` too, which the caller has dealt with.

    Raises:
        InvalidRequest: there is none; it names `field`.
    """
    of_type = sorted(name for name, made in types.items() if made == wanted)
    name = wanted if wanted in types else next(iter(of_type), None)
    if name is not None:
        return name
    if wanted == CANNY:
        return CANNY
    known = dict.fromkeys([*also, CANNY, *types, *types.values()])
    raise InvalidRequest(
        field,
        f"this deployment has no detector {wanted!r}",
        allowed=f"{', '.join(known)}; its key `detectors` names more",
    )
