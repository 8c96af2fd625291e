"""Sizes and errors as the doctor shows them."""

from __future__ import annotations

from intaglio_export.commands.source_report import problem_and_fix, size_text


def test_sizes_have_three_digits() -> None:
    sizes = (0, 1023, 1024, 6_938_000_000, 3 * 2**40)
    assert [size_text(size) for size in sizes] == ["0 bytes", "1023 bytes", "1 KiB", "6.46 GiB", "3 TiB"]


def test_an_error_says_what_is_wrong_and_what_would_be_right() -> None:
    assert problem_and_fix("a; b: no such file; train it") == ("a; b: no such file", "train it")
    assert problem_and_fix("a: no such file") == ("a: no such file", "")
