"""Our tokenizers and transformers' own."""

from __future__ import annotations

import pytest
from transformers import CLIPTokenizer

from intaglio.stages.preprocess.tokenizer import PromptTokenizer

from .prompts import FOLDERS, MODEL, OURS


@pytest.fixture(scope="module", params=FOLDERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def ours(name: str) -> PromptTokenizer:
    return OURS[name]


@pytest.fixture(scope="module")
def theirs(name: str) -> CLIPTokenizer:
    """The class SDXL's model_index.json names, without ftfy even where that is installed."""
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / name)
    if tokenizer.fix_text is not None:
        pytest.skip("ftfy is installed: CLIPTokenizer cleans text in another way than the one we match")
    return tokenizer
