"""A network of face recognition: an aligned face -> its embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.identity import Identity
from intaglio.detectors.onnx_network import Network
from intaglio.errors import ConfigError
from intaglio.faces.alignment import aligned
from intaglio.faces.blazeface import BlazeFace
from intaglio.faces.found import Embedding, FaceFinder, ReadFace, unit
from intaglio.faces.scrfd import Scrfd

__all__ = ["OnnxReader", "Recognition", "open_finder"]


class Recognition:
    """The network and how it wants faces."""

    def __init__(self, path: Path, setting: Identity) -> None:
        """Open the file.

        Raises:
            ConfigError: it is missing, or holds another network.
            MissingExtra: ONNX Runtime is not installed, or has no CUDA where `device` is `card`.
        """
        network = Network(path, expected="a network that embeds faces", device=setting.device)
        shape, outputs = network.input_shape, network.output_shapes
        side = shape[-1] if len(shape) == 4 else None
        if side is None or shape[1:] != (3, side, side):
            raise network.unlike(f"its input is {list(shape)}")
        if len(outputs) != 1 or len(outputs[0]) != 2:
            raise network.unlike(f"its outputs are {list(outputs)}")
        self._network = network
        self._side = side
        self._setting = setting

    def __call__(self, picture: Image.Image, points: NDArray[np.float64]) -> Embedding:
        """The embedding of the face of `picture` with these `points`.

        Raises:
            ConfigError: the network gives nothing but zeros, or numbers that are not finite.
        """
        face = aligned(picture, points, template=self._setting.template, side=self._side)
        values = (face.astype(np.float32) - self._setting.mean) / self._setting.std
        (outputs,) = self._network(values.transpose(2, 0, 1)[None])
        if not outputs.any():
            raise self._network.unlike("its output is nothing but zeros")
        return unit(outputs[0])


class OnnxReader:
    """A detector and a recognition network, each an ONNX file."""

    def __init__(self, setting: Identity) -> None:
        """Raises ConfigError and MissingExtra as `Recognition` does."""
        if setting.detector is None or setting.recognition is None:
            raise ConfigError("identity: kind onnx needs detector and recognition")
        self._find = open_finder(setting.detector, setting)
        self._embed = Recognition(setting.recognition, setting)

    def __call__(self, picture: Image.Image) -> Sequence[ReadFace]:
        """The faces in RGB `picture`."""
        return [
            ReadFace(face.box, face.confidence, self._embed(picture, face.points))
            for face in self._find(picture)
        ]


def open_finder(path: Path, setting: Identity) -> FaceFinder:
    """The detector of faces in the file at `path`.

    Raises:
        ConfigError: the file is missing, or holds another network.
        MissingExtra: ONNX Runtime is not installed, or has no CUDA where `device` is `card`.
    """
    network = Network(path, expected="BlazeFace or SCRFD with points", device=setting.device)
    if BlazeFace.is_in(network):
        return BlazeFace(network, confidence=setting.confidence)
    return Scrfd(network, size=setting.detector_size, confidence=setting.confidence)
