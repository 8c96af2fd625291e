"""How long one image takes on a card whose speed was measured. It is a projection and is shown as one.

    seconds = sum over kinds (operations / operations a second) + elementwise bytes / bandwidth
for every pass of every network. It rests on one assumption: a network reaches, for each kind of work, the
speed that the small engines reached. docs/performance.md compares it with an image that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from intaglio_export.card.measure import CardSpeed
from intaglio_export.card.work import Work

__all__ = ["Drawing", "image_seconds", "work_seconds"]


@dataclass(frozen=True, slots=True)
class Drawing:
    """The image that is projected."""

    width: int
    """Pixels."""
    height: int
    steps: int
    guidance: bool
    controls: int
    """ControlNets that run in each step."""

    def __str__(self) -> str:
        guidance = "guidance" if self.guidance else "no guidance"
        return f"{self.width}x{self.height}, {self.steps} steps, {guidance}, ControlNets: {self.controls}"


def work_seconds(work: Work, speed: CardSpeed) -> float:
    """Seconds of one pass."""
    computed = sum(count / speed.operations[kind] for kind, count in work.operations.items())
    return computed + work.elementwise_bytes / speed.bandwidth


def image_seconds(drawing: Drawing, work: Mapping[str, Work], speed: CardSpeed) -> float:
    """Seconds of one image; `work` is that of `image_work` at the drawing's size."""
    step = work_seconds(work["unet"], speed) + drawing.controls * work_seconds(work["controlnet"], speed)
    return drawing.steps * step + work_seconds(work["vae_decoder"], speed)
