"""Several filters in a row."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from intaglio_client.filters.chain import judgement_of, recall
from intaglio_client.filters.verdict import Candidate, LabelledBox, Verdict

PICTURE = Candidate(np.zeros((4, 4, 3), np.uint8), "a")
BOX = LabelledBox(0, "person", 0.5, 1.0, 2.0, 3.0, 4.0)


@dataclass
class Says:
    """Says one thing, and remembers what it is told."""

    name: str
    verdict: Verdict
    told: list[Verdict] = field(default_factory=list)
    asked: int = 0

    def __call__(self, candidate: Candidate) -> Verdict:
        self.asked += 1
        return self.verdict

    def recall(self, name: str, verdict: Verdict) -> None:
        self.told.append(verdict)


def test_the_first_that_rejects_is_the_last_that_is_asked() -> None:
    good = Says("good", Verdict(True, "", {"x": 1}, (BOX,)))
    bad = Says("bad", Verdict(False, "too bad", {"y": 2}))
    last = Says("last", Verdict(True, ""))
    said = judgement_of([good, bad, last], PICTURE)
    assert said.jsonable() == {
        "accepted": False,
        "reason": "bad: too bad",
        "scores": {"good": {"x": 1}, "bad": {"y": 2}},
        "boxes": {
            "good": [
                {"class_id": 0, "class_name": "person", "confidence": 0.5, "x0": 1, "y0": 2, "x1": 3, "y1": 4}
            ]
        },
    }
    assert (good.asked, bad.asked, last.asked) == (1, 1, 0)


def test_no_filter_accepts() -> None:
    assert judgement_of([], PICTURE).accepted


def test_each_filter_is_told_its_own_verdict() -> None:
    good, bad, last = (Says(name, Verdict(True, "")) for name in ("good", "bad", "last"))
    said = {"accepted": False, "reason": "bad: too bad", "scores": {"good": {"x": 1}, "bad": {"y": 2}}}
    recall([good, bad, last], "a", said)
    assert good.told == [Verdict(True, "", {"x": 1})]
    assert bad.told == [Verdict(False, "bad: too bad", {"y": 2})]
    assert last.told == []
