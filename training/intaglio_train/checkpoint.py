"""Checkpoints that resume exactly: one file a checkpoint, complete or absent.

A file holds trained weights, optimizer, average, loss scaler, random states of python, numpy, torch and CUDA,
and the identity of the run (configuration and data). The learning rate and the data order are functions of
the step, so the step says them.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from intaglio_train.config import TrainingConfig
from intaglio_train.errors import CheckpointError

__all__ = ["Checkpoints", "Identity", "identity_of", "random_state", "restore_random_state"]

# These change what is written or how fast, not what is learnt; `steps` moves a cosine's end, which is what
# asking for more steps means.
FREE_KEYS = frozenset(
    {
        "data",
        "steps",
        "output",
        "device",
        "cache_on",
        "cache_controls",
        "loader_threads",
        "log_every",
        "checkpoint_every",
    }
    | {"keep_checkpoints", "samples", "tensorboard", "trigger_words", "format"}
)

Identity = dict[str, Any]


def identity_of(config: TrainingConfig, *digests: str) -> Identity:
    """What must be the same for a run to be the same run."""
    keys = config.model_dump(mode="json")
    return {**{key: value for key, value in keys.items() if key not in FREE_KEYS}, "data set": list(digests)}


def random_state() -> dict[str, Any]:
    """The four global generators' states, in types that `torch.load(weights_only=True)` takes."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            name,
            torch.from_numpy(np.asarray(keys, np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo everything drawn since `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one output folder, `checkpoints/step-00000100.pt`; the newest `keep` stay."""

    folder: Path
    keep: int

    def paths(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def save(self, step: int, state: dict[str, Any], identity: Identity) -> Path:
        """Write to a temporary name, then rename; afterwards drop the oldest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.pt"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save({"step": step, "identity": identity, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def load(self, identity: Identity, device: torch.device) -> dict[str, Any] | None:
        """The newest checkpoint, or none. Raises `CheckpointError` when it is another run's."""
        paths = self.paths()
        if not paths:
            return None
        try:
            state: dict[str, Any] = torch.load(paths[-1], map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever its unpickler meets in a damaged file
            raise CheckpointError(
                f"{paths[-1]}: damaged checkpoint ({error}); delete it, or restart with --no-resume"
            ) from error
        theirs = state["identity"]
        for key in sorted({*identity, *theirs}):
            if identity.get(key) != theirs.get(key):
                change = (
                    "" if key == "data set" else f" ({theirs.get(key)!r} then, {identity.get(key)!r} now)"
                )
                raise CheckpointError(
                    f"{paths[-1]}: was made with another {key}{change};"
                    " restart with --no-resume, or write to another --output"
                )
        return state

    def clear(self) -> None:
        """Delete all checkpoints, finished or not."""
        for path in [*self.paths(), *self.folder.glob("*.partial")]:
            path.unlink()
