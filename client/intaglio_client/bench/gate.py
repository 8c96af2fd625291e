"""Whether the second of two servers is slower than the first, from the turns of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from intaglio_client.bench.intervals import Interval, Verdict, median_interval, verdict_of
from intaglio_client.bench.turns import Measure, Turn

__all__ = ["CONFIDENCE", "TOLERANCE", "Judgement", "judge_turns"]

CONFIDENCE: Final = 0.99
"""One clean comparison of two hundred is called slower, before the tolerance."""
TOLERANCE: Final = 0.03
"""How much slower the second may certainly be without being called so: two equal builds differ by how the
operating system places their memory and threads.
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict and what it rests on."""

    verdict: Verdict
    interval: Interval
    measure: Measure
    tolerance: float
    turns: Sequence[Turn]

    @property
    def differing(self) -> int:
        """Pictures that are not the same on both servers."""
        return sum(turn.pictures - turn.equal for turn in self.turns)

    @property
    def pictures(self) -> int:
        """Pictures that either server drew."""
        return sum(turn.pictures for turn in self.turns)

    def summary(self) -> str:
        """For people."""
        seconds = "processor seconds" if self.measure == "cpu" else "seconds"
        shown = self.interval.shown()
        return (
            f"{self.verdict}: {seconds} B / A {shown}, {self.interval.confidence:.1%} confidence over "
            f"{self.interval.pairs} turns, tolerance {self.tolerance:.0%}; "
            f"{self.differing} of {self.pictures} pictures differ"
        )

    def data(self) -> dict[str, Any]:
        """For programs."""
        interval = self.interval
        return {
            "verdict": self.verdict,
            "measure": self.measure,
            "ratio": interval.ratio,
            "low": interval.low,
            "high": interval.high,
            "confidence": interval.confidence,
            "tolerance": self.tolerance,
            "turns": [list(turn.seconds) for turn in self.turns],
            "pictures": self.pictures,
            "differing": self.differing,
        }


def judge_turns(
    turns: Sequence[Turn], *, measure: Measure, confidence: float = CONFIDENCE, tolerance: float = TOLERANCE
) -> Judgement:
    """The verdict.

    Raises:
        ValueError: too few turns for the confidence.
    """
    interval = median_interval([turn.ratio for turn in turns], confidence=confidence)
    return Judgement(verdict_of(interval, tolerance=tolerance), interval, measure, tolerance, tuple(turns))
