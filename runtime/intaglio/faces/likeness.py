"""How much the faces of a picture are like a character, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from intaglio.contract.identity import LARGEST_THRESHOLD, FacesWanted, Likeness, Measure, Reference
from intaglio.errors import InvalidRequest
from intaglio.faces.found import Embedding, ReadFace, unit

__all__ = ["Criterion", "FaceScores", "Judgement", "check_threshold", "judged", "scores_of"]

_MOST_FACES: Final = 100
"""Faces whose scores a judgement lists."""


def check_threshold(threshold: float | None, measure: Measure) -> None:
    """Raise InvalidRequest where `threshold` is none of `measure`: no face or every face would match."""
    low, high = (-1.0, 1.0) if measure == "cosine" else (0.0, LARGEST_THRESHOLD)
    if threshold is not None and not low <= threshold <= high:
        allowed = f"{low:g} to {high:g}, since the deployment measures {measure}"
        raise InvalidRequest("threshold", f"{threshold:g}", allowed=allowed)


@dataclass(frozen=True, slots=True)
class Criterion:
    """When a face counts as the character's."""

    measure: Measure
    threshold: float
    reference: Reference
    smallest_face: float
    """Shorter side in pixels."""
    faces: FacesWanted = "one"

    def is_met(self, scores: FaceScores) -> bool:
        """Whether a face with `scores` is the character's."""
        value = scores.value(self.measure, self.reference)
        return value >= self.threshold if self.measure == "cosine" else value <= self.threshold


@dataclass(frozen=True, slots=True)
class FaceScores:
    """Where a face is in the picture, and how much it is like the character."""

    box: tuple[float, float, float, float]
    """Left, top, right, bottom in pixels."""
    confidence: float
    """Of the detector, that it is a face."""
    cosine_nearest: float
    cosine_mean: float

    @property
    def side(self) -> float:
        """The shorter side of the box in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    def value(self, measure: Measure, reference: Reference) -> float:
        """The score that a threshold of `measure` is of."""
        cosine = self.cosine_nearest if reference == "nearest" else self.cosine_mean
        # Both vectors have length 1, so |a - b|^2 = 2 - 2 a.b
        return cosine if measure == "cosine" else float(np.sqrt(max(0.0, 2.0 - 2.0 * cosine)))


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a picture is found to be, and the scores of its faces."""

    likeness: Likeness
    faces: tuple[FaceScores, ...]
    """Those that are large enough first, and of these the most alike."""


def scores_of(face: ReadFace, references: Sequence[Embedding]) -> FaceScores:
    """`face` compared with every one of `references`, of which there is at least one."""
    known = np.stack(references)
    left, top, right, bottom = (float(value) for value in face.box)
    return FaceScores(
        box=(left, top, right, bottom),
        confidence=face.confidence,
        cosine_nearest=float((known @ face.embedding).max()),
        cosine_mean=float(unit(known.mean(axis=0)) @ face.embedding),
    )


def judged(faces: Sequence[ReadFace], references: Sequence[Embedding], criterion: Criterion) -> Judgement:
    """The judgement of a picture with `faces`. A face that is too small counts only where all are."""
    scored = [scores_of(face, references) for face in faces]
    # A distance falls as its cosine rises.
    scored.sort(key=lambda scores: -scores.value("cosine", criterion.reference))
    large = [scores for scores in scored if scores.side >= criterion.smallest_face]
    # The first face is what the likeness is of. One that is too small may be more alike, but does not count.
    scored.sort(key=lambda scores: scores.side < criterion.smallest_face)
    likeness: Likeness
    if not scored:
        likeness = "no face"
    elif not large:
        likeness = "face too small"
    elif len(large) > 1 and criterion.faces == "one":
        likeness = "many faces"
    else:
        likeness = "match" if criterion.is_met(large[0]) else "no match"
    return Judgement(likeness, tuple(scored[:_MOST_FACES]))
