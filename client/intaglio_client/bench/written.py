"""The files of a report: written, and read again for a comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.builds.manifest import write_json
from intaglio.errors import ConfigError
from intaglio.whole_files import write_whole
from intaglio_client.bench.report import SCHEMA, page_of

__all__ = ["Written", "read_report", "write_data", "write_report"]


@dataclass(frozen=True)
class Written:
    """The files of a report."""

    page: Path
    data: Path
    plots: tuple[Path, ...]
    loads: Path
    """Folder of what perf_analyzer wrote."""


def write_data(data: Mapping[str, Any], folder: Path) -> Path:
    """Write `report.json`."""
    path = folder / "report.json"
    write_json(path, data)
    return path


def write_report(data: Mapping[str, Any], folder: Path, plots: Mapping[str, bytes]) -> Written:
    """Write `report.json`, `report.md` and `plots`, the PNGs of `drawn_plots` by the names of their files."""
    for name, png in plots.items():
        write_whole(folder / name, png)
    path = write_data(data, folder)
    write_whole(folder / "report.md", page_of(data, list(plots)).encode())
    return Written(folder / "report.md", path, tuple(folder / name for name in plots), folder / "loads")


def read_report(path: Path) -> dict[str, Any]:
    """A `report.json`.

    Raises:
        ConfigError: it is none, or one of another version.
    """
    try:
        data: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a report: {error}") from error
    if not isinstance(data, dict) or "loads" not in data or data.get("schema") != SCHEMA:
        raise ConfigError(f"{path}: is no report.json of this version of `intaglio bench`")
    return data
