"""What a request states that has no effect, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator

from intaglio.request.limits import inside_window
from intaglio.request.request import Request
from intaglio.sampling.solvers import model_calls

__all__ = ["windows_without_steps"]


def windows_without_steps(request: Request) -> Iterator[str]:
    """Say which windows of guidance and controls hold no step of the checked `request`."""
    steps = model_calls(request.trajectory)
    window = (request.guidance_begin, request.guidance_end)
    if request.guidance and not _holds_a_step(window, steps):
        yield f"guidance_begin: {_shown(window, steps)}, so guidance takes part in none"
    for index, control in enumerate(request.controls):
        window = (control.begin, control.end)
        if not _holds_a_step(window, steps):
            yield f"controls[{index}]: {_shown(window, steps)}, so the control takes part in none"


def _holds_a_step(window: tuple[float, float], steps: int) -> bool:
    return any(inside_window(window, step, steps) for step in range(steps))


def _shown(window: tuple[float, float], steps: int) -> str:
    begin, end = window
    return f"the window {begin:g} to {end:g} holds no whole step of {steps}"
