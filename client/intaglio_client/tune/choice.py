"""Which setting becomes draft, standard, high and ultra.

A preset is the cheapest setting whose distance to the converged picture is no worse than that of an anchor, a
setting that people know, by more than the preset allows.

    draft      30 Euler steps, 8 dB allowed: an error 2.5 times as large
    standard   30 Euler steps, nothing allowed: "matched quality"
    high       30 steps of DPM++ 2M Karras, nothing allowed
    ultra      converged: 60 steps of the reference's solver, whatever they cost

Noise must not choose. "No worse" therefore means: the difference of PSNR to the anchor, paired by scene, is
not below 0 by more than its standard error. Of settings that cost within 5 % of the cheapest, the nearest to
the reference is taken, since other work on a machine changes seconds by as much. The anchor itself always
qualifies, so there is always a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from intaglio_client.tune.grid import BASELINE, CONVERGED, FAMILIAR
from intaglio_client.tune.results import Row, psnr_gain
from intaglio_client.tune.settings import Setting

__all__ = ["PRESETS", "Rule", "chosen", "presets_of"]

_SAME_COST: Final = 1.05


@dataclass(frozen=True, slots=True)
class Rule:
    """What a preset must equal."""

    anchor: Setting
    allowed: float = 0.0
    """dB by which it may be farther from the reference than its anchor."""


PRESETS: Final[Mapping[str, Rule]] = {
    "draft": Rule(BASELINE, allowed=8.0),
    "standard": Rule(BASELINE),
    "high": Rule(FAMILIAR),
}
"""`ultra` is converged and has no rule."""


def presets_of(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows that become presets, by the presets' names; `rows` have all anchors."""
    by_name = {row.setting.name: row for row in rows}
    found = {name: chosen(rows, by_name[rule.anchor.name], rule.allowed) for name, rule in PRESETS.items()}
    return {**found, "ultra": by_name[CONVERGED.name]}


def chosen(rows: Sequence[Row], anchor: Row, allowed: float = 0.0) -> Row:
    """The cheapest row that is no worse than `anchor` by more than `allowed` dB."""
    candidates = [row for row in rows if row.setting.can_be_preset and _no_worse(row, anchor, allowed)]
    cheapest = min(row.ratio.value for row in candidates)
    near = [row for row in candidates if row.ratio.value <= _SAME_COST * cheapest]
    return max(near, key=lambda row: row.psnr.value)


def _no_worse(row: Row, anchor: Row, allowed: float) -> bool:
    gain = psnr_gain(row.scenes, anchor.scenes)
    return gain.value + gain.error >= -allowed
