"""The loss curve on disk: `losses.csv` (every step), and the trackers that `report_to` names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from intaglio_train.config import TrainingConfig

__all__ = ["Journal"]

HEADER = "step,loss,learning_rate\n"


class Journal:
    """Losses stay on the device until `flush`, so that a step does not wait for the one before it."""

    def __init__(self, config: TrainingConfig, accelerator: Any) -> None:
        self.path = config.output / "losses.csv"
        self.last_loss = float("nan")
        self._config = config
        self._accelerator = accelerator
        self._pending: list[tuple[int, torch.Tensor, float]] = []

    def begin(self, step: int) -> None:
        """Open the trackers, and keep the rows of the first `step` steps; what came after the checkpoint is
        trained again.
        """
        if not self._accelerator.is_main_process:
            return
        config = self._config
        if config.report_to:
            self._accelerator.init_trackers(
                config.name,
                config=_plain(config),
                init_kwargs={"wandb": {"name": config.name, "dir": str(config.output)}},
            )
        kept = []
        if step and self.path.exists():
            rows = [
                line
                for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]
                if line.endswith("\n")
            ]
            kept = [row for row in rows if int(row.split(",", 1)[0]) <= step]
        if kept:
            self.last_loss = float(kept[-1].split(",")[1])
        partial = self.path.with_suffix(".partial")
        partial.write_text(HEADER + "".join(kept), encoding="utf-8")
        partial.replace(self.path)

    def add(self, step: int, loss: torch.Tensor, learning_rate: float) -> None:
        """Note a step's loss (a scalar on any device)."""
        self._pending.append((step, loss, learning_rate))

    def flush(self) -> float:
        """Write what was noted; the mean loss of it (the last known loss when nothing was). Where several
        processes share the run, all of them call this, and a step's loss is the mean of theirs.
        """
        if not self._pending:
            return self.last_loss
        together = torch.stack([loss for _, loss, _ in self._pending])
        losses: Sequence[float] = self._accelerator.reduce(together, reduction="mean").tolist()
        rows = [(step, loss, rate) for (step, _, rate), loss in zip(self._pending, losses, strict=True)]
        self._pending.clear()
        self.last_loss = losses[-1]
        if self._accelerator.is_main_process:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(f"{step},{loss!r},{rate!r}\n" for step, loss, rate in rows)
            for step, loss, rate in rows:
                self._accelerator.log({"loss": loss, "learning_rate": rate}, step=step)
        return sum(losses) / len(losses)

    def picture(self, name: str, pixels: Any, step: int) -> None:
        """Give an image [H,W,3] uint8 to the trackers."""
        for tracker in self._accelerator.trackers:
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({name: pixels[None]}, step=step, **layout)


def _plain(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as a tracker shows it: TensorBoard takes numbers, words and nothing else."""
    keys = config.model_dump(mode="json")
    return {key: value if isinstance(value, int | float | str) else str(value) for key, value in keys.items()}
