"""How long an image would take on a card that was not measured. It is a projection and is shown as one.

    seconds = max(operations / (efficiency x peak), bytes / bandwidth)
Operations and bytes are counted on the networks themselves, without weights or a card. The efficiency is what
published runs of SDXL reach on cards of the same family. They differ, so a projection is a range: from the
worst of them to the best.

    python -m benchmarks.speed.projection [--size 1024] [--steps 30]
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from intaglio_export.card.work import Work, image_work
from intaglio_export.weights.seeded import ARCHITECTURES

__all__ = ["CARDS", "PUBLISHED", "Card", "Published", "efficiencies", "project"]


@dataclass(frozen=True, slots=True)
class Card:
    """A card's data sheet."""

    name: str
    peak: float
    """Dense float16 operations a second of the tensor cores.

    On GeForce cards it is the figure with float16 sums, which TensorRT uses where it may.
    """
    bandwidth: float
    """Bytes a second."""
    gib: int


@dataclass(frozen=True, slots=True)
class Published:
    """Seconds that somebody measured and published (facts: docs/performance.md)."""

    card: Card
    seconds: float
    steps: int
    """CFG steps of SDXL at 1024x1024; the VAE counts where `whole`."""
    whole: bool = True


_MEASURED: Final = "sdxl-base-1.0"
_T: Final = 1e12
_G: Final = 1e9
CARDS: Final = (
    Card("RTX 4060 Ti 16 GB", 88 * _T, 288 * _G, 16),
    Card("RTX 4070 Ti Super", 176 * _T, 672 * _G, 16),
    Card("RTX 4080", 195 * _T, 717 * _G, 16),
    Card("RTX 5080", 225 * _T, 960 * _G, 16),
)
"""To project to."""
PUBLISHED: Final = (
    Published(Card("A10", 125 * _T, 600 * _G, 24), 8.16, 30),
    Published(Card("A100", 312 * _T, 1555 * _G, 40), 2.74, 30),
    Published(Card("RTX 4090", 330 * _T, 1008 * _G, 24), 2.47, 30),
    Published(CARDS[2], 1 / 9.1, 1, whole=False),
)
"""One image in float16: TensorRT by stabilityai and NVIDIA, the RTX 4080 by stable-fast.

The H100 is left out: its cores wait at batch 1.
"""


def efficiencies(published: Sequence[Published], work: Mapping[str, Work]) -> list[float]:
    """Share of each card's peak that its published run reached."""
    found = []
    for run in published:
        total = work["unet"].times(run.steps)
        if run.whole:
            total += work["vae_decoder"]
        found.append(total.total / run.seconds / run.card.peak)
    return found


def project(work: Work, card: Card, reached: Sequence[float]) -> tuple[float, float, float]:
    """Least, middle and most seconds of `work` on `card`.

    `reached` are the shares of their cards' peaks that published runs reached.

    Raises:
        ValueError: there is no share, or one does not lie between 0 and 1.
    """
    if not reached or not all(0 < share <= 1 for share in reached):
        raise ValueError(f"shares of a peak lie between 0 and 1, not {list(reached)}")
    floor = work.bytes / card.bandwidth

    def seconds(share: float) -> float:
        return max(work.total / (share * card.peak), floor)

    return seconds(max(reached)), seconds(statistics.median(reached)), seconds(min(reached))


def main(size: int = 1024, steps: int = 30) -> None:
    """Print the projection for one image with one ControlNet on all steps."""
    work = image_work(ARCHITECTURES[_MEASURED], width=size, height=size, guidance=True)
    published = image_work(ARCHITECTURES[_MEASURED], width=1024, height=1024, guidance=True)
    reached = efficiencies(PUBLISHED, published)
    image = (work["unet"] + work["controlnet"]).times(steps) + work["vae_decoder"]
    console = Console(highlight=False)
    for name, one in work.items():
        console.print(f"{name}: {one.total / 1e12:.2f} TFLOP, {one.bytes / 1e9:.2f} GB")
    for run, share in zip(PUBLISHED, reached, strict=True):
        console.print(f"{run.card.name}: published {run.seconds:.2f} s, {share:.0%} of its peak")
    table = Table("card (projection)", "seconds", "range", box=None, padding=(0, 2))
    for card in CARDS:
        least, middle, most = project(image, card, reached)
        table.add_row(card.name, f"{middle:.1f}", f"{least:.1f} to {most:.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
