"""Who is in a picture: the networks that read faces, and when a face counts as that of a character."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from intaglio.contract.yaml_files import Strict, resolved_path

__all__ = ["LARGEST_THRESHOLD", "FacesWanted", "Identity", "Likeness", "Measure", "Reference", "Threshold"]

Measure = Literal["cosine", "euclidean"]
"""Of two embeddings of length 1: the cosine of their angle, or the length of their difference."""
Reference = Literal["nearest", "mean"]
"""What a face is compared with: the enrolled picture that it is nearest to, or the mean of all."""
FacesWanted = Literal["one", "any"]
"""Whether a picture must show one face, or may show several of which one is the character's."""
Likeness = Literal["match", "no match", "no face", "many faces", "face too small"]
"""What a picture is found to be."""
LARGEST_THRESHOLD: Final = 2.0
"""No two points of the unit sphere are farther from each other."""
Threshold = Annotated[float, Field(ge=-1, le=LARGEST_THRESHOLD, allow_inf_nan=False)]
"""Least cosine, or greatest Euclidean distance."""
_OWN_KEYS: Final = {"onnx": ("detector", "recognition"), "insightface": ("models",)}


class Identity(Strict):
    """How faces are read and compared. Without it no server and no command embeds a face."""

    characters: Path
    """Folder of the enrolled characters, which `intaglio characters enroll` writes. Only its owner may read
    it. A server reads it with every request.
    """
    kind: Literal["onnx", "insightface"] = "onnx"
    """`onnx`: the files `detector` and `recognition`, run by ONNX Runtime. `insightface`: `FaceAnalysis` of
    that package with the files of `models`.
    """
    detector: Path | None = None
    """ONNX file that finds faces: BlazeFace, or SCRFD (such as `det_10g.onnx` of insightface's buffalo_l)."""
    recognition: Path | None = None
    """ONNX file that embeds an aligned face, such as ArcFace (`w600k_r50.onnx` of buffalo_l)."""
    models: Path | None = None
    """Folder with the ONNX files of a model package of insightface. Nothing is downloaded."""
    template: Literal["arcface", "dlib"] = "arcface"
    """How `recognition` wants a face to lie in its input."""
    mean: Annotated[float, Field(ge=0, le=255)] = 127.5
    """Subtracted from red, green and blue of 0 to 255 before `recognition` reads them."""
    std: Annotated[float, Field(gt=0, le=255)] = 127.5
    """What red, green and blue are divided by after `mean` is subtracted."""
    detector_size: Annotated[int, Field(ge=128, le=2048, multiple_of=32)] = 640
    """Width and height in pixels of the input of a detector whose file does not fix them."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Least confidence of the detector in a face; 0.7 suits BlazeFace, which takes other round things for
    faces below.
    """
    device: Literal["cpu", "card"] = "cpu"
    """What runs the networks. `card` is the first that CUDA finds, and needs ONNX Runtime with CUDA (the
    package onnxruntime-gpu).
    """
    measure: Measure = "cosine"
    """What `threshold` is of."""
    threshold: Threshold
    """Least cosine, or greatest Euclidean distance, of a face that is the character's. It depends on the
    networks; `intaglio characters check` shows what the references reach. A character may have its own.
    """
    reference: Reference = "nearest"
    """Which of a character's references counts."""
    smallest_face: Annotated[int, Field(ge=1, le=4096)] = 48
    """Shorter side in pixels below which a face is too small to be compared."""

    @field_validator("characters", "detector", "recognition", "models")
    @classmethod
    def _resolved(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return None if path is None else resolved_path(path, info)

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Self:
        for kind, keys in _OWN_KEYS.items():
            for key in keys:
                given = getattr(self, key) is not None
                if given and kind != self.kind:
                    raise ValueError(f"{key} is no key of kind {self.kind}; take it out")
                if not given and kind == self.kind:
                    raise ValueError(f"kind {self.kind} needs {key}")
        if self.measure == "euclidean" and self.threshold < 0:
            raise ValueError("threshold is a distance with measure euclidean: at least 0")
        if self.measure == "cosine" and self.threshold > 1:
            raise ValueError("threshold is a cosine: at most 1")
        return self

    @property
    def named(self) -> dict[str, Path]:
        """Every file of its networks, by a name that tells them apart; those of `models` that are there."""
        given = {"detector": self.detector, "recognition": self.recognition}
        found = {f"{key}/{path.name}": path for key, path in given.items() if path is not None}
        if self.models is not None:
            found |= {f"models/{path.name}": path for path in sorted(self.models.glob("*.onnx"))}
        return found

    def below(self, folder: Path) -> Self:
        """The same; relative paths start at `folder`."""
        return self._moved({key: folder / path for key, path in self._paths.items()})

    def placed(self, folder: Path) -> Self:
        """The same, with its networks in `folder` under their names of `named`."""
        files = {key: folder / key / path.name for key, path in self._paths.items() if key != "models"}
        return self._moved(files if self.models is None else {**files, "models": folder / "models"})

    @property
    def _paths(self) -> dict[str, Path]:
        given = {key: getattr(self, key) for key in ("detector", "recognition", "models")}
        return {key: path for key, path in given.items() if path is not None}

    def _moved(self, places: dict[str, Path]) -> Self:
        return self.model_copy(update=places)
