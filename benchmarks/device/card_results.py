"""Add to the suite's results what it ran on.   python -m benchmarks.device.card_results FROM TO"""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.measuring.watches import CARD
from intaglio.engines.card import card_description

__all__ = ["describe"]

_PACKAGES: Final = (
    "tensorrt-rtx-cu12",
    "nvidia-pytriton",
    "torch",
    "onnx",
    "onnxruntime",
    "diffusers",
    "transformers",
    "numpy",
    "tritonclient",
)


def describe() -> dict[str, object]:
    """Card, driver, versions and commit."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "card": card_description(CARD),
        "commit": os.environ.get("INTAGLIO_COMMIT", "unknown"),
        "cores": len(os.sched_getaffinity(0)),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": versions,
    }


def main(found: Path, written: Path) -> None:
    results = json.loads(found.read_text()) if found.is_file() else {"tests": {}, "figures": {}}
    written.write_text(json.dumps({**describe(), **results}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
