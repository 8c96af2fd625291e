"""Where the steps of a picture may be cut, so that its slices make the picture that one run makes."""

from __future__ import annotations

from collections.abc import Sequence

from intaglio.stages.diffuse.conditioning import Conditioning
from intaglio.stages.diffuse.control_schedule import ResidualSums, StepControls, step_controls
from intaglio.stages.diffuse.passes import guidance_slices

__all__ = ["slice_ends"]


def slice_ends(request: Conditioning, slice_steps: int) -> tuple[int, ...]:
    """The end of every slice of `request`; the last is the end of the request.

    A slice has `slice_steps` steps, or as many more as it takes until a slice may begin. A ControlNet whose
    residuals serve several steps is the reason: a new slice finds none, so it begins in a step that computes
    all of them. Where guidance begins and ends they are computed anyway.
    """
    if request.begin == request.end:
        return (request.end,)
    ends: list[int] = []
    last = request.begin
    for piece in guidance_slices(request):
        controls = [
            step_controls(piece.controls, step, piece.steps) for step in range(piece.begin, piece.end)
        ]
        whole = _runs(controls)
        for step in range(piece.begin, piece.end):
            place = step - piece.begin
            if step - last < slice_steps:
                continue
            if place == 0 or (
                _all_run(controls[place], whole[place]) and _runs(controls[place:]) == whole[place:]
            ):
                ends.append(step)
                last = step
    return (*ends, request.end)


def _all_run(controls: StepControls, runs: tuple[int, ...]) -> bool:
    return len(controls.chain) == len(runs)


def _runs(controls: Sequence[StepControls]) -> list[tuple[int, ...]]:
    """Places of the ControlNets that run in each step, where the first step begins a slice."""
    sums = ResidualSums()
    found: list[tuple[int, ...]] = []
    for step in controls:
        runs, _ = sums.advance(step)
        found.append(tuple(run.place for run in runs))
    return found
