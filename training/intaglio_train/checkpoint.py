"""Checkpoints that resume exactly: one file a checkpoint, complete or absent.

A file holds trained weights, optimizer, average, loss scaler, and the identity of the run (configuration and
data). The learning rate, the data order and everything that is drawn at random are functions of the step, so
the step says them.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from intaglio.stored_versions import SCHEMA_VERSION, version_problem
from intaglio_train.config import TrainingConfig
from intaglio_train.errors import CheckpointError

__all__ = ["Checkpoints", "Identity", "identity_of", "today", "weights_digest"]

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
    # Paths, which change when a project moves; the weights and the prior's images themselves are compared.
    | {"model", "configurations", "variant", "init", "prior"}
    | {"keep_checkpoints", "samples", "report_to", "trigger_words", "format", "date", "base_name"}
)

_VERSION = 1
_DIGESTS = ("data set", "model")
"""Keys of an identity whose values say nothing to people."""

Identity = dict[str, Any]


def weights_digest(*networks: torch.nn.Module) -> str:
    """Changes with the weights: names, shapes, and about 64 values from all over each tensor."""
    digest = hashlib.sha256()
    for network in networks:
        for name, parameter in network.named_parameters():
            values = parameter.detach().flatten()
            some = values[:: max(1, len(values) // 64)].float().cpu()
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(some.numpy().tobytes())
    return digest.hexdigest()


def identity_of(config: TrainingConfig, *digests: str, weights: str, processes: int) -> Identity:
    """What must be the same for a run to be the same run. It holds no path. `digests` are those of the data
    sets, `weights` that of the networks before the first step. Several processes count as one with a batch
    as large as theirs together.
    """
    keys = config.model_dump(mode="json")
    keys["batch_size"] = config.batch_size * processes
    identity = {key: value for key, value in keys.items() if key not in FREE_KEYS}
    if keys.get("prior") is not None:
        identity["prior weight"] = keys["prior"]["weight"]
    return identity | {"data set": list(digests), "model": weights}


def today() -> str:
    """This day in UTC (ISO 8601); with SOURCE_DATE_EPOCH, that day, so that a build can be repeated."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.now(UTC)
    if epoch.isdecimal():
        now = datetime.fromtimestamp(int(epoch), UTC)
    return now.date().isoformat()


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
            torch.save({SCHEMA_VERSION: _VERSION, "step": step, "identity": identity, **state}, file)
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
        if problem := version_problem(state, reads=_VERSION):
            raise CheckpointError(f"{paths[-1]}: {problem}; end this run with that one, or use --no-resume")
        theirs = state["identity"]
        for key in sorted({*identity, *theirs}):
            if identity.get(key) != theirs.get(key):
                change = f" ({theirs.get(key)!r} then, {identity.get(key)!r} now)"
                if key in _DIGESTS:
                    change = ""
                raise CheckpointError(
                    f"{paths[-1]}: was made with another {key}{change};"
                    " restart with --no-resume, or write to another --output"
                )
        return state

    def clear(self) -> None:
        """Delete all checkpoints, finished or not."""
        for path in [*self.paths(), *self.folder.glob("*.partial")]:
            path.unlink()
