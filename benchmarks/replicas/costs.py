"""The seconds that a simulated server takes, from results that were measured on a card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.measuring.results import ROOT, read_json
from intaglio.errors import InvalidRequest

__all__ = ["SOURCES", "Costs", "measured_costs"]

SOURCES: Final = {
    "step": "h200_lora_swap.json, swap.step",
    "text encoders, VAE": "h200_third.json, served.seconds",
    "change of LoRAs": "h200_lora_swap.json, swap.one_to_other and swap.to_two",
    "first change to them, with reading": "h200_lora_swap.json, swap.first_with_reading_the_files",
}
"""Where each of the seconds was measured, in benchmarks/results/: medians, but for the reading."""
_FILE_MIB: Final = 319
"""Of a LoRA of rank 64 over the 700 matrices of SDXL's transformer blocks, in float16."""
_MEMORY_MIB: Final = 2048
"""What a server keeps of files that it has read (docs/operating.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds on the card."""

    picture: float
    """Of a picture whose LoRAs are resident."""
    swap: float
    """Of a change to other LoRAs whose files are in memory."""
    reading: float = 0.0
    """How much longer a change takes whose files are not."""
    kept: int = 1
    """Sets whose files a server keeps in memory: those that it changed to last."""

    def __post_init__(self) -> None:
        if not (self.picture > 0 and min(self.swap, self.reading) >= 0 and self.kept >= 1):
            raise InvalidRequest(
                "costs", f"{self}", allowed="seconds from 0, a picture that takes some, kept from 1"
            )


def measured_costs(*, steps: int, reads: bool) -> Costs:
    """Those of one H200 at 1024x1024 with guidance and without controls (SOURCES).

    Without `reads`, sets are one LoRA each, whose file every server has read before. With it, sets are two
    LoRAs of rank 64, and a server keeps as many files as its memory for them holds.
    """
    swap = _part("h200_lora_swap", "swap")
    rest = _part("h200_third", "served")["seconds"]
    picture = steps * swap["step"]["median"] + rest["text_encoders"]["median"] + rest["vae"]["median"]
    if not reads:
        return Costs(picture=picture, swap=swap["one_to_other"]["seconds"]["median"])
    whole = swap["to_two"]["seconds"]["median"]
    reading = swap["first_with_reading_the_files"] - whole
    return Costs(picture=picture, swap=whole, reading=reading, kept=_MEMORY_MIB // (2 * _FILE_MIB))


def _part(name: str, part: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = read_json(ROOT / f"benchmarks/results/{name}.json")["parts"][part]
    return found
