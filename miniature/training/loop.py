"""The training loop: optimizer, moving average of the weights, checkpoints, progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from miniature.training.settings import Settings, device

__all__ = ["Averaged", "Run", "State", "save_atomically"]

State = dict[str, Tensor]
_EMA_DECAY: Final = 0.9993
_WARM_UP_STEPS: Final = 300
_LEAST_SHARE: Final = 0.02
"""Share of the learning rate that is left at the end."""


def save_atomically(state: State, path: Path) -> None:
    """Write safetensors under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(contiguous, temporary, metadata={"format": "pt"})
    temporary.replace(path)


class Averaged:
    """Exponential moving average of a module's parameters, on the module's device."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.average = [p.detach().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Fold the current parameters in; early steps weigh more."""
        decay = min(_EMA_DECAY, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, list(self.module.parameters()), 1 - decay)

    @torch.no_grad()
    def state(self) -> State:
        """The averaged state dict."""
        names = [name for name, _ in self.module.named_parameters()]
        averaged = dict(zip(names, self.average, strict=True))
        return {name: averaged.get(name, value).clone() for name, value in self.module.state_dict().items()}


class Run:
    """One training run: AdamW with warm-up and cosine decay, moving average, checkpoints, progress bar.

    It goes on from the last checkpoint where there is one.
    """

    def __init__(self, name: str, module: nn.Module, settings: Settings) -> None:
        self.name = name
        self.module = module
        self.steps = settings.steps[name]
        self.path = settings.work / "train" / f"{name}.checkpoint"
        self._checkpoint_every = settings.checkpoint_every
        self.average = Averaged(module)
        self.optimizer = torch.optim.AdamW(
            module.parameters(),
            settings.learning_rate[name],
            betas=(0.9, 0.99),
            weight_decay=0.01,
            fused=device().type == "cuda",
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._share)
        self.begin = 0
        if self.path.exists():
            self._load()

    def _share(self, step: int) -> float:
        """Share of the learning rate at `step`."""
        warm_up = min(1, (step + 1) / min(_WARM_UP_STEPS, self.steps / 10))
        decay = 0.5 * (1 + np.cos(np.pi * min(step / self.steps, 1)))
        return float(warm_up * (_LEAST_SHARE + (1 - _LEAST_SHARE) * decay))

    def _load(self) -> None:
        saved = torch.load(self.path, map_location=device(), weights_only=True)
        self.module.load_state_dict(saved["module"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.average.average = saved["average"]
        self.begin = saved["step"]

    def _save(self, step: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        saved = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.average,
            "step": step,
        }
        temporary = self.path.with_suffix(".partial")
        torch.save(saved, temporary)
        temporary.replace(self.path)

    def train(self, loss_of_step: Callable[[torch.Generator], Tensor]) -> State:
        """Step until done; returns the averaged weights.

        Step s draws from a generator that is seeded with s, so a run that goes on repeats what a whole one
        does.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            TimeRemainingColumn(),
        )
        generator = torch.Generator(device())
        with Progress(*columns, refresh_per_second=0.5) as progress:
            bar = progress.add_task(self.name, total=self.steps, completed=self.begin, loss=float("nan"))
            for step in range(self.begin, self.steps):
                generator.manual_seed(step)
                loss = loss_of_step(generator)
                self._update(loss, step)
                if step % 50 == 0:
                    progress.update(bar, completed=step + 1, loss=loss.item())
                if (step + 1) % self._checkpoint_every == 0:
                    self._save(step + 1)
        return self.average.state()

    def _update(self, loss: Tensor, step: int) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.average.update(step)
