"""Cross-attention that is given its keys and values, which no step of a trajectory changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

__all__ = ["attending", "context_of", "cross_attentions"]


def cross_attentions(network: nn.Module) -> list[nn.Module]:
    """The layers of a UNet or a ControlNet that attend to the prompt, in the order of a pass."""
    layers: list[nn.Module] = []
    for block in ("down_blocks", "mid_block", "up_blocks"):
        if hasattr(network, block):
            modules = network.get_submodule(block).named_modules()
            layers += [layer for name, layer in modules if name.endswith(".attn2")]
    return layers


def _keys_and_values(layer: Any, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [N, heads, T, width] of the prompt's embeddings [N, T, embedding width].

    The keys are already multiplied by the attention's scale.
    """
    keys, values = (
        project(prompt).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for project in (layer.to_k, layer.to_v)
    )
    return keys * layer.scale, values


def context_of(network: nn.Module, prompt: Tensor) -> list[Tensor]:
    """Keys and values of each cross-attention of `network` in turn."""
    context: list[Tensor] = []
    for layer in cross_attentions(network):
        context += _keys_and_values(layer, prompt)
    return context


class _GivenContext:
    """A processor of diffusers' attention that is given keys and values, which are the same in every step."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys = keys
        self._values = values

    def __call__(
        self, layer: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any
    ) -> Tensor:
        """[N, tokens, C] -> [N, tokens, C]."""
        queries = layer.to_q(hidden_states).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        mixed = (queries @ self._keys.transpose(2, 3)).softmax(-1) @ self._values
        return layer.to_out[0](mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


@contextlib.contextmanager
def attending(layers: Sequence[Any], context: Sequence[Tensor]) -> Iterator[None]:
    """Within the block, `layers` attend to `context`, which has the keys and values of each in turn."""
    before = [layer.processor for layer in layers]
    try:
        for layer, keys, values in zip(layers, context[::2], context[1::2], strict=True):
            layer.processor = _GivenContext(keys, values)
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = processor
