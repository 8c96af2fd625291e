"""What `intaglio doctor` reports: one finding a line, and where findings of other packages come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CARD_CHECKS", "CHECKS", "Finding", "State"]

State = Literal["ok", "note", "missing"]
CHECKS: Final = "intaglio.checks"
"""Entry points of more checks: (deployment, path of its YAML file) -> findings.

The doctor needs them because it may not import the packages above it.
"""
CARD_CHECKS: Final = "intaglio.card_checks"
"""The same for `intaglio doctor --card`: they measure the card, which takes seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `missing` stops what the deployment is for, `note` does not."""

    what: str
    state: State
    detail: str
    fix: str = ""
    """The command that helps."""
