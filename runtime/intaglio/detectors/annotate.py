"""Encoded photographs -> detections, through the cache. Networks are opened when the first one needs them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from intaglio.detectors.cache import DetectionCache, detection_key
from intaglio.detectors.detection import Detection, Detector
from intaglio.detectors.opening import ChosenDetector
from intaglio.imaging.images import decode_image

__all__ = ["Annotated", "Annotator"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Annotated:
    """A detection, and whether it was made earlier."""

    detection: Detection
    cached: bool


class Annotator:
    """One detector with its cache."""

    def __init__(self, chosen: ChosenDetector, cache: DetectionCache | None, *, most_pixels: int) -> None:
        """A photograph has at most `most_pixels`. Without a cache every photograph is detected again."""
        self._chosen = chosen
        self._cache = cache
        self._most_pixels = most_pixels
        self._opened: Detector | None = None

    def __call__(self, photo: bytes, *, name: str) -> Annotated:
        """The detection of the encoded `photo`; errors call it `name`.

        Raises:
            InvalidRequest: it is no picture (see `decode_image`), or has nothing that the detector looks for.
            ConfigError: a file of the detector is missing, or holds another network.
            MissingExtra: ONNX Runtime or OpenCV is not installed.
        """
        key = detection_key(photo, self._chosen.version)
        kept = None if self._cache is None else self._cache.get(key)
        if kept is not None:
            return Annotated(kept, cached=True)
        picture = decode_image(photo, field=name, most_pixels=self._most_pixels)
        if self._opened is None:
            self._opened = self._chosen.open()
        detection = self._opened(picture, name=name)
        if self._cache is not None:
            self._keep(key, detection, self._cache)
        return Annotated(detection, cached=False)

    def _keep(self, key: str, detection: Detection, cache: DetectionCache) -> None:
        """Keep `detection`. A folder that cannot be written, such as a read-only build's, costs only time."""
        try:
            cache.put(key, detection)
        except OSError as error:
            _log.warning("detections are not kept: %s", error)
