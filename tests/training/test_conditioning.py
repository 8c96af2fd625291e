"""Conditioning against diffusers' pipeline; caches give what encoding gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from intaglio_train import ConfigError, LoraConfig
from intaglio_train.base_model import ModelSource, load_base_model
from intaglio_train.conditioning import Conditions, encode_tokens
from intaglio_train.progress import SilentReporter
from intaglio_train.session import open_session
from intaglio_train.text_chunks import chunk_texts

Keys = Callable[..., dict[str, Any]]
ALL = frozenset({"latents", "text", "controls"})


def conditions(keys: Keys, arrays: Path, caches: frozenset[str], **changes: Any) -> Conditions:
    config = LoraConfig.model_validate(
        keys(
            data={"folder": str(arrays), "control": "pose"},
            batch_size=4,
            caption_dropout=0.5,
            seed=1,
            **changes,
        )
    )
    session = open_session(config, control=True, prior=None, caches=caches, reporter=SilentReporter())
    source = session.sources[0]
    batch = source.stream.batch(0)
    assert (batch.images is None, batch.controls is None) == ("latents" in caches, "controls" in caches)
    assert source.stream.captions.dropped in batch.captions
    return source.conditioner(batch, chunks=source.conditioner.chunks_of(batch))


@pytest.mark.parametrize("cache_on", ["device", "host"])
def test_caches_hold_what_encoding_gives(keys: Keys, arrays: Path, cache_on: str) -> None:
    fresh, cached = conditions(keys, arrays, frozenset()), conditions(keys, arrays, ALL, cache_on=cache_on)
    for name in ("latents", "context", "pooled", "time_ids", "control"):
        torch.testing.assert_close(getattr(cached, name), getattr(fresh, name), rtol=1e-4, atol=1e-5)
    assert fresh.control is not None
    assert 0 <= fresh.control.min() < 0.1
    assert 0.9 < fresh.control.max() <= 1


def test_caches_of_buckets_hold_what_encoding_gives(keys: Keys, two_sizes: dict[str, Any]) -> None:
    found = []
    config = LoraConfig.model_validate(keys(batch_size=2, **two_sizes))
    for caches in (frozenset[str](), ALL):
        session = open_session(config, control=True, prior=None, caches=caches, reporter=SilentReporter())
        source = session.sources[0]
        batches = [source.stream.batch(number) for number in range(6)]
        found.append([source.conditioner(batch, chunks=1) for batch in batches])
    for fresh, cached in zip(*found, strict=True):
        torch.testing.assert_close(cached.latents, fresh.latents, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(cached.control, fresh.control)
        height, width = 8 * fresh.latents.shape[2], 8 * fresh.latents.shape[3]
        assert fresh.time_ids.tolist() == [[height, width, 0, 0, height, width]] * 2
    assert {tuple(conditions.latents.shape[2:]) for conditions in found[0]} == {(8, 8), (4, 12)}


def test_text_embeddings_are_the_pipelines(model: Path) -> None:
    base = load_base_model(ModelSource(str(model)), device=torch.device("cpu"), dtype=torch.float32)
    texts = ["a thing", "another, much longer thing " * 12]
    context, pooled = encode_tokens(base, chunk_texts(base.tokenizers, texts).tokens[:, 1:])
    theirs, _, their_pooled, _ = base.pipeline().encode_prompt(
        texts, device="cpu", do_classifier_free_guidance=False
    )
    torch.testing.assert_close(context, theirs)
    torch.testing.assert_close(pooled, their_pooled)


def test_no_caption_is_encoded_once_and_is_the_dropped_one(keys: Keys, arrays: Path) -> None:
    config = LoraConfig.model_validate(keys(data={"folder": str(arrays)}))
    session = open_session(config, control=False, prior=None, caches=frozenset(), reporter=SilentReporter())
    conditioner = session.sources[0].conditioner
    conditioner._base = replace(session.base, zero_empty_prompt=False)
    dropped = conditioner._text(torch.full((3,), conditioner._dropped), 2)
    calls: list[int] = []
    hook = session.base.text_encoders[0].register_forward_hook(lambda *_: calls.append(1))
    first = conditioner.no_caption(3, chunks=2)
    shorter = conditioner.no_caption(1, chunks=1)
    hook.remove()
    assert len(calls) == 1
    for ours, theirs in zip(first, dropped, strict=True):
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert [len(tensor) for tensor in shorter] == [1, 1]
    assert 2 * shorter[0].shape[1] == first[0].shape[1]


def test_a_dropped_caption_is_the_empty_one_where_the_model_has_no_zeros(
    keys: Keys, arrays: Path, model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "model"
    other.mkdir()
    for part in model.iterdir():
        (other / part.name).symlink_to(part)
    (other / "model_index.json").unlink()
    index = (model / "model_index.json").read_text()
    assert '"force_zeros_for_empty_prompt": true' in index
    (other / "model_index.json").write_text(
        index.replace('"force_zeros_for_empty_prompt": true', '"force_zeros_for_empty_prompt": false')
    )
    for caches in (frozenset[str](), ALL):
        zeros = conditions(keys, arrays, caches)
        empty = conditions(keys, arrays, caches, model=str(other))
        dropped = ~zeros.pooled.any(dim=1)
        assert dropped.any()
        base = load_base_model(ModelSource(str(model)), device=torch.device("cpu"), dtype=torch.float32)
        context, _ = encode_tokens(base, chunk_texts(base.tokenizers, [""]).tokens)
        torch.testing.assert_close(
            empty.context[dropped], context.expand(int(dropped.sum()), -1, -1), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("/absent/model", "no such file or folder"),
        ("absent.safetensors", "no such file or folder"),
        ("someone/something", "is no folder here and the hub does not give it"),
    ],
)
def test_a_model_that_is_not_there_is_named(name: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as error:
        load_base_model(ModelSource(name), device=torch.device("cpu"), dtype=torch.float32)
    assert str(error.value).startswith(f"model {name}")


def test_a_folder_that_is_no_sdxl_is_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no model_index\.json"):
        load_base_model(ModelSource(str(tmp_path)), device=torch.device("cpu"), dtype=torch.float32)
    (tmp_path / "model_index.json").write_text((model / "model_index.json").read_text())
    with pytest.raises(ConfigError, match="cannot be loaded as SDXL"):
        load_base_model(ModelSource(str(tmp_path)), device=torch.device("cpu"), dtype=torch.float32)
