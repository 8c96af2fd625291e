"""What is said while a batch runs."""

from __future__ import annotations

import io

from rich.console import Console

from intaglio_client.batch.progress import Lines, Pace, progress_for


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rate_and_time_left_count_what_this_run_drew() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace.text == "0 pictures, 0 accepted"
    clock.now = 30.0
    pace.count(tried=100, accepted=50, left=130, fresh=False)
    assert pace.text == "100 pictures, 50 accepted (50 %)"
    for tried in (101, 102):
        pace.count(tried=tried, accepted=51, left=80, fresh=True)
    assert pace.text == "102 pictures, 51 accepted (50 %), 4 a minute, 20:00 left"
    pace.count(tried=103, accepted=51, left=800, fresh=True)
    assert pace.text.endswith("6 a minute, 2:13:20 left")


def test_a_file_gets_a_line_every_few_seconds() -> None:
    clock, written = Clock(), io.StringIO()
    with Lines(Console(file=written), seconds=10, clock=clock) as lines:
        for second in range(1, 26):
            clock.now = float(second)
            lines.advanced(tried=second, accepted=second, left=0, fresh=True)
        clock.now = 40.0
        lines.waiting(["a:1: [refused]"])
    assert [line.split(" ", 1)[0] for line in written.getvalue().splitlines()] == ["10", "20", "no"]
    assert "no server: a:1: [refused]" in written.getvalue()


def test_a_terminal_gets_a_bar() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120)
    with progress_for(console) as bar:
        bar.advanced(tried=1, accepted=1, left=1, fresh=False)
        bar.waiting(["a:1: [gone]"])
        bar._progress.refresh()  # type: ignore[union-attr]
    assert "no server: a:1: [gone]" in written.getvalue()
