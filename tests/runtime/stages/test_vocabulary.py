"""A CLIP vocabulary from either layout of its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from intaglio.stages.vocabulary import read_vocabulary

TOKENIZER = Path(__file__).parents[3] / "miniature/model/tokenizer"


@pytest.mark.parametrize("joined", [False, True])
def test_both_layouts_say_the_same(tmp_path: Path, *, joined: bool) -> None:
    expected = read_vocabulary(TOKENIZER)
    merges = [" ".join(pair) if joined else list(pair) for pair in expected.merges]
    whole = {"model": {"vocab": expected.ids, "merges": merges}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    assert read_vocabulary(tmp_path) == expected
    assert expected.size == 49408


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"merges\.txt"):
        read_vocabulary(tmp_path)
