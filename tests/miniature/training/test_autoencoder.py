"""The autoencoder's two stages, at a few pictures and steps."""

from __future__ import annotations

import pytest
import torch

from miniature.training.autoencoder import encode_all, load_autoencoder, recoloured, rendered
from miniature.training.settings import Settings

from .conftest import Train


def test_the_scale_makes_the_worlds_latents_of_unit_spread(trial: Settings, train_stage: Train) -> None:
    scale = float(train_stage("autoencoder", trial)["scaling_factor"])
    latents = encode_all(load_autoencoder("autoencoder", trial), rendered("base", trial))
    assert float(latents.float().std()) * scale == pytest.approx(1, abs=0.01)


def test_the_decoder_goes_on_and_the_encoder_stays(trial: Settings, train_stage: Train) -> None:
    before = train_stage("autoencoder", trial)
    after = train_stage("decoder", trial)
    assert after.keys() == before.keys()
    changed = {name.partition(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_other_colours_keep_the_range_and_the_drawing() -> None:
    x = torch.linspace(-1, 1, 16 * 16).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    odd = recoloured(x, torch.Generator().manual_seed(0))
    assert odd.abs().max() <= 1
    assert not torch.equal(odd[0, 0], odd[0, 1])
    assert not torch.equal(odd[0], odd[1])
    assert (odd.flatten(2).diff() >= 0).all()
