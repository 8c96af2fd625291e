"""What a pydantic model says of its fields: type, default, range, text."""

from __future__ import annotations

import ast
import datetime
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from intaglio.contract.yaml_files import REGISTRY_ID
from intaglio.validation_errors import Derived

__all__ = ["Key", "declaring_class", "inline_yaml", "keys_of", "models_in", "own_text"]

_NAMES: Final[Mapping[Any, str]] = {
    int: "integer",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    Any: "value",
    datetime.date: "date",
}
_TUPLES: Final[Mapping[int, str]] = {2: "pair", 3: "triple"}
"""Tuples of a fixed length in words."""
_PATTERNS: Final[Mapping[str, str]] = {
    REGISTRY_ID: "lower-case letters, digits, `_` and `-`; at most 64, the first a letter or a digit",
    r"^[\w.-]+/[\w.-]+$": "`owner/name`",
    r"^#[0-9a-fA-F]{6}$": '`"#rrggbb"`',
}
"""Patterns of texts in words."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a YAML file."""

    name: str
    model: type[BaseModel]
    """The class that declares it."""
    field: FieldInfo
    type: str
    default: str
    range: str


def keys_of(model: type[BaseModel]) -> Iterator[Key]:
    """The keys of `model` in the order of the class; those of a base class come first. Fields that a file
    cannot set are no keys.

    Raises:
        ValueError: there is no word for the type of a key.
    """
    for name, field in model.model_fields.items():
        if any(isinstance(mark, Derived) for mark in field.metadata):
            continue
        yield Key(
            name,
            declaring_class(model, name),
            field,
            _type_text(field.annotation),
            _default_text(field),
            "; ".join(_ranges(field.annotation, tuple(field.metadata))),
        )


def declaring_class(model: type[BaseModel], name: str) -> type[BaseModel]:
    """`model` or the base class of it that declares the field `name`."""
    return next(one for one in model.__mro__ if name in inspect.get_annotations(one))


@cache
def _texts(model: type[BaseModel]) -> Mapping[str, str]:
    """The string under each field of the class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for statement, after in zip(body.body, body.body[1:], strict=False):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[statement.target.id] = " ".join(str(after.value.value).split())
    return found


def own_text(key: Key) -> str:
    """What the model says of the key, in its string under the field; empty where it says nothing."""
    return _texts(key.model).get(key.name, "")


def inline_yaml(value: Any) -> str:
    """`value` as YAML in one line."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that values of a type hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    return "none" if value is None else f"`{inline_yaml(value)}`"


def _type_text(annotation: Any) -> str:
    """The type in words: `tuple[int, int] | None` is "pair of integers".

    Raises:
        ValueError: `_NAMES` has no word for it.
    """
    arguments = [argument for argument in get_args(annotation) if argument is not types.NoneType]
    match get_origin(annotation):
        case None:
            is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
            text = "mapping" if is_model else _name_of(annotation)
        case origin if origin in (Union, types.UnionType):
            text = " or ".join(dict.fromkeys(map(_type_text, arguments)))
        case origin if origin is Literal:
            text = "choice"
        case origin if origin is tuple:
            inner = _plural(_type_text(arguments[0]))
            fixed = _TUPLES.get(len(arguments), "list")
            text = f"{'list' if arguments[-1] is Ellipsis else fixed} of {inner}"
        case origin if origin is dict:
            text = f"mapping of an id to {_article(_type_text(arguments[1]))}"
        case _:  # Annotated
            text = _type_text(arguments[0])
    return text


def _name_of(plain: Any) -> str:
    if plain not in _NAMES:
        raise ValueError(f"{plain}: no word for this type; add one to the names in reference/fields.py")
    return _NAMES[plain]


def _plural(text: str) -> str:
    first, _, rest = text.partition(" ")
    return text if first == "true" or first.endswith("s") else f"{first}s {rest}".strip()


def _article(text: str) -> str:
    return f"an {text}" if text[0] in "aeiou" else f"a {text}"


def _ranges(annotation: Any, metadata: tuple[Any, ...]) -> Iterator[str]:
    """What a value must fulfil, in words: its own bounds, and those of its members."""
    bounds: dict[str, Any] = {}
    for one in metadata:
        for inner in one.metadata if isinstance(one, FieldInfo) else (one,):
            for name in ("ge", "gt", "le", "lt", "min_length", "max_length", "pattern"):
                if getattr(inner, name, None) is not None:
                    bounds[name] = getattr(inner, name)
    if text := _bounds_text(bounds):
        yield text
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Literal:
        yield ", ".join(f"`{inline_yaml(value)}`" for value in arguments)
    elif origin is Annotated:
        yield from _ranges(arguments[0], tuple(arguments[1:]))
    elif origin is tuple:
        members = dict.fromkeys(one for argument in arguments for one in _ranges(argument, ()))
        yield from (f"each {member.removeprefix('each ')}" for member in members)
    elif origin is dict:
        yield from (f"each value {one}" for one in _ranges(arguments[1], ()))
    elif origin in (Union, types.UnionType):
        choices = [argument for argument in arguments if get_origin(argument) is Literal]
        others = [argument for argument in arguments if get_origin(argument) is not Literal]
        if choices:
            yield ", ".join(one for choice in choices for one in _ranges(choice, ()))
        yield from dict.fromkeys(one for argument in others for one in _ranges(argument, ()))


def _bounds_text(bounds: Mapping[str, Any]) -> str:
    low, high = _number(bounds.get("ge")), _number(bounds.get("le"))
    above, below = _number(bounds.get("gt")), _number(bounds.get("lt"))
    parts = []
    if low and high:
        parts.append(f"{low} to {high}")
    elif low or high:
        parts.append(f"at least {low}" if low else f"at most {high}")
    if above:
        parts.append(f"above {above}")
    if below:
        parts.append(f"below {below}")
    if "min_length" in bounds:
        parts.append(f"at least {bounds['min_length']} of them" if bounds["min_length"] > 1 else "not empty")
    if "pattern" in bounds:
        pattern = str(bounds["pattern"])
        parts.append(_PATTERNS.get(pattern, f"matches `{pattern}`"))
    return ", ".join(parts)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:g}" if abs(value) < 1e6 else str(value)
