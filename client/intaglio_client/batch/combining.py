"""From axes to items: which combinations a batch draws, and in which order. Item k is always the same."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from intaglio.contract.lora_tags import split_lora_tags
from intaglio.errors import ConfigError, InvalidRequest
from intaglio_client.batch.inputs import Axis, Files, axis_of, described, own_name
from intaglio_client.batch.spec import NAME_FIELD, BatchSpec, RandomSpec
from intaglio_client.batch.table import ROWS, axis_of_table
from intaglio_client.names import own_names
from intaglio_client.parameters import tensors_from_parameters

__all__ = ["Item", "Items", "items_of"]

_MOST: Final = 1_000_000
"""Pictures of one batch."""
Choice = tuple[int, ...]
"""A place on each axis."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture that is asked for."""

    index: int
    prompt: str
    parameters: Mapping[str, Any] = field(repr=False)
    """Of the client, without the prompt."""
    inputs: Mapping[str, Any] = field(repr=False)
    """The same with the prompt, as values that JSON can hold."""
    digest: str
    """Of `inputs` and the format: equal for the same picture."""


class Items(Sequence[Item]):
    """The pictures of a batch, each made when it is asked for."""

    def __init__(
        self, axes: Sequence[Axis], choices: Sequence[Choice], spec: BatchSpec, files: Files
    ) -> None:
        self._axes = axes
        self._spec = spec
        self.files = files
        self._choices = choices if not spec.group_loras else self._grouped(choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._item(index, self._choices[index])

    def _item(self, index: int, choice: Choice) -> Item:
        given = own_names(self._merged(choice))
        inputs = described(given, self.files)
        prompt = given.pop("prompt")
        controls = given.get("controls")
        if controls is not None:
            given["controls"] = tuple(self.files.sent(control) for control in controls)
        format_ = self._spec.output.format
        said = _canonical({"inputs": inputs, "format": format_})
        digest = hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()  # `check` refuses surrogates
        return Item(index, prompt, {**given, "output_format": format_}, inputs, digest)

    def _merged(self, choice: Choice) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for axis, place in zip(self._axes, choice, strict=True):
            found |= axis.values[place]
        return found

    def _grouped(self, choices: Sequence[Choice]) -> list[Choice]:
        """The same choices, those with equal LoRAs one after another."""
        places: dict[str, int] = {}
        ranks = [places.setdefault(self._loras_of(choice), len(places)) for choice in choices]
        return [choices[index] for index in sorted(range(len(choices)), key=ranks.__getitem__)]

    @property
    def lora_sets(self) -> Iterator[str]:
        """The LoRAs of each item, as a text that is equal for equal sets."""
        return map(self._loras_of, self._choices)

    def _loras_of(self, choice: Choice) -> str:
        merged = self._merged(choice)
        chosen = [(lora.id, lora.weight) for lora in merged.get("loras", ())]
        try:
            tags = split_lora_tags(str(merged.get("prompt", ""))).tags
        except InvalidRequest:  # the server refuses the picture and says why
            tags = ()
        return repr([*chosen, *((tag.id, tag.weight) for tag in tags)])

    def group(self, index: int) -> str:
        """What the limits of the item `index` are shared by; empty where they hold for the whole batch."""
        return self._groups[index] if self._groups else ""

    @property
    def groups(self) -> Sequence[str]:
        """The group of each item."""
        return self._groups or [""] * min(len(self), 1)

    @cached_property
    def _groups(self) -> list[str]:
        per = self._spec.limits.per
        if per is None:
            return []
        name = per if per == ROWS else own_name(per)
        places = [number for number, axis in enumerate(self._axes) if axis.name == name]
        return [self._group_of(choice, name, places) for choice in self._choices]

    def _group_of(self, choice: Choice, name: str, places: Sequence[int]) -> str:
        """The value of the axis `name` at `places[0]`, or of the input `name` of a table."""
        if places:
            value = self._axes[places[0]].values[choice[places[0]]]
        else:
            merged = self._merged(choice)
            value = {name: merged[name]} if name in merged else {}
        return _canonical(described(value, self.files))

    def check(self) -> None:
        """Check what can be checked without a server: each value of each axis once, beside some values of the
        others. Of seeds that are counted the first is enough, since they may be a million.

        Raises:
            ConfigError: names the item and what is wrong in it.
        """
        seen: set[tuple[int, int]] = set()
        listed = [number for number, axis in enumerate(self._axes) if not axis.is_range]
        for index, choice in enumerate(self._choices):
            new = {(number, choice[number]) for number in listed} - seen
            if not new and index:
                continue
            seen |= new
            try:
                item = self._item(index, choice)
                tensors_from_parameters(item.prompt, item.parameters)
            except InvalidRequest as error:
                raise ConfigError(f"picture {index}: {error}") from error


def items_of(spec: BatchSpec, path: Path) -> Items:
    """The pictures of the specification that was read from `path`.

    Raises:
        ConfigError: an input, the table, or how they are combined is wrong; or there are too many.
    """
    files = Files(path.parent)
    axes = _axes_of(spec, path, files)
    _check_axes(axes, spec, path)
    items = Items(axes, _choices_of(axes, spec, path), spec, files)
    try:
        items.check()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return items


def _axes_of(spec: BatchSpec, path: Path, files: Files) -> list[Axis]:
    axes = [] if spec.rows is None else [axis_of_table(spec.rows, files)]
    for name, given in spec.inputs.items():
        try:
            axes.append(axis_of(name, given, files))
        except InvalidRequest as error:
            raise ConfigError(f"{path}: inputs.{error}") from error
    return axes


def _check_axes(axes: Sequence[Axis], spec: BatchSpec, path: Path) -> None:
    """Refuse inputs that two axes have, or that every picture needs and none has."""
    holders: dict[str, str] = {}
    for axis in axes:
        for name in axis.names:
            other = holders.setdefault(name, axis.name)
            if other != axis.name:
                raise ConfigError(
                    f"{path}: {name} comes from {other} and from {axis.name}; take one of them out"
                )
    for name in ("prompt", "seed"):
        if not any(name in axis.constant_names for axis in axes):
            why = "; with it a picture is always the same" if name == "seed" else ""
            raise ConfigError(f"{path}: not every picture has a {name}; add it to inputs or rows{why}")
    known = list(dict.fromkeys((*(axis.name for axis in axes), *holders)))
    per = spec.limits.per
    if per is not None and (per if per == ROWS else _own_or_none(per)) not in known:
        raise ConfigError(f"{path}: limits.per is {per!r}; allowed: {', '.join(known)}")
    fields = {"index", *holders}
    for name in NAME_FIELD.findall(spec.output.names):
        if name not in fields:
            raise ConfigError(f"{path}: output.names has {{{name}}}; allowed: {', '.join(sorted(fields))}")


def _own_or_none(name: str) -> str | None:
    try:
        return own_name(name)
    except InvalidRequest:
        return None


def _choices_of(axes: Sequence[Axis], spec: BatchSpec, path: Path) -> Sequence[Choice]:
    lengths = [len(axis.values) for axis in axes]
    if spec.combine == "zip":
        return _zipped(axes, path)
    product = math.prod(lengths)
    if spec.random is not None:
        if spec.random.count > product:
            raise ConfigError(
                f"{path}: random.count is {spec.random.count}, but there are {product} combinations"
            )
        return _sampled(lengths, spec.random)
    if product > _MOST:
        raise ConfigError(
            f"{path}: {product} pictures; allowed: at most {_MOST}; combine: random takes some of them"
        )
    return [_places(number, lengths) for number in range(product)]


def _zipped(axes: Sequence[Axis], path: Path) -> list[Choice]:
    lengths = {axis.name: len(axis.values) for axis in axes if axis.is_list}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"{path}: combine: zip needs axes of one length; {shown}")
    count = next(iter(lengths.values()), 1)
    if count > _MOST:
        raise ConfigError(f"{path}: {count} pictures; allowed: at most {_MOST}")
    return [tuple(number if axis.is_list else 0 for axis in axes) for number in range(count)]


def _sampled(lengths: Sequence[int], random: RandomSpec) -> list[Choice]:
    """Different combinations. They come from digests, so they are the same in every version of Python."""
    found: dict[Choice, None] = {}
    number = 0
    while len(found) < random.count:
        choice = tuple(_drawn(random.seed, number, axis) % length for axis, length in enumerate(lengths))
        found.setdefault(choice)
        number += 1
    return list(found)


def _drawn(seed: int, number: int, axis: int) -> int:
    digest = hashlib.sha256(f"{seed}/{number}/{axis}".encode()).digest()
    return int.from_bytes(digest[:16], "big")


def _places(number: int, lengths: Sequence[int]) -> Choice:
    """Combination `number` of a grid: the last axis changes fastest."""
    places = []
    for length in reversed(lengths):
        number, place = divmod(number, length)
        places.append(place)
    return tuple(reversed(places))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
