"""Two servers draw the same scenes: how far their pictures are apart, and whether the second's are worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from intaglio.errors import ConfigError
from intaglio.imaging.images import decode_image
from intaglio.whole_files import write_whole
from intaglio_client.bench.quality.loss import Loss, Verdict, fewest_scenes, losses, verdict_of
from intaglio_client.bench.quality.options import NO_OPTION
from intaglio_client.client import Client
from intaglio_client.image import Image
from intaglio_client.tune.distances import Pixels, psnr, ssim
from intaglio_client.tune.drawing import Progress
from intaglio_client.tune.pairs import Figure, mean_figure
from intaglio_client.tune.run import Measures
from intaglio_client.tune.scenes import Scene
from intaglio_client.tune.settings import stated_inputs

__all__ = ["Drawn", "Parity", "check_measures", "compare", "draw_both"]

_MOST_PIXELS: Final = 1 << 28


@dataclass(frozen=True)
class Drawn:
    """One scene on both servers."""

    scene: str
    first: Pixels
    second: Pixels


@dataclass(frozen=True)
class Parity:
    """What was found, and the verdict."""

    verdict: Verdict
    scenes: int
    equal: int
    """Pictures that are the same in every byte of their pixels."""
    psnr: Figure
    lowest_psnr: float
    ssim: Figure
    perceptual: Figure | None
    losses: dict[str, Loss]

    def cells(self) -> list[list[str]]:
        """One row a figure."""
        rows = [["PSNR dB", "", self.psnr.shown(1), f"lowest {self.lowest_psnr:.1f}"]]
        rows.append(["SSIM", "", self.ssim.shown(3), ""])
        if self.perceptual is not None:
            rows.append(["perceptual", "", self.perceptual.shown(3), ""])
        for name, loss in self.losses.items():
            change = f"{loss.change.value:+.3f} ± {loss.change.error:.3f}"
            told = f"chance {loss.chance:.2g}{': worse' if loss.worse else ''}"
            rows.append([name, f"{loss.before:.3f}", change, told])
        return rows

    def data(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def draw_both(
    clients: tuple[Client, Client], scenes: Sequence[Scene], folder: Path, progress: Progress
) -> list[Drawn]:
    """Draw every scene on both servers, the first and the second one going first by turns. Nothing is kept
    from an earlier call: two servers are compared as they are now. The pictures stay in `folder`.

    Raises:
        InvalidRequest, Unavailable: what a server answers.
    """
    found = []
    for index, scene in enumerate(scenes):
        progress.started(scene.name)
        pictures: dict[str, Pixels] = {}
        order = list(zip(("a", "b"), clients, strict=True))
        for side, client in order if index % 2 == 0 else order[::-1]:
            parameters: Any = scene.parameters(stated_inputs(NO_OPTION))
            image: Image = client.generate(scene.prompt, **parameters)
            write_whole(folder / side / f"{scene.name}.png", image.data)
            picture = decode_image(image.data, field=scene.name, most_pixels=_MOST_PIXELS)
            pictures[side] = np.asarray(picture, dtype=np.uint8)
        found.append(Drawn(scene.name, pictures["a"], pictures["b"]))
        progress.finished(1.0)
    return found


def check_measures(measures: Measures, scenes: int, *, least_psnr: float | None) -> None:
    """Raise ConfigError where nothing can tell what is worse, before anything is drawn."""
    if measures.judge is None and least_psnr is None:
        raise ConfigError("nothing says what is worse; give --judge, --extractors with clip, or --least-psnr")
    least = 2 if measures.judge is None else fewest_scenes(1)
    if scenes < least:
        raise ConfigError(f"{scenes} scenes show no loss, however large; take at least {least} (--prompts)")


def compare(drawn: Sequence[Drawn], measures: Measures, *, least_psnr: float | None) -> Parity:
    """Distances and figures of pairs; a picture further than `least_psnr` dB makes the second server worse.

    Raises:
        ConfigError: nothing can tell what is worse, or the scenes are too few for the judge's figures.
    """
    check_measures(measures, len(drawn), least_psnr=least_psnr)
    decibels = [psnr(one.second, one.first) for one in drawn]
    equal = sum(1 for one in drawn if np.array_equal(one.first, one.second))
    found: dict[str, Loss] = {}
    if measures.judge is not None:
        found = losses(
            [dict(measures.judge(one.scene, one.first)) for one in drawn],
            [dict(measures.judge(one.scene, one.second)) for one in drawn],
        )
    look = measures.extractor
    return Parity(
        verdict=verdict_of(
            found,
            equal=equal == len(drawn),
            far=least_psnr is not None and min(decibels) < least_psnr,
        ),
        scenes=len(drawn),
        equal=equal,
        psnr=mean_figure(decibels),
        lowest_psnr=min(decibels),
        ssim=mean_figure([ssim(one.second, one.first) for one in drawn]),
        perceptual=mean_figure([look.distance(one.second, one.first) for one in drawn]) if look else None,
        losses=found,
    )
