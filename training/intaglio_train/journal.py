"""The loss curve on disk: `losses.csv` (every step) and, if asked for, TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from intaglio_train.errors import ConfigError

__all__ = ["Journal"]

HEADER = "step,loss,learning_rate\n"


class Journal:
    """Losses stay on the device until `flush`, so that a step does not wait for the one before it."""

    def __init__(self, output: Path, *, tensorboard: bool) -> None:
        self.path = output / "losses.csv"
        self.last_loss = float("nan")
        self._pending: list[tuple[int, torch.Tensor, float]] = []
        self._writer = _tensorboard_writer(output / "tensorboard") if tensorboard else None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def begin(self, step: int) -> None:
        """Keep the rows of the first `step` steps; what came after the checkpoint is trained again."""
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
        """Write what was noted; the mean loss of it (the last known loss when nothing was)."""
        if not self._pending:
            return self.last_loss
        losses: Sequence[float] = torch.stack([loss for _, loss, _ in self._pending]).tolist()
        rows = [(step, loss, rate) for (step, _, rate), loss in zip(self._pending, losses, strict=True)]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(f"{step},{loss!r},{rate!r}\n" for step, loss, rate in rows)
        if self._writer is not None:
            for step, loss, rate in rows:
                self._writer.add_scalar("loss", loss, step)
                self._writer.add_scalar("learning_rate", rate, step)
        self._pending.clear()
        self.last_loss = losses[-1]
        return sum(losses) / len(losses)

    def picture(self, name: str, pixels: Any, step: int) -> None:
        """Add an image [H,W,3] uint8 to TensorBoard."""
        if self._writer is not None:
            self._writer.add_image(name, pixels, step, dataformats="HWC")


def _tensorboard_writer(folder: Path) -> Any:
    try:
        writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
    except ImportError as error:
        raise ConfigError(
            "tensorboard: true needs the tensorboard package;"
            " pip install 'intaglio[train]', or set it to false"
        ) from error
    return writer
