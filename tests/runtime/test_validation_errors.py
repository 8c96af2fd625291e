"""Refused values in plain sentences, for every error that pydantic knows and every model that users write."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from intaglio.builds.manifest import BuildManifest
from intaglio.contract.config import Deployment
from intaglio.contract.lora_registry import LoraRegistry
from intaglio.loras.sets import ServedLoras
from intaglio.request.request import ControlRequest, LoraRequest
from intaglio.validation_errors import Allowed, allowed_words, first_problem, problems_text
from intaglio_client.generate.characters import Characters
from intaglio_train.config import ControlNetConfig, LoraConfig

MODELS: list[type[BaseModel]] = [
    BuildManifest, Characters, ControlNetConfig, ControlRequest, Deployment, LoraConfig, LoraRegistry,
    LoraRequest, ServedLoras,
]  # fmt: skip


PAIR = "a list of 2 values, each a whole number"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    port: int = Field(default=1, ge=0, le=65535)
    share: float | None = Field(default=None, gt=0, le=1)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    address: Inner = Inner()
    sizes: tuple[tuple[int, int], ...] = Field(default=((1, 2),), min_length=1)
    mode: Literal["on", "off"] | Literal["auto"] = "auto"
    side: int | tuple[int, int] = 1
    weights: dict[Annotated[str, Field(pattern="^[a-z]+$"), Allowed("lower-case letters")], float] = {}
    colour: Colour = Colour.RED
    folder: Path = Path()
    name: str = Field(default="a", min_length=1)
    ready: bool = False
    needed: int = 3

    @field_validator("needed")
    @classmethod
    def _not_four(cls, value: int) -> int:
        if value == 4:
            raise ValueError("needed may not be 4")
        return value


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"adress": {}}, "unknown key adress; did you mean address?"),
        ({"address": {"prot": 1}}, "unknown key address.prot; did you mean port?"),
        ({"address": {"zzz": 1}}, "unknown key address.zzz; known keys: port, share"),
        ({"address": None}, "address is empty; allowed: a mapping with the keys port, share"),
        ({"address": {"port": 70000}}, "address.port is 70000; allowed: a whole number from 0 to 65535"),
        ({"address": {"share": 2}}, "address.share is 2; allowed: a number above 0 and at most 1"),
        ({"sizes": []}, f"sizes is []; allowed: a list of at least 1 value, each {PAIR}"),
        ({"sizes": [[1, 2], "x"]}, "sizes[1] is 'x'; allowed: a list of 2 values, each a whole number"),
        ({"sizes": [[1, "x"]]}, "sizes[0][1] is 'x'; allowed: a whole number"),
        ({"mode": True}, "mode is true; allowed: on, off or auto"),
        ({"side": [1]}, "side is [1]; allowed: a whole number or a list of 2 values, each a whole number"),
        ({"side": "x"}, "side is 'x'; allowed: a whole number or a list of 2 values, each a whole number"),
        ({"weights": {"A": 1}}, "weights has the key 'A'; allowed: lower-case letters"),
        ({"address": {True: 2}}, "address[1]: the key true is no text; allowed: text, in quotes in YAML"),
        ({"weights": {"a": "x"}}, "weights.a is 'x'; allowed: a number"),
        ({"colour": "green"}, "colour is 'green'; allowed: red or blue"),
        ({"folder": 3}, "folder is 3; allowed: a path"),
        ({"name": ""}, "name is ''; allowed: text of at least 1 character"),
        ({"ready": "perhaps"}, "ready is 'perhaps'; allowed: true or false"),
        ({"needed": 4}, "needed: needed may not be 4"),
    ],
)  # fmt: skip
def test_a_sentence_says_key_value_and_what_is_allowed(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate(values)
    assert problems_text(refused.value, Outer) == sentence


def test_many_problems_are_counted() -> None:
    with pytest.raises(ValidationError) as refused:
        Outer.model_validate({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "needed": 4})
    text = problems_text(refused.value, Outer)
    assert text.startswith("needed: needed may not be 4; unknown key a; ")
    assert text.endswith("; and 2 more")


def test_a_missing_key_and_a_text_that_is_not_json() -> None:
    with pytest.raises(ValidationError) as refused:
        Deployment.model_validate({"name": "a", "folder": "b", "base": {"folder": "c"}})
    assert problems_text(refused.value, Deployment).startswith("key profiles is missing; allowed: a mapping")
    with pytest.raises(ValidationError) as refused:
        ServedLoras.model_validate_json("{")
    assert problems_text(refused.value, ServedLoras) == "the text is not JSON"


def test_a_list_of_models_names_the_index() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(list[Inner]).validate_python([{}, {"port": -1}])
    problem = first_problem(refused.value, list[Inner])
    assert (problem.key, problem.wrong) == ("[1].port", "is -1")
    assert problem.allowed == "a whole number from 0 to 65535"


def test_many_errors_take_linear_time() -> None:
    """A request of 64 KiB may hold 32 000 wrong entries."""
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(list[Inner]).validate_python([5] * 32_000)
    started = time.process_time()
    assert first_problem(refused.value, list[Inner]).key == "[0]"
    assert time.process_time() - started < 2


def test_a_key_that_is_named_as_pydantic_names_keys() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(list[Inner]).validate_python([{"[key]": 1}])
    problem = first_problem(refused.value, list[Inner])
    assert (problem.key, problem.wrong) == ("[0].[key]", "is unknown")


def context_of(kind: str) -> dict[str, Any]:
    """A context that the template of pydantic's error type `kind` accepts."""
    context: dict[str, Any] = {}
    for _ in range(6):
        try:
            PydanticKnownError(kind, context)  # type: ignore[arg-type]
        except TypeError as refused:
            missing = re.search(r"'(\w+)' (required in context|context value)", str(refused))
            name = missing[1] if missing else ""
            context[name] = "seven" if name in context else 7
        else:
            break
    return context


