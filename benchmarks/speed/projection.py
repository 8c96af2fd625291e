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
from typing import Any, Final

import torch
import typer
from accelerate import init_empty_weights  # type: ignore[import-untyped]
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from intaglio_export.weights.seeded import ARCHITECTURES

__all__ = [
    "CARDS",
    "PUBLISHED",
    "Card",
    "Published",
    "Work",
    "count_work",
    "efficiencies",
    "image_work",
    "project",
]

_MATRIX_OPERATIONS: Final = ("convolution", "addmm", "mm", "bmm", "scaled_dot_product", "baddbmm")


@dataclass(frozen=True, slots=True)
class Work:
    """What a computation needs at least."""

    operations: float
    """Floating-point, a multiplication and an addition being two."""
    bytes: float
    """Read and written in float16 by convolutions, matrix products and attention.

    Everything else is taken to be fused into them.
    """

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)

    def times(self, count: float) -> Work:
        """`count` of it."""
        return Work(count * self.operations, count * self.bytes)


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


class _ByteCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of inputs and outputs of matrix operations, two for each value."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        if any(name in str(function) for name in _MATRIX_OPERATIONS):
            tensors = [leaf for leaf in tree_leaves((args, output)) if isinstance(leaf, torch.Tensor)]
            self.bytes += sum(2 * tensor.numel() for tensor in tensors)
        return output


def count_work(network: Any, *arguments: Any, **named: Any) -> Work:
    """Work of one call of `network`; everything may be on the `meta` device."""
    with torch.no_grad(), _ByteCounter() as counter, FlopCounterMode(display=False) as operations:
        network(*arguments, **named)
    return Work(operations.get_total_flops(), counter.bytes)


def image_work(*, architecture: str, width: int, height: int, guidance: bool) -> Mapping[str, Work]:
    """Work of one pass of each network that counts, for one image."""
    configs = {name: dict(config) for name, config in ARCHITECTURES[architecture].items()}
    with init_empty_weights():
        unet: Any = UNet2DConditionModel.from_config(configs["unet"])  # type: ignore[no-untyped-call]
        controlnet: Any = ControlNetModel.from_config(configs["controlnet"])  # type: ignore[no-untyped-call]
        vae: Any = AutoencoderKL.from_config(configs["vae"])  # type: ignore[no-untyped-call]
    rows = 2 if guidance else 1
    pooled = configs["text_encoder_2"]["projection_dim"]

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    given = {
        "sample": empty(rows, 4, height // 8, width // 8),
        "timestep": empty(1),
        "encoder_hidden_states": empty(rows, 77, configs["unet"]["cross_attention_dim"]),
        "added_cond_kwargs": {"text_embeds": empty(rows, pooled), "time_ids": empty(rows, 6)},
    }
    return {
        "unet": count_work(unet, **given),
        "controlnet": count_work(controlnet, **given, controlnet_cond=empty(rows, 3, height, width)),
        "vae_decoder": count_work(vae.decode, empty(1, 4, height // 8, width // 8)),
    }


def efficiencies(published: Sequence[Published], work: Mapping[str, Work]) -> list[float]:
    """Share of each card's peak that its published run reached."""
    found = []
    for run in published:
        total = work["unet"].times(run.steps)
        if run.whole:
            total += work["vae_decoder"]
        found.append(total.operations / run.seconds / run.card.peak)
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
        return max(work.operations / (share * card.peak), floor)

    return seconds(max(reached)), seconds(statistics.median(reached)), seconds(min(reached))


def main(size: int = 1024, steps: int = 30) -> None:
    """Print the projection for one image with one ControlNet on all steps."""
    work = image_work(architecture=_MEASURED, width=size, height=size, guidance=True)
    published = image_work(architecture=_MEASURED, width=1024, height=1024, guidance=True)
    reached = efficiencies(PUBLISHED, published)
    image = (work["unet"] + work["controlnet"]).times(steps) + work["vae_decoder"]
    console = Console(highlight=False)
    for name, one in work.items():
        console.print(f"{name}: {one.operations / 1e12:.2f} TFLOP, {one.bytes / 1e9:.2f} GB")
    for run, share in zip(PUBLISHED, reached, strict=True):
        console.print(f"{run.card.name}: published {run.seconds:.2f} s, {share:.0%} of its peak")
    table = Table("card (projection)", "seconds", "range", box=None, padding=(0, 2))
    for card in CARDS:
        least, middle, most = project(image, card, reached)
        table.add_row(card.name, f"{middle:.1f}", f"{least:.1f} to {most:.1f}")
    console.print(table)


if __name__ == "__main__":
    typer.run(main)
