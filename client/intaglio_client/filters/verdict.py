"""What a filter is: it gets a candidate and gives a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidate", "Filter", "LabelledBox", "Remembering", "Verdict"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that is judged."""

    pixels: NDArray[np.uint8] = field(repr=False)
    """[H, W, RGB]."""
    name: str
    """What messages call it, such as the name of its file."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What the picture says of itself: every request parameter; empty for a picture made elsewhere."""


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """Something that was found in a picture, and where. Coordinates are pixels from the upper left corner."""

    class_id: int
    class_name: str
    confidence: float
    """0 to 1."""
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one filter says of a picture. A picture that cannot be judged is rejected with the reason."""

    accepted: bool
    reason: str
    """One line: why it is rejected; empty where it is accepted."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """Figures by name, as values that JSON can hold."""
    boxes: tuple[LabelledBox, ...] = ()


@runtime_checkable
class Filter(Protocol):
    """Judges one picture after another, in the order of the batch's pictures, from one thread."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""

    def __call__(self, candidate: Candidate) -> Verdict:
        """The verdict. The same candidates in the same order get the same verdicts.

        Raises:
            IntaglioError: the filter cannot work, whatever the picture shows; the batch stops.
        """


@runtime_checkable
class Remembering(Protocol):
    """A filter whose verdict depends on earlier pictures. A batch that goes on after a stop tells it what it
    said of them.
    """

    def recall(self, name: str, verdict: Verdict) -> None:
        """Take in its own `verdict` of the earlier picture `name`. Boxes are not kept in it."""
