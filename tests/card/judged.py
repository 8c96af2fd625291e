"""Figures of `python -m miniature.evaluate --quick` from a server's pictures: attire, place, pose."""

from __future__ import annotations

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from intaglio_client import Client, Control
from miniature.judging import judge_text, mean_pck
from miniature.painter import GUIDANCE, STEPS, Case, cases
from miniature.world import control_map

__all__ = ["POSES", "PROMPTS", "judge_served"]

PROMPTS = 24
POSES = 60
Image = NDArray[np.uint8]


def judge_served(client: Client) -> dict[str, float]:
    """Figures of the pictures that the server draws of the held-out scenes: picture i has seed i."""
    judged = cases(max(PROMPTS, POSES))
    texts = [_paint(client, index, case) for index, case in enumerate(judged[:PROMPTS])]
    posed = [_paint(client, index, case, pose=True) for index, case in enumerate(judged[:POSES])]
    return {**judge_text(texts, judged[:PROMPTS]), "pose.pck_with_control": mean_pck(posed, judged[:POSES])}


def _paint(client: Client, index: int, case: Case, *, pose: bool = False) -> Image:
    controls = (
        [Control("pose", image=PIL.Image.fromarray(control_map(case.scene, case.rendered, "pose")))]
        if pose
        else []
    )
    picture = client.generate(
        case.prompt,
        seed=index,
        steps=STEPS,
        guidance_scale=GUIDANCE,
        scheduler="euler",
        width=256,
        height=256,
        controls=controls,
    )
    pixels: Image = picture.pixels
    return pixels
