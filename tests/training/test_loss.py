"""The loss against diffusers' schedulers, the paper's weights, and a step written out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, StableDiffusionXLPipeline

from intaglio_train import ConfigError, LoraConfig
from intaglio_train.lora import _add_adapters, _LoraLoss
from intaglio_train.loss import NoiseSchedule, add_noise, loss_weights, noise_schedule_of, target_of
from intaglio_train.progress import SilentReporter
from intaglio_train.session import open_session
from miniature import architecture

Keys = Callable[..., dict[str, Any]]
CPU = torch.device("cpu")


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_are_diffusers(prediction: str) -> None:
    config = architecture.SCHEDULER | {"prediction_type": prediction}
    schedule, theirs = (
        noise_schedule_of(EulerDiscreteScheduler(**config), CPU),
        DDPMScheduler.from_config(config),
    )
    latents, noise, times = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8), torch.tensor([0, 10, 500, 999])
    torch.testing.assert_close(
        add_noise(schedule, latents, noise, times), theirs.add_noise(latents, noise, times)
    )
    expected = noise if prediction == "epsilon" else theirs.get_velocity(latents, noise, times)
    torch.testing.assert_close(target_of(schedule, latents, noise, times), expected)


def test_weights_are_min_snr() -> None:
    alphas = torch.tensor([0.99, 0.9, 0.5, 0.01, 0.0])
    snr = np.array([99.0, 9.0, 1.0, 0.01 / 0.99, 0.0])
    times = torch.arange(5)
    epsilon = loss_weights(NoiseSchedule(alphas, "epsilon"), times, 5.0)
    np.testing.assert_allclose(epsilon, [5 / 99, 5 / 9, 1, 1, 1], rtol=1e-4)
    velocity = loss_weights(NoiseSchedule(alphas, "v_prediction"), times, 5.0)
    np.testing.assert_allclose(velocity, np.minimum(snr, 5) / (snr + 1), rtol=1e-4)
    assert loss_weights(NoiseSchedule(alphas, "epsilon"), times, None).tolist() == [1.0] * 5


def test_a_prediction_of_the_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match="predicts sample"):
        noise_schedule_of(EulerDiscreteScheduler(prediction_type="sample"), CPU)


def test_a_step_is_what_the_formulas_say(keys: Keys, model: Path) -> None:
    config = LoraConfig.model_validate(keys(batch_size=3, min_snr_gamma=2.0, caption_dropout=0.5, seed=1))
    session = open_session(config, control=False, prior=None, caches=frozenset(), reporter=SilentReporter())
    _add_adapters(session, config)
    batch = session.sources[0].stream.batch(0)
    dropped = batch.captions.tolist().count(session.sources[0].stream.captions.dropped)
    assert 0 < dropped < 3
    loss = _LoraLoss(session, config)((batch,))

    pipeline = StableDiffusionXLPipeline.from_pretrained(
        str(model), torch_dtype=torch.float32, add_watermarker=False
    )
    pipeline.to(torch.float32)
    with torch.no_grad():
        expected = _step_by_hand(pipeline, session.sources[0], batch)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def _step_by_hand(pipeline: Any, source: Any, batch: Any) -> float:
    """Loss of a batch through diffusers' pipeline parts; a fresh adapter changes nothing."""
    images = (
        torch.from_numpy(source.dataset.images(batch.indices.tolist())).permute(0, 3, 1, 2).float() / 127.5
        - 1
    )
    latents = pipeline.vae.encode(images).latent_dist.mean * pipeline.vae.config.scaling_factor
    noise, times = batch.noise, batch.times
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    noisy = scheduler.add_noise(latents, noise, times)
    total = 0.0
    for row, caption in enumerate(batch.captions.tolist()):
        if caption == source.stream.captions.dropped:  # the pipeline's own embedding of no prompt
            _, context, _, pooled = pipeline.encode_prompt(
                "any", device="cpu", do_classifier_free_guidance=True
            )
            assert not context.any()
        else:
            text = source.stream.captions.texts[caption]
            context, _, pooled, _ = pipeline.encode_prompt(
                text, device="cpu", do_classifier_free_guidance=False
            )
        added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
        predicted = pipeline.unet(noisy[row : row + 1], times[row], context, added_cond_kwargs=added).sample
        alpha = scheduler.alphas_cumprod[times[row]]
        snr = (alpha / (1 - alpha)).item()
        total += (predicted - noise[row]).square().mean().item() * min(snr, 2.0) / snr
    return total / 3
