"""What a request says of its trajectory: the solver, and where its steps lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from intaglio.contract.models import Schedule as ScheduleName
from intaglio.errors import InvalidRequest

__all__ = ["SIGMA_SPACINGS", "TIME_SPACINGS", "Trajectory"]

TIME_SPACINGS: Final = ("leading", "trailing", "linspace", "ays")
"""Schedules that choose training times; the noise levels follow."""
SIGMA_SPACINGS: Final = ("karras", "exponential", "beta")
"""Schedules that choose noise levels; the times follow, and lie between training times."""
_SHOWN: Final = 12
_LEAST_SIGMA: Final = 1e-4
"""Least custom noise level above 0: a 300th of the lowest that SDXL was trained with."""
_CLOSEST_SIGMAS: Final = 0.999
"""Largest ratio of a custom noise level to the one before. Multistep solvers divide by its logarithm; a
schedule of 150 steps has 0.96.
"""
DEFAULT_SPARSE_BEGIN: Final = 0.3
"""Reusing a prediction in the first 30 % of the steps costs 5 dB on the miniature, docs/schedules.md."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """A solver and where its steps lie. Constructing it checks what needs no scheduler config.

    Attributes:
        scheduler: one of `SOLVERS`.
        steps: steps of the schedule, before `sparse_every` takes some out.
        schedule: where the steps lie; None is the scheduler config's own schedule.
        timesteps: custom training times, latest first; `steps` of them.
        sigmas: custom noise levels, highest first; one more than `steps`, the last is where it ends.
        sparse_begin: share of the steps that are all kept; None is `DEFAULT_SPARSE_BEGIN`.
        sparse_every: after them every so-manyth step is kept; None keeps all.
        eta: share of noise that DDIM adds again (its paper's eta) or TCD's gamma; None is 0.

    Raises:
        InvalidRequest: values that contradict each other.
    """

    scheduler: str
    steps: int
    schedule: str | None = None
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    sparse_begin: float | None = None
    sparse_every: int | None = None
    eta: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("schedule", "timesteps", "sigmas") if getattr(self, name) is not None]
        if len(given) > 1:
            problem = f"given beside {given[0]}"
            raise InvalidRequest(given[1], problem, allowed="one of schedule, timesteps and sigmas")
        if self.schedule is not None and self.schedule not in get_args(ScheduleName):
            allowed = ", ".join(get_args(ScheduleName))
            raise InvalidRequest("schedule", f"{self.schedule!r} is unknown", allowed=allowed)
        if self.timesteps is not None:
            _check_timesteps(self.timesteps)
            self._check_count("timesteps", len(self.timesteps))
        if self.sigmas is not None:
            _check_sigmas(self.sigmas)
            self._check_count("sigmas", len(self.sigmas) - 1)
        if self.sparse_begin is not None and self.sparse_every is None:
            problem = "no step is taken out"
            raise InvalidRequest("sparse_begin", problem, allowed="absent, or sparse_every beside it")

    @property
    def kept(self) -> list[int]:
        """Indices of the steps that are taken.

        All before the share `sparse_begin` of `steps`, then every `sparse_every`-th.
        """
        indices = list(range(self.steps))
        if self.sparse_every is None:
            return indices
        begin = DEFAULT_SPARSE_BEGIN if self.sparse_begin is None else self.sparse_begin
        dense = [index for index in indices if index / self.steps < begin]
        return dense + indices[len(dense) :: self.sparse_every]

    def _check_count(self, field: str, steps: int) -> None:
        if steps != self.steps:
            problem = f"{self.steps}, but {field} makes {steps} steps"
            raise InvalidRequest("steps", problem, allowed=f"absent beside {field}, or {steps}")


def _check_timesteps(times: Sequence[float]) -> None:
    allowed = "whole training times, each smaller than the one before, the last at least 0"
    whole = all(math.isfinite(time) and time == int(time) for time in times)
    if not times or not whole or times[-1] < 0 or not _falls(times):
        raise InvalidRequest("timesteps", _listed(times), allowed=allowed)


def _check_sigmas(sigmas: Sequence[float]) -> None:
    allowed = (
        f"two or more noise levels, each at most {_CLOSEST_SIGMAS:g} of the one before, "
        f"the last 0 or at least {_LEAST_SIGMA:g}"
    )
    finite = all(math.isfinite(sigma) for sigma in sigmas)
    if len(sigmas) < 2 or not finite or not _falls(sigmas) or not _apart(sigmas):
        raise InvalidRequest("sigmas", _listed(sigmas), allowed=allowed)


def _apart(sigmas: Sequence[float]) -> bool:
    """Whether falling `sigmas` lie so far apart, and above 0, that solvers can divide by the distances."""
    if sigmas[-2] < _LEAST_SIGMA or 0 != sigmas[-1] < _LEAST_SIGMA:
        return False
    return all(after <= sigma * _CLOSEST_SIGMAS for sigma, after in itertools.pairwise(sigmas))


def _falls(values: Sequence[float]) -> bool:
    return all(value > after for value, after in itertools.pairwise(values))


def _listed(values: Sequence[float]) -> str:
    """`values`, or the first of them: a message is one line."""
    shown = [f"{value:g}" for value in values[:_SHOWN]]
    if len(values) > _SHOWN:
        shown.append("...")
    return f"[{', '.join(shown)}]"
