"""insightface's `FaceAnalysis`, with the files of a folder. It downloads nothing."""

# ruff: noqa: PLC0415  (insightface is installed by those who use it)

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from intaglio.contract.identity import Identity
from intaglio.detectors.onnx_network import providers
from intaglio.errors import ConfigError, IntaglioError
from intaglio.faces.found import ReadFace, unit
from intaglio.onnx_runtime import refuse_telemetry

__all__ = ["InsightReader"]

_TASKS: Final = ["detection", "recognition"]


class InsightReader:
    """`FaceAnalysis` with its detector and its recognition network."""

    def __init__(self, setting: Identity) -> None:
        """Open the files.

        Raises:
            ConfigError: the folder has no ONNX file, or not both networks.
            MissingExtra: ONNX Runtime is not installed, or has no CUDA where `device` is `card`.
            IntaglioError: insightface is not installed.
        """
        folder = setting.models
        # insightface downloads a package where the folder is missing, so this is checked first.
        if folder is None or not setting.named:
            raise ConfigError(
                f"identity.models: {folder}: has no ONNX file; put a model package's files there"
            )
        # What insightface prints belongs to the log: stdout may carry a command's result.
        with contextlib.redirect_stdout(sys.stderr):
            self._analysis = _opened(folder, setting)

    def __call__(self, picture: Image.Image) -> Sequence[ReadFace]:
        """The faces in RGB `picture`."""
        blue_first = np.ascontiguousarray(np.asarray(picture)[..., ::-1])
        found = [
            ReadFace(np.asarray(face.bbox, np.float64), float(face.det_score), unit(face.embedding))
            for face in self._analysis.get(blue_first)
        ]
        return sorted(found, key=lambda face: -face.confidence)


def _opened(folder: Path, setting: Identity) -> Any:
    try:
        refuse_telemetry()
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise IntaglioError(
            f"insightface is not installed ({error}); run: pip install --no-deps insightface "
            "(docs/characters.md says what it needs beside it)"
        ) from error
    try:
        analysis = FaceAnalysis(
            name=str(folder.resolve()), allowed_modules=_TASKS, providers=providers(setting.device)
        )
        size = setting.detector_size
        analysis.prepare(
            ctx_id=-1 if setting.device == "cpu" else 0, det_size=(size, size), det_thresh=setting.confidence
        )
    except Exception as error:  # insightface's exceptions share no base class
        raise ConfigError(f"identity.models: {folder}: insightface does not open it: {error}") from error
    if missing := [task for task in _TASKS if task not in analysis.models]:
        raise ConfigError(f"identity.models: {folder}: has no network of {missing[0]}")
    return analysis
