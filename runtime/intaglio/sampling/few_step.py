"""Solvers of models distilled to a few steps: LCM and TCD."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from intaglio.sampling.rows import NOISE, Course, Row, X

__all__ = ["lcm", "tcd"]

LCM_TIMESTEP_SCALING: Final = 10.0
LCM_SIGMA_DATA: Final = 0.5
"""Both are of the boundary condition c_skip, c_out. Luo et al., arXiv 2310.04378."""


def lcm(course: Course, i: int) -> tuple[Row, ...]:
    """Latent consistency: jump to the end, add noise again. Luo et al., arXiv 2310.04378."""
    scaled = course.schedule.timesteps[i] * LCM_TIMESTEP_SCALING
    c_skip = LCM_SIGMA_DATA**2 / (scaled**2 + LCM_SIGMA_DATA**2)
    c_out = scaled / math.hypot(scaled, LCM_SIGMA_DATA)
    goal = course.to(i)
    return (goal.alpha * (c_out * course.denoised(i) + c_skip * X) + goal.sigma * NOISE,)


def tcd(course: Course, i: int) -> tuple[Row, ...]:
    """Jump to a time s before the next time, then add noise up to it. Zheng et al., arXiv 2402.19159.

    `eta` is the paper's gamma: s = (1 - eta) * next time. The last step ends at training time 0, without
    noise.
    """
    schedule = course.schedule
    next_time = 0 if course.last(i) else int(schedule.timesteps[i + 1])
    goal = schedule.trained(next_time)
    # torch multiplies in float32 and cuts; float64 would give another time where the product is whole.
    early = schedule.trained(int(np.floor(np.float32(1 - course.eta) * np.float32(next_time))))
    jumped = early.alpha * course.denoised(i) + early.sigma * course.eps(i)
    if course.eta == 0 or course.last(i):
        return (jumped,)
    share = goal.alpha / early.alpha
    return (share * jumped + math.sqrt(max(1 - share**2, 0)) * NOISE,)
