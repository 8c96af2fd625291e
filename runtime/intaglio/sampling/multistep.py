"""Solvers that use predictions of earlier steps: DPM++ 2M, DPM++ 2M SDE, UniPC."""

from __future__ import annotations

import math

from intaglio.sampling.noise_levels import Level
from intaglio.sampling.rows import H1, H2, H3, NOISE, Course, Row, X

__all__ = ["dpmpp_2m", "dpmpp_2m_sde", "unipc"]


def dpmpp_2m(course: Course, i: int) -> tuple[Row, ...]:
    """DPM-Solver++ multistep of order 2, midpoint form. Lu et al., arXiv 2211.01095, algorithm 2.

    It is of order 1 on the first step (no history) and on the last (to sigma = 0, where the step in log-SNR
    is infinite). History: S1 = the previous step's denoised latents.
    """
    denoised = course.denoised(i)
    target = _target_2m(course, i, denoised)
    return _exponential_step(course.at(i), course.to(i), X, target), denoised


def dpmpp_2m_sde(course: Course, i: int) -> tuple[Row, ...]:
    """DPM++ 2M on the diffusion SDE instead of the ODE: it goes twice as far and adds new noise.

    k-diffusion, `sample_dpmpp_2m_sde` with eta 1 in midpoint form; diffusers' `sde-dpmsolver++`. Orders and
    history are those of `dpmpp_2m`.
    """
    denoised = course.denoised(i)
    target = _target_2m(course, i, denoised)
    now, goal = course.at(i), course.to(i)
    shrink = math.exp(now.log_snr - goal.log_snr)
    moved = goal.sigma / now.sigma * shrink * X + goal.alpha * (1 - shrink**2) * target
    return moved + goal.sigma * math.sqrt(1 - shrink**2) * NOISE, denoised


def _target_2m(course: Course, i: int, denoised: Row) -> Row:
    """x0 that step i moves towards."""
    if course.first(i) or course.last(i):
        return denoised
    return _extrapolated(course, i, denoised, H1)


def unipc(course: Course, i: int) -> tuple[Row, ...]:
    """UniPC of order 2 with B(h) = e^h - 1 ("bh2"), predicting x0. Zhao et al., arXiv 2302.04867.

    Each step first corrects the x that it gets with the prediction evaluated there, then predicts the next x.
    History: S1 = the corrected x of the previous step, S2 and S3 = denoised latents one and two steps ago.
    """
    denoised = course.denoised(i)
    corrected = X if course.first(i) else _unipc_corrected(course, i, denoised)
    target = denoised
    if _unipc_order(course, i) == 2:
        target = _extrapolated(course, i, denoised, H2)
    return _exponential_step(course.at(i), course.to(i), corrected, target), corrected, denoised, H2


def _unipc_corrected(course: Course, i: int, denoised: Row) -> Row:
    """x at step i, corrected with the denoised latents there.

    UniC, of the order that the predictor used to get here.
    """
    last_corrected, last_denoised, denoised_before = H1, H2, H3
    before, now = course.at(i - 1), course.at(i)
    change = denoised - last_denoised
    if _unipc_order(course, i - 1) == 1:
        return _exponential_step(before, now, last_corrected, last_denoised + 0.5 * change)
    h = now.log_snr - before.log_snr
    r = (course.at(i - 2).log_snr - before.log_snr) / h
    # [[1, 1], [r, 1]] @ [rho_before, rho_now] = b matches the Taylor terms of the exponential integral.
    phi_2 = math.expm1(-h) / -h - 1
    phi_3 = phi_2 / -h - 1 / 2
    b_1, b_2 = phi_2 / math.expm1(-h), 2 * phi_3 / math.expm1(-h)
    rho_before = (b_1 - b_2) / (1 - r)
    rho_now = b_1 - rho_before
    target = last_denoised + rho_before / r * (denoised_before - last_denoised) + rho_now * change
    return _exponential_step(before, now, last_corrected, target)


def _unipc_order(course: Course, i: int) -> int:
    """Order of the predictor at step i.

    It is 1 at the first step, which has no history, and at the last, which goes to sigma = 0.
    """
    return 1 if course.first(i) or course.last(i) else 2


def _extrapolated(course: Course, i: int, denoised: Row, previous: Row) -> Row:
    """x0 halfway through step i in log-SNR, on the line through its last two values."""
    h = course.to(i).log_snr - course.at(i).log_snr
    h_before = course.at(i).log_snr - course.at(i - 1).log_snr
    return denoised + 0.5 * h / h_before * (denoised - previous)


def _exponential_step(now: Level, goal: Level, x: Row, denoised: Row) -> Row:
    """x moved to `goal` for a constant x0; there the diffusion ODE has this exact solution."""
    shrink = math.exp(now.log_snr - goal.log_snr)
    return goal.sigma / now.sigma * x + goal.alpha * (1 - shrink) * denoised
