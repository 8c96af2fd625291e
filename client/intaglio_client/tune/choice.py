"""Which setting becomes draft, standard, high and ultra.

A preset equals an anchor: a setting that people know. It is the cheapest setting whose distance to the
converged picture is no worse than the anchor's.

    draft      10 Euler steps: the floor below which a picture is not worth looking at
    standard   30 Euler steps, the usual setting ("matched quality")
    high       30 steps of DPM++ 2M Karras
    ultra      converged: 60 steps of the reference's solver, whatever they cost

Noise must not choose. "No worse" therefore means that PSNR minus the anchor's, paired by scene, is at least
one standard error above 0. Of settings that cost within 5 % of the cheapest, the nearest to the reference is
taken: a difference of that size is within what other work on a machine does to seconds. The anchor itself
always qualifies, so there is always a choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from intaglio_client.tune.grid import BASELINE, CONVERGED, DRAFT_FLOOR, FAMILIAR
from intaglio_client.tune.results import Row, psnr_gain
from intaglio_client.tune.settings import Setting

__all__ = ["PRESETS", "chosen", "presets_of"]

PRESETS: Final[Mapping[str, Setting]] = {
    "draft": DRAFT_FLOOR,
    "standard": BASELINE,
    "high": FAMILIAR,
}
"""Preset -> its anchor; `ultra` is converged and has none."""
_SAME_COST: Final = 1.05


def presets_of(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows that become presets, by the presets' names; `rows` have all anchors."""
    by_name = {row.setting.name: row for row in rows}
    found = {name: chosen(rows, by_name[anchor.name]) for name, anchor in PRESETS.items()}
    return {**found, "ultra": by_name[CONVERGED.name]}


def chosen(rows: Sequence[Row], anchor: Row) -> Row:
    """The cheapest row that is no worse than `anchor`."""
    candidates = [row for row in rows if row.setting.can_be_preset and _no_worse(row, anchor)]
    cheapest = min(row.ratio.value for row in candidates)
    near = [row for row in candidates if row.ratio.value <= _SAME_COST * cheapest]
    return max(near, key=lambda row: row.psnr.value)


def _no_worse(row: Row, anchor: Row) -> bool:
    if row is anchor:
        return True
    gain = psnr_gain(row.scenes, anchor.scenes)
    return gain.value - gain.error >= 0
