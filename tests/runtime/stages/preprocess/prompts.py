"""Prompts of all kinds, and the tokenizers of the miniature."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import CLIPTokenizer

from intaglio.stages.preprocess.tokenizer import PromptTokenizer

MODEL = Path(__file__).parents[4] / "miniature" / "model"


FOLDERS = ("tokenizer", "tokenizer_2")


OURS = {name: PromptTokenizer.from_folder(MODEL / name) for name in FOLDERS}


def fed_by_diffusers(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    """`StableDiffusionXLPipeline.encode_prompt`, the tokenizer call."""
    call = tokenizer(text, padding="max_length", max_length=tokenizer.model_max_length, truncation=True)
    return [int(token) for token in call.input_ids]


ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz ",
    "ABCDEFG HIJ ",
    "éàüñçøßÀÉİıſÅ ΣσςΆЖя",
    "中文字日本語ひらがなカタカナ한국어 漢",
    "😀🏽\u200d👩🚀❤\ufe0f🇫🇷✨",
    "\t\n\r\x0b\x0c\x1c\x85\u00a0\u2003\u200b\u2028\u3000\ufeff\x00\ufffd ",
    "0123456789²½Ⅷ٣",
    "'s't're've'm'll'd''\u2019",
    '!!!??.,;:-_{}<>|/@#$%^&*~`"=+',
    "e\u0301o\u0308a\u030an\u0303क्षก็العربيةעִברית",
    "\uf900\U0002f800\U00020000",
]


PHRASES = [
    "a photo of ",
    "masterpiece, ",
    "woman's ",
    "<|endoftext|>",
    "<|startoftext|>",
    "!",
    " in the style of Monet ",
]


def random_prompt(source: random.Random) -> str:
    parts = []
    for _ in range(source.randint(0, 10)):
        alphabet = source.choice(ALPHABETS)
        parts.append(
            source.choice(PHRASES)
            if source.random() < 0.2
            else "".join(source.choices(alphabet, k=source.randint(1, 6)))
        )
    return "".join(parts)


@contextmanager
def computing(*, most: float) -> Iterator[None]:
    """A block that takes at most `most` seconds of processor time. The garbage collector is off: its pauses
    depend on what other tests keep.
    """
    gc.disable()
    try:
        start = time.thread_time()
        yield
        taken = time.thread_time() - start
    finally:
        gc.enable()
    assert taken < most
