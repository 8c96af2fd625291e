"""What a run cannot have of its machine, its launcher and its packages is refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from intaglio_train import ConfigError, LoraConfig, train_lora
from intaglio_train.accelerators import average_gradients, make_accelerator

Keys = Callable[..., dict[str, Any]]


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_named(keys: Keys) -> None:
    with pytest.raises(ConfigError, match=r"report_to: wandb needs the wandb package; .*intaglio\[wandb\]"):
        make_accelerator(LoraConfig.model_validate(keys(report_to=["tensorboard", "wandb"])))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(keys: Keys) -> None:
    with pytest.raises(ConfigError, match="device: cuda, but torch finds no CUDA device"):
        make_accelerator(LoraConfig.model_validate(keys(device="cuda")))


def test_one_process_accumulates_what_the_run_says_and_leaves_gradients_alone(
    keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = make_accelerator(LoraConfig.model_validate(keys()))
    weight = torch.nn.Parameter(torch.ones(3))
    accelerator.backward(weight.sum())
    average_gradients(accelerator, [weight])
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 1.0, 1.0]


def test_a_launcher_that_starts_one_of_two_is_found_out(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `accelerate launch --cpu --num_processes 2` leaves in the environment of its one process."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ConfigError, match=r"was asked for several processes and started one.*torchrun"):
        train_lora(LoraConfig.model_validate(keys()))


def test_one_process_does_not_stand_in_for_two(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that accelerate does not know started two."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("MASTER_ADDR", "node1")
    with pytest.raises(
        ConfigError, match=r"2 processes were launched, but this run has 1; .*accelerate launch"
    ):
        train_lora(LoraConfig.model_validate(keys()))
