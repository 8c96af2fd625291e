"""What the thread that uses the engines does in a turn: one slice of one picture, and the news of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from intaglio.engines.interface import Array
from intaglio.stages.diffuse.drawing import Drawing
from intaglio.stages.diffuse.incoming import Wanted
from intaglio.triton_models.jobs import Job, Pace
from intaglio.triton_models.request_metrics import RequestCounts
from intaglio.triton_models.turnstile import Entry, Turnstile

__all__ = ["Drawer", "DrawingStage"]


class DrawingStage(Protocol):
    """The stage, in this process or in another one."""

    def advance(self, drawing: Drawing) -> None:
        """Run the next slice of `drawing`."""

    def finish(self, drawing: Drawing, wanted: Sequence[str]) -> Mapping[str, Array]:
        """The outputs named in `wanted` of a finished drawing."""


class Drawer:
    """Draws slices and counts what they take."""

    def __init__(
        self,
        stage: DrawingStage,
        turnstile: Turnstile[Job, Wanted],
        *,
        counts: RequestCounts,
        work: RequestCounts,
        pace: Pace,
    ) -> None:
        """`counts` are those of the queue, `work` those of the stage; they may be the same."""
        self._stage = stage
        self._turnstile = turnstile
        self._counts = counts
        self._work = work
        self._pace = pace

    def draw(self, entry: Entry[Job, Wanted]) -> Mapping[str, Array] | None:
        """Draw the next slice; the outputs of the picture after its last, None before.

        Raises:
            Cancelled, DeadlineExceeded: the picture is to end.
            IntaglioError: as `Diffuse.advance` and `Diffuse.finish`.
        """
        job = entry.job
        depth, _ = self._turnstile.waiting()
        if job.begin(self._pace, waiting=depth):
            waited = time.monotonic() - entry.since
            self._counts.waited(waited)
            job.journal.waited(waited)
        job.check()
        self._advance(job)
        entry.work = job.work
        latents = job.drawing.preview_latents() if job.reply.wants_latents else None
        job.reply.post(job.progress(self._pace, waiting=self._turnstile.waiting()[0]), latents)
        if not job.drawing.finished:
            return None
        job.check()
        outputs = self._finish(job)
        self._pace.finished(job.compute_seconds)
        return outputs

    def _advance(self, job: Job) -> None:
        drawing = job.drawing
        step = drawing.step
        before = dict(drawing.seconds)
        started = time.perf_counter()
        try:
            self._stage.advance(drawing)
        finally:
            self._took(job, time.perf_counter() - started)
        steps = drawing.step - step
        took = {name: total - before.get(name, 0.0) for name, total in drawing.seconds.items()}
        parts = {name: seconds for name, seconds in took.items() if seconds}
        seconds = took["denoise"]
        job.journal.did("slice", started, parts=parts, first=step, end=drawing.step)
        self._work.stepped(steps, seconds)
        if steps:
            self._pace.worked(steps * job.work_per_step, seconds)

    def _finish(self, job: Job) -> Mapping[str, Array]:
        started = time.perf_counter()
        try:
            outputs = self._stage.finish(job.drawing, job.wanted)
            if "pixels" in outputs:
                job.journal.did("vae", started)
            return outputs
        finally:
            self._took(job, time.perf_counter() - started)

    def _took(self, job: Job, seconds: float) -> None:
        job.compute_seconds += seconds
        self._work.computed(seconds)
