"""A command in the background leaves the terminal to the job that has it, and is not stopped for using it."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

from intaglio_client.terminal.foreground import is_foreground

from ...terminals import Terminal

BACKGROUND = """
import os, sys, termios
from rich.console import Console
from intaglio_client.events import Progress
from intaglio_client.terminal.capabilities import has_sixels
from intaglio_client.terminal.display import Bar
from intaglio_client.terminal.foreground import is_foreground

attributes = termios.tcgetattr(1)
attributes[3] |= termios.TOSTOP
termios.tcsetattr(1, termios.TCSANOW, attributes)
begun, moved = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    console = Console(file=sys.stdout, force_terminal=True, width=80)
    progress = lambda step: Progress(step=step, steps=9, seconds=0.1, seconds_left=0.1)
    with Bar(console) as bar:
        bar.show(progress(1))
        os.write(begun[1], b"x")
        os.read(moved[0], 1)
        assert not is_foreground(1) and not is_foreground(sys.stdout)
        bar.show(progress(2))
        bar.show(progress(3))
        assert not has_sixels()
    os._exit(0)
os.read(begun[0], 1)
os.setpgid(child, child)
os.write(moved[1], b"x")
_, status = os.waitpid(child, os.WUNTRACED)
stopped = os.WIFSTOPPED(status)
print(f"stopped by {os.WSTOPSIG(status)}" if stopped else f"ended with {os.WEXITSTATUS(status)}", flush=True)
if stopped:
    os.kill(child, 9)
"""


def test_a_bar_that_is_moved_to_the_background(tmp_path: Path) -> None:
    """Its cursor is shown again, and nothing more is drawn."""
    with Terminal([sys.executable, "-c", BACKGROUND], folder=tmp_path) as terminal:
        assert terminal.end() == 0
    assert terminal.written.splitlines()[-1].endswith("ended with 0")
    assert "step 1 of 9" in terminal.written
    assert "step 2 of 9" not in terminal.written
    assert terminal.written.count("\x1b[?25l") == terminal.written.count("\x1b[?25h") == 1


def test_what_is_no_terminal_of_ours_may_be_written(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert is_foreground(file)
    assert is_foreground(file), "closed: who writes is told"
    assert is_foreground(io.StringIO())
    assert is_foreground(os.open(os.devnull, os.O_RDONLY))
