"""Values of a training YAML, and the ways in which they may be written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

__all__ = ["Positive", "Probability", "Resolution", "Schedule", "Suffix", "Trackers"]

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


def _sides(value: Any) -> Any:
    """kohya's "1024,768" is a pair; other values are checked as they are."""
    if isinstance(value, str):
        sides = [int(side) if side.strip().isdecimal() else side for side in value.split(",")]
        return sides if len(sides) > 1 else sides[0]
    return value


def _several(value: Any) -> Any:
    """One tracker may be given without a list, and none as "none"."""
    if isinstance(value, str):
        return () if value == "none" else (value,)
    return value


def _suffix(value: str) -> str:
    return value if value.startswith(".") else f".{value}"


Suffix = Annotated[str, AfterValidator(_suffix)]
Resolution = Annotated[int | tuple[int, int], BeforeValidator(_sides)]
Trackers = Annotated[tuple[Literal["tensorboard", "wandb"], ...], BeforeValidator(_several)]
Schedule = Literal["constant", "linear", "cosine", "cosine_with_restarts", "polynomial"]
