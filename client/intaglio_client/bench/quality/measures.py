"""What pictures are measured by: a judge, CLIP score, a perceptual distance, a folder of references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from intaglio.errors import ConfigError
from intaglio_client.bench.quality.extractors import (
    ClipScore,
    Extractors,
    open_extractors,
    read_extractors,
)
from intaglio_client.bench.quality.reference import Reference
from intaglio_client.tune.distances import Pixels
from intaglio_client.tune.drawing import Drawing
from intaglio_client.tune.judges import Judge
from intaglio_client.tune.results import Row
from intaglio_client.tune.run import Measures
from intaglio_client.tune.scenes import Scene

__all__ = ["Looking", "compared_rows", "measures_of", "opened_networks"]

_CLIP: Final = "clip"


@dataclass(frozen=True)
class Looking:
    """Networks that look at pictures, and pictures to compare with."""

    networks: Extractors
    reference: Reference | None = None


def opened_networks(extractors: Path | None, reference: Path | None) -> Looking:
    """The networks of the file `extractors`, and the pictures in the folder `reference`.

    Raises:
        ConfigError: a file or a picture is wrong, or no network makes features for `reference`.
    """
    networks = Extractors() if extractors is None else open_extractors(read_extractors(extractors))
    if reference is None:
        return Looking(networks)
    if networks.features is None:
        raise ConfigError("--reference needs a network: name one in --extractors, under `features`")
    return Looking(networks, Reference(reference, networks.features))


def measures_of(looking: Looking, judge: Judge | None, scenes: Sequence[Scene]) -> Measures:
    """The judge with CLIP score among its figures, where there are networks for it."""
    clip = looking.networks.clip
    if clip is not None:
        judge = _with_clip(clip, judge, {scene.name: scene.prompt for scene in scenes})
    return Measures(judge=judge, extractor=looking.networks.perceptual)


def _with_clip(clip: ClipScore, judge: Judge | None, prompts: Mapping[str, str]) -> Judge:
    def both(name: str, pixels: Pixels) -> Mapping[str, float]:
        judged = dict(judge(name, pixels)) if judge else {}
        if _CLIP in judged:
            raise ConfigError(f"--judge: gives a figure {_CLIP!r}, which is the name of CLIP score")
        return {**judged, _CLIP: clip.score(pixels, prompts[name])}

    return both


def compared_rows(looking: Looking, drawings: Sequence[Drawing], rows: Sequence[Row]) -> dict[str, Any]:
    """FID and KID of every row's pictures; empty without a reference. `rows` are those of `drawings`, in
    their order.
    """
    if looking.reference is None:
        return {}
    drawn = [(drawing, setting) for drawing in drawings for setting in drawing.settings]
    found = {}
    for row, (drawing, setting) in zip(rows, drawn, strict=True):
        pictures = (drawing.kept.pixels(scene, setting) for scene in drawing.scenes)
        found[row.setting.name] = looking.reference.compared(pictures)
    return looking.reference.data(found, drawn=len(drawings[0].scenes))
