"""What is wrong with a value that pydantic refused, in plain sentences: the key, the value, what is allowed.

pydantic names its own error types. Here the words come from the model instead: the annotation at the place
of the error says what is allowed there. So every error type is covered, also one that pydantic adds later.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

__all__ = ["Allowed", "Derived", "Problem", "allowed_words", "first_problem", "nearest", "problems_text"]

_MOST_PROBLEMS: Final = 4
_LONGEST_VALUE: Final = 60
_KEY: Final = "[key]"
"""The last part of pydantic's location where the key of a mapping is wrong."""
_PLAIN: Final[Mapping[Any, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    bytes: "bytes",
    type(None): "nothing",
}
_UNIONS: Final = (Union, types.UnionType)
_LIMITS: Final = (
    "ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern", "words",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Allowed:
    """Stands beside a constraint in `Annotated`, and says in words what the constraint allows."""

    words: str


@dataclass(frozen=True, slots=True)
class Derived:
    """Marks a field that follows from the file's path: it is no key of the file."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    key: str
    """Where: `server.http_port`, `base[0].hub`; empty for the whole."""
    wrong: str
    """What is wrong there: `is 70000`."""
    allowed: str = ""
    """What would be right; empty where `wrong` says so already."""
    sentence: str = ""

    def __str__(self) -> str:
        return self.sentence


def problems_text(error: ValidationError, kind: type[BaseModel]) -> str:
    """One line with the first problems of a value of `kind`, and how many more there are."""
    found = _refused_places(error, kind)
    more = len(found) - _MOST_PROBLEMS
    shown = "; ".join(str(_problem(place, item)) for place, item in found[:_MOST_PROBLEMS])
    return f"{shown}; and {more} more" if more > 0 else shown


def first_problem(error: ValidationError, kind: Any) -> Problem:
    """The first problem of `error`. `kind` is what was validated: a model, or any other annotation.

    The time it takes grows with the number of errors, and not faster: anybody may send a request.
    """
    place, item = _refused_places(error, kind)[0]
    return _problem(place, item)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean steps?`, or nothing where no known name is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _refused_places(error: ValidationError, kind: Any) -> list[tuple[_Place, ErrorDetails]]:
    """Each place that is wrong by itself, with its first error.

    An error that only follows from another one inside it is left out: a list whose items were all refused
    counts as too short.
    """
    located = [(_Place.of(kind, item["loc"]), item) for item in error.errors(include_url=False)]
    outer = {key for place, _ in located for key in place.outer}
    found: dict[str, tuple[_Place, ErrorDetails]] = {}
    for place, item in located:
        if place.is_key or place.key not in outer:
            name = str(item["loc"]) if place.is_key else place.key
            found.setdefault(name, (place, item))
    return list(found.values())


def _problem(place: _Place, item: ErrorDetails) -> Problem:
    key, value = place.key, item["input"]
    match item["type"]:
        case "extra_forbidden":
            return _unknown_key(place, str(item["loc"][-1]))
        case "missing":
            allowed = allowed_words(place.annotation)
            return Problem(key, "is missing", allowed, f"key {key} is missing; allowed: {allowed}")
        case "value_error" | "assertion_error":
            wrong = str(item.get("ctx", {}).get("error", "")) or "is refused"
            return Problem(key, wrong, sentence=f"{key}: {wrong}" if key else wrong)
        case "invalid_key":  # YAML reads `on`, `yes` and 1 as other values than text
            wrong, allowed = f"the key {_shown(value)} is no text", "text, in quotes in YAML"
            return Problem(key, wrong, allowed, f"{key}: {wrong}; allowed: {allowed}")
        case "json_invalid":
            return Problem(key, "is not JSON", "JSON", f"{key or 'the text'} is not JSON")
    if place.is_key:
        wrong = f"has the key {_shown(value)}"
    else:
        # A union refuses the same value once for each of its members, and then names a part of it.
        wrong = "is wrong" if place.in_union_member else f"is {_shown(value)}"
    allowed = allowed_words(place.annotation)
    return Problem(key, wrong, allowed, f"{key or 'the whole'} {wrong}; allowed: {allowed}")


def _unknown_key(place: _Place, name: str) -> Problem:
    known = _keys_of(place.parent)
    near = difflib.get_close_matches(name, known, n=1)
    allowed = near[0] if near else ", ".join(known)
    right = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(known) or 'none'}"
    return Problem(place.key, "is unknown", allowed, f"unknown key {place.key}; {right}")


def _shown(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(str(value)) if isinstance(value, str | PurePath) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


# --- where ---


@dataclass(frozen=True, slots=True)
class _Place:
    """A location of pydantic's in a model."""

    key: str
    annotation: Any
    """What is allowed here; None where the model has no such key."""
    parent: Any
    """The annotation of what holds this key."""
    is_key: bool = False
    """Whether the key of a mapping is wrong, not its value."""
    in_union_member: bool = False
    """Whether only a part of a value is wrong that could be of several kinds."""
    outer: tuple[str, ...] = ()
    """Keys of the mappings and lists that hold this place; the whole is none of them."""

    @classmethod
    def of(cls, kind: Any, location: tuple[int | str, ...]) -> _Place:
        """Follow `location` from `kind`. Of a value that may be of several kinds, the place is the value."""
        key, annotation, parent = "", kind, None
        outer: list[str] = []
        rest = list(location)
        while rest:
            members = _members(annotation)
            if len(members) > 1:  # what follows is pydantic's name of a member, then a place inside it
                is_part = len(rest) > 1
                return cls(key, annotation, parent, in_union_member=is_part, outer=tuple(outer))
            part = rest.pop(0)
            if rest == [_KEY] and _is_mapping(annotation):
                return cls(key, _key_type(annotation), parent, is_key=True, outer=tuple(outer))
            if key:
                outer.append(key)
            parent, annotation = annotation, _inside(annotation, part)
            key = _joined(key, part)
        return cls(key, annotation, parent, outer=tuple(outer))


def _joined(key: str, part: int | str) -> str:
    if isinstance(part, int):
        return f"{key}[{part}]"
    return f"{key}.{part}" if key else part


def _inside(annotation: Any, part: int | str) -> Any:
    """What is allowed at `part` of a value of `annotation`; None where it has no such part."""
    for member in _members(annotation):
        kind, arguments = get_origin(member) or member, get_args(member)
        if _is_model(kind):
            fields = kind.model_fields
            return _annotated(fields[str(part)]) if str(part) in fields else None
        if kind is dict and len(arguments) == 2:
            return arguments[1]
        if kind is tuple and isinstance(part, int) and Ellipsis not in arguments:
            return arguments[part] if part < len(arguments) else None
        if kind in (tuple, list, set, frozenset) and arguments:
            return arguments[0]
    return None


def _key_type(annotation: Any) -> Any:
    for member in _members(annotation):
        if get_origin(member) is dict:
            return get_args(member)[0]
    return str


def _is_mapping(annotation: Any) -> bool:
    return any(get_origin(member) is dict for member in _members(annotation))


def _keys_of(annotation: Any) -> list[str]:
    for member in _members(annotation):
        if _is_model(member):
            return [name for name, field in member.model_fields.items() if not _is_derived(field)]
    return []


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_derived(field: FieldInfo) -> bool:
    return any(isinstance(mark, Derived) for mark in field.metadata)


def _annotated(field: FieldInfo) -> Any:
    """The annotation of a field with its constraints, which pydantic keeps apart."""
    if not field.metadata:
        return field.annotation
    return Annotated[(field.annotation, *field.metadata)]


def _members(annotation: Any) -> list[Any]:
    """The kinds that `annotation` allows, without None and without their constraints; literals are one."""
    plain, _ = _unpacked(annotation)
    if get_origin(plain) not in _UNIONS:
        return [plain]
    members = [member for member in get_args(plain) if member is not type(None)]
    return [plain for member in members for plain in _members(member)]


def _unpacked(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """The annotation without its constraints, and the constraints."""
    if get_origin(annotation) is Annotated:
        plain, *constraints = get_args(annotation)
        return plain, tuple(constraints)
    return annotation, ()


# --- what is allowed ---


def allowed_words(annotation: Any) -> str:
    """What `annotation` allows: `a whole number from 0 to 65535`, `auto, cpu or sm89`."""
    plain, constraints = _unpacked(annotation)
    limits = _limits_of(constraints)
    arguments = get_args(plain)
    match get_origin(plain) or plain:
        case _ if "words" in limits:
            words = str(limits["words"])
        case origin if origin is Literal or origin in _UNIONS:
            words = _alternatives(_choices(plain)) + _range(limits)
        case origin if origin is tuple and arguments and Ellipsis not in arguments:
            words = _fixed_list(arguments)
        case origin if origin in (tuple, list, set, frozenset):
            each = f", each {allowed_words(arguments[0])}" if arguments else ""
            words = f"a list{_length(limits, 'value')}{each}"
        case origin if origin is dict:
            words = "a mapping of keys to values"
        case origin if _is_model(origin):
            words = f"a mapping with the keys {', '.join(origin.model_fields)}"
        case origin if isinstance(origin, type) and issubclass(origin, PurePath):
            words = "a path"
        case origin if isinstance(origin, type) and issubclass(origin, Enum):
            words = _alternatives([str(member.value) for member in origin])
        case origin if origin in (str, bytes):
            form = f" of the form {limits['pattern']}" if "pattern" in limits else ""
            words = f"{_PLAIN[origin]}{_length(limits, 'character')}{form}"
        case origin:
            words = _PLAIN.get(origin, "another value") + _range(limits)
    return words


def _choices(annotation: Any) -> list[str]:
    """Words of each alternative; the choices of a Literal count one by one."""
    plain, _ = _unpacked(annotation)
    if get_origin(plain) is Literal:
        return list(map(str, get_args(plain)))
    if get_origin(plain) not in _UNIONS:
        return [allowed_words(annotation)]
    members = [member for member in get_args(plain) if member is not type(None)]
    return [words for member in members for words in _choices(member)]


def _alternatives(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _fixed_list(items: Sequence[Any]) -> str:
    words = [allowed_words(item) for item in items]
    if len(set(words)) == 1:
        return f"a list of {len(words)} values, each {words[0]}"
    return f"a list of {len(words)} values: {'; '.join(words)}"


def _limits_of(constraints: Iterable[Any]) -> dict[str, Any]:
    """Every limit by its name, as annotated-types and pydantic call it."""
    found: dict[str, Any] = {}
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            found |= _limits_of(constraint.metadata)
        for name in _LIMITS:
            value = getattr(constraint, name, None)
            if value is not None and not isinstance(constraint, FieldInfo):
                found[name] = value
    return found


def _range(limits: Mapping[str, Any]) -> str:
    """` from 0 to 65535`, ` above 0 and at most 1`, ` of at least 1`."""
    if "ge" in limits and "le" in limits:
        return f" from {limits['ge']:g} to {limits['le']:g}"
    templates = {"ge": "at least {:g}", "gt": "above {:g}", "le": "at most {:g}", "lt": "below {:g}"}
    phrases = [text.format(limits[name]) for name, text in templates.items() if name in limits]
    if "multiple_of" in limits:
        phrases.append(f"a multiple of {limits['multiple_of']:g}")
    words = " and ".join(phrases)
    if words.startswith(("at ", "a ")):
        words = f"of {words}"
    return f" {words}" if words else ""


def _length(limits: Mapping[str, Any], what: str) -> str:
    """` of at least 1 value`."""
    templates = {"min_length": "at least {}", "max_length": "at most {}"}
    found = [(text, limits[name]) for name, text in templates.items() if name in limits]
    if not found:
        return ""
    plural = "" if found[-1][1] == 1 else "s"
    return f" of {' and '.join(text.format(count) for text, count in found)} {what}{plural}"
