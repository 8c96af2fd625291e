"""The configurations that are compared: the same but for the number of instances that draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.measuring.case import deployment_values
from benchmarks.measuring.results import stand_in
from intaglio.contract.config import load_deployment
from intaglio.engines.card import gpu_count
from intaglio.errors import ConfigError

__all__ = ["available_counts", "write_configs"]

_QUEUE: int = 1024
"""Requests that may wait: all of a load come at the same moment."""
_WORKERS: int = 4
"""Processes that prepare and encode, the same for every count, so that the cards make the difference."""


def available_counts(asked: str) -> list[int]:
    """The counts of instances that `asked` lists with commas and that this machine has cards for. Without any
    card the CPU stands in for all of them.

    Raises:
        ConfigError: no number, or nothing that this machine has.
    """
    try:
        counts = sorted({int(word) for word in asked.split(",")})
    except ValueError:
        raise ConfigError(f"counts: {asked!r}; allowed: numbers with commas between them, as 1,2,4") from None
    cards = gpu_count()
    found = [count for count in counts if count >= 1 and (cards == 0 or count <= cards)]
    if not found:
        raise ConfigError(f"counts: {asked}: this machine has {cards} cards")
    return found


def write_configs(config: Path, folder: Path, counts: Sequence[int]) -> dict[int, Path]:
    """Write `config` without its LoRAs, with its first size only, into `folder` for each count.

    Each has a build of its own, whose stages are those of the others and of the benchmark beside diffusers.
    """
    deployment = load_deployment(config)
    values = deployment_values(deployment)
    values["profiles"]["sizes"] = values["profiles"]["sizes"][:1]
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for count in counts:
        server = {"queue_size": _QUEUE, "workers": _WORKERS, **_instances(count)}
        path = folder / f"{deployment.name}-gpus-{count}.yaml"
        text = yaml.safe_dump({**values, "server": server}, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        found[count] = path.resolve()
    return found


def _instances(count: int) -> dict[str, Any]:
    return {"gpus": list(range(count))} if stand_in() is None else {"instances": count}
