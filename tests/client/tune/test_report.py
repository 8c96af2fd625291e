"""The table, the page and the notes."""

from __future__ import annotations

import dataclasses

from intaglio_client.tune.choice import presets_of
from intaglio_client.tune.report import Results, cells_of, data_of, header_of, notes_of, page_of
from intaglio_client.tune.results import Row
from intaglio_client.tune.settings import Setting

from .rows import anchors, row, setting


def results(*more: Row) -> Results:
    rows = [*anchors(), row(setting(15), 5.0, [38.0, 40.0], attire=0.75), *more]
    presets = presets_of([one for one in rows if not one.setting.apart])
    left_out = ("left out: x: this version has no input y",)
    return Results("small", "onnxruntime cpu fp32", 2, 0, rows, presets, rows[2], 100, left_out)


def test_rows_are_ordered_by_cost_and_stars_are_the_front() -> None:
    names = [cells[0] for cells in cells_of(results())]
    assert names == [
        "* dpmpp_2m_karras 15",
        "euler 30",
        "* dpmpp_2m_karras 30",
        "* dpmpp_2m_karras 60",
    ]


def test_a_row_says_figures_errors_and_its_preset() -> None:
    assert header_of(results()) == [
        "setting", "seconds", "ratio", "PSNR dB", "dB to 30 Euler", "error", "error to 30 Euler", "SSIM",
        "attire", "preset",
    ]  # fmt: skip
    assert cells_of(results())[0] == [
        "* dpmpp_2m_karras 15",
        "5.00",
        "0.50 ± 0.00",
        "39.0 ± 1.0",
        "+5.0 ± 1.0",
        "2.88 ± 0.33",
        "-2.21 ± 0.33",
        "0.900 ± 0.000",
        "0.750 (+0.250 ± 0.000)",
        "draft, standard",
    ]


def test_what_is_apart_comes_last_with_its_reason() -> None:
    lora = row(Setting("lora fast", {"loras": [{"id": "fast"}]}, "another model: lcm"), 1.0, [12.0, 12.0])
    assert cells_of(results(lora))[-1][0] == "lora fast (apart: another model: lcm)"


def test_the_notes_say_how_far_the_reference_has_converged() -> None:
    first, *others = notes_of(results())
    assert first == "reference: 100 steps of dpmpp_2m_karras; its 60 steps are 55.0 ± 0.0 dB away"
    assert others == [
        "2 scenes are too few for presets; take at least 6",
        "left out: x: this version has no input y",
    ]
    better = row(setting(50), 15.0, [56.0, 56.0])
    assert "has not converged" in notes_of(results(better))[1]


def test_the_page_is_a_table_in_markdown() -> None:
    page = page_of(results(), note="On a busy machine.")
    assert "| \\* dpmpp_2m_karras 15 | 5.00 | 0.50 ± 0.00 |" in page
    assert "\n* On a busy machine.\n" in page


def test_the_data_have_every_row_with_its_inputs() -> None:
    data = data_of(results())
    assert data["presets"]["standard"] == {"scheduler": "dpmpp_2m_karras", "steps": 15}
    chosen = next(one for one in data["rows"] if one["setting"] == "dpmpp_2m_karras 15")
    assert chosen["psnr_gain"] == dataclasses.asdict(results().rows[3].psnr_gain)
    assert chosen["front"] is True
