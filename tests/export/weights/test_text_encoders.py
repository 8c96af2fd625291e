"""Text encoders of every release of transformers have the published names."""

from __future__ import annotations

from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from intaglio_export.weights.text_encoders import with_published_names

CONFIG = CLIPTextConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    bos_token_id=48,
    eos_token_id=49,
)


def without_level(encoder: Any) -> Any:
    """`encoder` as transformers 5.6 has it: `text_model` is the encoder itself."""
    return getattr(encoder, "text_model", encoder)


@torch.no_grad()
def test_the_level_comes_back_and_nothing_else_changes() -> None:
    flat = without_level(CLIPTextModel(CONFIG)).eval()
    named = with_published_names(flat)
    assert {name: id(values) for name, values in named.named_parameters()} == {
        f"text_model.{name}": id(values) for name, values in flat.named_parameters()
    }
    assert named.config is flat.config
    ids = torch.tensor([[48, 1, 2, 49]])
    found = named(ids, output_hidden_states=True).hidden_states
    assert torch.equal(found[-2], flat(ids, output_hidden_states=True).hidden_states[-2])


def test_an_encoder_with_the_level_stays_itself() -> None:
    named = with_published_names(without_level(CLIPTextModel(CONFIG)))
    assert with_published_names(named) is named
