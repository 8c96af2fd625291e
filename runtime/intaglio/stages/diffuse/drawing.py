"""A picture on its way: a request, how far its trajectory has come, and what its next slice needs."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from intaglio.stages.diffuse.conditioning import Conditioning
from intaglio.stages.diffuse.slices import slice_ends
from intaglio.stages.diffuse.text import Embeddings

__all__ = ["Drawing"]

Floats = NDArray[np.float32]


class Drawing:
    """A request between two of its slices. Its state lies in the host's memory, [K, B, 4, h, w].

    At 1024x1024 that is a megabyte an image, whose way to the card and back takes less than a thousandth of
    a slice. So any other picture may be drawn between two slices.
    """

    def __init__(self, request: Conditioning, *, slice_steps: int | None = None) -> None:
        """`slice_steps` is as in `slice_ends`; None makes one slice of all steps."""
        self.request = request
        self.step = request.begin
        """The next step."""
        self.state: Floats = request.state
        self.embeddings: Sequence[Embeddings] | None = None
        """Of every prompt. They are kept for the later slices, since the cache may drop them meanwhile."""
        self.seconds: dict[str, float] = {}
        """By stage."""
        self._ends = slice_ends(request, slice_steps or max(1, request.end - request.begin))

    @property
    def finished(self) -> bool:
        """Whether every step has run."""
        return self.step == self.request.end

    @property
    def slice_shapes(self) -> tuple[object, ...] | None:
        """Equal for slices that run the same networks on tensors of the same shapes; None for an empty slice,
        which runs none. It is that of the slice that begins with `step`.
        """
        request = self.request
        steps = range(self.step, self.next_end())
        if not steps:
            return None
        passes = frozenset((request.guided(step), self._active_networks((step,))) for step in steps)
        # Their contexts are computed for all later slices, too.
        contexts = self._active_networks(range(self.step, request.steps))
        return request.state.shape, request.token_ids.shape, passes, contexts

    def _active_networks(self, steps: Sequence[int]) -> tuple[str, ...]:
        """Networks of the links that take part in any of `steps`."""
        request = self.request
        active = [link for link in request.links if any(link.active(step, request.steps) for step in steps)]
        return tuple(link.network for link in active)

    @property
    def work_per_step(self) -> float:
        """Pixels of the latents of all images, once more for every pass of a ControlNet."""
        _, images, _, height, width = self.request.state.shape
        return float(images * height * width * (1 + len(self.request.links)))

    def next_end(self) -> int:
        """The end of the slice that begins with `step`."""
        return next((end for end in self._ends if end > self.step), self.request.end)

    def preview_latents(self) -> Floats:
        """Latents [B, 4, h, w] so far, at the scale that those of a picture have.

        A solver that adds noise by sigmas has latents that grow with them; `input_scale` takes that out.
        """
        latents: Floats = self.state[0]
        if self.step < self.request.steps:
            latents = latents * self.request.input_scale[self.step]
        return latents

    def add_seconds(self, stage: str, since: float) -> float:
        """Add the time since `since` to `stage`; the time now, both as `time.perf_counter` has them."""
        now = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - since
        return now
