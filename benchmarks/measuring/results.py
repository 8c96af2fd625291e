"""Results on disk: what each part found, and the machine that it was found on.

A part writes its values as soon as it has them, so a run that is cut short keeps what it measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring.watches import CARD
from intaglio.builds.manifest import write_json
from intaglio.engines.card import read_card_memory
from intaglio_client.bench import machine

__all__ = [
    "ROOT",
    "describe_machine",
    "read_json",
    "read_part",
    "read_parts",
    "stand_in",
    "write_part",
]

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""
_STAND_IN: Final = "for debugging: ONNX Runtime on a CPU, no card; none of this is a result"
_PACKAGES: Final = (
    "intaglio",
    "torch",
    "diffusers",
    "transformers",
    "tensorrt-rtx-cu12",
    "onnxruntime",
    "onnx",
    "nvidia-pytriton",
    "tritonclient",
    "numpy",
)


def write_part(work: Path, name: str, values: dict[str, Any]) -> None:
    """Keep what a part found so far."""
    write_json(work / f"{name}.json", values)


def read_part(work: Path, name: str) -> dict[str, Any] | None:
    """What a part found; None where it has not run."""
    path = work / f"{name}.json"
    return read_json(path) if path.is_file() else None


def read_parts(work: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What each of these parts found, without those that have not run."""
    found = {name: read_part(work, name) for name in names}
    return {name: values for name, values in found.items() if values is not None}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def stand_in() -> str | None:
    """None on a machine with a card; otherwise what a reader must know of figures without one."""
    return None if read_card_memory(CARD) is not None else _STAND_IN


def describe_machine() -> dict[str, Any]:
    """Card, driver, processor, versions and commit. Figures mean nothing without them."""
    return machine.describe_machine(ROOT, card=CARD, packages=_PACKAGES)
