"""How a running server goes from one build to another.

load      the new version of the stages is loaded and warmed up, while the old version serves
switch    the public models are loaded with the new version; requests that are under way finish with the old
unload    the old version is unloaded once the last of those requests has its answer

No failure of these steps is Unavailable: a change that is tried again unchanged fails again.
"""

# ruff: noqa: N818  (as the names in intaglio.errors)

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from intaglio.errors import IntaglioError
from intaglio.serving.process import TritonProcess
from intaglio.serving.versions import ServedRepository, ServedVersion

__all__ = ["ChangeTimes", "LoadFailed", "UnloadFailed", "VersionChange", "remove_unloaded"]

_SETTLE_SECONDS: Final = 1.0
"""Time after which a request that came before the switch is sure to have reached its stages. An instant would
do.
"""
_POLL_SECONDS: Final = 0.1
_UNLOAD_SECONDS: Final = 600.0
"""The longest that the old version may take for the requests that it still has."""
_log = logging.getLogger(__name__)


class LoadFailed(IntaglioError):
    """The new version cannot be loaded or chosen; the old one still serves."""


class UnloadFailed(IntaglioError):
    """The new version serves, and the old one is still loaded."""


@dataclass(frozen=True, slots=True)
class ChangeTimes:
    """Seconds of each step."""

    load: float
    switch: float
    unload: float


@dataclass(frozen=True)
class VersionChange:
    """The change of a running Triton from `old` to `new`."""

    process: TritonProcess
    repository: ServedRepository
    old: ServedVersion
    new: ServedVersion
    report: Callable[[str], None]
    stopping: Callable[[], bool] = lambda: False
    """Whether the server stops; then nothing waits for the old version."""

    def run(self, switched: Callable[[], None]) -> ChangeTimes:
        """Make the change; `switched` is called as soon as the new version serves.

        Raises:
            LoadFailed: the new version could not be loaded or chosen; the old one serves.
            UnloadFailed: the new version serves; the old one still takes memory.
        """
        started = time.perf_counter()
        self.report(f"loading {self.new.shown} beside {self.old.shown}")
        try:
            self.repository.add(self.new)
            self.repository.list_versions(self.old, self.new)
            self._load(self.new.stages)
            loaded = time.perf_counter()
            self.repository.choose(self.new)
            self._load(self.new.public)
        except IntaglioError as error:
            self._take_back()
            raise LoadFailed(f"{error}; {self.old.shown} still serves") from error
        except BaseException:
            self._take_back()
            raise
        switched()
        self.process.watch(self.new.number)
        done = time.perf_counter()
        self.report(f"{self.new.shown} serves; {self.old.shown} finishes its requests")
        time.sleep(_SETTLE_SECONDS)
        return ChangeTimes(loaded - started, done - loaded, self._unload_old())

    def _take_back(self) -> None:
        """Undo the change as far as possible. Where Triton itself is gone nothing can be loaded, and its next
        start finds exactly one version.
        """
        # One block: what cannot be written must not be loaded.
        with _as_far_as_possible():
            self.repository.choose(self.old)
            self._load(self.old.public)
        with _as_far_as_possible():
            self.repository.list_versions(self.old)
            for model in self.old.stages:
                with _as_far_as_possible():
                    self._load([model])
        self.repository.remove(self.new, self.new.number)

    def _unload_old(self) -> float:
        """Unload the old version, which waits for its requests; seconds that took.

        Raises:
            UnloadFailed: it is still loaded; its memory stays taken until its requests end. From then on there
                are no metrics until the next reload, also one that finds nothing new.
        """
        started = time.perf_counter()
        until = started + _UNLOAD_SECONDS
        try:
            # The old stages stay until the last picture that streams from them is there.
            self._wait_for(self.old.callers, until=until)
            self.repository.list_versions(self.new)
            self._load(self.new.stages)
            self._wait_for(self.old.stages, until=until)
            remove_unloaded(self.process, self.repository, self.new)
        except IntaglioError as error:
            left = f"{self.old.shown} is removed at the next start"
            raise UnloadFailed(f"{error}; {self.new.shown} serves, {left}") from error
        return time.perf_counter() - started

    def _wait_for(self, models: tuple[str, ...], *, until: float) -> None:
        """Wait until the old version of `models` is unloaded.

        Raises:
            UnloadFailed: it is still loaded at `until`.
        """
        while self.process.administration.has_loaded(self.old.number, models):
            if self.stopping():
                raise UnloadFailed("the server is stopping")
            if time.perf_counter() > until:
                raise UnloadFailed(f"{self.old.shown} has not ended its requests for {_UNLOAD_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)

    def _load(self, models: Iterable[str]) -> None:
        for model in models:
            self.process.administration.load_model(model)


def remove_unloaded(process: TritonProcess, repository: ServedRepository, served: ServedVersion) -> None:
    """Remove the folders of every version but `served` that is unloaded, also of those that could not be
    unloaded at their time. The metrics of `served` start once no other version is left.
    """
    for number in repository.numbers(served) - {served.number}:
        if not process.administration.has_loaded(number, served.stages):
            repository.remove(served, number)


@contextlib.contextmanager
def _as_far_as_possible() -> Iterator[None]:
    try:
        yield
    except IntaglioError as error:
        _log.warning("a failed reload is undone only in part: %s", error)
