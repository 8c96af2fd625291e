"""The training loop that both trainers share.

Nothing in a step waits for the device: losses are read every `log_every` steps, and at checkpoints.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from accelerate.state import AcceleratorState  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from intaglio_train.checkpoint import Checkpoints, Identity, random_state, restore_random_state
from intaglio_train.config import TrainingConfig
from intaglio_train.errors import ConfigError
from intaglio_train.journal import Journal
from intaglio_train.learning_rate import learning_rate_factor
from intaglio_train.progress import Reporter

__all__ = ["Outcome", "ParameterGroup", "Samples", "Task", "make_accelerator", "seed_everything", "train"]


@dataclass(frozen=True)
class ParameterGroup:
    """fp32 parameters by name, and their learning rate at a factor of 1."""

    parameters: dict[str, torch.nn.Parameter]
    learning_rate: float


@dataclass(frozen=True)
class Samples:
    """`draw` makes a grid [H,W,3] of pictures, asked for every so many steps."""

    every: int
    draw: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Task:
    """What differs between trainers."""

    groups: list[ParameterGroup]
    batches: Callable[[int], Generator[Any]]
    """Host batches from a number on; one is used each forward pass."""
    loss: Callable[[Any], torch.Tensor]
    samples: Samples | None
    identity: Identity

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        found: dict[str, torch.nn.Parameter] = {}
        for group in self.groups:
            found |= group.parameters
        return found


@dataclass(frozen=True)
class Outcome:
    """How a run went. `interrupted` runs continue when started again."""

    steps: int
    seconds: float
    last_loss: float
    interrupted: bool


def make_accelerator(config: TrainingConfig) -> Any:
    """Accelerate's device, autocast and loss scaling for one process. Raises `ConfigError`."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch finds no CUDA device; use device: auto or cpu")
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if on_cpu and config.mixed_precision == "fp16":
        raise ConfigError("mixed_precision: fp16 needs a GPU; use bf16 or no on a CPU")
    # WAR: accelerate keeps the first run's precision and device for the process (accelerate 1.x); two runs in
    # one process may differ.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=on_cpu)
    if not on_cpu:  # one shape a run: let cuDNN choose its fastest kernels, and fp32 products use TF32
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    if accelerator.num_processes > 1:
        raise ConfigError(
            f"{accelerator.num_processes} processes were launched; a run uses one process and one GPU"
        )
    return accelerator


def seed_everything(seed: int) -> None:
    """Seed python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class _Average:
    """Exponential moving average of parameters."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], decay: float) -> None:
        self._decay = decay
        self._parameters = parameters
        self.shadow = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(list(self.shadow.values()), [*self._parameters.values()], 1.0 - self._decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters with their average."""
        for name, parameter in self._parameters.items():
            held = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(held)

    @contextmanager
    def applied(self) -> Iterator[None]:
        self.swap()
        try:
            yield
        finally:
            self.swap()


class _Run:
    """Optimizer, average and position of a run; state in and out."""

    def __init__(self, config: TrainingConfig, task: Task, accelerator: Any) -> None:
        self.config = config
        self.task = task
        self.accelerator = accelerator
        self.parameters = task.parameters
        fused = True if accelerator.device.type == "cuda" else None
        groups = [
            {"params": [*group.parameters.values()], "lr": group.learning_rate} for group in task.groups
        ]
        self.optimizer = accelerator.prepare(
            torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=fused)
        )
        self.average = _Average(self.parameters, config.ema_decay) if config.ema_decay else None
        self.done = 0

    def state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "parameters": {name: parameter.detach().cpu() for name, parameter in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.shadow,
            "scaler": None if scaler is None else scaler.state_dict(),
            "random": random_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
            if self.average is not None:
                for name, tensor in self.average.shadow.items():
                    tensor.copy_(state["average"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        restore_random_state(state["random"])
        self.done = int(state["step"])

    def step(self, batches: Iterator[Any]) -> tuple[torch.Tensor, float]:
        """One update; its loss (on the device) and the first group's learning rate."""
        config = self.config
        factor = learning_rate_factor(
            self.done, steps=config.steps, warmup=config.warmup_steps, schedule=config.schedule
        )
        for ours, theirs in zip(self.task.groups, self.optimizer.param_groups, strict=True):
            theirs["lr"] = ours.learning_rate * factor
        total: torch.Tensor | None = None
        for _ in range(config.gradient_accumulation):
            loss = self.task.loss(next(batches)) / config.gradient_accumulation
            self.accelerator.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        if config.max_gradient_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters.values(), config.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        self.done += 1
        assert total is not None  # gradient_accumulation >= 1
        return total, self.task.groups[0].learning_rate * factor


def train(
    config: TrainingConfig, task: Task, accelerator: Any, reporter: Reporter, *, resume: bool
) -> Outcome:
    """Train to `config.steps`, from the newest checkpoint if `resume`. Leaves the averaged weights in place
    where there are any.
    """
    checkpoints = Checkpoints(config.output / "checkpoints", config.keep_checkpoints)
    state = checkpoints.load(task.identity, accelerator.device) if resume else None
    run = _Run(config, task, accelerator)
    if state is not None:
        run.restore(state)
        reporter.note(f"resuming at step {run.done} of {config.steps}")
    elif not resume:
        checkpoints.clear()
    config.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with Journal(config.output, tensorboard=config.tensorboard) as journal, _stop_request() as stop:
        journal.begin(run.done)
        try:
            reporter.begin(run.done, config.steps)
            _steps(run, checkpoints, journal, reporter, stop)
        finally:
            reporter.end()
        if run.average is not None and run.done >= config.steps:
            run.average.swap()
        return Outcome(run.done, time.monotonic() - started, journal.last_loss, run.done < config.steps)


def _steps(
    run: _Run, checkpoints: Checkpoints, journal: Journal, reporter: Reporter, stop: threading.Event
) -> None:
    config = run.config
    task = run.task

    def save() -> None:
        reporter.loss(run.done, journal.flush())
        checkpoints.save(run.done, run.state(), task.identity)

    with closing(task.batches(run.done * config.gradient_accumulation)) as batches:
        saved = run.done
        while run.done < config.steps and not stop.is_set():
            loss, rate = run.step(batches)
            journal.add(run.done, loss, rate)
            reporter.step(run.done)
            if run.done % config.log_every == 0:
                reporter.loss(run.done, journal.flush())
            if run.done % config.checkpoint_interval == 0 or run.done == config.steps:
                save()
                saved = run.done
            if task.samples is not None and (run.done % task.samples.every == 0 or run.done == config.steps):
                _draw_samples(run, journal, task.samples.draw)
        if saved != run.done:
            save()


def _draw_samples(run: _Run, journal: Journal, draw: Callable[[], NDArray[np.uint8]]) -> None:
    kept = random_state()
    if run.average is None:
        grid = draw()
    else:
        with run.average.applied():
            grid = draw()
    restore_random_state(kept)
    path = run.config.output / "samples" / f"step-{run.done:08d}.png"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    Image.fromarray(grid).save(partial, format="PNG")
    partial.replace(path)
    journal.picture("samples", grid, run.done)


@contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """Set by the first Ctrl-C, so that the step is finished and saved; the second one interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
