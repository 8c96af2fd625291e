"""A build shows that it moves, on a terminal and in a file."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from intaglio_export.commands.progress import ConsoleReporter, LineReporter, reporter_for
from intaglio_export.plan.stages import StageOutcome


def test_a_file_gets_lines_and_a_terminal_a_bar() -> None:
    assert isinstance(reporter_for(Console(file=io.StringIO())), LineReporter)
    assert isinstance(reporter_for(Console(file=io.StringIO(), force_terminal=True)), ConsoleReporter)


@pytest.mark.parametrize("reporter", [ConsoleReporter, LineReporter])
def test_a_waiting_build_says_so(reporter: type[ConsoleReporter | LineReporter]) -> None:
    output = io.StringIO()
    with reporter(Console(file=output)) as watching:
        watching.waiting()
    assert "waiting until it ends" in output.getvalue()


def test_a_line_names_what_is_done_and_what_is_at_work() -> None:
    now = [100.0]
    reporter = LineReporter(Console(file=io.StringIO()), clock=lambda: now[0])
    reporter.planned(40.0)
    reporter.started("onnx/unet", "not built yet")
    now[0] = 110.0
    reporter.finished(StageOutcome("onnx/unet", True, "not built yet", 10.0), 10.0)
    reporter.started("engine/unet", "not built yet")
    now[0] = 117.0
    assert reporter.line() == "17 s, 1 stages done (25 %); at work: engine/unet 7 s"


def test_lines_come_while_a_stage_is_at_work() -> None:
    output = io.StringIO()
    with LineReporter(Console(file=output), seconds=0.01) as reporter:
        reporter.started("engine/unet", "not built yet")
        until = time.monotonic() + 30
        while output.getvalue().count("engine/unet") < 2:
            assert time.monotonic() < until, output.getvalue()
            time.sleep(0.01)
