"""Which pictures, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.errors import ConfigError
from intaglio_client.video.sources import accepted_pictures, natural_key


def test_numbers_in_names_count_by_value() -> None:
    names = ["b2.png", "B10.png", "a1/2.png", "a1/10.png", "a02.png", "a2.png", "a1.png", "10.png", "9.png"]
    ordered = sorted(map(Path, names), key=natural_key)
    assert [str(path) for path in ordered] == [
        "9.png", "10.png", "a1.png", "a1/2.png", "a1/10.png", "a02.png", "a2.png", "b2.png", "B10.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1 is no JSON"),
        ("[1]", "line 1 is no object"),
        ('\n{"item": 0, "file": "a.png"}', "line 2 has no verdict"),
        ('{"item": 0, "file": "a.png", "verdict": "rejected"}', "accepts no picture"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(text)
    with pytest.raises(ConfigError, match=said):
        accepted_pictures(manifest)
