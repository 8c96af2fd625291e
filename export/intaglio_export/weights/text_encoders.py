"""CLIP's text encoders under the names that published files have for their weights.

transformers 5.6 dropped the level `text_model` of the encoder without a projection: its modules and the files
that it writes lack that level. Published checkpoints, LoRAs and our engines have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

__all__ = ["with_published_names"]


class _Nested(nn.Module):
    """A text encoder one level down."""

    def __init__(self, text_model: Any) -> None:
        super().__init__()
        self.text_model = text_model
        self.config = text_model.config

    def forward(self, input_ids: Tensor, **options: Any) -> Any:
        """The encoder's own output."""
        return self.text_model(input_ids, **options)

    def set_attn_implementation(self, name: str) -> None:
        """Choose how the encoder computes attention, as transformers names it."""
        self.text_model.set_attn_implementation(name)

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        """Write the encoder's own files."""
        self.text_model.save_pretrained(folder, **options)


def with_published_names(encoder: nn.Module) -> nn.Module:
    """`encoder`, whose parameters are then named as in published files."""
    return encoder if hasattr(encoder, "text_model") else _Nested(encoder)
