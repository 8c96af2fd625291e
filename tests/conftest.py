"""What may run at the same time: `make test` has two processes, each of which takes one room's tests after
another.

Tests of a room share fixtures that take minutes, those of `serving` the miniature's build too, so a room
stays together.
"""

# ruff: noqa: PLC0415  (pytest-xdist is there only where several processes are)

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from intaglio.onnx_runtime import refuse_telemetry


def pytest_configure() -> None:
    """Let tests that import onnxruntime themselves report nothing. Keep bytecode: without it every command
    and every stage of a server that tests start would compile PyTorch and the others again. Hear the signals
    that tests send to their commands: a child inherits what its parent ignores, and `nohup` and the
    background of a shell ignore some.
    """
    refuse_telemetry()
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


LONGEST_FIRST = ("serving", "export", "training", "miniature")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest rooms first, so that no process waits for one that began last."""
    here = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        room = item.path.relative_to(here).parts[0]
        return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One room at a time to each process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByRoom(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("/")[1]

    config.option.loadscopereorder = False
    return ByRoom(config, log)
