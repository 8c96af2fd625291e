"""The detectors of a build that is served. What was detected before is read; their process does the rest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from intaglio.builds.manifest import BuildManifest
from intaglio.detectors.annotate import Annotated
from intaglio.detectors.cache import CACHE_FOLDER, DetectionCache, detection_key
from intaglio.detectors.messages import Setting
from intaglio.detectors.opening import ChosenDetector, choose_detector
from intaglio.detectors.process import DetectorWorker
from intaglio.errors import InvalidRequest

__all__ = ["ServedDetection", "ServedDetectors"]


@dataclass(frozen=True, slots=True)
class ServedDetection:
    """A detection and the detector that made it."""

    annotated: Annotated
    chosen: ChosenDetector


class ServedDetectors:
    """The detectors of one build. Entering starts nothing; leaving ends their process."""

    def __init__(self, manifest: BuildManifest, folder: Path) -> None:
        """`folder` is the build's; detections are kept beside it."""
        self._detectors = {name: source.below(folder) for name, source in manifest.detectors.items()}
        self._limits = manifest.limits
        self._cache = DetectionCache(folder.parent / CACHE_FOLDER)
        self._deadline_seconds = manifest.detector_process.deadline_seconds
        self.worker = DetectorWorker(
            Setting(
                detectors=self._detectors,
                cache=folder.parent / CACHE_FOLDER,
                most_pixels=manifest.limits.input_pixels,
                idle_seconds=manifest.detector_process.idle_seconds,
            )
        )

    def __enter__(self) -> Self:
        self.worker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.worker.__exit__(kind, error, trace)

    @property
    def types(self) -> Mapping[str, str]:
        """The type of map that each detector makes, by id."""
        return {name: source.type for name, source in self._detectors.items()}

    @property
    def most_pixels(self) -> int:
        """Most pixels of a photograph, and of a map."""
        return self._limits.input_pixels

    def deadline(self) -> float:
        """The time of `time.monotonic` at which the photographs of a request that comes now must be read."""
        return time.monotonic() + self._deadline_seconds

    def __call__(
        self, wanted: str, photo: bytes, *, name: str, until: float, field: str = "detector"
    ) -> ServedDetection:
        """What the detector or type `wanted` makes of the encoded `photo`.

        Errors call the photograph `name` and the choice of the detector `field`.

        Raises:
            InvalidRequest: there is no such detector, or the photograph is no picture, too large, or has
                nothing that the detector looks for.
            ConfigError: a file of the detector is missing, or holds another network.
            DetectorFailed: the process crashed, or did not answer before `until`.
        """
        if not 0 < len(photo) <= self._limits.input_bytes:
            allowed = f"1 to {self._limits.input_bytes} bytes of PNG, JPEG or WEBP"
            raise InvalidRequest(name, f"{len(photo)} bytes", allowed=allowed)
        chosen = choose_detector(wanted, self._detectors, field=field)
        kept = self._cache.get(detection_key(photo, chosen.version))
        if kept is not None:
            return ServedDetection(Annotated(kept, cached=True), chosen)
        return ServedDetection(self.worker(chosen.name, photo, name=name, until=until), chosen)
