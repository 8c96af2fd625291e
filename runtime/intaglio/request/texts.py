"""Text and JSON in the tensors of a request, read without trust.

A refusal is an `InvalidRequest` in one line: too long, not UTF-8, not JSON, nested too deeply, a number that
is not finite, or not the entries that were expected.
"""

from __future__ import annotations

import codecs
import functools
import json
import math
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from intaglio.contract.ports import Port, Tensors
from intaglio.contract.yaml_files import Strict
from intaglio.errors import InvalidRequest
from intaglio.validation_errors import first_problem

__all__ = ["JSON_BYTES", "read_bytes", "read_choice", "read_json", "read_json_list", "read_text"]

JSON_BYTES: Final = 64 * 1024
"""Longest JSON that is read, unless the caller allows more."""
_DEEPEST: Final = 32
"""Levels of lists and objects in JSON."""
_LONGEST_CHOICE: Final = 64
"""Bytes of a choice that an error shows."""


def read_bytes(value: Any, *, field: str) -> bytes:
    """One element of a tensor of strings.

    Raises:
        InvalidRequest: it is neither bytes nor text.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytes):
        return value
    raise InvalidRequest(field, f"{type(value).__name__} in a tensor of strings", allowed="bytes")


def read_text(found: Tensors, name: str, *, most: int, unit: str = "bytes") -> str:
    """The one string of the tensor `name`.

    Raises:
        InvalidRequest: more than `most` bytes (`unit` says of what), or not UTF-8.
    """
    data = read_bytes(found[name].reshape(-1)[0], field=name)
    if len(data) > most:
        raise InvalidRequest(name, f"{len(data)} bytes", allowed=f"at most {most} {unit}")
    return _decoded(name, data)


def read_choice(found: Tensors, port: Port) -> str:
    """The one string of `port`, which is one of its choices.

    Raises:
        InvalidRequest: it is another text.
    """
    data = read_bytes(found[port.name].reshape(-1)[0], field=port.name)
    text = _decoded(port.name, data[:_LONGEST_CHOICE], whole=len(data) <= _LONGEST_CHOICE)
    if text not in port.choices or len(data) > _LONGEST_CHOICE:
        raise InvalidRequest(port.name, f"{text!r} is unknown", allowed=port.allowed)
    return text


def read_json(found: Tensors, name: str, *, allowed: str, most: int = JSON_BYTES) -> Any:
    """The JSON value in the tensor `name`; None where it is blank.

    Raises:
        InvalidRequest: see above.
    """
    text = read_text(found, name, most=most, unit="bytes of JSON")
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(name, f"not JSON: {error}", allowed=allowed) from error
    _check_values(value, name, allowed=allowed)
    return value


_Entry = TypeVar("_Entry", bound=Strict)


def read_json_list(found: Tensors, name: str, entry: type[_Entry], *, most: int) -> list[_Entry]:
    """The entries in the tensor `name`, which is a JSON list; none where it is absent or blank.

    Raises:
        InvalidRequest: see above, or more than `most` entries; the field is the place of the first wrong
            value, `controls[0].type`.
    """
    if name not in found:
        return []
    allowed = f"a JSON list of objects with {', '.join(entry.model_fields)}"
    value = read_json(found, name, allowed=allowed)
    if value is None:
        return []
    if isinstance(value, list) and len(value) > most:  # before any entry costs time
        raise InvalidRequest(name, f"{len(value)} is out of range", allowed=f"0 to {most}")
    try:
        entries: list[_Entry] = _list_of(entry).validate_python(value)
    except ValidationError as error:
        first = first_problem(error, list[entry])  # type: ignore[valid-type]
        raise InvalidRequest(f"{name}{first.key}", first.wrong, allowed=first.allowed or allowed) from error
    return entries


@functools.cache  # to make one takes half a millisecond; there is one for each kind of entry
def _list_of(entry: type[Strict]) -> TypeAdapter[Any]:
    return TypeAdapter(list[entry])  # type: ignore[valid-type]


def _decoded(name: str, data: bytes, *, whole: bool = True) -> str:
    """`data` as text. Where it is not the `whole` text, its end may cut a character, which is left out."""
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(data, final=whole)
    except UnicodeDecodeError as error:
        raise InvalidRequest(name, f"byte {error.start} is not UTF-8", allowed="UTF-8 text") from error


@dataclass(frozen=True, slots=True)
class _Place:
    """A value within JSON: the key or index that leads to it, and the list or object that it is in."""

    value: Any
    step: int | str
    within: _Place | None

    @property
    def field(self) -> str:
        steps: list[int | str] = []
        place: _Place | None = self
        while place is not None:
            steps.append(place.step)
            place = place.within
        name, *location = reversed(steps)
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
        return str(name) + "".join(parts)


def _check_values(value: Any, name: str, *, allowed: str) -> None:
    """Python reads NaN, Infinity and 1e999 as JSON, and writes what nobody else can read."""
    level = [_Place(value, name, None)]
    for _ in range(_DEEPEST):
        below: list[_Place] = []
        for place in level:
            one = place.value
            if isinstance(one, float) and not math.isfinite(one):
                raise InvalidRequest(place.field, f"{one} is not a finite number", allowed=allowed)
            if isinstance(one, dict):
                below += [_Place(item, key, place) for key, item in one.items()]
            elif isinstance(one, list):
                below += [_Place(item, index, place) for index, item in enumerate(one)]
        if not below:
            return
        level = below
    raise InvalidRequest(name, f"nested more than {_DEEPEST} levels deep", allowed=allowed)