@pytest.mark.parametrize("kind", sorted(get_args(core_schema.ErrorType)))
def test_no_phrase_of_pydantic_comes_through(kind: str) -> None:
    if kind in ("value_error", "assertion_error"):  # their text is that of our own validators
        return
    details: list[InitErrorDetails] = [
        {"type": kind, "loc": ("address", "port"), "input": "x", "ctx": context_of(kind)}
    ]
    refused = ValidationError.from_exception_data("Outer", details)
    (told,) = refused.errors(include_url=False)
    sentence = problems_text(refused, Outer)
    assert "address.port" in sentence
    assert told["msg"].partition(",")[0] not in sentence
    assert "Input should" not in sentence


def test_a_custom_error_of_a_library_has_words_too() -> None:
    """Paths and imported types are refused with errors that are not in pydantic's own list."""
    custom = PydanticCustomError("path_type", "Input is not a valid path for {which}", {"which": "Path"})
    refused = ValidationError.from_exception_data("Outer", [{"type": custom, "loc": ("folder",), "input": 3}])
    assert problems_text(refused, Outer) == "folder is 3; allowed: a path"


def constrained(kind: Any, seen: set[Any]) -> Iterator[Any]:
    """Every annotation inside `kind` that has constraints."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind not in seen:
            seen.add(kind)
            for field in kind.model_fields.values():
                annotation = (
                    Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
                )
                yield from constrained(annotation, seen)
        return
    if hasattr(kind, "__metadata__"):
        yield kind
    for inner in get_args(kind):
        if not isinstance(inner, str):
            yield from constrained(inner, seen)


@pytest.mark.parametrize("model", MODELS)
def test_every_form_of_text_has_words(model: type[BaseModel]) -> None:
    """A newcomer cannot read a regular expression."""
    words = [allowed_words(kind) for kind in constrained(model, set())]
    assert not [text for text in words if "of the form" in text or "another value" in text]
