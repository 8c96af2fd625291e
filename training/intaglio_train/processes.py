"""Which of a run's processes this one is. No torch is loaded."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["is_first", "launched_processes", "was_left_alone"]

_COUNTS: Final = (
    "WORLD_SIZE",  # torchrun and accelerate launch
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
)
_COUNT_OF_SRUN: Final = "SLURM_STEP_NUM_TASKS"
_MEETING_PLACE: Final = "MASTER_ADDR"
"""Where the processes of one run meet. Independent runs that srun starts together have none."""
_RANKS: Final = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID")


def launched_processes() -> int:
    """How many processes a launcher started together with this one; 1 without a launcher."""
    counts = list(_COUNTS)
    if _MEETING_PLACE in os.environ:
        counts.append(_COUNT_OF_SRUN)
    return max(_number(name, 1) for name in counts)


def is_first() -> bool:
    """Whether this is the process that writes files and speaks; true without a launcher."""
    return launched_processes() == 1 or not any(_number(name, 0) for name in _RANKS)


def was_left_alone() -> bool:
    """Whether `accelerate launch` was asked for several processes and started this one only.

    It does so on a CPU without MPI: it tells the process where the others would meet, and starts no others
    (accelerate 1.x, `prepare_simple_launcher_cmd_env`).
    """
    by_accelerate = "ACCELERATE_MIXED_PRECISION" in os.environ
    # A cluster may export an address of its own for all its jobs, which is not this machine's own.
    told = os.environ.get(_MEETING_PLACE) == "127.0.0.1"
    return by_accelerate and told and launched_processes() == 1


def _number(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else otherwise
