"""Which files of its tokenizers a pipeline lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.single_files import CONFIGURATIONS
from intaglio_export.weights.repository_files import pipeline_files


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        (("vocab.json", "merges.txt"), None),
        (("tokenizer.json",), None),
        (("vocab.json", "tokenizer.json"), "tokenizer_2/merges.txt"),
        (("merges.txt",), "tokenizer_2/vocab.json"),
        ((), "tokenizer_2/vocab.json"),
    ],
)
def test_either_layout_is_complete(tmp_path: Path, files: tuple[str, ...], missing: str | None) -> None:
    for folder, names in (("tokenizer", ("vocab.json", "merges.txt")), ("tokenizer_2", files)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    for name in CONFIGURATIONS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    expected = None if missing is None else f"{missing} is missing"
    assert pipeline_files(()).missing(tmp_path) == expected
