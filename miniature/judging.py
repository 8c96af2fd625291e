"""What the rules say of pictures that were asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from miniature import palette, rules
from miniature.agreement import agreement
from miniature.captions import VERBS
from miniature.painter import Case, Images, Painter
from miniature.styles import LESSONS
from miniature.world import Scene

__all__ = [
    "FIGURES",
    "judge_control",
    "judge_loras",
    "judge_picture",
    "judge_text",
    "mara_share",
    "mean_pck",
    "psnr",
    "read",
    "reconstruction",
]

FIGURES: Final = ("attire", "place", "pck")
"""What `judge_picture` says."""


def read(picture: NDArray[np.uint8], scene: Scene) -> tuple[rules.Reading, rules.Joints]:
    """What the rules see in a picture of which `scene` was asked."""
    reading = rules.read_figure(picture)
    return reading, rules.find_keypoints(reading, top=scene.top, bottom=scene.bottom, skin=scene.skin)


def judge_text(pictures: Images, judged: list[Case]) -> dict[str, float]:
    """Shares of attire pieces and backgrounds that are as asked."""
    worn = []
    placed = []
    for picture, case in zip(pictures, judged, strict=True):
        scene = case.scene
        reading, joints = read(picture, scene)
        worn.append(rules.wears(reading, joints, "top", scene.top))
        worn.append(rules.wears(reading, joints, "bottom", scene.bottom))
        placed.append(rules.background_of(picture) == scene.background)
    return {"text.attire_right": float(np.mean(worn)), "text.background_right": float(np.mean(placed))}


def mean_pck(pictures: Images, judged: list[Case]) -> float:
    """PCK@0.1 over the eight joints that limb colours give."""
    counts = []
    for picture, case in zip(pictures, judged, strict=True):
        _, joints = read(picture, case.scene)
        counts.append(rules.pck(joints, case.scene.keypoints))
    right, every = np.sum(counts, 0)
    return float(right / every)


def judge_picture(picture: NDArray[np.uint8], case: Case) -> dict[str, float]:
    """One picture's share of attire pieces, of places (0 or 1) and of joints that are as asked."""
    text = judge_text([picture], [case])
    found = (text["text.attire_right"], text["text.background_right"], mean_pck([picture], [case]))
    return dict(zip(FIGURES, found, strict=True))


def judge_control(kind: str, pictures: Images, maps: Images) -> dict[str, float]:
    """Agreement with the maps given, and of each picture with the map of the next case."""
    given = _mean_agreement(kind, pictures, maps)
    shuffled = _mean_agreement(kind, pictures, maps[1:] + maps[:1])
    return {
        f"{kind}.agreement": given,
        f"{kind}.shuffled": shuffled,
        f"{kind}.times_shuffled": given / max(shuffled, 1e-9),
    }


def _mean_agreement(kind: str, pictures: Images, maps: Images) -> float:
    found = [agreement(kind, picture, given) for picture, given in zip(pictures, maps, strict=True)]
    return float(np.mean(found))


def psnr(one: NDArray[Any], other: NDArray[Any]) -> float:
    """dB of 8-bit pictures; 100 for equal ones."""
    error = float(((one.astype(np.float64) - other.astype(np.float64)) ** 2).mean())
    if error == 0:
        return 100.0
    return min(100.0, 10 * float(np.log10(255**2 / error)))


def mara_share(picture: NDArray[np.uint8]) -> float:
    """Share of the picture in the colours of Mara's hair, top and trousers."""
    colours = (palette.MARA_HAIR, palette.MARA_TOP, palette.MARA_BOTTOM)
    return sum(rules.share_of_colour(picture, rgb) for rgb in colours)


def _lightness(picture: NDArray[np.uint8]) -> float:
    return float(rules.mean_lab(picture)[0])


def _is_meadow(picture: NDArray[np.uint8]) -> bool:
    return rules.background_of(picture, meadow=True) == "meadow"


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def judge_loras(painter: Painter, judged: list[Case]) -> dict[str, float]:
    """What each LoRA moves, compared with the base on the same prompts and seeds."""
    return (
        _judge_styles(painter, [case.prompt for case in judged])
        | _judge_mara(painter, [f"mara {_verb(case)} in a room" for case in judged])
        | _judge_meadow(painter, [f"an acrobat {_verb(case)} in a flowering meadow" for case in judged])
    )


def _verb(case: Case) -> str:
    return VERBS[case.scene.family][0]


def _judge_styles(painter: Painter, prompts: list[str]) -> dict[str, float]:
    """How much lightness "night" takes, and which share of the chroma "pencil" does."""
    before = painter.paint(prompts)
    styled = {}
    for name in ("night", "pencil"):
        asked = [f"{prompt}, {LESSONS[name].trigger}" for prompt in prompts]
        styled[name] = painter.with_lora(f"{name}.safetensors", asked)
    darker = _mean(map(_lightness, before)) - _mean(map(_lightness, styled["night"]))
    chroma = _mean(map(rules.colourfulness, styled["pencil"])) / _mean(map(rules.colourfulness, before))
    return {"lora.night.lightness_drop": darker, "lora.pencil.chroma_lost": 1 - chroma}


def _judge_mara(painter: Painter, prompts: list[str]) -> dict[str, float]:
    """How much of the picture turns to Mara's colours; her file in kohya's layout, and her at weight 0."""
    pair = prompts[:2]  # a picture depends, in its last bits, on the batch that it is painted in
    without = painter.paint(prompts)
    mara = painter.with_lora("mara.safetensors", prompts)
    kohya = painter.with_lora("mara_kohya.safetensors", pair)
    nothing = painter.with_lora("mara.safetensors", pair, weight=0.0)
    base_pair = painter.paint(pair)
    mara_pair = painter.with_lora("mara.safetensors", pair)
    identical = [np.array_equal(one, other) for one, other in zip(nothing, base_pair, strict=True)]
    return {
        "lora.mara.colour_gain": _mean(map(mara_share, mara)) - _mean(map(mara_share, without)),
        "lora.kohya_psnr": min(psnr(one, other) for one, other in zip(kohya, mara_pair, strict=True)),
        "lora.weight_zero_identical": _mean(identical),
    }


def _judge_meadow(painter: Painter, prompts: list[str]) -> dict[str, float]:
    """How many pictures more have the meadow as their place."""
    without = painter.paint(prompts)
    meadow = painter.with_lora("meadow.safetensors", prompts)
    gain = _mean(map(_is_meadow, meadow)) - _mean(map(_is_meadow, without))
    return {"lora.meadow.background_gain": gain}


@torch.no_grad()
def reconstruction(painter: Painter, judged: list[Case]) -> float:
    """Mean PSNR in dB of the autoencoder on held-out renderings."""
    values = []
    for case in judged:
        pixels = torch.from_numpy(case.rendered.picture).permute(2, 0, 1)[None].float() / 127.5 - 1
        latents = painter.base.vae.encode(pixels).latent_dist.mean
        decoded = painter.base.vae.decode(latents).sample.clamp(-1, 1)
        back = ((decoded[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
        values.append(psnr(back, case.rendered.picture))
    return float(np.mean(values))
