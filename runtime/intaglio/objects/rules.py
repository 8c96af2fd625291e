"""Rules about what must and what may not be in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from intaglio.contract.objects import ClassRule, ObjectRules
from intaglio.errors import ConfigError
from intaglio.objects.found import FoundObject

__all__ = ["broken_rule", "check_rules"]

_SHOWN: Final = 20
"""Classes that an error names."""


def check_rules(rules: ObjectRules, names: Sequence[str], *, least: float) -> None:
    """Check `rules` for a network of the classes `names` that finds objects from the confidence `least` on.

    Raises:
        ConfigError: a rule is about a class that the network does not know, or about objects that it never
            finds.
    """
    for rule in (*rules.require, *rules.forbid):
        if rule.name not in names:
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise ConfigError(f"class {rule.name!r}: the network does not know it; its classes: {shown}")
        if 0 < rule.confidence < least:
            raise ConfigError(
                f"class {rule.name!r}: confidence {rule.confidence:g} of the rule is below {least:g}, where "
                "nothing is found; lower the network's confidence, or leave the rule's out"
            )


def broken_rule(rules: ObjectRules, objects: Sequence[FoundObject]) -> str:
    """The first of `rules` that `objects` break, in words; empty where they break none."""
    for rule in rules.forbid:
        count = _count(objects, rule)
        if count:
            return f"{count} {rule.name}, forbidden{_shown_confidence(rule)}"
    for required in rules.require:
        count = _count(objects, required)
        wanted = ""
        if count < required.at_least:
            wanted = f"at least {required.at_least}"
        elif required.at_most is not None and count > required.at_most:
            wanted = f"at most {required.at_most}"
        if wanted:
            return f"{count} {required.name}, required: {wanted}{_shown_confidence(required)}"
    return ""


def _count(objects: Sequence[FoundObject], rule: ClassRule) -> int:
    return sum(one.class_name == rule.name and one.confidence >= rule.confidence for one in objects)


def _shown_confidence(rule: ClassRule) -> str:
    return f" (confidence {rule.confidence:g})" if rule.confidence else ""
