"""The `quality` part of a file of presets, as a deployment includes it with `presets: FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from intaglio.whole_files import write_whole
from intaglio_client.tune.results import Row

__all__ = ["quality_part", "with_quality_part", "write_quality_part"]

_HEAD: Final = "# Chosen by `intaglio tune` (docs/tuning.md). `figures` are for the reader.\n"
_KEY: Final = "quality:"


def quality_part(presets: Mapping[str, Row]) -> str:
    """The part as YAML: each preset's inputs and the figures it was chosen by."""
    part = {name: {**row.setting.inputs, "figures": _figures(row)} for name, row in presets.items()}
    text: str = yaml.safe_dump({"quality": part}, sort_keys=False, width=110)
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
    """`text` with `part` in the place of its `quality` part, or at its end; all else stays as it is."""
    lines = text.splitlines(keepends=True)
    first = next((index for index, line in enumerate(lines) if line.startswith(_KEY)), None)
    if first is not None:
        after = first + 1
        for index in range(first + 1, len(lines)):
            if lines[index][0] in " \t-":
                after = index + 1
            elif _begins_a_key(lines[index]):
                break
        return "".join([*lines[:first], part, *lines[after:]])
    if not text:
        return _HEAD + part
    return text + ("" if text.endswith("\n") else "\n") + part


def _begins_a_key(line: str) -> bool:
    return bool(line.strip()) and line[0] != "#"


def write_quality_part(path: Path, presets: Mapping[str, Row]) -> None:
    """Write the part into the file at `path`, which keeps its other parts."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    write_whole(path, with_quality_part(before, quality_part(presets)).encode())
