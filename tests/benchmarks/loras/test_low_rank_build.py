"""A low-rank path beside a matrix computes what the path merged into it would."""

from __future__ import annotations

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from benchmarks.loras.low_rank_build import Beside, put_beside


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        block = BasicTransformerBlock(16, 2, 8, cross_attention_dim=12)
        self.attention = nn.Module()
        self.attention.proj_in = nn.Linear(16, 16)
        self.attention.transformer_blocks = nn.ModuleList([block])


@torch.no_grad()
def test_beside_is_merged() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(8, 6)
    beside = Beside(linear, rank=2)
    x = torch.randn(3, 5, 8)
    merged = linear.weight + (beside.down @ beside.up).T
    torch.testing.assert_close(beside(x), nn.functional.linear(x, merged, linear.bias))


def test_every_matrix_of_the_blocks_is_changed_and_no_other() -> None:
    network = Network()
    matrices = sum(isinstance(layer, nn.Linear) for layer in network.modules()) - 1
    assert put_beside(network, rank=4) == matrices
    assert sum(isinstance(layer, Beside) for layer in network.modules()) == matrices
    assert isinstance(network.attention.proj_in, nn.Linear)
