"""Which setting becomes draft, standard, high and ultra.

A preset is the cheapest setting whose error (root mean square to the converged picture) is no worse than that
of an anchor, a setting that people know.

    draft      not shown to be worse than twice the error of 30 Euler steps
    standard   not shown to be worse than 30 Euler steps: "matched quality"
    high       as near as 30 steps of DPM++ 2M Karras, or nearer
    ultra      converged: 60 steps of the reference's solver, whatever they cost

Noise must not choose. "Not shown to be worse" means: the difference of the errors, paired by scene, is at
most two standard errors above 0. The error decides and not PSNR, its logarithm. In decibels a scene where
both errors are invisible counts as much as one where both are seen, so the noise is larger (docs/tuning.md
has figures). Of settings that cost within 5 % of the cheapest, the nearest to the reference is taken: other
work on a machine changes seconds by as much. The anchor itself always qualifies, so there is always a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from intaglio_client.tune.grid import BASELINE, CONVERGED, FAMILIAR
from intaglio_client.tune.results import Row, error_change
from intaglio_client.tune.settings import Setting

__all__ = ["PRESETS", "ULTRA", "Rule", "chosen", "presets_of"]

_SAME_COST: Final = 1.05
_MOST_LARGER: Final = 4 / 3
_SHOWN: Final = 2.0
"""Standard errors above which a difference is no longer noise."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a preset must equal."""

    anchor: Setting
    times: float = 1.0
    """How many times the anchor's error it may have."""
    doubt: float = _SHOWN
    """Standard errors by which it may be above that."""


PRESETS: Final[Mapping[str, Rule]] = {
    "draft": Rule(BASELINE, times=2.0),
    "standard": Rule(BASELINE),
    "high": Rule(FAMILIAR, doubt=0.0),
}
ULTRA: Final = "ultra"
"""It is converged and has no rule."""


def presets_of(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows that become presets, by the presets' names; `rows` have all anchors."""
    found = {name: chosen(rows, rule) for name, rule in PRESETS.items()}
    ultra = next(row for row in rows if row.setting.name == CONVERGED.name)
    return {**found, ULTRA: ultra}


def chosen(rows: Sequence[Row], rule: Rule) -> Row:
    """The cheapest row that `rule` allows; `rows` have its anchor."""
    anchor = next(row for row in rows if row.setting.name == rule.anchor.name)
    candidates = [row for row in rows if row.setting.can_be_preset and _allowed(row, anchor, rule)]
    cheapest = min(row.ratio.value for row in candidates)
    near = [row for row in candidates if row.ratio.value <= _SAME_COST * cheapest]
    return min(near, key=lambda row: row.error.value)


def _allowed(row: Row, anchor: Row, rule: Rule) -> bool:
    change = error_change(row.scenes, anchor.scenes, times=rule.times)
    near = row.error.value <= _MOST_LARGER * rule.times * anchor.error.value
    return near and change.value <= rule.doubt * change.error
