"""What may run at the same time: `make test` has two processes, each of which takes one group of tests after
another.

Tests of a room share fixtures that take minutes, so a room is one group. In `serving`, the files that use the
session's servers are one; each file that starts its own servers is a group by itself.
"""

# ruff: noqa: PLC0415  (pytest-xdist is there only where several processes are)

from __future__ import annotations

import functools
import os
import re
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


ROOT = Path(__file__).parents[1]
LONGEST_FIRST = ("serving", "export", "training", "runtime", "benchmarks", "client", "miniature")
ASKS = re.compile(r"def test_\w+\([^)]*\b((server|secured): Server|client: Client)\b")
"""A test that asks for the session's server or its client; tests/serving/conftest.py has them."""
HAS_ITS_OWN = re.compile(r"^def (server|client)\(", re.MULTILINE)
"""A file that serves something else under that name."""


@functools.cache
def group_of(file: str) -> str:
    """What one process runs whole: the room of `file`, a path such as `tests/serving/test_loras.py`, or that
    file alone.
    """
    room = file.split("/")[1]
    if room != "serving":
        return room
    text = (ROOT / file).read_text(encoding="utf-8")
    return room if ASKS.search(text) and not HAS_ITS_OWN.search(text) else file


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest rooms first, so that no process waits for one that began last."""

    def rank(item: pytest.Item) -> int:
        room = item.path.relative_to(ROOT).parts[1]
        return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One group at a time to each process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return ByGroup(config, log)
