"""The files of `intaglio bench quality`."""

from __future__ import annotations

from pathlib import Path

from intaglio.builds.manifest import write_json
from intaglio.whole_files import write_whole
from intaglio_client.bench.quality.plot import drawn_front
from intaglio_client.bench.quality.report import Quality, data_of, page_of

__all__ = ["write_quality"]


def write_quality(quality: Quality, folder: Path) -> dict[str, Path]:
    """Write `quality.json`, `quality.md` and `quality.png`; returns their paths."""
    files = {
        name: folder / f"quality.{suffix}"
        for name, suffix in (("page", "md"), ("data", "json"), ("plot", "png"))
    }
    write_json(files["data"], data_of(quality))
    write_whole(files["plot"], drawn_front(quality))
    write_whole(files["page"], page_of(quality, [files["plot"].name]).encode())
    return files
