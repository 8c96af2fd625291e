"""Accelerate's device, precision and processes of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from accelerate.utils import (  # type: ignore[import-untyped]
    DistributedType,
    GradientAccumulationPlugin,
    ProjectConfiguration,
    is_tensorboard_available,
    is_wandb_available,
)

from intaglio_train.config import TrainingConfig
from intaglio_train.errors import ConfigError
from intaglio_train.processes import launched_processes, was_left_alone

__all__ = ["average_gradients", "make_accelerator", "seed_network", "stops_anywhere", "values_of_all"]

REDUCED_VALUES: Final = 2**25
"""Gradients that are averaged in one message: 128 MiB, the memory that averaging takes."""
_KINDS: Final = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
_TRACKERS: Final = {
    "tensorboard": (is_tensorboard_available, "intaglio[train]"),
    "wandb": (is_wandb_available, "intaglio[wandb]"),
}


def make_accelerator(config: TrainingConfig) -> Any:
    """Accelerate's device, autocast, loss scaling, processes and trackers. Raises `ConfigError`."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch finds no CUDA device; use device: auto or cpu")
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if on_cpu and config.mixed_precision == "fp16":
        raise ConfigError("mixed_precision: fp16 needs a GPU; use bf16 or no on a CPU")
    if was_left_alone():
        raise ConfigError(
            "accelerate launch was asked for several processes and started one (on a CPU it needs MPI);"
            " launch them with: torchrun --nproc-per-node N -m intaglio_train ..."
        )
    for tracker in config.report_to:
        is_available, extra = _TRACKERS[tracker]
        if not is_available():
            raise ConfigError(
                f"report_to: {tracker} needs the {tracker} package; pip install '{extra}', or take it out"
            )
    # WAR: accelerate keeps the first run's precision and device for the process (accelerate 1.x); two runs in
    # one process may differ.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=on_cpu,
        # accelerate would divide the loss by a number from its environment.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=list(config.report_to) or None,
        project_config=ProjectConfiguration(
            project_dir=str(config.output), logging_dir=str(config.output / "tensorboard")
        ),
    )
    if accelerator.distributed_type not in _KINDS:
        raise ConfigError(
            f"accelerate launched this run for {accelerator.distributed_type.value}; launch it with:"
            " accelerate launch --multi_gpu --num_processes N -m intaglio_train ..."
        )
    if accelerator.num_processes != launched_processes():
        raise ConfigError(
            f"{launched_processes()} processes were launched, but this run has {accelerator.num_processes};"
            " launch them with: accelerate launch --multi_gpu --num_processes N -m intaglio_train ..."
        )
    if not on_cpu:  # few shapes a run: let cuDNN choose its fastest kernels, and fp32 products use TF32
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    return accelerator


def seed_network(seed: int) -> None:
    """Seed what first weights and dropout draw from: torch's global generators."""
    torch.manual_seed(seed)


@torch.no_grad()
def average_gradients(accelerator: Any, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients. All processes train the same parameters."""
    if accelerator.num_processes == 1:
        return
    waiting: list[torch.Tensor] = []
    values = 0
    for parameter in parameters:
        if parameter.grad is None:
            continue
        waiting.append(parameter.grad)
        values += parameter.grad.numel()
        if values >= REDUCED_VALUES:
            _average(accelerator, waiting)
            waiting = []
            values = 0
    if waiting:
        _average(accelerator, waiting)


def _average(accelerator: Any, gradients: list[torch.Tensor]) -> None:
    together = torch.cat([gradient.flatten() for gradient in gradients])
    mean = accelerator.reduce(together, reduction="mean")
    parts = mean.split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def stops_anywhere(accelerator: Any, stop: bool) -> bool:
    """Whether any process was asked to stop, so that all stop after the same step."""
    if accelerator.num_processes == 1:
        return stop
    asked = torch.tensor(float(stop), device=accelerator.device)
    return bool(accelerator.reduce(asked, reduction="sum").item() > 0)


def values_of_all(accelerator: Any, value: int) -> list[int]:
    """`value` of every process."""
    if accelerator.num_processes == 1:
        return [value]
    return [int(one) for one in accelerator.gather(torch.tensor([value], device=accelerator.device))]
