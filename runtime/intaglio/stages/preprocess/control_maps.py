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

from intaglio.imaging.canny import canny_map
from intaglio.imaging.images import decode_image
from intaglio.imaging.openpose import draw_pose
from intaglio.imaging.pose_library import PoseLibrary
from intaglio.recently_used import RecentlyUsed
from intaglio.request.request import ControlRequest, Request

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

    def __init__(self, poses: PoseLibrary, *, most_pixels: int) -> None:
        """An input image has at most `most_pixels`."""
        self._poses = poses
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
    def started(self, request: Request) -> Iterator[list[MapJob]]:
        """Start making the map of every control; when the block is left, no thread works on them any more.

        Pillow releases the interpreter's lock while it decodes, so the block can do other work meanwhile.
        """
        jobs: list[MapJob] = []
        try:
            for index in range(len(request.controls)):
                jobs.append(self._start(request, index))
            yield jobs
        finally:
            for job in jobs:
                job.made.cancel()
            wait([job.made for job in jobs])

    def finished(self, jobs: Sequence[MapJob]) -> Map:
        """[c, H, W, RGB] maps of `jobs`, read-only; [1, 1, 1, RGB] zeros without any. Waits.

        Raises:
            InvalidRequest: see `decode_image` and `PoseLibrary.load`.
        """
        if not jobs:
            return np.zeros((1, 1, 1, 3), np.uint8)
        maps = [job.made.result() for job in jobs]
        for job in jobs:
            self._kept.put(job.key, job.made)
        stacked = maps[0][None] if len(maps) == 1 else np.stack(maps)
        stacked.flags.writeable = False  # of one map no copy is taken, and that map is kept
        return stacked

    def _start(self, request: Request, index: int) -> MapJob:
        """Start a thread, unless the map was made lately."""
        control = request.controls[index]
        source: Hashable
        if control.pose is not None:
            source = (control.pose, self._poses.version(control.pose))  # a pose may come, go or change
        else:
            source = request.image_digests[control.image or 0]
        key = (control.pose is None, source, control.preprocess, request.width, request.height)
        made = self._kept.get(key)
        if made is None:
            made = self._threads.submit(self._make, request, index, control)
        return MapJob(key, made)

    def _make(self, request: Request, index: int, control: ControlRequest) -> Map:
        """[H, W, RGB]; images are resized as diffusers does (Lanczos, aspect not kept)."""
        if control.pose is not None:
            keypoints = self._poses.load(control.pose, field=f"controls[{index}].pose")
            return draw_pose(keypoints, width=request.width, height=request.height)
        source = control.image or 0
        image = decode_image(request.images[source], field=f"images[{source}]", most_pixels=self._most_pixels)
        if image.size != (request.width, request.height):
            image = image.resize((request.width, request.height), Image.Resampling.LANCZOS)
        pixels = np.asarray(image, dtype=np.uint8)
        return canny_map(pixels) if control.preprocess == "canny" else pixels
