"""The Python processes of Triton's models, which Triton calls stubs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

__all__ = ["Stub", "is_alive", "stubs_of"]

_STUB_NAME: Final = "triton_python_backend_stub"


@dataclass(frozen=True, slots=True)
class Stub:
    """The process of one model instance."""

    instance: str
    version: int
    process: psutil.Process


def stubs_of(pid: int) -> list[Stub]:
    """The stubs among the descendants of the process `pid`."""
    found: list[Stub] = []
    try:
        children: Sequence[psutil.Process] = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return found
    for child in children:
        with contextlib.suppress(psutil.Error):
            command = child.cmdline()
            if command and command[0].endswith(_STUB_NAME):
                found.append(_stub(child, command))
    return found


def _stub(process: psutil.Process, command: Sequence[str]) -> Stub:
    # stub .../MODEL/VERSION/model.py segment size growth parent-pid backend-folder offset INSTANCE folder
    instance = command[-2] if len(command) > 3 else str(process.pid)
    version = Path(command[1]).parent.name if len(command) > 1 else ""
    return Stub(instance, int(version) if version.isdigit() else 0, process)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
