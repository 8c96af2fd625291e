"""A request's controls -> control maps, drawn or decoded in threads while other work goes on.

Axes: c controls; H, W pixels of the request.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from intaglio.contract.detectors import CANNY, NO_DETECTOR
from intaglio.contract.models import PaletteName
from intaglio.detectors.served import ServedDetectors
from intaglio.detectors.sizing import sized
from intaglio.imaging.canny import canny_map
from intaglio.imaging.images import decode_image
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.palettes import in_palette
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.imaging.resizing import resized
from intaglio.recently_used import RecentlyUsed
from intaglio.request.request import Request

__all__ = ["ControlMaps", "MapJob"]

KEPT_MAPS: Final = 8
"""Control maps kept for a caller who sends the same picture again.

At 1024x1024 they take 24 MB, and each saves 25 ms of decoding a PNG.
"""

Map = NDArray[np.uint8]
"""[H, W, RGB]."""


@dataclass(frozen=True, slots=True)
class MapJob:
    """A control map that a thread makes, or has made."""

    key: Hashable
    """All that the map depends on."""
    made: Future[Map]


class ControlMaps:
    """Threads that make control maps, and the maps made last. Entering it starts the threads."""

    def __init__(self, poses: PoseLibrary, detectors: ServedDetectors, *, most_pixels: int) -> None:
        """An input image has at most `most_pixels`."""
        self._poses = poses
        self._detectors = detectors
        self._most_pixels = most_pixels
        self._kept: RecentlyUsed[Future[Map]] = RecentlyUsed(KEPT_MAPS)

    def __enter__(self) -> Self:
        self._threads = ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="map")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def started(
        self, request: Request, palettes: Sequence[PaletteName | None] = ()
    ) -> Iterator[list[MapJob]]:
        """Start making the map of every control; when the block is left, no thread works on them any more.

        `palettes` has one entry for each control: the colours that its ControlNet has learnt, or None.
        Pillow releases the interpreter's lock while it decodes, so the block can do other work meanwhile.
        """
        jobs: list[MapJob] = []
        until = self._detectors.deadline()  # for all photographs of the request together
        try:
            for index in range(len(request.controls)):
                palette = palettes[index] if palettes else None
                jobs.append(self._start(request, index, palette, until))
            yield jobs
        finally:
            for job in jobs:
                job.made.cancel()
            wait([job.made for job in jobs])

    def finished(self, jobs: Sequence[MapJob]) -> Map:
        """[c, H, W, RGB] maps of `jobs`, read-only; [1, 1, 1, RGB] zeros without any. Waits.

        Raises:
            InvalidRequest: see `decode_image` and `PoseLibrary.load`.
            ConfigError, DetectorFailed: see `ServedDetectors`.
        """
        if not jobs:
            return np.zeros((1, 1, 1, 3), np.uint8)
        maps = [job.made.result() for job in jobs]
        for job in jobs:
            self._kept.put(job.key, job.made)
        stacked = maps[0][None] if len(maps) == 1 else np.stack(maps)
        stacked.flags.writeable = False  # of one map no copy is taken, and that map is kept
        return stacked

    def _start(self, request: Request, index: int, palette: PaletteName | None, until: float) -> MapJob:
        """Start a thread, unless the map was made lately."""
        control = request.controls[index]
        source: Hashable
        if control.pose is not None:
            source = (control.pose, self._poses.version(control.pose))  # a pose may come, go or change
        else:
            source = request.image_digests[control.image or 0]
        making = (control.preprocess, control.resize, control.palette, palette)
        key = (control.pose is None, source, *making, request.width, request.height)
        made = self._kept.get(key)
        if made is None:
            made = self._threads.submit(self._make, request, index, palette, until)
        return MapJob(key, made)

    def _make(self, request: Request, index: int, palette: PaletteName | None, until: float) -> Map:
        """[H, W, RGB]."""
        control = request.controls[index]
        if control.pose is not None:
            keypoints = self._poses.load(control.pose, field=f"controls[{index}].pose")
            return draw_pose(keypoints, width=request.width, height=request.height)
        if control.preprocess in (NO_DETECTOR, CANNY) and control.preprocess not in self._detectors.types:
            return self._made_here(request, index, palette)
        photo = request.images[control.image or 0]
        name = f"images[{control.image}]"
        found = self._detectors(control.preprocess, photo, name=name, until=until)
        detection = sized(found.annotated.detection, (request.width, request.height), control.resize)
        if detection.classes and palette is not None:
            return in_palette(detection.map, palette, named=None, field=f"controls[{index}].image")
        return detection.map

    def _made_here(self, request: Request, index: int, palette: PaletteName | None) -> Map:
        """The image as it is, or its Canny edges: neither needs the process of detectors.

        Images are resized with Lanczos as diffusers does; maps whose colours are classes take the nearest
        pixel, since a mixture of two colours is no class.
        """
        control = request.controls[index]
        source = control.image or 0
        image = decode_image(request.images[source], field=f"images[{source}]", most_pixels=self._most_pixels)
        classes = palette or control.palette
        if control.preprocess != NO_DETECTOR:
            classes = None  # the map is made of a photograph
        method = Image.Resampling.LANCZOS if classes is None else Image.Resampling.NEAREST
        image = resized(image, (request.width, request.height), control.resize, method=method)
        pixels = np.asarray(image, dtype=np.uint8)
        if classes is not None:
            return in_palette(pixels, classes, named=control.palette, field=f"controls[{index}].image")
        return canny_map(pixels) if control.preprocess == CANNY else pixels
