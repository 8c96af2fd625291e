"""Figures: how they stand, what is said of one that was not measured, and their tables."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from benchmarks.measuring.figures import (
    Figure,
    figure_rows,
    judge,
    machine_lines,
    show_figures,
    table_lines,
)

FASTER = Figure("speed", lambda r: r["speed"], required=1.5, aim=2.0, unit="x", more_is_better=True)
SMALLER = Figure("memory", lambda r: r["memory"] / r["cards"], required=13.0, aim=10.0, unit="GiB")


def results(**values: Any) -> dict[str, Any]:
    return {"stand_in": None, "speed": 2.0, "memory": 10.0, "cards": 1} | values


@pytest.mark.parametrize(
    ("figure", "values", "verdict"),
    [
        (FASTER, {"speed": 2.0}, "reached"),
        (FASTER, {"speed": 1.5}, "required"),
        (FASTER, {"speed": 1.49}, "missed"),
        (SMALLER, {"memory": 10.0}, "reached"),
        (SMALLER, {"memory": 13.0}, "required"),
        (SMALLER, {"memory": 13.1}, "missed"),
        (SMALLER, {"memory": None}, "not measured"),
        (SMALLER, {"cards": 0}, "not measured"),
    ],
)
def test_how_a_figure_stands(figure: Figure, values: dict[str, Any], verdict: str) -> None:
    assert figure.verdict(results(**values)) == verdict


def test_a_figure_that_is_not_in_the_file_was_not_measured() -> None:
    assert FASTER.value({"stand_in": None}) is None


def test_all_must_be_reached_on_a_card() -> None:
    figures = (FASTER, SMALLER)
    assert judge(results(speed=1.5), figures)
    assert not judge(results(speed=1.4), figures)
    assert not judge(results(speed=None), figures)
    assert not judge(results(stand_in="no card"), figures)


def test_rows_and_tables() -> None:
    rows = figure_rows(results(memory=None), (FASTER, SMALLER), digits=2)
    assert rows == [
        ("speed", ">= 1.5 x", "2 x", "2.00 x", "reached"),
        ("memory", "<= 13 GiB", "10 GiB", "not measured", "not measured"),
    ]
    assert figure_rows(results(memory=None), (SMALLER,), digits=2, absent="")[0][3] == ""
    assert table_lines("| a | b |", [("1", "2")]) == ["", "| a | b |", "|---|---|", "| 1 | 2 |"]
    console = Console(file=io.StringIO(), width=100)
    show_figures(console, results(stand_in="no card here"), rows)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(words in shown for words in ("no card here", "speed", ">= 1.5 x", "not measured"))


def test_a_page_says_what_was_measured_on_what() -> None:
    machine = {
        "card": {"name": "Card", "driver": "1.2"},
        "processor": "x",
        "cores": 4,
        "commit": "0123456789abcdef",
        "changed": True,
        "versions": {"torch": "2", "numpy": "1"},
    }
    said = ["Driver 1.2, x, 4 cores, commit 0123456789ab, with changes.", "torch 2, numpy 1", ""]
    assert machine_lines({"machine": machine}) == said
    assert machine_lines({"machine": machine | {"card": None}})[0].startswith("Driver none, ")
