"""Models in words."""

from __future__ import annotations

from datetime import date, time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from reference.fields import keys_of, models_in, own_text


class Inner(BaseModel):
    share: Annotated[float, Field(gt=0, lt=1)] | None = None


class Base(BaseModel):
    count: int = Field(default=2, ge=1, le=16)
    """How many,
    in words."""
    sizes: tuple[tuple[Annotated[int, Field(ge=8)], int], ...] = Field(min_length=1)


class Outer(Base):
    mode: Literal["on", "off"] = "on"
    either: Literal["some"] | Literal["all"] = "some"
    place: Path | None = None
    inner: dict[str, Inner] = Field(default_factory=dict)
    own: Inner = Inner()
    day: date | None = None


KEYS = {key.name: key for key in keys_of(Outer)}


@pytest.mark.parametrize(
    ("name", "kind", "default", "allowed"),
    [
        ("count", "integer", "`2`", "1 to 16"),
        ("sizes", "list of pairs of integers", "required", "not empty; each at least 8"),
        ("mode", "choice", "`'on'`", "`'on'`, `'off'`"),
        ("either", "choice", "`some`", "`some`, `all`"),
        ("place", "path", "none", ""),
        ("inner", "mapping of an id to a mapping", "`{}`", ""),
        ("own", "mapping", "see below", ""),
        ("day", "date", "none", ""),
    ],
)
def test_a_field_in_words(name: str, kind: str, default: str, allowed: str) -> None:
    key = KEYS[name]
    assert (key.type, key.default, key.range) == (kind, default, allowed)


def test_a_type_without_a_word_is_an_error() -> None:
    class Clock(BaseModel):
        at: time

    with pytest.raises(ValueError, match=r"datetime.time.*: no word for this type; add one"):
        list(keys_of(Clock))


def test_what_a_model_holds() -> None:
    (share,) = keys_of(Inner)
    assert (share.type, share.default, share.range) == ("number", "none", "above 0, below 1")
    assert list(models_in(KEYS["inner"].field.annotation)) == [Inner]
    assert own_text(KEYS["count"]) == "How many, in words."
    assert own_text(KEYS["mode"]) == ""
    assert KEYS["count"].model is Base
