"""Training of LoRAs: adapters in the UNet and, if asked, both text encoders; saved for diffusers, kohya and
ComfyUI.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from diffusers import LCMScheduler
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model

from intaglio_train.checkpoint import identity_of, weights_digest
from intaglio_train.config import LoraConfig
from intaglio_train.consistency import teacher_times
from intaglio_train.lcm_config import LcmConfig
from intaglio_train.lcm_loss import ConsistencyErrors
from intaglio_train.loop import Outcome, ParameterGroup, Samples, Task, train
from intaglio_train.lora_files import (
    Adapter,
    Part,
    UnetLevels,
    diffusers_tensors,
    kohya_tensors,
    write_adapter,
)
from intaglio_train.lora_metadata import Trained, lora_metadata
from intaglio_train.loss import NoiseSchedule, diffusion_errors, every_level
from intaglio_train.pictures import Pixels
from intaglio_train.progress import Reporter, SilentReporter
from intaglio_train.samples import draw, grid_of
from intaglio_train.session import Batches, Example, Session, open_session

__all__ = ["LoraResult", "train_lora"]

ADAPTER = "intaglio"
UNET_TARGETS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"),
    "conv": ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"),
}
TEXT_TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "feed_forward": ("fc1", "fc2"),
    "conv": (),
}


@dataclass(frozen=True)
class LoraResult:
    """What a run left behind; `files` is empty when it was interrupted."""

    files: tuple[Path, ...]
    losses: Path
    outcome: Outcome


def train_lora(config: LoraConfig, *, resume: bool = True, reporter: Reporter | None = None) -> LoraResult:
    """Train a LoRA and write it to `config.output`.

    A run that was stopped continues from its newest checkpoint unless `resume` is false. Raises `DataError`,
    `ConfigError`, `CheckpointError`; nothing is written before data and model have been found sound.
    """
    reporter = reporter or SilentReporter()
    caches = frozenset(
        name for name, asked in (("latents", config.cache_latents), ("text", config.cache_text)) if asked
    )
    prior = config.prior.data if config.prior else None
    session = open_session(
        config,
        control=False,
        prior=prior,
        caches=caches,
        reporter=reporter,
        trained_times=_trained_times(config),
    )
    base = session.base
    weights = weights_digest(base.unet, *base.text_encoders, base.vae)
    groups = _add_adapters(session, config)
    task = Task(
        groups,
        batches=session.batches,
        loss=_LoraLoss(session, config),
        samples=_samples(session, config),
        identity=identity_of(
            config,
            *(source.dataset.digest for source in session.sources),
            weights=weights,
            processes=session.accelerator.num_processes,
        ),
    )
    with session:
        outcome = train(config, task, session.accelerator, reporter, resume=resume)
        files = () if outcome.interrupted else _write(config, session, outcome)
    return LoraResult(files, config.output / "losses.csv", outcome)


def _trained_times(config: LoraConfig) -> Callable[[NoiseSchedule], range]:
    """Which of a model's noise levels are trained: all, or those where a teacher's steps begin."""
    return partial(teacher_times, config.teacher_steps) if isinstance(config, LcmConfig) else every_level


def _add_adapters(session: Session, config: LoraConfig) -> list[ParameterGroup]:
    """Put adapters into the model; their fp32 parameters."""

    def adapt(part: Part, model: Any, table: dict[str, tuple[str, ...]]) -> dict[str, torch.nn.Parameter]:
        targets = list(chain.from_iterable(table[target] for target in config.targets))
        if not targets:
            return {}
        peft = PeftConfig(
            r=config.rank,
            lora_alpha=config.scale_alpha,  # type: ignore[arg-type]  # peft divides by it: a float is fine
            lora_dropout=config.dropout,
            target_modules=targets,
        )
        inject_adapter_in_model(peft, model, adapter_name=ADAPTER)
        trained = {
            f"{part}.{name}": parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        for parameter in trained.values():
            parameter.data = parameter.data.float()
        model.train()
        return trained

    base = session.base
    groups = [ParameterGroup(adapt("unet", base.unet, UNET_TARGETS), config.learning_rate)]
    if config.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    if config.train_text_encoders:
        text: dict[str, torch.nn.Parameter] = {}
        parts: tuple[Part, Part] = ("text_encoder", "text_encoder_2")
        for part, encoder in zip(parts, base.text_encoders, strict=True):
            text |= adapt(part, encoder, TEXT_TARGETS)
            if config.gradient_checkpointing:
                encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if text:
            groups.append(ParameterGroup(text, config.text_learning_rate or config.learning_rate))
    return groups


class _LoraLoss:
    """Loss of one batch of each source; a prior's has its own weight."""

    def __init__(self, session: Session, config: LoraConfig) -> None:
        self._session = session
        self._errors_of = _errors(session, config)
        self._weights = (1.0, config.prior.weight) if config.prior else (1.0,)

    def __call__(self, batches: Batches) -> torch.Tensor:
        errors = torch.cat([self._errors_of(example) for example in self._session.examples(batches)])
        total = torch.zeros((), device=errors.device)
        of_sources = torch.split(errors, [len(batch.indices) for batch in batches])
        for weight, of_source in zip(self._weights, of_sources, strict=True):
            total = total + weight * of_source.mean()
        return total


