"""Filters of a batch, as they are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from intaglio.contract.filters import FILTER_KINDS, PaletteFilter, filter_from_entry


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("sharpness", "allowed: a mapping with the key kind"),
        ({"least": 3}, "key kind is missing; allowed: blank"),
        ({"kind": "sharpnes"}, "did you mean sharpness?"),
        ({"kind": "sharpness", "leest": 3}, "unknown key leest; did you mean least?"),
        ({"kind": "sharpness", "least": -1}, "least is -1; allowed: a number of at least 0"),
        ({"kind": "sharpness", "least": 5, "most": 4}, "least 5 is above most 4"),
        ({"kind": "exposure", "least": 0.9, "most": 0.1}, "nothing would be accepted"),
        ({"kind": "exposure", "most_black": 1.5}, "most_black is 1.5"),
        ({"kind": "blank", "name": "Not an id"}, "name is 'Not an id'"),
        ({"kind": "duplicates", "distance": 65}, "from 0 to 64"),
        ({"kind": "palette"}, "exactly one of colours and file"),
        ({"kind": "palette", "colours": {"hair": "red"}}, '"#rrggbb"'),
        ({"kind": "palette", "file": "p.yaml"}, "file and character go together"),
        ({"kind": "palette", "colours": {"a": "#000000"}, "shades": []}, "shades is empty"),
        ({"kind": "identity"}, "character"),
        ({"kind": "identity", "character": "mara", "threshold": 2.5}, "threshold is 2.5"),
        ({"kind": "identity", "character": "mara", "faces": "two"}, "faces is 'two'"),
        ({"kind": "detector"}, "network"),
        ({"kind": "detector", "network": "a.onnx", "require": [{"at_least": 1}]}, "require[0].class"),
    ],
)
def test_a_wrong_entry_is_named(entry: Any, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        filter_from_entry(entry)


NEEDED: dict[str, dict[str, Any]] = {
    "palette": {"colours": {"hair": "#102030"}},
    "identity": {"character": "mara"},
    "detector": {"network": "a.onnx"},
}
"""Keys without which a filter of the kind is none."""


def test_a_filter_is_named_after_its_kind_unless_it_has_a_name() -> None:
    for kind in FILTER_KINDS:
        entry = {"kind": kind, **NEEDED.get(kind, {})}
        assert filter_from_entry(entry).name == kind
        assert filter_from_entry({**entry, "name": "other"}).name == "other"


def test_paths_start_at_the_folder_of_the_specification(tmp_path: Path) -> None:
    spec = filter_from_entry({"kind": "palette", "file": "p.yaml", "character": "mara"}, folder=tmp_path)
    assert isinstance(spec, PaletteFilter)
    assert spec.files == (tmp_path / "p.yaml",)
