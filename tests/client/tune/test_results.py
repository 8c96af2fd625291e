"""Rows and the Pareto front, with numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from intaglio.errors import ConfigError
from intaglio_client.tune.pairs import Figure
from intaglio_client.tune.results import front, row_of

from .rows import figures, row, setting


def test_a_row_is_of_pairs() -> None:
    baseline = figures(10.0, [30.0, 40.0], attire=0.5)
    scenes = figures(5.0, [32.0, 44.0], attire=0.75)
    found = row_of(setting(15), scenes, baseline, ratio=Figure(0.5, 0.0, 2))
    assert (found.seconds.value, found.ratio.value) == (5.0, 0.5)
    assert (found.psnr.value, found.psnr.error) == (38.0, pytest.approx(6.0))
    assert (found.psnr_gain.value, found.psnr_gain.error) == (3.0, pytest.approx(1.0))
    errors = [255 / 10 ** (psnr / 20) for psnr in (32.0, 44.0)]
    before = [255 / 10 ** (psnr / 20) for psnr in (30.0, 40.0)]
    assert found.error.value == pytest.approx(sum(errors) / 2)
    assert found.error_change.value == pytest.approx((sum(errors) - sum(before)) / 2)
    assert found.judged["attire"].value == 0.75
    assert found.judged_gain["attire"].value == 0.25
    assert found.perceptual is None


def test_a_figure_is_of_the_scenes_that_have_it() -> None:
    judged = [*figures(1.0, [30.0, 30.0], attire=0.5), *figures(1.0, [30.0], identity=1.0)]
    found = row_of(setting(8), judged, judged, ratio=Figure(1.0, 0.0, 3)).judged
    assert {name: (one.value, one.n) for name, one in found.items()} == {"attire": (0.5, 2)}, (
        "one has no error"
    )


def test_figures_of_other_scenes_are_not_subtracted() -> None:
    """The judge finds nobody in some pictures: as many scenes have the figure, but not the same ones."""
    found = [*figures(1.0, [30.0, 30.0], pck=0.5), *figures(1.0, [30.0])]
    before = [*figures(1.0, [30.0]), *figures(1.0, [30.0, 30.0], pck=0.9)]
    with pytest.raises(ConfigError, match=r"^--judge: gives pck and nothing of two pictures of one scene"):
        row_of(setting(8), found, before, ratio=Figure(1.0, 0.0, 3))


def test_a_figure_that_is_no_number_is_refused() -> None:
    found = figures(1.0, [30.0, 30.0], pck=math.nan)
    with pytest.raises(ConfigError, match=r"^--judge: pck of a picture is nan; allowed: a finite number"):
        row_of(setting(8), found, found, ratio=Figure(1.0, 0.0, 2))


def test_the_front_has_what_no_other_beats_in_both() -> None:
    cheap = row(setting(8), 2.0, [28.0, 28.0])
    beaten = row(setting(10), 3.0, [27.0, 27.0])
    dear = row(setting(20), 6.0, [40.0, 40.0])
    as_dear_and_worse = row(setting(19), 6.0, [39.0, 39.0])
    assert front([dear, beaten, as_dear_and_worse, cheap]) == [cheap, dear]


def test_what_is_listed_apart_is_not_on_the_front() -> None:
    apart = row(setting(4).__class__("lora lcm", {}, "another model"), 1.0, [50.0, 50.0])
    other = row(setting(8), 2.0, [28.0, 28.0])
    assert front([apart, other]) == [other]
