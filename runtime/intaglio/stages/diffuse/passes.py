"""How a request is cut: its images into passes of a built batch, its steps where guidance changes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from intaglio.stages.diffuse.conditioning import Conditioning

__all__ = ["guidance_slices", "image_passes"]


def image_passes(images: int, batches: Sequence[int]) -> list[slice]:
    """Slices of `images` images, each of the largest of `batches` that fits (`batches` contains 1)."""
    passes: list[slice] = []
    start = 0
    while start < images:
        count = max(batch for batch in batches if batch <= images - start)
        passes.append(slice(start, start + count))
        start += count
    return passes


def guidance_slices(request: Conditioning) -> list[Conditioning]:
    """`request` cut where its guidance window begins and ends.

    Pieces outside the window have the positive prompt alone.
    """
    if not request.guidance:
        return [request]
    found: list[Conditioning] = []
    for guided, group in itertools.groupby(range(request.begin, request.end), request.guided):
        steps = list(group)
        piece = replace(request, begin=steps[0], end=steps[-1] + 1)
        found.append(piece if guided else _positive_alone(piece))
    return found


def _positive_alone(request: Conditioning) -> Conditioning:
    return replace(
        request,
        token_ids=request.token_ids[:, -1:],
        token_weights=request.token_weights[:, -1:],
        time_ids=request.time_ids[-1:],
    )
