"""Detectors of the package controlnet_aux. They need torch, so no process that serves pictures opens them."""

# ruff: noqa: PLC0415  (the package and torch are an extra)

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.detectors import AuxDetector, DetectorSource
from intaglio.detectors.detection import Detection, check_proportions
from intaglio.detectors.pose import pose_detection
from intaglio.errors import ConfigError, MissingExtra
from intaglio.imaging.openpose import KEYPOINTS
from intaglio.onnx_runtime import refuse_telemetry

__all__ = ["AuxMapDetector", "AuxPoseDetector"]

_CLASSES: Final[Mapping[AuxDetector, str]] = {
    "midas": "MidasDetector",
    "leres": "LeresDetector",
    "zoe": "ZoeDetector",
    "normal-bae": "NormalBaeDetector",
    "lineart": "LineartDetector",
    "lineart-anime": "LineartAnimeDetector",
    "lineart-standard": "LineartStandardDetector",
    "hed": "HEDdetector",
    "pidinet": "PidiNetDetector",
    "mlsd": "MLSDdetector",
}
"""Classes of the package, which all are called alike. `openpose` gives keypoints and is called otherwise."""
_SHORT_SIDE: Final = 512
"""Shorter side of what a detector reads, where the deployment names none: the package's own default."""


class AuxMapDetector:
    """A detector that makes a picture. Making one reads its weights."""

    def __init__(self, source: DetectorSource) -> None:
        """Read the weights.

        Raises:
            ConfigError: they are missing or of another network, or the package cannot be imported.
            MissingExtra: the package is not installed.
        """
        assert source.detector is not None
        made = getattr(_package(), _CLASSES[source.detector])
        self._sizes = {"detect_resolution": source.size or _SHORT_SIDE}
        if source.detector == "lineart-standard":
            self._detector: Any = made()
        else:
            self._detector = _loaded(source, made.from_pretrained)
            self._sizes["image_resolution"] = self._sizes["detect_resolution"]

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The map of `photo`, in its size.

        Raises:
            InvalidRequest: the photograph is a narrow strip.
        """
        check_proportions(photo, name=name)
        shown = self._detector(photo, output_type="pil", **self._sizes).convert("RGB")
        return Detection(np.asarray(shown.resize(photo.size, Image.Resampling.BILINEAR), dtype=np.uint8))


class AuxPoseDetector:
    """OpenPose's network for bodies. Making one reads its weights."""

    def __init__(self, source: DetectorSource) -> None:
        """Read the weights.

        Raises:
            ConfigError: they are missing or of another network, or the package cannot be imported.
            MissingExtra: the package is not installed.
        """
        package = _package()
        from controlnet_aux.open_pose.body import Body  # type: ignore[import-not-found,unused-ignore]

        (weights,) = source.weights
        body = _loaded(source, lambda folder: Body(str(Path(folder, weights))))
        self._detector = package.OpenposeDetector(body)
        self._short_side = source.size or _SHORT_SIDE

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The people in `photo`, drawn in its size.

        Raises:
            InvalidRequest: there is no person, or the photograph is a narrow strip.
        """
        check_proportions(photo, name=name)
        from controlnet_aux.util import resize_image  # type: ignore[import-not-found,unused-ignore]

        read = resize_image(np.asarray(photo, dtype=np.uint8), self._short_side)
        found = [_keypoints(pose.body.keypoints) for pose in self._detector.detect_poses(read)]
        people = np.array(found).reshape(-1, KEYPOINTS, 3) * (photo.width, photo.height, 1.0)
        return pose_detection(people, photo.size, name=name)


def _keypoints(found: list[Any]) -> NDArray[np.float64]:
    """[18, 3] x and y as shares of the picture, confidence, of the package's keypoints or None."""
    rows = [(0.0, 0.0, 0.0) if one is None else (one.x, one.y, 1.0) for one in found]
    return np.array(rows, dtype=np.float64)


def _package() -> Any:
    try:
        refuse_telemetry()  # some of its detectors import ONNX Runtime
        import controlnet_aux  # type: ignore[import-not-found,unused-ignore]
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "controlnet_aux", extra="controlnet-aux") from error
    except Exception as error:  # torchvision raises a RuntimeError, and its importers what they like
        right = "install torch and torchvision from the same place"
        raise ConfigError(f"controlnet_aux cannot be imported: {error}; {right}") from error
    return controlnet_aux


def _loaded(source: DetectorSource, load: Callable[[str], Any]) -> Any:
    """What `load` makes of the folder of weights."""
    for path in source.files:
        if not path.is_file():
            raise ConfigError(f"{path}: no such file; put the weights of {source.detector} there")
    try:
        return load(str(source.folder))
    except Exception as error:  # torch's loaders share no base class
        right = f"its files must be the weights of {source.detector}: {', '.join(source.weights)}"
        raise ConfigError(f"{source.folder}: does not load: {error}; {right}") from error
