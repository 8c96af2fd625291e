"""Solvers that need no history: Euler, Euler ancestral, DDIM."""

from __future__ import annotations

import math

from intaglio.sampling.rows import NOISE, Course, Row, X

__all__ = ["ddim", "euler", "euler_ancestral"]


def euler(course: Course, i: int) -> tuple[Row, ...]:
    """Euler's method on dx/dsigma = eps. Karras et al., arXiv 2206.00364."""
    return (X + (course.to(i).ratio - course.at(i).ratio) * course.eps(i),)


def euler_ancestral(course: Course, i: int) -> tuple[Row, ...]:
    """Euler to a lower noise level, then up again with new noise.

    k-diffusion, `sample_euler_ancestral` with eta 1.
    """
    sigma = course.at(i).ratio
    sigma_next = course.to(i).ratio
    sigma_up = sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0)) / sigma
    sigma_down = sigma_next**2 / sigma
    return (X + (sigma_down - sigma) * course.eps(i) + sigma_up * NOISE,)


def ddim(course: Course, i: int) -> tuple[Row, ...]:
    """Song et al., arXiv 2010.02502, equations 12 and 16: eta 0 adds no noise, eta 1 is DDPM."""
    now = course.at(i)
    goal = course.to(i)
    # 1 - alpha^2 / goal.alpha^2, where alpha falls with time; below 0 only where diffusers steps backwards.
    fresh = max(1 - (now.alpha / goal.alpha) ** 2, 0)
    spread = course.eta * goal.sigma / now.sigma * math.sqrt(fresh)
    direction = math.sqrt(max(goal.sigma**2 - spread**2, 0))
    return (goal.alpha * course.denoised(i) + direction * course.eps(i) + spread * NOISE,)
