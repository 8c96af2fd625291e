"""The inputs of a specification: from what is written there to parameters of the client, and back to JSON."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, overload

from intaglio.contract.models import DELIVERY, LARGEST_SEED
from intaglio.errors import InvalidRequest
from intaglio.validation_errors import nearest
from intaglio_client.controls import Control, encoded_image
from intaglio_client.generate.option_texts import control_from_text, lora_from_text, numbers_from_text
from intaglio_client.names import ALIASES
from intaglio_client.parameters import Lora, Parameters

__all__ = ["SIZE", "Axis", "Files", "axis_of", "described", "own_name", "value_of"]

SIZE: Final = "size"
"""Short for width and height."""
_SINGULAR: Final[Mapping[str, str]] = {"lora": "loras", "control": "controls"}
"""Options of `intaglio generate` that are called otherwise as inputs."""
_OTHERS: Final[Mapping[str, str]] = {
    "num_images": "absent: a picture of a batch has a seed of its own",
    "output_format": "absent; output.format says it",
    **dict.fromkeys(DELIVERY, "absent: a batch says itself how its requests wait"),
}
"""Inputs of a request that are none of a batch, and why."""
_KEPT_BYTES: Final = 256 * 1024 * 1024
"""Of images of controls: a table may name one for each of many thousand pictures."""
_SEPARATOR: Final = ";"
"""Between several LoRAs or controls in one text."""
_ALLOWED_SEEDS: Final = "a seed, a list of seeds, or {from: 1, count: 100}"


class Files:
    """The bytes of the images that controls come from. They stay as they were when they were read first."""

    def __init__(self, folder: Path, *, most_bytes: int = _KEPT_BYTES) -> None:
        """Relative paths start at `folder`. At most `most_bytes` are kept in memory, others read again."""
        self._folder = folder
        self._most_bytes = most_bytes
        self._kept: dict[Path, bytes] = {}
        self._kept_bytes = 0
        self._lock = threading.Lock()
        self.digests: dict[Path, str] = {}
        """SHA-256 of each file that was read."""

    def data(self, path: Path) -> bytes:
        """The bytes of the file at `path`; InvalidRequest where it cannot be read, or was changed since."""
        with self._lock:
            data = self._kept.pop(path, None)
            if data is None:
                data = self._read(path)
                self._kept_bytes += len(data)
            self._kept[path] = data  # the last one: what was asked for long ago goes first
            while self._kept_bytes > self._most_bytes and len(self._kept) > 1:
                self._kept_bytes -= len(self._kept.pop(next(iter(self._kept))))
            return data

    def _read(self, path: Path) -> bytes:
        data = encoded_image(self._folder / path.expanduser(), field="image")
        digest = hashlib.sha256(data).hexdigest()
        if self.digests.setdefault(path, digest) != digest:
            allowed = "the file that was there when the batch began"
            raise InvalidRequest("image", f"{path} was changed", allowed=allowed)
        return data

    def digest(self, path: Path) -> str:
        """SHA-256 of the file at `path`."""
        if path not in self.digests:
            self.data(path)
        return self.digests[path]

    def sent(self, control: Control) -> Control:
        """`control` with bytes in place of a path."""
        if not isinstance(control.image, Path):
            return control
        return dataclasses.replace(control, image=self.data(control.image))


class _Seeds(Sequence[Mapping[str, Any]]):
    """Seeds one after another, without a list of them."""

    def __init__(self, seeds: range) -> None:
        self._seeds = seeds

    def __len__(self) -> int:
        return len(self._seeds)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return _Seeds(self._seeds[index])
        return {"seed": self._seeds[index]}


@dataclass(frozen=True)
class Axis:
    """One input with its values, or several that change together."""

    name: str
    values: Sequence[Mapping[str, Any]] = field(repr=False)
    """Parameters of the client by name, one mapping for each value. A control's image is a path."""
    is_list: bool = True
    """Whether several values were asked for; a single value goes with all values of the others."""

    @property
    def is_range(self) -> bool:
        """Whether its values are numbers one after another, which were checked where they were counted."""
        return isinstance(self.values, _Seeds)

    @property
    def names(self) -> list[str]:
        """Inputs that some of its values have."""
        if self.is_range:  # too many to look at each
            return ["seed"]
        return list(dict.fromkeys(name for value in self.values for name in value))

    @property
    def constant_names(self) -> list[str]:
        """Inputs that all of its values have."""
        if self.is_range:
            return self.names
        return [name for name in self.names if all(name in value for value in self.values)]


def own_name(name: str) -> str:
    """Our name of an input; InvalidRequest where a batch has no such input."""
    own = _SINGULAR.get(name, name)
    refused = _OTHERS.get(ALIASES.get(own, own))
    if refused is not None:
        raise InvalidRequest(name, "is no input of a batch", allowed=refused)
    known = [one for one in (*Parameters.__annotations__, "prompt", SIZE) if one not in _OTHERS]
    if own not in known:
        raise InvalidRequest(name, f"unknown input{nearest(name, known)}", allowed=", ".join(known))
    return own


