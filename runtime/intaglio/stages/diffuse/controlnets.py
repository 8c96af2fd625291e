"""Which ControlNets are open: as many as the deployment allows, those that were used last.

A ControlNet that a request needs and that is not open takes the place of the one that was used longest ago.
Its engines are closed, so that the memory is free, and then those of the new one are opened from their files.
That needs no engine that can be refitted, and the step of a ControlNet takes as long as ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from intaglio.contract.sdxl import control_of, controlnet_networks
from intaglio.engines.interface import Engine

__all__ = ["ControlNetCounts", "EngineOpener", "ResidentControlNets"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ControlNetCounts:
    """What the metrics report; a request that opens several ControlNets is one swap."""

    swaps: int = 0
    failures: int = 0
    seconds: float = 0.0
    """Of all swaps."""
    last_seconds: float = 0.0


class EngineOpener(Protocol):
    """Opens engines by the name of their network."""

    def check(self, name: str) -> None:
        """Raise EngineMismatch where the engine's files are not those that were built."""

    def load(self, name: str) -> Engine:
        """The engine; raises EngineMismatch, Unavailable or DeviceFailed where it does not open."""


class ResidentControlNets:
    """The open ControlNets; one thread uses it."""

    def __init__(
        self,
        engines: dict[str, Engine],
        *,
        places: int,
        opener: EngineOpener,
        release: Callable[[str], None],
    ) -> None:
        """`engines` gets the open engines by network.

        `places` is the most ControlNets that are open at the same time. `release` is called with a
        ControlNet's network before its engines are closed: nobody may use them after that.
        """
        self._engines = engines
        self._places = places
        self._opener = opener
        self._release = release
        self.resident: tuple[str, ...] = ()
        """Networks of the open ControlNets, the one used last at the end."""
        self.counts = ControlNetCounts()

    def ensure(self, controlnets: Sequence[str]) -> bool:
        """Open those of the networks `controlnets` that are not open; whether there were any.

        They are at most as many as there are places. Where one cannot be opened, it is not resident,
        and those that are can be used as before. Files are checked before anything is closed.

        Raises:
            EngineMismatch: a file is missing or damaged, or does not load here.
            Unavailable: the memory does not suffice now.
            DeviceFailed: the card computes nothing more.
        """
        wanted = tuple(dict.fromkeys(controlnets))
        missing = [network for network in wanted if network not in self.resident]
        others = [network for network in self.resident if network not in wanted]
        self.resident = (*others, *(network for network in wanted if network in self.resident))
        if not missing:
            return False
        started = time.perf_counter()
        try:
            self._check(missing)  # nothing makes room for a file that is damaged
            # First: both together would be the peak of memory.
            for network in others[: max(len(self.resident) + len(missing) - self._places, 0)]:
                self._close(network)
            for network in missing:
                self._open(network)
        except Exception:
            self.counts.failures += 1
            raise
        seconds = time.perf_counter() - started
        self.counts.swaps += 1
        self.counts.seconds += seconds
        self.counts.last_seconds = seconds
        log.info("ControlNets %s opened (%.3f s)", ", ".join(map(control_of, missing)), seconds)
        return True

    def close(self) -> None:
        """Close all of them."""
        with ExitStack() as stack:
            for network in self.resident:
                stack.callback(self._close, network)

    def _check(self, networks: Sequence[str]) -> None:
        for network in networks:
            for name in controlnet_networks(network):
                self._opener.check(name)

    def _open(self, network: str) -> None:
        """Open all engines of a ControlNet, or none."""
        opened: dict[str, Engine] = {}
        with ExitStack() as stack:
            for name in controlnet_networks(network):
                opened[name] = self._opener.load(name)
                stack.callback(opened[name].close)
            stack.pop_all()
        self._engines.update(opened)
        self.resident = (*self.resident, network)

    def _close(self, network: str) -> None:
        self.resident = tuple(other for other in self.resident if other != network)
        self._release(network)
        with ExitStack() as stack:
            for name in controlnet_networks(network):
                stack.callback(self._engines.pop(name).close)
