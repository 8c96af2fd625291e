"""Every error has a status, and a message is one line."""

from __future__ import annotations

import inspect

from intaglio import errors
from intaglio.errors import InvalidRequest, single_line, triton_code_of


def test_every_error_is_in_the_drawing_and_mapped() -> None:
    classes = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.IntaglioError)
    ]
    drawing = {
        words[0]: words
        for line in (errors.__doc__ or "").splitlines()
        if (words := line.strip("│├└─ ").split())
    }
    for item in classes:
        assert drawing[item.__name__][1] == item.triton_code
        assert item.__name__ in errors.__all__
    assert triton_code_of(ValueError()) == "INTERNAL"


def test_messages_are_one_line() -> None:
    error = InvalidRequest("prompt", "x\n\x1b[31m" + "y" * 10_000, allowed="a\tb")
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) <= 500
    assert str(error).endswith("; allowed: a b")
    assert single_line("a" * 20, limit=5) == "aaaa…"
