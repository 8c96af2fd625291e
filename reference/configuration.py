"""Every key of a deployment and of a training run, from the models that read them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pydantic import BaseModel

import intaglio_train.config as training
from intaglio.contract.config import Deployment
from intaglio_train.lcm_config import LcmConfig
from reference.examples import deployment_example, training_example
from reference.fields import Key, inline_yaml, keys_of, models_in, own_text
from reference.tables import table
from reference.training_keys import COMPUTED_DEFAULTS, TEXTS

__all__ = [
    "Section",
    "deployment_keys",
    "deployment_sections",
    "training_keys",
    "training_sections",
]

_HEAD: Final = ("key", "type", "default", "allowed", "example", "meaning")

Section = tuple[str, tuple[Key, ...]]
"""Title and keys."""


def deployment_sections() -> list[Section]:
    """The keys of the file, then those of each mapping in it."""
    keys = tuple(keys_of(Deployment))
    return [("The file", keys), *_nested(keys)]


def training_sections() -> list[Section]:
    """The keys of all trainers, those of each, then those of each mapping in them."""
    shared = tuple(keys_of(training.TrainingConfig))
    lora = _own(training.LoraConfig, shared)
    lcm = _own(LcmConfig, (*shared, *lora))
    controlnet = _own(training.ControlNetConfig, shared)
    sections = [
        ("All trainers", shared),
        ("Only `intaglio train lora`", lora),
        ("Only `intaglio train lcm`, beside the keys of `intaglio train lora`", lcm),
        ("Only `intaglio train controlnet`", controlnet),
    ]
    return [*sections, *_nested((*shared, *lora, *lcm, *controlnet))]


def _own(model: type[BaseModel], shared: Sequence[Key]) -> tuple[Key, ...]:
    names = {key.name for key in shared}
    return tuple(key for key in keys_of(model) if key.name not in names)


def _nested(keys: Iterable[Key]) -> list[Section]:
    """A section for each model that values of `keys` hold, and that they hold in turn; its title names all of
    the keys that hold it.
    """
    holders: dict[type[BaseModel], list[str]] = {}
    waiting = list(keys)
    while waiting:
        key = waiting.pop(0)
        for model in models_in(key.field.annotation):
            if model not in holders:
                waiting += keys_of(model)
            names = holders.setdefault(model, [])
            if key.name not in names:
                names.append(key.name)
    return [
        (f"In {' and '.join(f'`{name}`' for name in names)}", tuple(keys_of(model)))
        for model, names in holders.items()
    ]


def deployment_keys() -> str:
    """The part of the page about deployments.

    Raises:
        ValueError: a key has no text, or no example can be found for it.
    """
    return "\n\n".join(_shown(title, keys, deployment_example) for title, keys in deployment_sections())


def training_keys() -> str:
    """The part of the page about training, which begins with what the paths in a file are relative to.

    Raises:
        ValueError: a key has no text, or no example can be found for it.
    """
    (paths,) = re.findall(r"Relative paths .*?\.(?=\s)", " ".join((training.__doc__ or "").split()))[:1]
    parts = [_shown(title, keys, training_example) for title, keys in training_sections()]
    return "\n\n".join((paths, *parts))


def _shown(title: str, keys: Sequence[Key], example: Callable[[Key], object]) -> str:
    rows = []
    for key in keys:
        text = own_text(key) or TEXTS.get((key.model.__name__, key.name), "")
        if not text:
            raise ValueError(f"{key.model.__name__}.{key.name}: give it a text, as a string under the field")
        default = COMPUTED_DEFAULTS.get((key.model.__name__, key.name), key.default)
        shown = inline_yaml({key.name: example(key)}).removeprefix("{").removesuffix("}")
        rows.append((f"`{key.name}`", key.type, default, key.range, f"`{shown}`", _sentence(text)))
    return f"### {title}\n\n{table(_HEAD, rows)}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}".removesuffix(".") + "."
