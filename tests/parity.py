"""What the rooms' parity tests share: diffusers' scheduler of each solver, and how far two pictures are
apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import numpy as np
from numpy.typing import NDArray

from intaglio_export.weights.seeded import SCHEDULER

SDXL_SCHEDULER: dict[str, Any] = {**SCHEDULER, "_diffusers_version": "0.19.0.dev0", "trained_betas": None}
"""As in the folder of stabilityai/stable-diffusion-xl-base-1.0."""
_CLASSES: dict[str, Any] = {
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "ddim": diffusers.DDIMScheduler,
    "dpmpp_2m_karras": diffusers.DPMSolverMultistepScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
}


def scheduler_for(solver: str, config: Mapping[str, Any]) -> Any:
    """diffusers' scheduler as a pipeline's user swaps it in; `config` is the pipeline's own
    `scheduler_config.json`.
    """
    base = diffusers.EulerDiscreteScheduler.from_config(config).config
    return _CLASSES[solver].from_config(
        base, **({"use_karras_sigmas": True} if solver == "dpmpp_2m_karras" else {})
    )


def psnr(ours: NDArray[np.uint8], theirs: NDArray[Any]) -> float:
    """dB between our pixels and others' bytes or diffusers' `output_type="np"` in 0..1, both [..., H, W,
    RGB]; infinite for equal ones.
    """
    expected = theirs if theirs.dtype == np.uint8 else (theirs * 255).round().astype(np.uint8)
    assert ours.shape == expected.shape
    assert min(ours.std(), expected.std()) > 3, "a flat picture would equal any flat one"
    error = float(np.mean((ours.astype(float) - expected.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")
