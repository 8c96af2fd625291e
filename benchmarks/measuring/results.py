"""The results file: parts are written as they are done, so that a run that is cut short keeps what it has."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from intaglio.builds.manifest import write_json
from intaglio.engines.card import card_description, read_card_memory

__all__ = ["describe_machine", "read_json", "read_part", "write_part"]

_PACKAGES: Final = (
    *("intaglio", "torch", "diffusers", "transformers", "tensorrt-rtx-cu12", "onnxruntime", "onnx"),
    *("nvidia-pytriton", "tritonclient", "numpy"),
)


def write_part(work: Path, name: str, values: dict[str, Any]) -> None:
    """Keep what a part found so far."""
    write_json(work / f"{name}.json", values)


def read_part(work: Path, name: str) -> dict[str, Any] | None:
    """What a part found; None where it has not run."""
    path = work / f"{name}.json"
    return read_json(path) if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def describe_machine(root: Path) -> dict[str, Any]:
    """Card, driver, processor, versions and commit: a figure without them says nothing."""
    card = read_card_memory()
    return {
        "card": card_description(),
        "card_mib": None if card is None else card.total >> 20,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "host_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name)) is not None},
        "commit": os.environ.get("INTAGLIO_COMMIT") or _git(root, "rev-parse", "HEAD"),
        "changed": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "command": " ".join(sys.argv),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip()
