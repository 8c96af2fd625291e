"""Controls and LoRAs as options of a command line: text to values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from intaglio.contract.models import OutputFormat
from intaglio.errors import InvalidRequest
from intaglio.request.request import CONTROL_KEYS
from intaglio_client.controls import Control
from intaglio_client.parameters import Lora

__all__ = [
    "CONTROL_HELP",
    "control_from_text",
    "format_of",
    "lora_from_text",
    "numbers_from_text",
    "one_value",
]

CONTROL_HELP: Final = (
    "KEY=VALUE pairs with commas between them; repeatable. type=canny: a ControlNet, or the type of one; "
    "image=photo.png: where the control comes from; pose=waving-01: a pose of the server's library, in place "
    "of image; preprocess=auto: the server's detector of that type makes the map of a photograph (canny, "
    "depth, ...: that detector; none: the image is the map already); "
    "resize=fit: adds black borders where the image has another shape (fill: cuts at the centre; stretch); "
    "palette=cityscapes: the colours of a segmentation map (ade20k, bdd100k); recognised where absent; "
    "weight=0.8: 0 to 2; begin=0.1 and end=0.7: shares of the steps; every=2: its ControlNet runs in every "
    "second step."
)
_FORMATS: Final[Mapping[str, OutputFormat]] = {
    **{f".{name}": name for name in get_args(OutputFormat)},
    ".jpg": "jpeg",
}
_Value = TypeVar("_Value")


def control_from_text(text: str) -> Control:
    """`type=canny,image=photo.png,weight=0.8` as a Control; InvalidRequest for anything else."""
    allowed = f"KEY=VALUE pairs with commas between them; keys: {', '.join(CONTROL_KEYS)}"
    values: dict[str, Any] = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if key not in CONTROL_KEYS or not equals or key in values:
            raise InvalidRequest("control", f"{pair!r}", allowed=allowed)
        values[key] = value
    if "type" not in values:
        raise InvalidRequest("control", "no type", allowed=allowed)
    for key in ("weight", "begin", "end"):
        if key in values:
            values[key] = _number(values[key], field=f"control {key}")
    if "every" in values:
        values["every"] = _integer(values["every"], field="control every")
    if "image" in values:
        values["image"] = Path(values["image"])
    return Control(**values)


def lora_from_text(text: str) -> Lora:
    """`ID` or `ID:WEIGHT` as a Lora; InvalidRequest where the weight is no number."""
    name, colon, weight = text.partition(":")
    return Lora(name, _number(weight, field="lora weight") if colon else None)


def numbers_from_text(field: str, text: str) -> list[float]:
    """`999,749` as numbers; InvalidRequest for anything else."""
    return [_number(part.strip(), field=field) for part in text.split(",")]


def _number(text: str, *, field: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(field, f"{text!r}", allowed="a number") from None


def _integer(text: str, *, field: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidRequest(field, f"{text!r}", allowed="an integer") from None


def one_value(name: str, values: Sequence[_Value] | None) -> _Value | None:
    """The value of an option that has several names and may be given under each of them.

    Raises:
        InvalidRequest: it was given with different values.
    """
    if not values:
        return None
    if any(value != values[0] for value in values):
        shown = " and ".join(map(str, values))
        raise InvalidRequest(name, shown, allowed="one value, under one of the option's names")
    return values[0]


def format_of(out: Path) -> OutputFormat:
    """The format that the suffix of `out` names; InvalidRequest where it names none."""
    suffix = out.suffix.lower()
    if suffix not in _FORMATS:
        raise InvalidRequest("out", f"{out.name!r}", allowed=f"a name that ends in {', '.join(_FORMATS)}")
    return _FORMATS[suffix]
