"""The training loop that both trainers share.

Nothing in a step waits for the device: losses are read every `log_every` steps, and at checkpoints. Only
where several processes share a run, they agree after every step whether to stop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from numpy.typing import NDArray
from PIL import Image

from intaglio_train.accelerators import average_gradients, seed_network, stops_anywhere, values_of_all
from intaglio_train.chance import Chance
from intaglio_train.checkpoint import Checkpoints, Identity, today
from intaglio_train.config import TrainingConfig
from intaglio_train.errors import CheckpointError
from intaglio_train.journal import Journal
from intaglio_train.progress import Reporter
from intaglio_train.stopping import StopRequest, stop_request

__all__ = ["Outcome", "ParameterGroup", "Samples", "Task", "train"]


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
    """How a run went. Interrupted runs continue when started again."""

    steps: int
    seconds: float
    last_loss: float
    date: str
    """The day of the newest checkpoint (ISO 8601); with SOURCE_DATE_EPOCH, that day."""
    signal: int | None
    """What interrupted the run: SIGINT or SIGTERM."""

    @property
    def interrupted(self) -> bool:
        return self.signal is not None


class _Run:
    """Optimizer, learning rate, average and position of a run; state in and out."""

    def __init__(self, config: TrainingConfig, task: Task, accelerator: Any) -> None:
        self.config = config
        self.task = task
        self.accelerator = accelerator
        self.parameters = task.parameters
        fused = True if accelerator.device.type == "cuda" else None
        groups = [
            {"params": [*group.parameters.values()], "lr": group.learning_rate} for group in task.groups
        ]
        adam = torch.optim.AdamW(groups, weight_decay=config.weight_decay, fused=fused)
        self.optimizer = accelerator.prepare(adam)
        self.average: Any = None
        if config.ema_decay:
            self.average = EMAModel(self.parameters.values(), decay=config.ema_decay, foreach=True)
        self.done = 0
        self.date = ""
        """The day of the newest checkpoint."""
        self.rate = self._schedule()

    def _schedule(self) -> Any:
        """diffusers' schedule from the step on that the run has reached."""
        config = self.config
        name: str = config.schedule
        if name == "constant" and config.warmup_steps:
            name = "constant_with_warmup"  # diffusers' "constant" leaves the warm-up out
        return get_scheduler(
            name,
            self.optimizer.optimizer,
            num_warmup_steps=config.warmup_steps,
            num_training_steps=config.steps,
            num_cycles=config.schedule_cycles,
            power=config.schedule_power,
            last_epoch=self.done - 1,
        )

    def state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        self.date = today()
        return {
            "parameters": {name: parameter.detach().cpu() for name, parameter in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "date": self.date,
        }

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["parameters"][name])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
            self.average.to(self.accelerator.device)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.done = int(state["step"])
        self.date = str(state["date"])
        self.rate = self._schedule()

    def step(self, batches: Iterator[Any]) -> tuple[torch.Tensor, float]:
        """One update; this process's loss (on the device) and the first group's learning rate."""
        config = self.config
        rate = float(self.optimizer.param_groups[0]["lr"])
        total: torch.Tensor | None = None
        for turn in range(config.gradient_accumulation):
            number = self.done * config.gradient_accumulation + turn
            seed_network(Chance(config.seed).network_seed(number, self.accelerator.process_index))
            loss = self.task.loss(next(batches)) / config.gradient_accumulation
            self.accelerator.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        average_gradients(self.accelerator, self.parameters.values())
        if config.max_gradient_norm is not None:
            self.accelerator.clip_grad_norm_(self.parameters.values(), config.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.rate.step()
        if self.average is not None:
            self.average.step(self.parameters.values())
        self.done += 1
        assert total is not None  # gradient_accumulation >= 1
        return total, rate

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in place, where there are any."""
        if self.average is None:
            yield
            return
        self.average.store(self.parameters.values())
        self.average.copy_to(self.parameters.values())
        try:
            yield
        finally:
            self.average.restore(self.parameters.values())


def train(
    config: TrainingConfig, task: Task, accelerator: Any, reporter: Reporter, *, resume: bool
) -> Outcome:
    """Train to `config.steps`, from the newest checkpoint if `resume`. Leaves the averaged weights in place
    where there are any.
    """
    checkpoints = Checkpoints(config.output / "checkpoints", config.keep_checkpoints)
    state = checkpoints.load(task.identity, accelerator.device) if resume else None
    accelerator.wait_for_everyone()  # nobody writes before all have read
    run = _Run(config, task, accelerator)
    if state is not None:
        run.restore(state)
    _check_common_step(values_of_all(accelerator, run.done), config)
    if state is not None:
        reporter.note(f"resuming at step {run.done} of {config.steps}")
    elif not resume and accelerator.is_main_process:
        checkpoints.clear()
    config.output.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    journal = Journal(config, accelerator)
    journal.begin(run.done)
    with stop_request() as stop:
        try:
            reporter.begin(run.done, config.steps)
            _steps(run, checkpoints, journal, reporter, stop)
        finally:
            reporter.end()
    if run.average is not None and run.done >= config.steps:
        run.average.copy_to(run.parameters.values())
    asked = stop.signal if run.done < config.steps else None
    return Outcome(run.done, time.monotonic() - started, journal.last_loss, run.date, asked)


def _check_common_step(steps: list[int], config: TrainingConfig) -> None:
    """Raise `CheckpointError` where processes on several machines found other checkpoints."""
    if min(steps) != max(steps):
        raise CheckpointError(
            f"{config.output}: processes begin at steps {min(steps)} to {max(steps)}; give all machines one"
            " output folder on a shared disk, or restart with --no-resume"
        )


def _steps(
    run: _Run, checkpoints: Checkpoints, journal: Journal, reporter: Reporter, stop: StopRequest
) -> None:
    config = run.config
    task = run.task
    leads = run.accelerator.is_main_process

    def save() -> None:
        reporter.loss(run.done, journal.flush())
        state = run.state()
        if leads:
            checkpoints.save(run.done, state, task.identity)

    with closing(task.batches(run.done * config.gradient_accumulation)) as batches:
        saved = run.done
        while run.done < config.steps and not stops_anywhere(run.accelerator, stop.asked):
            loss, rate = run.step(batches)
            journal.add(run.done, loss, rate)
            reporter.step(run.done)
            if run.done % config.log_every == 0:
                reporter.loss(run.done, journal.flush())
            if run.done % config.checkpoint_interval == 0 or run.done == config.steps:
                save()
                saved = run.done
            if task.samples is not None and (run.done % task.samples.every == 0 or run.done == config.steps):
                reporter.loss(run.done, journal.flush())  # a tracker takes steps in their order only
                if leads:
                    _draw_samples(run, journal, task.samples.draw)
                run.accelerator.wait_for_everyone()
        if saved != run.done:
            save()


def _draw_samples(run: _Run, journal: Journal, draw: Callable[[], NDArray[np.uint8]]) -> None:
    with run.averaged():
        grid = draw()
    path = run.config.output / "samples" / f"step-{run.done:08d}.png"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    Image.fromarray(grid).save(partial, format="PNG")
    partial.replace(path)
    journal.picture("samples", grid, run.done)
