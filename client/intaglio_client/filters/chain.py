"""Several filters in a row: the first that rejects a picture ends the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from intaglio_client.filters.verdict import Candidate, Filter, LabelledBox, Remembering, Verdict

__all__ = ["Judgement", "judgement_of", "recall"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a row of filters says of a picture."""

    accepted: bool
    reason: str = ""
    """`sharpness: 12 is below 50`; empty where every filter accepts."""
    scores: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Scores of each filter by its name; filters behind the one that rejected have none."""
    boxes: Mapping[str, tuple[LabelledBox, ...]] = field(default_factory=dict)
    """What filters found, by the name of the filter; only of those that found something."""

    def jsonable(self) -> dict[str, Any]:
        """As the manifest holds it."""
        boxes = {name: [asdict(box) for box in found] for name, found in self.boxes.items()}
        scores = {name: dict(values) for name, values in self.scores.items()}
        return {"accepted": self.accepted, "reason": self.reason, "scores": scores, "boxes": boxes}


def judgement_of(filters: Sequence[Filter], candidate: Candidate) -> Judgement:
    """Ask `filters` in their order. Raises what a filter raises."""
    scores: dict[str, Mapping[str, Any]] = {}
    boxes: dict[str, tuple[LabelledBox, ...]] = {}
    for one in filters:
        verdict = one(candidate)
        scores[one.name] = verdict.scores
        if verdict.boxes:
            boxes[one.name] = verdict.boxes
        if not verdict.accepted:
            return Judgement(False, f"{one.name}: {verdict.reason}", scores, boxes)
    return Judgement(True, "", scores, boxes)


def recall(filters: Sequence[Filter], name: str, said: Mapping[str, Any]) -> None:
    """Tell filters what they said of the picture `name`; `said` is `Judgement.jsonable` of it."""
    judged = list(said["scores"])
    for one in filters:
        if isinstance(one, Remembering) and one.name in judged:
            accepted = bool(said["accepted"]) or one.name != judged[-1]
            reason = "" if accepted else str(said["reason"])
            one.recall(name, Verdict(accepted, reason, said["scores"][one.name]))
