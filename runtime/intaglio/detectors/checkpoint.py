"""Checkpoints of the package transformers: depth estimation and semantic segmentation. They need torch."""

# ruff: noqa: PLC0415  (the package and torch are an extra)

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.detectors import DetectorSource
from intaglio.detectors.depth import depth_map
from intaglio.detectors.detection import Detection, check_proportions
from intaglio.errors import ConfigError, MissingExtra
from intaglio.imaging.palettes import class_colours

__all__ = ["CheckpointDetector"]

_DEPTH = "ForDepthEstimation"
_SEGMENTATION = "ForSemanticSegmentation"


class CheckpointDetector:
    """A checkpoint; the name of its architecture says what it does. Making one reads its weights."""

    def __init__(self, source: DetectorSource) -> None:
        """Read the weights.

        Raises:
            ConfigError: files are missing, or hold something else.
            MissingExtra: transformers or torch is not installed.
        """
        for path in source.files:
            if not path.is_file():
                raise ConfigError(f"{path}: no such file; put a checkpoint of transformers there")
        self._folder = source.folder
        self._package = _package()
        self._config = self._read(self._package.AutoConfig)
        is_metric = getattr(self._config, "depth_estimation_type", "relative") == "metric"
        self._near: Literal["large", "small"] = "small" if is_metric else source.near
        self._processor = self._read(self._package.AutoImageProcessor)
        named = (self._config.architectures or ["no architecture"])[0]
        self._segments = named.endswith(_SEGMENTATION)
        if not self._segments and not named.endswith(_DEPTH):
            allowed = f"a checkpoint whose architecture ends in {_DEPTH} or {_SEGMENTATION}"
            raise ConfigError(f"{source.folder}: holds {named}; allowed: {allowed}")
        kind = f"AutoModel{_SEGMENTATION if self._segments else _DEPTH}"
        self._model = self._read(getattr(self._package, kind), use_safetensors=True).eval()
        if self._segments:
            self._colours = class_colours(int(self._config.num_labels))

    def _read(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(self._folder, local_files_only=True, **options)
        except Exception as error:  # its loaders share no base class
            right = "it must be a checkpoint of transformers"
            raise ConfigError(f"{self._folder}: does not load: {error}; {right}") from error

    def __call__(self, photo: Image.Image, *, name: str) -> Detection:
        """The map of `photo`, in its size.

        Raises:
            InvalidRequest: the depth is the same everywhere, or the photograph is a narrow strip.
            ConfigError: the depth holds numbers that are not finite.
        """
        import torch

        check_proportions(photo, name=name)
        inputs = self._processor(images=photo, return_tensors="pt")
        with torch.no_grad():
            outputs = self._model(**inputs)
        if self._segments:
            classes = _likeliest(outputs.logits[0], (photo.height, photo.width))
            return Detection(self._colours[classes], classes=True)
        depth = outputs.predicted_depth[0].numpy()
        if not np.isfinite(depth).all():
            raise ConfigError(f"{self._folder}: its depth holds numbers that are not finite; check the file")
        return Detection(depth_map(depth, photo.size, near=self._near, name=name))


def _likeliest(logits: Any, size: tuple[int, int]) -> NDArray[np.int64]:
    """[H, W] class of every pixel of a picture of `size`, height and width, from [classes, h, w] `logits`.

    As `post_process_semantic_segmentation`, but one class after another: all 150 of ADE20K at the size of a
    photograph of 12 megapixels would take 7 GB.
    """
    import torch

    found = torch.zeros(size, dtype=torch.int64)
    best = torch.full(size, -torch.inf)
    for number, plane in enumerate(logits):
        grown = torch.nn.functional.interpolate(plane[None, None], size=size, mode="bilinear")[0, 0]
        found[grown > best] = number
        best = torch.maximum(best, grown)
    classes: NDArray[np.int64] = found.numpy()
    return classes


def _package() -> Any:
    try:
        import torch
        import transformers
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "transformers", extra="controlnet-aux") from error
    del torch  # without it transformers is there, and its models are not
    return transformers
