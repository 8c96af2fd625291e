"""A bar on a terminal, lines in a file."""

from __future__ import annotations

import io

from rich.console import Console

from intaglio.progress import Bar, Lines, progress_for


def test_a_file_gets_a_line_every_few_seconds() -> None:
    now = [100.0]
    stream = io.StringIO()
    lines = Lines(Console(file=stream), 40.0, clock=lambda: now[0])
    with lines:
        for seconds in (4.0, 4.0, 4.0):
            lines.started("walking: euler 30")
            now[0] += seconds
            lines.finished(5.0)
    assert stream.getvalue() == "12 s, 38 % done, 20 s left; walking: euler 30\n"


def test_a_terminal_gets_a_bar() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True)
    with progress_for(terminal, 10.0) as bar:
        assert isinstance(bar, Bar)
        bar.started("walking: euler [30]")
        bar.finished(10.0)
    assert isinstance(progress_for(Console(file=io.StringIO()), 1.0), Lines)
