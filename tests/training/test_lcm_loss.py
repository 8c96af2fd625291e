"""A distillation step written out by hand; training brings the answers at both ends of a step together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler, StableDiffusionXLPipeline
from safetensors import safe_open

from intaglio_train import ConfigError, LcmConfig, train_lora
from intaglio_train.consistency import teacher_times
from intaglio_train.lcm_loss import ConsistencyErrors, without_adapters
from intaglio_train.lora import _add_adapters, _LoraLoss
from intaglio_train.progress import SilentReporter
from intaglio_train.session import Example, Session, open_session

Keys = Callable[..., dict[str, Any]]
TEACHER_STEPS = 4


@pytest.fixture
def config(keys: Keys) -> LcmConfig:
    changes = {"batch_size": 2, "targets": ["attention", "feed_forward", "conv"], "cache_text": True}
    teacher = {"teacher_steps": TEACHER_STEPS, "teacher_guidance": [4.0, 16.0]}
    return LcmConfig.model_validate(keys(**changes, **teacher))


def opened(config: LcmConfig) -> Session:
    session = open_session(
        config,
        control=False,
        prior=None,
        caches=frozenset({"latents", "text"}),
        reporter=SilentReporter(),
        trained_times=partial(teacher_times, config.teacher_steps),
    )
    _add_adapters(session, config)
    return session


def change_adapters(session: Session) -> None:
    """As if some steps had been trained, so that the LoRA and its teacher differ."""
    torch.manual_seed(0)
    for name, parameter in session.base.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


@torch.no_grad()
def test_a_step_is_what_the_formulas_say(config: LcmConfig, model: Path) -> None:
    session = opened(config)
    change_adapters(session)
    (example,) = session.examples((session.sources[0].stream.batch(0),))
    assert set(example.times.tolist()) <= {249, 499, 749, 999}
    assert 0 < example.shares.min() < example.shares.max() < 1
    pipeline = StableDiffusionXLPipeline.from_pretrained(str(model), torch_dtype=torch.float32)
    expected = [_error_by_hand(session, pipeline, example, row, config.huber_c) for row in range(2)]
    errors = ConsistencyErrors(session, config)(example)
    assert errors.tolist() == pytest.approx(expected, rel=1e-3)


def _error_by_hand(session: Session, pipeline: Any, example: Example, row: int, c: float) -> float:
    """One image's error through diffusers' solvers, whose networks are asked one by one."""
    one = slice(row, row + 1)
    pooled, ids = example.conditions.pooled[one], example.conditions.time_ids[one]
    context = example.conditions.context[one]
    start = int(example.times[row])

    def asked(unet: Any, noisy: torch.Tensor, time: int, *, captioned: bool = True) -> torch.Tensor:
        # The pipeline's own embedding of no prompt is zeros.
        added = {"text_embeds": pooled * captioned, "time_ids": ids}
        sample: torch.Tensor = unet(noisy, time, context * captioned, added_cond_kwargs=added).sample
        return sample

    def answered(noisy: torch.Tensor, time: int) -> torch.Tensor:
        solver = LCMScheduler.from_config(pipeline.scheduler.config)
        solver.set_timesteps(TEACHER_STEPS)
        skip, out = solver.get_scalings_for_boundary_condition_discrete(time)
        alpha = solver.alphas_cumprod[time]
        noise = asked(session.base.unet, noisy, time)
        return skip * noisy + out * (noisy - (1 - alpha).sqrt() * noise) / alpha.sqrt()

    teacher = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False, set_alpha_to_one=False)
    teacher.set_timesteps(TEACHER_STEPS)
    noisy = example.noisy[one]
    plain = asked(pipeline.unet, noisy, start, captioned=False)
    scale = 4.0 + 12.0 * example.shares[row]
    noise = plain + scale * (asked(pipeline.unet, noisy, start) - plain)
    cleaner = teacher.step(noise, start, noisy).prev_sample
    target = answered(cleaner, max(start - 250, 0))
    difference = answered(noisy, start) - target
    return float(((difference**2 + c**2).sqrt() - c).mean())


@torch.no_grad()
def test_the_teacher_is_the_base_and_the_lora_is_back_afterwards(config: LcmConfig) -> None:
    session = opened(config)
    (example,) = session.examples((session.sources[0].stream.batch(0),))

    def predicted() -> torch.Tensor:
        return session.predict(example.noisy, example.times, example.conditions)

    before = predicted()
    change_adapters(session)
    changed = predicted()
    with without_adapters(session.base.unet):
        assert torch.equal(predicted(), before)
    assert torch.equal(predicted(), changed)
    assert not torch.equal(before, changed)
    trained = {name for name, parameter in session.base.unet.named_parameters() if parameter.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


def test_steps_on_one_batch_bring_its_error_down(config: LcmConfig) -> None:
    session = opened(config)
    parameters = [parameter for parameter in session.base.unet.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-2)
    batches = (session.sources[0].stream.batch(0),)
    loss_of = _LoraLoss(session, config)
    losses = []
    for _ in range(6):
        loss = loss_of(batches)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_the_file_names_its_method_and_how_it_is_used(keys: Keys) -> None:
    samples = {"prompts": ["a"], "every": 1}
    trained = train_lora(LcmConfig.model_validate(keys(steps=1, samples=samples)))
    with safe_open(trained.files[0], "pt") as file:
        metadata = file.metadata()
    assert metadata["intaglio.method"] == "lcm"
    assert metadata["modelspec.usage_hint"].startswith("4 to 8 steps of an LCM solver")
    assert len(list((trained.losses.parent / "samples").iterdir())) == 1


def test_more_teacher_steps_than_noise_levels_are_refused(keys: Keys) -> None:
    with pytest.raises(ConfigError, match="teacher_steps 2000: the model has 1000 noise levels"):
        train_lora(LcmConfig.model_validate(keys(teacher_steps=2000)))
