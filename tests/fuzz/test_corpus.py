"""Every kept input of the fuzzer: those that found a defect, and one of each kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import targets
from .targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MOST_BYTES = 1 << 20
"""Of the whole corpus, since every clone has it."""


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_raise_only_what_is_documented(name: str) -> None:
    kept = sorted((CORPUS / name).iterdir())
    assert kept, "a fuzzer without a beginning finds little"
    for path in kept:
        try:
            TARGETS[name](path.read_bytes())
        except BaseException as error:
            error.add_note(f"the input is {path}")
            raise


def test_the_corpus_has_no_folder_without_a_target_and_stays_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*")) < MOST_BYTES


def test_an_error_that_no_parser_documents_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise ValueError("month must be in 1..12")

    monkeypatch.setattr(targets, "load_deployment", fail)
    with pytest.raises(ValueError, match="month"):
        TARGETS["deployment"](b"a: 2001-99-99")
