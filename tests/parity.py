"""What the rooms' parity tests share: diffusers' scheduler of each solver, and how far two pictures are
apart.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import diffusers
import numpy as np
from numpy.typing import NDArray

from intaglio_export.weights.seeded import SCHEDULER

SDXL_SCHEDULER: dict[str, Any] = {**SCHEDULER, "_diffusers_version": "0.19.0.dev0", "trained_betas": None}
"""As in the folder of stabilityai/stable-diffusion-xl-base-1.0."""
# diffusers imports torchsde for the Brownian path alone, and tests give that scheduler its noise.
sys.modules.setdefault("torchsde", ModuleType("torchsde"))
from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler  # noqa: E402

_CLASSES: dict[str, Any] = {
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_a": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "ddim": diffusers.DDIMScheduler,
    "dpmpp_2m": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_2m_karras": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_2m_sde": diffusers.DPMSolverMultistepScheduler,
    "dpmpp_sde": DPMSolverSDEScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
    "lcm": diffusers.LCMScheduler,
    "tcd": diffusers.TCDScheduler,
}
_OWN: dict[str, dict[str, Any]] = {
    "dpmpp_2m_karras": {"use_karras_sigmas": True},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"},
}
"""What a user says beside the class."""
SIGMA_SPACINGS = ("karras", "exponential", "beta")


def scheduler_for(solver: str, config: Mapping[str, Any], *, schedule: str | None = None) -> Any:
    """diffusers' scheduler as a pipeline's user swaps it in; `config` is the pipeline's own
    `scheduler_config.json`.
    """
    base = diffusers.EulerDiscreteScheduler.from_config(config).config
    said = dict(_OWN.get(solver, {}))
    if schedule in SIGMA_SPACINGS:
        said |= {f"use_{name}_sigmas": name == schedule for name in SIGMA_SPACINGS}
    elif schedule is not None:
        said["timestep_spacing"] = schedule
    return _CLASSES[solver].from_config(base, **said)


def psnr(ours: NDArray[np.uint8], theirs: NDArray[Any]) -> float:
    """dB between our pixels and others' bytes or diffusers' `output_type="np"` in 0..1, both [..., H, W,
    RGB]; infinite for equal ones.
    """
    expected = theirs if theirs.dtype == np.uint8 else (theirs * 255).round().astype(np.uint8)
    assert ours.shape == expected.shape
    assert min(ours.std(), expected.std()) > 3, "a flat picture would equal any flat one"
    error = float(np.mean((ours.astype(float) - expected.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else float("inf")
