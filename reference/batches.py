"""The keys of a batch's specification, of its filters and of its manifest, from the code that reads them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Final

from pydantic import BaseModel

from intaglio.contract.filters import FILTER_KINDS, FilterSpec
from intaglio_client.batch.manifest import KEYS
from intaglio_client.batch.spec import BatchSpec, LimitsSpec, OutputSpec, RandomSpec
from reference.fields import Key, keys_of, own_text
from reference.tables import table

__all__ = ["batch_keys", "filter_keys", "manifest_keys"]

_HEAD = ("key", "type", "default", "allowed", "meaning")
_PARTS: Final[Mapping[str, type[BaseModel]]] = {
    "random": RandomSpec,
    "limits": LimitsSpec,
    "output": OutputSpec,
}


def batch_keys() -> str:
    """The keys of the file, then those of each mapping in it."""
    parts = [f"### In `{name}`\n\n{_table(keys_of(model))}" for name, model in _PARTS.items()]
    return "\n\n".join([_table(keys_of(BatchSpec)), *parts])


def filter_keys() -> str:
    """What each kind of filter does, and its keys.

    Raises:
        ValueError: a key or a kind has no text.
    """
    shared = _table(keys_of(FilterSpec))
    kinds = [_kind(name, model) for name, model in FILTER_KINDS.items()]
    return "\n\n".join([f"Every filter has:\n\n{shared}", *kinds])


def _kind(name: str, model: type[FilterSpec]) -> str:
    text = inspect.getdoc(model)
    if text is None:
        raise ValueError(f"{model.__name__}: give it a text that says what it does")
    head = f"**`{name}`** {' '.join(text.split())}"
    own = [key for key in keys_of(model) if key.name not in FilterSpec.model_fields]
    return f"{head}\n\n{_table(own)}" if own else head


def manifest_keys() -> str:
    """The keys of a line of the manifest."""
    return table(("key", "value"), ((f"`{key}`", text) for key, text in KEYS.items()))


def _table(keys: Iterable[Key]) -> str:
    return table(_HEAD, map(_row, keys))


def _row(key: Key) -> tuple[str, ...]:
    text = own_text(key)
    if not text:
        raise ValueError(f"{key.model.__name__}.{key.name}: give it a text, as a string under the field")
    return f"`{key.name}`", key.type, key.default, key.range, text
