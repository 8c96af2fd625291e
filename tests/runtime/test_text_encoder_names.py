"""Names of text encoders' weights."""

from __future__ import annotations

import pytest

from intaglio.text_encoder_names import published_name


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("encoder.layers.0.mlp.fc1.weight", "text_model.encoder.layers.0.mlp.fc1.weight"),
        ("text_model.final_layer_norm.bias", "text_model.final_layer_norm.bias"),
        ("text_projection.weight", "text_projection.weight"),
        ("text_projection", "text_projection"),
    ],
)
def test_the_level_text_model_is_there_once(name: str, published: str) -> None:
    assert published_name(name) == published
