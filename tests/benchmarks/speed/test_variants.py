"""Every variant of a graph computes the same function."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from benchmarks.speed.variants import QueryScaled


def test_scaled_queries_are_scaled_attention() -> None:
    torch.manual_seed(0)
    attention = Attention(query_dim=64, cross_attention_dim=48, heads=2, dim_head=32).eval()
    hidden, context = torch.randn(2, 10, 64), torch.randn(2, 7, 48)
    found = []
    for processor in (AttnProcessor2_0(), QueryScaled()):
        attention.set_processor(processor)
        with torch.no_grad():
            found.append(attention(hidden, encoder_hidden_states=context))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
