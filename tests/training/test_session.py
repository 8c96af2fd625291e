"""Opening a run: long captions keep all their tokens; what is too long is named before training begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from intaglio_train import ConfigError, DataError, LoraConfig
from intaglio_train.base_model import BaseModel
from intaglio_train.lora import _LoraLoss
from intaglio_train.progress import SilentReporter
from intaglio_train.session import Session, open_session

Keys = Callable[..., dict[str, Any]]
TAGS = ", ".join(f"tag {number}" for number in range(80))


class Notes(SilentReporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def opened(
    keys: Keys, folder: Path, *, caches: frozenset[str] = frozenset(), **changes: Any
) -> tuple[Session, Notes]:
    config = LoraConfig.model_validate(keys(data={"folder": str(folder)}, caption_dropout=0.0, **changes))
    return open_session_of(config, caches)


def open_session_of(config: LoraConfig, caches: frozenset[str] = frozenset()) -> tuple[Session, Notes]:
    notes = Notes()
    prior = config.prior.data if config.prior else None
    return open_session(config, control=False, prior=prior, caches=caches, reporter=notes), notes


def encoded(base: BaseModel, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Context [kT,C] and pooled [P] of a text, written out with transformers alone."""
    contexts = []
    pooled = []
    for tokenizer, encoder in zip(base.tokenizers, base.text_encoders, strict=True):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        comma = tokenizer.convert_tokens_to_ids(",</w>")
        chunks = []
        while ids:
            cut = min(75, len(ids))
            if len(ids) > 75:
                cut = max([place + 1 for place in range(55, 75) if ids[place] == comma], default=75)
            chunks.append(ids[:cut])
            ids = ids[cut:]
        framed = [[49406, *chunk, 49407] + [tokenizer.pad_token_id] * (75 - len(chunk)) for chunk in chunks]
        output = encoder(torch.tensor(framed), output_hidden_states=True)
        contexts.append(output.hidden_states[-2].flatten(0, 1))
        pooled.append(getattr(output, "text_embeds", torch.zeros(1)))
    return torch.cat(contexts, dim=-1), pooled[1][0]


@pytest.mark.parametrize("caches", [frozenset[str](), frozenset({"text"})], ids=["encoded", "cached"])
def test_a_caption_of_80_tags_keeps_them_all(keys: Keys, pairs: Path, caches: frozenset[str]) -> None:
    for index in range(6):
        (pairs / f"{index:02d}.txt").write_text(TAGS if index == 3 else f"a thing {index}")
    session, notes = opened(keys, pairs, caches=caches, batch_size=6)
    batch = next(session.batches(0))
    with torch.no_grad():
        conditions = session.examples(batch)[0].conditions
        expected, pooled = encoded(session.base, TAGS)
        short, _ = encoded(session.base, "a thing 0")
    order = batch[0].indices.tolist()
    assert conditions.context.shape[1] == len(expected) > 77
    torch.testing.assert_close(conditions.context[order.index(3)], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(conditions.pooled[order.index(3)], pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(conditions.context[order.index(0)][:77], short, rtol=1e-4, atol=1e-5)
    assert notes.texts[-1].startswith("1 captions are longer than 75 tokens")


def test_a_batch_without_long_captions_has_one_chunk(keys: Keys, pairs: Path) -> None:
    (pairs / "03.txt").write_text(TAGS)
    session, _ = opened(keys, pairs, batch_size=1)
    batches = session.batches(0)
    lengths = {}
    for _ in range(6):
        batch = next(batches)
        with torch.no_grad():
            lengths[int(batch[0].indices)] = session.examples(batch)[0].conditions.context.shape[1]
    batches.close()
    assert {index for index, length in lengths.items() if length > 77} == {3}


def test_a_prior_is_filled_up_to_the_long_captions_beside_it(keys: Keys, pairs: Path, arrays: Path) -> None:
    for index in range(6):
        (pairs / f"{index:02d}.txt").write_text(TAGS)
    session, _ = opened(keys, pairs, prior={"data": {"folder": str(arrays)}})
    with torch.no_grad():
        conditions = session.examples(next(session.batches(0)))[0].conditions
    assert conditions.context.shape[:2] == (4, len(encoded(session.base, TAGS)[0]))


def test_a_prior_of_another_size_is_an_example_of_its_own(
    keys: Keys, arrays: Path, two_sizes: dict[str, Any]
) -> None:
    prior = {"data": two_sizes["data"], "weight": 0.5}
    config = LoraConfig.model_validate(
        keys(**(two_sizes | {"data": {"folder": str(arrays)}, "prior": prior, "batch_size": 3}))
    )
    session, _ = open_session_of(config)
    batches = session.batches(0)
    shapes = set()
    for _ in range(4):
        batch = next(batches)
        with torch.no_grad():
            examples = session.examples(batch)
            loss = _LoraLoss(session, config)(batch)
        shapes.add(tuple(tuple(example.noisy.shape) for example in examples))
        assert loss.isfinite()
    batches.close()
    assert shapes == {((6, 4, 8, 8),), ((3, 4, 8, 8), (3, 4, 4, 12))}


def test_a_caption_that_is_too_long_is_named(keys: Keys, pairs: Path) -> None:
    (pairs / "03.txt").write_text(", ".join([TAGS] * 4))
    with pytest.raises(DataError, match=r"03\.txt: its caption takes \d+ chunks of 75 tokens; at most 8"):
        opened(keys, pairs)


def test_a_sample_prompt_that_would_be_cut_is_refused(keys: Keys, pairs: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples: prompt 'tag 0, .*is longer than 75 tokens"):
        opened(keys, pairs, samples={"prompts": [TAGS]})