def axis_of(name: str, given: Any, files: Files) -> Axis:
    """The axis of one input: `given` is a value, a list of values, or a range of seeds.

    Raises:
        InvalidRequest: there is no such input, or it is written otherwise.
    """
    own = own_name(name)
    if own == "seed" and isinstance(given, Mapping):
        return Axis(own, _seeds(given))
    values = given if isinstance(given, list) else [given]
    if not values:
        raise InvalidRequest(name, "an empty list", allowed="at least one value")
    found = []
    for index, value in enumerate(values):
        try:
            found.append(value_of(own, value, files))
        except InvalidRequest as error:
            where = f"{name}[{index}]" if isinstance(given, list) else name
            raise InvalidRequest(where, error.problem, allowed=error.allowed) from error
    return Axis(own, found, is_list=isinstance(given, list))


def _seeds(given: Mapping[str, Any]) -> _Seeds:
    first, count = given.get("from"), given.get("count")
    if set(given) != {"from", "count"} or not isinstance(first, int) or not isinstance(count, int):
        raise InvalidRequest("seed", f"{dict(given)}", allowed=_ALLOWED_SEEDS)
    if first < 0 or count < 1 or first + count - 1 > LARGEST_SEED:
        raise InvalidRequest(
            "seed", f"{dict(given)}", allowed=f"from at least 0, at most {LARGEST_SEED} at the end"
        )
    return _Seeds(range(first, first + count))


def value_of(own: str, value: Any, files: Files) -> dict[str, Any]:
    """One value of the input `own` as parameters; None says nothing. InvalidRequest as for `axis_of`."""
    if value is None:
        return {}
    if own == "seed" and (type(value) is not int or value < 0):
        raise InvalidRequest(own, f"{value!r}", allowed=f"{_ALLOWED_SEEDS}; from 0")
    reader = _READERS.get(own)
    return {own: value} if reader is None else reader(value, files)


def _size(value: Any, _files: Files) -> dict[str, Any]:
    width, _, height = str(value).lower().partition("x")
    if not (width.strip().isdigit() and height.strip().isdigit()):
        raise InvalidRequest(SIZE, f"{value!r}", allowed="WIDTHxHEIGHT in pixels, such as 1024x768")
    return {"width": int(width), "height": int(height)}


def _loras(value: Any, _files: Files) -> dict[str, Any]:
    loras = tuple(
        lora_from_text(text) for text in _texts(value, "loras", "night:0.8, or a list of such texts")
    )
    return {"loras": loras} if loras else {}


def _controls(value: Any, files: Files) -> dict[str, Any]:
    allowed = "type=canny,image=photo.png, or a list of such texts"
    controls = tuple(control_from_text(text) for text in _texts(value, "controls", allowed))
    for control in controls:
        files.sent(control)  # so that a file that is not there is named now
    return {"controls": controls} if controls else {}


def _texts(value: Any, own: str, allowed: str) -> list[str]:
    """The texts of one value: a list of them, or one with semicolons between them."""
    texts = (
        value if isinstance(value, list) else value.split(_SEPARATOR) if isinstance(value, str) else [value]
    )
    for text in texts:
        if not isinstance(text, str):
            raise InvalidRequest(own, f"{text!r}", allowed=allowed)
    return [text.strip() for text in texts if text.strip()]


def _numbers(own: str) -> Callable[[Any, Files], dict[str, Any]]:
    def read(value: Any, _files: Files) -> dict[str, Any]:
        if isinstance(value, list):
            return {own: value}
        if not isinstance(value, str):
            raise InvalidRequest(own, f"{value!r}", allowed="a list of numbers, or text such as 999,749")
        return {own: numbers_from_text(own, value)}

    return read


_READERS: Final[Mapping[str, Callable[[Any, Files], dict[str, Any]]]] = {
    SIZE: _size,
    "loras": _loras,
    "controls": _controls,
    "timesteps": _numbers("timesteps"),
    "sigmas": _numbers("sigmas"),
}


def described(parameters: Mapping[str, Any], files: Files) -> dict[str, Any]:
    """`parameters` as values that JSON can hold. An image is its path as written, and its digest."""
    found = dict(parameters)
    if "loras" in found:
        found["loras"] = [_described_lora(lora) for lora in found["loras"]]
    if "controls" in found:
        found["controls"] = [_described_control(control, files) for control in found["controls"]]
    return found


def _described_lora(lora: Lora) -> dict[str, Any]:
    return {"id": lora.id} if lora.weight is None else {"id": lora.id, "weight": lora.weight}


def _described_control(control: Control, files: Files) -> dict[str, Any]:
    values = {one.name: getattr(control, one.name) for one in dataclasses.fields(control)}
    stated = {name: value for name, value in values.items() if value is not None}
    if isinstance(control.image, Path):
        stated |= {"image": control.image.as_posix(), "sha256": files.digest(control.image)}
    return stated
