"""Prompts are encoded once and together, and pooled from their first chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from intaglio.engines.interface import Array
from intaglio.stages.diffuse.conditioning import Conditioning, read_conditioning
from intaglio.stages.diffuse.text import TEXT_ENCODERS, TextEncoders


class Encoder:
    """A text encoder whose states are its token ids."""

    def __init__(self, *, pools: bool) -> None:
        self.batches: list[int] = []
        self._pools = pools

    def __call__(self, sizes: dict[str, int], *, input_ids: Array, state_rows: Array) -> dict[str, Array]:
        assert sizes["C"] == len(input_ids)
        self.batches.append(len(input_ids))
        layers = np.concatenate([input_ids, -input_ids])  # as if it had two layers
        outputs = {"hidden_states": layers[state_rows][..., None].astype(np.float16)}
        return {**outputs, "text_embeds": input_ids[:, :2]} if self._pools else outputs


@pytest.fixture
def calls() -> dict[str, Any]:
    return {name: Encoder(pools=name == "text_encoder_2") for name in TEXT_ENCODERS}


@pytest.fixture
def encoders(calls: dict[str, Any]) -> TextEncoders:
    return TextEncoders(calls, kept=4)


@pytest.fixture
def request_of(tiny: Any, tensors_of: Any) -> Any:
    def made(**values: Any) -> Conditioning:
        usual = {"prompt": "a fox", "seed": 1, "steps": 1}
        return read_conditioning(tensors_of(**(usual | values)), tiny.manifest)

    return made


def test_prompts_are_encoded_once_and_together(
    encoders: TextEncoders, calls: dict[str, Any], request_of: Any
) -> None:
    def batches(**values: Any) -> list[int]:
        calls["text_encoder"].batches.clear()
        encoders(request_of(**values), weights_digest="")
        return list(calls["text_encoder"].batches)

    assert batches(negative_prompt="bad") == [2], "both prompts in one pass"
    assert batches(negative_prompt="bad", seed=2) == []
    assert batches(negative_prompt="bad", prompt="a (fox:1.2)") == [1], "weights are part of the key"
    assert batches(prompt="a (fox:1.2)", clip_skip=1) == [1], "skipped layers are part of the key"
    assert batches() == [], "an absent negative prompt is zeros: nothing to encode"


def test_layers_are_skipped_for_the_positive_prompt_alone(
    encoders: TextEncoders, calls: dict[str, Any], request_of: Any
) -> None:
    texts = {"prompt": "cat " * 100, "negative_prompt": "bad"}
    plain = encoders(request_of(**texts), weights_digest="")
    skipping = encoders(request_of(**texts, clip_skip=1), weights_digest="")
    assert calls["text_encoder"].batches == [4, 2], "the negative prompt is known"
    np.testing.assert_array_equal(skipping[0].context, plain[0].context)
    np.testing.assert_array_equal(skipping[1].context, -plain[1].context)
    np.testing.assert_array_equal(skipping[1].pooled, plain[1].pooled)
    together = TextEncoders(calls, kept=0)(request_of(**texts, clip_skip=1), weights_digest="")
    for one, other in zip(together, skipping, strict=True):
        np.testing.assert_array_equal(one.context, other.context)


def test_embeddings_of_other_weights_are_not_used(
    encoders: TextEncoders, calls: dict[str, Any], request_of: Any
) -> None:
    for digest in ("", "one", "", "one"):
        encoders(request_of(), weights_digest=digest)
    assert calls["text_encoder"].batches == [1, 1]


def test_an_absent_negative_prompt_is_zeros(encoders: TextEncoders, request_of: Any) -> None:
    negative, positive = encoders(request_of(), weights_digest="")
    assert not negative.context.any()
    assert not negative.pooled.any()
    assert positive.context.any()


def test_chunks_follow_each_other_and_the_first_is_pooled(encoders: TextEncoders, request_of: Any) -> None:
    request = request_of(prompt="cat " * 100, guidance_scale=1.0)
    (made,) = encoders(request, weights_digest="")
    assert request.chunks == 2
    assert made.context.shape == (2 * 77, 2)
    assert made.context.dtype == np.float32
    for encoder in range(2):
        weighted = request.token_ids[encoder, 0] * request.token_weights[encoder, 0]
        np.testing.assert_array_equal(made.context[:, encoder], weighted.astype(np.float16).reshape(-1))
    np.testing.assert_array_equal(made.pooled, request.token_ids[1, 0, 0, :2])


def test_warm_up_runs_both_batches(encoders: TextEncoders, calls: dict[str, Any]) -> None:
    encoders.warm_up(77)
    assert [call.batches for call in calls.values()] == [[2, 1], [2, 1]]
