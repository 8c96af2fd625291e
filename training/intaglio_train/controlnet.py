"""Training of ControlNets (arXiv 2302.05543): fp32 weights against a frozen SDXL, saved as an fp16 diffusers
folder.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel

from intaglio_train.base_model import BaseModel
from intaglio_train.checkpoint import identity_of, weights_digest
from intaglio_train.config import ControlNetConfig, SampleConfig
from intaglio_train.data import buckets_of
from intaglio_train.errors import ConfigError
from intaglio_train.loop import Outcome, ParameterGroup, Samples, Task, train
from intaglio_train.loss import diffusion_errors
from intaglio_train.pictures import Pixels
from intaglio_train.progress import Reporter, SilentReporter
from intaglio_train.samples import draw, grid_of
from intaglio_train.session import Batches, Session, open_session

__all__ = ["ControlNetResult", "train_controlnet"]


@dataclass(frozen=True)
class ControlNetResult:
    """What a run left behind; `folder` is none when it was interrupted."""

    folder: Path | None
    losses: Path
    outcome: Outcome


def train_controlnet(
    config: ControlNetConfig, *, resume: bool = True, reporter: Reporter | None = None
) -> ControlNetResult:
    """Train a ControlNet and write it to `config.output / config.name`.

    A run that was stopped continues from its newest checkpoint unless `resume` is false. Raises `DataError`,
    `ConfigError`, `CheckpointError`; nothing is written before data and model have been found sound.
    """
    reporter = reporter or SilentReporter()
    wanted = (
        ("latents", config.cache_latents),
        ("text", config.cache_text),
        ("controls", config.cache_controls),
    )
    session = open_session(
        config,
        control=True,
        prior=None,
        caches=frozenset(name for name, asked in wanted if asked),
        reporter=reporter,
    )
    base = session.base
    controlnet = _initial_controlnet(config, base)
    task = Task(
        [ParameterGroup(dict(controlnet.named_parameters()), config.learning_rate)],
        batches=session.batches,
        loss=_ControlNetLoss(session, controlnet),
        samples=_samples(session, controlnet, config.samples),
        identity=identity_of(
            config,
            session.sources[0].dataset.digest,
            weights=weights_digest(base.unet, *base.text_encoders, base.vae, controlnet),
            processes=session.accelerator.num_processes,
        ),
    )
    with session:
        outcome = train(config, task, session.accelerator, reporter, resume=resume)
        folder = config.output / config.name
        if session.accelerator.is_main_process and not outcome.interrupted:
            _write(controlnet, folder)
    return ControlNetResult(None if outcome.interrupted else folder, config.output / "losses.csv", outcome)


def _initial_controlnet(config: ControlNetConfig, base: BaseModel) -> Any:
    if config.init == "unet":
        controlnet = ControlNetModel.from_unet(
            base.unet, conditioning_embedding_out_channels=config.conditioning_embedding_out_channels
        )
    else:
        try:
            controlnet = ControlNetModel.from_pretrained(config.init)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            right = "give unet, a ControlNet folder or a hub id"
            raise ConfigError(f"init {config.init}: cannot be loaded; {right}: {str(error)[:200]}") from error
    controlnet.to(base.device, torch.float32).requires_grad_(True).train()
    if config.gradient_checkpointing:
        controlnet.enable_gradient_checkpointing()
        base.unet.enable_gradient_checkpointing()
        base.unet.train()  # diffusers checkpoints only in training mode; SDXL's UNet has no dropout
    return controlnet


class _ControlNetLoss:
    """Loss of one batch."""

    def __init__(self, session: Session, controlnet: Any) -> None:
        self._session = session
        self._controlnet = controlnet

    def __call__(self, batches: Batches) -> torch.Tensor:
        (example,) = self._session.examples(batches)
        conditions = example.conditions
        with self._session.accelerator.autocast():
            down, mid = self._controlnet(
                example.noisy,
                example.times,
                conditions.context,
                conditions.control,
                added_cond_kwargs=conditions.added,
                return_dict=False,
            )
            predicted = self._session.base.unet(
                example.noisy,
                example.times,
                conditions.context,
                added_cond_kwargs=conditions.added,
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
                return_dict=False,
            )[0]
        return diffusion_errors(predicted, example.target, example.weights).mean()


def _samples(session: Session, controlnet: Any, wanted: SampleConfig | None) -> Samples | None:
    """Rows: control images of the largest bucket, and what the prompts make of them."""
    if wanted is None:
        return None
    dataset = session.sources[0].dataset
    size, samples = max(buckets_of(dataset).items(), key=lambda bucket: len(bucket[1]))
    controls = dataset.controls([samples[row % len(samples)] for row in range(len(wanted.prompts))])

    def grid() -> Pixels:
        steered = {"controlnet": controlnet, "controls": controls}
        pictures = draw(session.base, wanted, size, accelerator=session.accelerator, **steered)
        return grid_of([[*controls], pictures])

    return Samples(wanted.every, grid)


def _write(controlnet: Any, folder: Path) -> None:
    """A diffusers folder in fp16, under a temporary name until it is complete."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    controlnet.eval().half().save_pretrained(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
