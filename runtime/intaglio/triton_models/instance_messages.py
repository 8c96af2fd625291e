"""What the process of `diffuse` and the processes of its instances say to each other, pickled over a socket.

Both are of one installation and of one user, and nobody else has the socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.lora_registry import ResolvedLora
from intaglio.engines.interface import Array
from intaglio.errors import IntaglioError
from intaglio.loras.sets import set_digest
from intaglio.loras.switch import SwapCounts
from intaglio.stages.diffuse.controlnets import ControlNetCounts
from intaglio.stages.diffuse.drawing import Drawing

__all__ = [
    "DEVICE_FAILED_STATUS",
    "Advance",
    "Advanced",
    "Answer",
    "Finish",
    "Finished",
    "LoraState",
    "Open",
    "ResidentControls",
    "State",
]

DEVICE_FAILED_STATUS: Final = 74
"""Exit status of a process that draws and whose card failed: EX_IOERR of sysexits.h."""


@dataclass(frozen=True, slots=True)
class Open:
    """The first message: what to open."""

    number: int
    """Of the instance."""
    manifest: BuildManifest
    folder: Path
    hashes: bool
    """Whether the files are compared with the build byte by byte."""


@dataclass(frozen=True, slots=True)
class Advance:
    """Draw the next slice of picture `number`."""

    number: int
    drawing: Drawing | None
    """The picture, where this process has not had it yet."""
    kept: frozenset[int]
    """Pictures that may go on here; all others are over."""


@dataclass(frozen=True, slots=True)
class Finish:
    """Make the outputs `wanted` of picture `number`, all of whose steps have run."""

    number: int
    wanted: tuple[str, ...]


@dataclass(slots=True)
class LoraState:
    """What is known of the LoRAs of an instance."""

    resident: tuple[ResolvedLora, ...] | None = ()
    digest: str = field(default_factory=lambda: set_digest(()))
    counts: SwapCounts = field(default_factory=SwapCounts)


@dataclass(slots=True)
class ResidentControls:
    """What is known of the ControlNets of an instance."""

    resident: tuple[str, ...] = ()
    counts: ControlNetCounts = field(default_factory=ControlNetCounts)


@dataclass(slots=True)
class State:
    """What is resident in an instance, and what it has done since its process began."""

    loras: LoraState | None = None
    """None where the set is fused."""
    controlnets: ResidentControls = field(default_factory=ResidentControls)

    def add_counts(self, earlier: State) -> None:
        """Let the counts go on from those of the processes before."""
        if self.loras is None and earlier.loras is not None:
            # A process that could not open its engines knows of no LoRAs. The next one goes on from here.
            self.loras = LoraState((), counts=SwapCounts(last_seconds=earlier.loras.counts.last_seconds))
        pairs: list[tuple[SwapCounts | ControlNetCounts, SwapCounts | ControlNetCounts]] = [
            (self.controlnets.counts, earlier.controlnets.counts)
        ]
        if self.loras is not None and earlier.loras is not None:
            pairs.append((self.loras.counts, earlier.loras.counts))
        for counts, before in pairs:
            counts.swaps += before.swaps
            counts.failures += before.failures
            counts.seconds += before.seconds


@dataclass(frozen=True, slots=True)
class Advanced:
    """How far the picture is."""

    step: int
    state: NDArray[np.float32]
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Finished:
    """Outputs of a picture."""

    outputs: Mapping[str, Array]
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to any message; one to `Open` has neither a result nor, if all is well, an error."""

    state: State
    result: Advanced | Finished | None = None
    error: IntaglioError | None = None
