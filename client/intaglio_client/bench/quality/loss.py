"""Whether the second of two servers draws worse pictures than the first, scene by scene.

Each figure is tested by itself: were both servers equally good, the difference of a scene would as likely
have the other sign. The chance is the share of all choices of signs whose mean is as low as the one that was
found: a randomisation test (R. A. Fisher, "The Design of Experiments", 1935), which needs no normal
differences. All figures together have a chance of 1 % of a false verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import numpy as np

from intaglio.errors import ConfigError
from intaglio_client.tune.judges import check_paired
from intaglio_client.tune.pairs import Figure, paired_difference

__all__ = ["CHANCE", "Loss", "Verdict", "chance_of_loss", "fewest_scenes", "losses", "verdict_of"]

CHANCE: Final = 0.01
_EXACT: Final = 16
"""Most scenes whose choices of signs are all tried."""
_DRAWN: Final = 100_000
_SEED: Final = 20251130
Verdict = Literal["equal", "no loss shown", "worse"]


@dataclass(frozen=True, slots=True)
class Loss:
    """What happened to one figure."""

    before: float
    """Mean on the first server."""
    change: Figure
    """The second minus the first."""
    chance: float
    """Of a mean as low as this without any loss."""
    worse: bool

    def data(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def chance_of_loss(differences: Sequence[float]) -> float:
    """Of a mean as low as that of `differences`, were every sign as likely as the other."""
    values = np.asarray(differences, np.float64)
    values = values[values != 0]
    if not len(values):
        return 1.0
    count = len(values)
    if count <= _EXACT:
        places = np.arange(2**count)[:, None] >> np.arange(count)
        signs = 1.0 - 2.0 * (places & 1)
    else:
        signs = np.random.default_rng(_SEED).choice((-1.0, 1.0), size=(_DRAWN, count))
    sums = signs @ np.abs(values)
    # Sums of the same numbers in another order differ in their last bits.
    as_low = int((sums <= values.sum() + 1e-9 * np.abs(values).sum()).sum())
    extra = 0 if count <= _EXACT else 1  # what was found is one of the choices
    return (as_low + extra) / (len(signs) + extra)


def fewest_scenes(figures: int) -> int:
    """How many scenes can show a loss: as many as have a choice of signs rarer than the chance."""
    return math.ceil(math.log2(figures / CHANCE))


def losses(before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, Loss]:
    """Every figure that the judge gives of at least two scenes.

    Raises:
        ConfigError: a figure has too few scenes for a verdict, or only one picture of a scene has it.
    """
    for one, other in zip(before, after, strict=True):
        check_paired(one, other)
    names = list(dict.fromkeys(name for one in before for name in one))
    found = {}
    for name in names:
        pairs = [(one[name], other[name]) for one, other in zip(before, after, strict=True) if name in one]
        least = fewest_scenes(len(names))
        if len(pairs) < least:
            raise ConfigError(
                f"{name}: {len(pairs)} scenes show no loss, however large; take at least {least} (--prompts)"
            )
        change = paired_difference([other for _, other in pairs], [one for one, _ in pairs])
        chance = chance_of_loss([other - one for one, other in pairs])
        mean = math.fsum(one for one, _ in pairs) / len(pairs)
        found[name] = Loss(mean, change, chance, worse=chance <= CHANCE / len(names))
    return found


def verdict_of(found: Mapping[str, Loss], *, equal: bool, far: bool) -> Verdict:
    """`equal` where all pictures are the same, `worse` where a figure is lower or a picture too far."""
    if equal:
        return "equal"
    return "worse" if far or any(loss.worse for loss in found.values()) else "no loss shown"
