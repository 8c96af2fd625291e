"""Which pictures, in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intaglio.errors import ConfigError
from intaglio_client.video.sources import accepted_pictures, natural_key

from ..batch.records import record


def test_numbers_in_names_count_by_value() -> None:
    names = ["b2.png", "B10.png", "a1/2.png", "a1/10.png", "a02.png", "a2.png", "a1.png", "10.png", "9.png"]
    ordered = sorted(map(Path, names), key=natural_key)
    assert [str(path) for path in ordered] == [
        "9.png", "10.png", "a1.png", "a1/2.png", "a1/10.png", "a02.png", "a2.png", "b2.png", "B10.png",
    ]  # fmt: skip


def test_digits_that_are_no_numbers_are_letters() -> None:
    assert sorted([Path("1\u00b22.png"), Path("1.png")], key=natural_key)[0] == Path("1.png")


def test_a_manifest_that_accepts_nothing_is_refused(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps(record(0, accepted=False)) + "\n")
    with pytest.raises(ConfigError, match="accepts no picture"):
        accepted_pictures(manifest)
