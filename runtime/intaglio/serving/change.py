"""A running server goes from one build to another: the new version is loaded beside the old one, chosen, and
the old one unloaded.

load      the stages' new version, warmed up as at a start; the old one goes on serving
switch    the ensemble, pinned to the new version; requests that are under way finish with the stages they began with
unload    the old version, once the last of those has its answer
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from intaglio.errors import IntaglioError, Unavailable
from intaglio.serving.process import TritonProcess
from intaglio.serving.versions import ServedRepository, ServedVersion

__all__ = ["ChangeTimes", "VersionChange"]

_SETTLE_SECONDS: Final = 1.0
"""A request that was handed to the ensemble before the switch has its stages by then: an instant, given
plenty.
"""
_POLL_SECONDS: Final = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChangeTimes:
    """Seconds of each step."""

    load: float
    switch: float
    unload: float


@dataclass(frozen=True)
class VersionChange:
    """From `old` to `new`, on a running Triton."""

    process: TritonProcess
    repository: ServedRepository
    old: ServedVersion
    new: ServedVersion
    report: Callable[[str], None]

    def run(self, switched: Callable[[], None]) -> ChangeTimes:
        """`switched` is called as soon as the new version serves.

        Raises:
            Unavailable: the new version could not be loaded or chosen; the old one serves.
        """
        started = time.perf_counter()
        self.report(f"loading {self.new.shown} beside {self.old.shown}")
        try:
            self.repository.add(self.new)
            self.repository.list_versions(self.old, self.new)
            self._load(self.new.stages)
            loaded = time.perf_counter()
            self.repository.choose(self.new)
            self._load(self.new.ensembles)
        except IntaglioError as error:
            self._take_back()
            raise Unavailable(f"{error}; {self.old.shown} still serves") from error
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
        """As much of it as can be: where Triton itself is gone there is nothing to load, and its next start
        finds exactly one version.
        """
        with _as_far_as_possible():  # what could not be written must not be loaded
            self.repository.choose(self.old)
            self._load(self.old.ensembles)
        with _as_far_as_possible():
            self.repository.list_versions(self.old)
            for model in self.old.stages:
                with _as_far_as_possible():
                    self._load([model])
        self.repository.remove(self.new, self.new.number)

    def _unload_old(self) -> float:
        """Waits for as long as requests of the old version take, or Triton lives."""
        started = time.perf_counter()
        try:
            self.repository.list_versions(self.new)
            self._load(self.new.stages)
            while self.process.has_loaded(self.old.number, self.old.stages):
                time.sleep(_POLL_SECONDS)
            self._remove_unloaded()
        except Unavailable as error:
            raise Unavailable(
                f"{error}; {self.new.shown} serves, {self.old.shown} goes with the next start"
            ) from error
        return time.perf_counter() - started

    def _remove_unloaded(self) -> None:
        """The old version's folders, and those of versions before it that did not go at their time: metrics
        come with the last.
        """
        for number in self.repository.numbers(self.new) - {self.new.number}:
            if not self.process.has_loaded(number, self.new.stages):
                self.repository.remove(self.new, number)

    def _load(self, models: Iterable[str]) -> None:
        for model in models:
            self.process.load_model(model)


@contextlib.contextmanager
def _as_far_as_possible() -> Iterator[None]:
    try:
        yield
    except IntaglioError as error:
        _log.warning("a reload that failed is taken back in part: %s", error)