def _errors(session: Session, config: LoraConfig) -> Callable[[Example], torch.Tensor]:
    """What gives the error [B] of each image of an example."""
    if isinstance(config, LcmConfig):
        return ConsistencyErrors(session, config)

    def of_the_noise(example: Example) -> torch.Tensor:
        predicted = session.predict(example.noisy, example.times, example.conditions)
        return diffusion_errors(predicted, example.target, example.weights)

    return of_the_noise


def _samples(session: Session, config: LoraConfig) -> Samples | None:
    wanted = config.samples
    if wanted is None:
        return None
    base = session.base
    if isinstance(config, LcmConfig):
        base = replace(base, scheduler=LCMScheduler.from_config(base.scheduler.config))  # type: ignore[no-untyped-call]

    def grid() -> Pixels:
        return grid_of([draw(base, wanted, config.size, accelerator=session.accelerator)])

    return Samples(wanted.every, grid)


def _adapter(session: Session, config: LoraConfig) -> Adapter:
    matrices = {}
    parts: tuple[tuple[Part, Any], ...] = (
        ("unet", session.base.unet),
        ("text_encoder", session.base.text_encoders[0]),
        ("text_encoder_2", session.base.text_encoders[1]),
    )
    for part, model in parts:
        for name, module in model.named_modules():
            if ADAPTER in getattr(module, "lora_A", {}):
                matrices[part, name] = (module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight)
    unet = session.base.unet.config
    levels = UnetLevels(
        unet.layers_per_block,
        frozenset(level for level, kind in enumerate(unet.up_block_types) if "CrossAttn" in kind),
    )
    return Adapter(matrices, config.rank, config.scale_alpha, levels)


def _write(config: LoraConfig, session: Session, outcome: Outcome) -> tuple[Path, ...]:
    adapter = _adapter(session, config)
    datasets = [source.dataset for source in session.sources]
    trained = Trained(
        config,
        session.base,
        session.schedule.prediction,
        datasets[0],
        prior=datasets[1] if len(datasets) > 1 else None,
        steps=outcome.steps,
        processes=session.accelerator.num_processes,
        date=config.date.isoformat() if config.date else outcome.date,
    )
    paths = {kind: config.output / name for kind, name in _file_names(config).items()}
    if session.accelerator.is_main_process:
        for kind, path in paths.items():
            tensors = kohya_tensors(adapter) if kind == "kohya" else diffusers_tensors(adapter)
            write_adapter(path, tensors, lora_metadata(trained, kohya=kind == "kohya"))
    return tuple(paths.values())


def _file_names(config: LoraConfig) -> dict[str, str]:
    """By layout. Both layouts need two names; the diffusers one is then the plain one."""
    if config.format == "both":
        return {"diffusers": f"{config.name}.safetensors", "kohya": f"{config.name}_kohya.safetensors"}
    return {config.format: f"{config.name}.safetensors"}
