"""The table of few-step methods."""

from __future__ import annotations

from intaglio.contract.methods import METHODS, Method, values_text
from reference.tables import code, table

__all__ = ["few_step_methods"]


def few_step_methods() -> str:
    """One row a method."""
    head = ("method", "of", "what it sets", "also allowed", "documented at")
    return table(head, (_row(name, method) for name, method in METHODS.items()))


def _row(name: str, method: Method) -> tuple[str, ...]:
    values = [f"{one} {values_text(value)}" for one, value in method.values.items()]
    allowed = [f"{one} {method.allowed(one)}" for one in (*method.ranges, *method.choices)]
    kind = "a checkpoint" if method.is_base else "a LoRA or a checkpoint"
    return (code(name), kind, "; ".join(values), "; ".join(allowed), method.source)
