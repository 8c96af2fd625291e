"""Where `diffuse` draws: on the card that Triton gives it, or where each of several instances runs, and how
long these may take to answer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from intaglio.contract.server import HANG_SECONDS
from intaglio.engines.card import check_gpu, gpu_count
from intaglio.triton_models.served_build import (
    GPUS_PARAMETER,
    HANG_SECONDS_PARAMETER,
    INSTANCES_PARAMETER,
)

__all__ = ["Place", "hang_seconds_of", "instance_gpu", "places_of"]

_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def instance_gpu(args: Mapping[str, str]) -> int | None:
    """The card that Triton gives its instance, as the instance group says; None for one on the CPU.

    `args` are those of Triton's `initialize`.
    """
    if args.get("model_instance_kind") != "GPU":
        return None
    return int(args["model_instance_device_id"])


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance runs."""

    number: int
    gpu: int | None = None
    """CUDA's index of its card; None on the CPU."""

    @property
    def label(self) -> str:
        """In metrics."""
        return str(self.number if self.gpu is None else self.gpu)

    @property
    def shown(self) -> str:
        """In words."""
        return f"instance {self.number}" if self.gpu is None else f"instance {self.number} (gpu {self.gpu})"

    def environment(self) -> dict[str, str]:
        """The variables of its process, which sees its own card only. So no library takes memory of another
        card, whatever it does before the card is chosen.
        """
        found = dict(os.environ)
        if self.gpu is not None:
            visible = found.get(_VISIBLE)
            names = visible.split(",") if visible else []
            found[_VISIBLE] = names[self.gpu].strip() if self.gpu < len(names) else str(self.gpu)
        return found


def places_of(parameters: Mapping[str, str]) -> tuple[Place, ...]:
    """Where the instances run that the `parameters` of the model ask for; empty where this process draws.

    Raises:
        ConfigError: CUDA does not see a card that is named.
    """
    if gpus := parameters.get(GPUS_PARAMETER):
        chosen = range(gpu_count()) if gpus == "all" else [int(gpu) for gpu in gpus.split(",")]
        for gpu in chosen:
            check_gpu(gpu, field="server.gpus")
        return tuple(Place(number, gpu) for number, gpu in enumerate(chosen))
    return tuple(Place(number) for number in range(int(parameters.get(INSTANCES_PARAMETER, "0"))))


def hang_seconds_of(parameters: Mapping[str, str]) -> float:
    """`server.hang_seconds`, which the `parameters` of the model hold where the deployment says so."""
    return float(parameters.get(HANG_SECONDS_PARAMETER, HANG_SECONDS))
