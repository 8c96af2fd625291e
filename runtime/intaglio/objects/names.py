"""Names of classes: from a file, from what an ONNX file says of itself, or COCO's."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from intaglio.errors import ConfigError

__all__ = ["COCO", "names_in_file", "names_in_metadata"]

_LONGEST_FILE: Final = 1 << 20
_YAML: Final = (".yaml", ".yml")
_COCO: Final = (
    "person;bicycle;car;motorcycle;airplane;bus;train;truck;boat;traffic light;fire hydrant;stop sign;"
    "parking meter;bench;bird;cat;dog;horse;sheep;cow;elephant;bear;zebra;giraffe;backpack;umbrella;handbag;"
    "tie;suitcase;frisbee;skis;snowboard;sports ball;kite;baseball bat;baseball glove;skateboard;surfboard;"
    "tennis racket;bottle;wine glass;cup;fork;knife;spoon;bowl;banana;apple;sandwich;orange;broccoli;carrot;"
    "hot dog;pizza;donut;cake;chair;couch;potted plant;bed;dining table;toilet;tv;laptop;mouse;remote;"
    "keyboard;cell phone;microwave;oven;toaster;sink;refrigerator;book;clock;vase;scissors;teddy bear;"
    "hair drier;toothbrush"
)
COCO: Final = tuple(_COCO.split(";"))
"""The 80 classes of COCO 2017 (cocodataset.org), in their order."""


def names_in_file(path: Path) -> tuple[str, ...]:
    """The names in a text file, one a line, or under `names` of a YAML file, as a list or by number.

    Raises:
        ConfigError: the file is missing or holds something else.
    """
    if path.suffix.lower() in _YAML:
        return _names(_numbers_as_text(path).get("names"), str(path))
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as text: {error}") from error
    lines = [line.strip() for line in text.splitlines()]
    return _names([line for line in lines if line], str(path))


def _numbers_as_text(path: Path) -> Mapping[str, Any]:
    """The YAML file at `path`. Ultralytics' files number their classes, so keys may be numbers here."""
    import yaml  # noqa: PLC0415  (only here)

    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must be a mapping with the key names")
    return data


def names_in_metadata(metadata: Mapping[str, str], *, path: Path) -> tuple[str, ...] | None:
    """The names that ultralytics wrote into an ONNX file, a Python mapping as text; None without any.

    Raises:
        ConfigError: the text is something else.
    """
    text = metadata.get("names")
    if text is None:
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ConfigError(f"{path}: its metadata names no classes; give a file of classes") from error
    return _names(value, f"{path}: its metadata")


def _names(value: Any, place: str) -> tuple[str, ...]:
    if isinstance(value, dict):
        numbers = {_number(key): name for key, name in value.items()}
        value = [numbers.get(index) for index in range(len(numbers))]
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(
            f"{place}: no names of classes; allowed: a list, or a mapping of 0, 1, 2, ... to names"
        )
    names = tuple(str(name).strip() if isinstance(name, str | int) else "" for name in value)
    if not all(names):
        raise ConfigError(
            f"{place}: class {names.index('')} has no name; allowed: one for each of 0, 1, 2, ..."
        )
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{place}: two classes are called {twice!r}; allowed: names that differ")
    return names


def _number(key: Any) -> int | None:
    text = str(key)
    return int(text) if text.isdecimal() else None
