"""A terminal is asked whether it shows sixels."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from intaglio_client.terminal import capabilities

from ...terminals import Terminal, visible

ASK = [
    sys.executable,
    "-c",
    "from intaglio_client.terminal.capabilities import has_sixels; print(has_sixels())",
]


@pytest.mark.parametrize(
    ("answer", "has"),
    [("\x1b[?62;4;22c", True), ("\x1b[?62;22c", False), ("\x1b[?64;14c", False), ("", False)],
    ids=["sixels", "none", "14 is not 4", "silent"],
)
def test_the_terminals_answer_counts(answer: str, has: bool, tmp_path: Path) -> None:
    with Terminal(ASK, folder=tmp_path) as terminal:
        terminal.wait_for("\x1b[c")
        terminal.press(answer)
        assert terminal.end() == 0
    assert list(visible(terminal.written))[-1] == str(has)


def test_without_a_terminal_nobody_is_asked() -> None:
    done = subprocess.run(
        ASK, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, start_new_session=True
    )
    assert done.stdout == "False\n"


def test_a_terminal_that_talks_without_end_is_not_listened_to(tmp_path: Path) -> None:
    """Nor one that is gone, where a read gives nothing as often as it is asked."""
    talking, gone = tmp_path / "talking", tmp_path / "gone"
    talking.symlink_to("/dev/zero")
    gone.touch()
    for path in (talking, gone):
        terminal = os.open(path, os.O_RDONLY)
        try:
            started = time.monotonic()
            capabilities._answer(terminal)
            assert time.monotonic() - started < 2
        finally:
            os.close(terminal)
