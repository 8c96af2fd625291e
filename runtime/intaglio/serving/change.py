"""A running server goes from one build to another: the new version is loaded beside the old one, chosen, and the old one unloaded.

load      the stages' new version, warmed up as at a start; the old one goes on serving
switch    the ensemble, pinned to the new version; requests that are under way finish with the stages they began with
unload    the old version, once the last of those has its answer
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from intaglio.errors import IntaglioError, Unavailable
from intaglio.models import DIFFUSE, POSTPROCESS, PREPROCESS, SDXL
from intaglio.serving.process import TritonProcess
from intaglio.serving.versions import ServedRepository, ServedVersion

__all__ = ["ChangeTimes", "VersionChange"]

_STAGES: Final = tuple(model.name for model in (DIFFUSE, PREPROCESS, POSTPROCESS))
"""The one that fails first comes first."""
_SETTLE_SECONDS: Final = 1.0
"""A request that was handed to the ensemble before the switch has its stages by then: an instant, given plenty."""
_POLL_SECONDS: Final = 0.1


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
            for model in _STAGES:
                self.process.load_model(model)
            loaded = time.perf_counter()
            self.repository.choose(self.new)
            self.process.load_model(SDXL.name)
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
        """Where Triton itself is gone there is nothing to load: its next start finds exactly one version."""
        self.repository.choose(self.old)
        self.repository.list_versions(self.old)
        for model in (SDXL.name, *_STAGES):
            with contextlib.suppress(IntaglioError):
                self.process.load_model(model)
        self.repository.remove(self.new)

    def _unload_old(self) -> float:
        """Waits for as long as requests of the old version take, or Triton lives."""
        started = time.perf_counter()
        try:
            self.repository.list_versions(self.new)
            for model in _STAGES:
                self.process.load_model(model)
            while self.process.has_loaded(self.old.number, _STAGES):
                time.sleep(_POLL_SECONDS)
        except Unavailable as error:
            raise Unavailable(f"{error}; {self.new.shown} serves, {self.old.shown} goes with the next start") from error
        self.repository.remove(self.old)
        return time.perf_counter() - started
