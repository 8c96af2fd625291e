"""Scores and judgements of faces whose embeddings are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from intaglio.contract.identity import Likeness
from intaglio.errors import InvalidRequest
from intaglio.faces.found import ReadFace, unit
from intaglio.faces.likeness import Criterion, check_threshold, judged, scores_of


def at(degrees: float) -> Any:
    return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def face(degrees: float, side: float = 100.0) -> ReadFace:
    return ReadFace(np.array([10, 20, 10 + side, 20 + 2 * side]), 0.9, at(degrees))


REFERENCES = [at(0), at(40)]


def test_scores_are_those_of_the_nearest_and_of_the_mean() -> None:
    scores = scores_of(face(50), REFERENCES)
    assert scores.cosine_nearest == pytest.approx(math.cos(math.radians(10)))
    assert scores.cosine_mean == pytest.approx(math.cos(math.radians(30)))
    assert scores.value("euclidean", "mean") == pytest.approx(np.linalg.norm(at(50) - at(20)))
    assert scores.value("euclidean", "nearest") == pytest.approx(np.linalg.norm(at(50) - at(40)))
    assert (scores.side, scores.box) == (100, (10, 20, 110, 220))


@pytest.mark.parametrize("measure", ["cosine", "euclidean"])
@pytest.mark.parametrize("reference", ["nearest", "mean"])
def test_the_threshold_itself_is_met(measure: Any, reference: Any) -> None:
    scores = scores_of(face(55), REFERENCES)
    value = scores.value(measure, reference)
    stricter = 0.001 if measure == "cosine" else -0.001
    for threshold, met in ((value, True), (value + stricter, False), (value - stricter, True)):
        assert Criterion(measure, threshold, reference, 48).is_met(scores) is met


WITHIN = math.cos(math.radians(12))
CASES: dict[str, tuple[list[ReadFace], str, Likeness]] = {
    "nobody": ([], "one", "no face"),
    "tiny": ([face(0, 47.9)], "one", "face too small"),
    "just large enough": ([face(0, 48)], "one", "match"),
    "two": ([face(0), face(180)], "one", "many faces"),
    "two, one tiny": ([face(180, 10), face(0)], "one", "match"),
    "one of two": ([face(180), face(0)], "any", "match"),
    "none of two": ([face(180), face(90)], "any", "no match"),
    "a tiny one is more alike": ([face(0, 10), face(90)], "one", "no match"),
    "another": ([face(90)], "one", "no match"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_picture_is_found_to_be(name: str) -> None:
    faces, wanted, expected = CASES[name]
    criterion = Criterion("cosine", WITHIN, "nearest", 48, wanted)  # type: ignore[arg-type]
    found = judged(faces, REFERENCES, criterion)
    assert found.likeness == expected
    assert len(found.faces) == len(faces)
    order = [(scores.side >= criterion.smallest_face, scores.cosine_nearest) for scores in found.faces]
    assert order == sorted(order, reverse=True)


@pytest.mark.parametrize(("measure", "low", "high"), [("cosine", -1.0, 1.0), ("euclidean", 0.0, 2.0)])
def test_a_threshold_of_the_other_measure_is_refused(measure: Any, low: float, high: float) -> None:
    for threshold in (None, low, high):
        check_threshold(threshold, measure)
    for threshold in (low - 0.01, high + 0.01):
        with pytest.raises(
            InvalidRequest, match=f"threshold: .*; allowed: .*the deployment measures {measure}"
        ):
            check_threshold(threshold, measure)


def test_an_embedding_of_zeros_stays() -> None:
    assert unit(np.zeros(3)).tolist() == [0, 0, 0]
