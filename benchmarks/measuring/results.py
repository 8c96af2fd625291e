"""Results on disk: what each part found, and the machine that it was found on.

A part writes its values as soon as it has them, so a run that is cut short keeps what it measured.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring.watches import CARD
from intaglio.builds.manifest import write_json
from intaglio.engines.card import card_description, read_card_memory

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
    card = read_card_memory(CARD)
    return {
        "card": card_description(CARD),
        "card_mib": None if card is None else card.total >> 20,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "host_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": _versions(),
        # A GPU host may have a copy of the tree without its history.
        "commit": os.environ.get("INTAGLIO_COMMIT") or _git("rev-parse", "HEAD"),
        "changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "command": " ".join(sys.argv),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
