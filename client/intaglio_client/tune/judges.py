"""What else judges a picture: a function that the user names, and an extractor of features."""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio.errors import ConfigError, InvalidRequest
from intaglio.onnx_runtime import onnx_runtime
from intaglio_client.tune.distances import Pixels

__all__ = ["Extractor", "Judge", "check_paired", "judge_called"]

Judge = Callable[[str, Pixels], Mapping[str, float]]
"""Figures of a picture [H, W, RGB] of the scene with a name. Larger is better. It gives the same figures for
every picture of a scene.
"""
_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)
"""ImageNet's, which extractors of features are trained with."""
_SIDE: Final = 224
"""Where the network takes pictures of any size."""


def judge_called(name: str) -> Judge:
    """The function `module:function`; the current folder counts as a place of modules.

    Raises:
        InvalidRequest: there is no such function.
    """
    allowed = "MODULE:FUNCTION; it gets a scene's name and a picture, and returns figures by name"
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise InvalidRequest("judge", repr(name), allowed=allowed)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Judge = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest("judge", f"{name}: {error}", allowed=allowed) from error
    return found


def check_paired(figures: Mapping[str, float], others: Mapping[str, float]) -> None:
    """Check what a judge says of two pictures of one scene, whose figures are subtracted.

    Raises:
        ConfigError: they have different figures, or one that is no finite number.
    """
    if figures.keys() != others.keys():
        given = " and ".join(", ".join(sorted(one)) or "nothing" for one in (figures, others))
        raise ConfigError(
            f"--judge: gives {given} of two pictures of one scene; allowed: the same figures of both"
        )
    for name, value in (*figures.items(), *others.items()):
        if not math.isfinite(value):
            raise ConfigError(f"--judge: {name} of a picture is {value}; allowed: a finite number")


class Extractor:
    """An ONNX network from a picture [1, 3, H, W] to features, such as the image encoder of DINO or CLIP."""

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int] | None = None,
        mean: Sequence[float] = _MEAN,
        deviation: Sequence[float] = _DEVIATION,
    ) -> None:
        """Pictures become values of 0..1, minus `mean` over `deviation` (R, G, B), at `size` (width, height):
        by default that of the network, or 224 where it takes any.

        Raises:
            MissingExtra: ONNX Runtime is not installed.
            ConfigError: the file is no such network, or takes another size.
        """
        onnxruntime = onnx_runtime()  # of the extra `serve`: only who gives an extractor needs it
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no error that all of its others are kinds of
            raise ConfigError(f"{path}: cannot be opened as ONNX: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(f"{one.name} {one.shape}" for one in inputs)
            raise ConfigError(f"{path}: inputs are {shapes}; allowed: one picture [1, 3, height, width]")
        self._input = inputs[0].name
        height, width = inputs[0].shape[2:]
        wanted = size or (_SIDE, _SIDE)
        self._size = (
            width if isinstance(width, int) else wanted[0],
            height if isinstance(height, int) else wanted[1],
        )
        if size is not None and self._size != size:
            raise ConfigError(f"{path}: takes pictures of {list(self._size)}, not of {list(size)}")
        self._mean = np.asarray(mean, np.float32)
        self._deviation = np.asarray(deviation, np.float32)

    def output(self, pixels: Pixels) -> NDArray[np.float64]:
        """The first output for a picture [H, W, RGB], as a vector."""
        resized = PIL.Image.fromarray(pixels).resize(self._size, PIL.Image.Resampling.BICUBIC)
        values = (np.asarray(resized, np.float32) / 255 - self._mean) / self._deviation
        output = self._session.run(None, {self._input: values.transpose(2, 0, 1)[None]})[0]
        return np.asarray(output, np.float64).ravel()

    def features(self, pixels: Pixels) -> NDArray[np.float64]:
        """The same as a vector of length 1."""
        vector = self.output(pixels)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def distance(self, found: Pixels, expected: Pixels) -> float:
        """1 minus the cosine of the angle between the features: 0 for equal pictures."""
        return float(1 - self.features(found) @ self.features(expected))
