"""One table of exit codes, in the program and in the documentation."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from intaglio import errors, exit_codes
from intaglio.exit_codes import (
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    LATER,
    TERMINATED,
    USAGE,
    exit_code_of,
)

PAGE = Path(__file__).parents[2] / "docs/commands.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("steps", "is 0", allowed="1"), USAGE),
        (errors.Unavailable("no server"), LATER),
        (errors.QueueFull("full"), LATER),
        (errors.DeadlineExceeded("too late"), LATER),
        (BlockingIOError("locked"), LATER),
        (errors.ConfigError("a.yaml: wrong"), FAILED),
        (errors.EngineMismatch("missing", command="intaglio build"), FAILED),
        (errors.LoraRefused("night", "damaged"), FAILED),
        (errors.MissingExtra("torch", extra="export"), FAILED),
        (FileNotFoundError("a.png"), FAILED),
        (KeyboardInterrupt(), INTERRUPTED),
    ],
)
def test_the_code_says_whether_to_try_again(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code
    assert code in EXIT_CODES


def test_the_documentation_has_the_same_table() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    codes = [row for row in rows if re.match(r"\| \d+ \|", row)]
    assert codes == [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]


def test_every_code_of_this_module_has_a_meaning() -> None:
    """Those of the shell are 128 and the signal's number."""
    assert {0, *(value for value in vars(exit_codes).values() if isinstance(value, int))} == set(EXIT_CODES)
    assert (INTERRUPTED, TERMINATED) == (128 + signal.SIGINT, 128 + signal.SIGTERM)
