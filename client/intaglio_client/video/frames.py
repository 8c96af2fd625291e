"""The frames of a video. At most three pictures are in memory: two that are shown, one that is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from intaglio_client.video.pictures import decoded
from intaglio_client.video.timeline import Moment, Timeline
from intaglio_client.video.transitions import BETWEEN, Transition
from intaglio_client.video.views import View

__all__ = ["frames_of"]


def frames_of(
    paths: Sequence[Path], timeline: Timeline, view: View, transition: Transition
) -> Iterator[Image.Image]:
    """Every frame, RGB in the size of `view`. Raises `ConfigError` naming a file that cannot be decoded."""
    with _Shown(paths, view) as shown:
        still: tuple[Moment, Image.Image] | None = None
        for moment in timeline.moments():
            shown.forget_before(moment.picture)
            if still is not None and _looks_equal(still[0], moment, view):
                yield still[1]
                continue
            frame = _frame(moment, shown, transition)
            still = (moment, frame)
            yield frame


def _looks_equal(before: Moment, moment: Moment, view: View) -> bool:
    """Whether nothing moves between two frames."""
    unmoved = not view.ken_burns and before.following is None and moment.following is None
    return unmoved and before.picture == moment.picture


def _frame(moment: Moment, shown: _Shown, transition: Transition) -> Image.Image:
    before = shown.frame(moment.picture, moment.progress)
    if moment.following is None:
        return before
    return BETWEEN[transition](before, shown.frame(moment.following, moment.following_progress), moment.share)


class _Shown:
    """Pictures by number, ready to be shown; the next one is read beside the work on the current one."""

    def __init__(self, paths: Sequence[Path], view: View) -> None:
        self._paths = paths
        self._view = view
        self._reader = ThreadPoolExecutor(1)
        self._ready: dict[int, Future[Image.Image]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.shutdown(cancel_futures=True)

    def frame(self, index: int, progress: float) -> Image.Image:
        """Picture `index` at `progress`."""
        self._read(index)
        self._read(index + 1)
        return self._view.shown(self._ready[index].result(), index, progress)

    def forget_before(self, index: int) -> None:
        """Give back the memory of the pictures before `index`."""
        for old in [number for number in self._ready if number < index]:
            del self._ready[old]

    def _read(self, index: int) -> None:
        if index < len(self._paths) and index not in self._ready:
            self._ready[index] = self._reader.submit(self._prepared, self._paths[index])

    def _prepared(self, path: Path) -> Image.Image:
        return self._view.prepared(decoded(path))
