"""What something was measured on: card, driver, processor, versions and commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from intaglio.engines.card import card_description, read_card_memory

__all__ = ["COMMIT_VARIABLE", "PACKAGES", "describe_machine", "package_versions", "processor_name"]

COMMIT_VARIABLE: Final = "INTAGLIO_COMMIT"
"""Names the commit where there is no history: a GPU host may have a copy of the tree alone."""
PACKAGES: Final = (
    "intaglio",
    "tensorrt-rtx-cu12",
    "onnxruntime",
    "nvidia-pytriton",
    "tritonclient",
    "numpy",
)
"""Those that serving depends on."""


def describe_machine(root: Path, *, card: int = 0, packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """This machine as JSON. `root` is a folder of the checkout; the commit is empty where it is none.

    `card` is CUDA's index.
    """
    memory = read_card_memory(card)
    return {
        "card": card_description(card),
        "card_mib": None if memory is None else memory.total >> 20,
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "host_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": package_versions(packages),
        "commit": os.environ.get(COMMIT_VARIABLE) or _git(root, "rev-parse", "HEAD"),
        "changed": bool(_git(root, "status", "--porcelain", "--untracked-files=no")),
        "command": _command(),
    }


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor_name() -> str:
    """As the kernel names it; the architecture where it names none."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _command() -> str:
    """The command line without the machine's own folders: paths from the working folder on, and of a program
    elsewhere its name.
    """
    program, *arguments = map(_from_here, sys.argv)
    if Path(program).is_absolute():
        path = Path(program)
        program = path.parent.name if path.name == "__main__.py" else path.name
    return " ".join([program, *arguments])


def _from_here(word: str) -> str:
    path = Path(word)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else word


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
