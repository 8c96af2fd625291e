"""What is in a picture, and whether it keeps to rules about that."""

from __future__ import annotations

from collections import Counter
from typing import Any

import PIL.Image

from intaglio.contract.filters import DetectorFilter
from intaglio.objects.opening import open_finder
from intaglio.objects.rules import broken_rule, check_rules
from intaglio_client.filters.verdict import Candidate, LabelledBox, Verdict

__all__ = ["Detector"]


class Detector:
    """A network that runs here, on the CPU."""

    def __init__(self, spec: DetectorFilter) -> None:
        """Open the network.

        Raises:
            ConfigError: a file is missing or wrong, or a rule is about an unknown class.
        """
        self.name = spec.name
        self._find = open_finder(spec.finder)
        self._rules = spec.rules
        check_rules(self._rules, self._find.names, least=spec.confidence)

    def __call__(self, candidate: Candidate) -> Verdict:
        objects = self._find(PIL.Image.fromarray(candidate.pixels))
        reason = broken_rule(self._rules, objects)
        counts = Counter(one.class_name for one in objects)
        scores: dict[str, Any] = {name: counts[name] for name in sorted(counts)}
        boxes = tuple(
            LabelledBox(one.class_id, one.class_name, round(one.confidence, 6), *one.box) for one in objects
        )
        return Verdict(not reason, reason, scores, boxes)
