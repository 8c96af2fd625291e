"""The `quality` part of a file of presets, as a deployment includes it with `presets: FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from intaglio.errors import ConfigError
from intaglio.whole_files import write_whole
from intaglio_client.tune.choice import PRESETS, ULTRA
from intaglio_client.tune.results import Row

__all__ = ["check_presets_file", "quality_part", "with_quality_part", "write_quality_part"]

_HEAD: Final = "# Chosen by `intaglio tune` (docs/tuning.md). `figures` are for the reader.\n"
_KEY: Final = "quality"
_TUNED: Final = (*PRESETS, ULTRA)
"""Presets that a run replaces; others are the user's own."""


def quality_part(presets: Mapping[str, Row]) -> str:
    """The part as YAML: each preset's inputs and the figures it was chosen by."""
    return _dumped(_values(presets))


def _values(presets: Mapping[str, Row]) -> dict[str, Any]:
    return {name: {**row.setting.inputs, "figures": _figures(row)} for name, row in presets.items()}


def _dumped(part: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump({_KEY: dict(part)}, sort_keys=False, width=110)
    return text


def _figures(row: Row) -> dict[str, Any]:
    return {
        "seconds": round(row.seconds.value, 3),
        "ratio": round(row.ratio.value, 3),
        "psnr": round(row.psnr.value, 1),
        "error": round(row.error.value, 2),
        "ssim": round(row.ssim.value, 4),
    }


def with_quality_part(text: str, part: str) -> str:
    """`text` with `part` in the place of its `quality` part, or at its end; all else stays as it is.

    Raises:
        ConfigError: `text` cannot be edited, and why.
    """
    span = _quality_span(text)
    if span is not None:
        first, after = span
        return text[:first] + part + text[after:]
    if not text:
        return _HEAD + part
    return text + ("" if text.endswith("\n") else "\n") + part


def check_presets_file(path: Path) -> None:
    """Raise ConfigError where `write_quality_part` could not edit the file at `path`."""
    _edited(path, {})


def write_quality_part(path: Path, presets: Mapping[str, Row]) -> None:
    """Write the part into the file at `path`, which keeps its other parts and the user's own presets.

    Comments inside the `quality` part are lost.

    Raises:
        ConfigError: the file cannot be edited; it is untouched.
    """
    write_whole(path, _edited(path, presets).encode())


def _edited(path: Path, presets: Mapping[str, Row]) -> str:
    """The text of the file at `path` with `presets`."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        values = _mapping(yaml.safe_load(before), "the file")
        quality = _mapping(values.get(_KEY), _KEY)
        own = {name: preset for name, preset in quality.items() if name not in _TUNED}
        part = {**own, **_values(presets)}
        after = with_quality_part(before, _dumped(part))
        same = yaml.safe_load(after) == {**values, _KEY: part}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}; correct it, or name another file with --presets") from error
    if not same:
        raise ConfigError(f"{path}: {_KEY} cannot be edited in place; name another file with --presets")
    return after


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is no mapping")
    return value


def _quality_span(text: str) -> tuple[int, int] | None:
    """Where the `quality` part begins and ends in `text`; None where there is none."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return None
    found = [(key, value) for key, value in root.value if key.value == _KEY]
    if root.flow_style and root.value:
        raise ConfigError(f"{_KEY} must stand on lines of its own, not in the outermost braces")
    if not found:
        return None
    if len(found) > 1:
        raise ConfigError(f"{_KEY} is there twice")
    key, value = found[0]
    first = key.start_mark.index
    last = _last(value).end_mark
    end = text.find("\n", last.index)
    after = last.index if last.column == 0 else len(text) if end < 0 else end + 1
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        is_shared = isinstance(token, yaml.AnchorToken | yaml.AliasToken)
        if is_shared and first <= token.start_mark.index < after:
            raise ConfigError(f"{_KEY} has an anchor or an alias of YAML")
    return first, after


def _last(node: yaml.Node) -> yaml.Node:
    """The node that ends last: a block mapping's own end lies behind the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _last(last[1] if isinstance(last, tuple) else last)
    return node
