"""Which settings become presets, with numbers computed by hand."""

from __future__ import annotations

import math

from intaglio_client.tune.choice import Rule, chosen, presets_of
from intaglio_client.tune.grid import BASELINE
from intaglio_client.tune.settings import Setting, named_setting

from .rows import anchors, row, setting


def test_each_preset_is_the_cheapest_that_equals_its_anchor() -> None:
    """34 dB are an error of 5.09 levels; twice that are 28 dB."""
    rows = [
        *anchors(),
        row(setting(8), 2.7, [27.0, 27.1]),
        row(setting(10), 3.2, [29.0, 30.0]),
        row(setting(12), 4.0, [33.0, 33.1]),
        row(setting(15), 5.0, [39.0, 38.0]),
        row(setting(20), 6.7, [43.0, 44.0]),
    ]
    found = {name: one.setting.name for name, one in presets_of(rows).items()}
    assert found == {
        "draft": "dpmpp_2m_karras 10",
        "standard": "dpmpp_2m_karras 15",
        "high": "dpmpp_2m_karras 30",
        "ultra": "dpmpp_2m_karras 60",
    }


def levels(*errors: float) -> list[float]:
    """PSNR of errors in levels."""
    return [20 * math.log10(255 / error) for error in errors]


def test_worse_by_more_than_two_of_its_errors_is_worse() -> None:
    """The anchor's error is 5 levels. 6 and 6.2 are 1.1 ± 0.1 more; 5 and 8 are 1.5 ± 1.5 more."""
    anchor = row(BASELINE, 10.0, levels(5, 5))
    worse = row(setting(10), 3.0, levels(6, 6.2))
    no_worse = row(setting(12), 4.0, levels(5, 8))
    rows = [anchor, worse, no_worse]
    assert chosen(rows, Rule(BASELINE)) is no_worse
    assert chosen(rows, Rule(BASELINE, times=1.5)) is worse
    assert chosen(rows, Rule(BASELINE, doubt=0.0)) is anchor


def test_a_third_more_is_worse_whatever_few_scenes_show() -> None:
    """5 and 9 are 2 ± 2 more."""
    anchor = row(BASELINE, 10.0, levels(5, 5))
    larger = row(setting(12), 4.0, levels(5, 9))
    assert chosen([anchor, larger], Rule(BASELINE)) is anchor
    assert chosen([anchor, larger], Rule(BASELINE, times=1.5)) is larger


def test_of_settings_of_the_same_cost_the_nearest_is_taken() -> None:
    baseline, *_ = anchors()
    cheapest = row(setting(12), 4.00, [36.0, 36.0])
    within = row(setting(15, control_every=2), 4.19, [38.0, 38.0])  # 4.75 % more
    beyond = row(setting(15), 4.21, [44.0, 44.0])  # 5.25 % more
    assert chosen([baseline, cheapest, within, beyond], Rule(BASELINE)) is within


def test_the_anchor_is_taken_where_nothing_equals_it() -> None:
    baseline, *_ = anchors()
    worse = row(setting(8), 2.0, [33.0, 33.5])
    assert chosen([baseline, worse], Rule(BASELINE)) is baseline


def test_what_no_preset_can_hold_is_not_chosen() -> None:
    """A LoRA is another model; windows say how strongly a control and the prompt act."""
    baseline, *_ = anchors()
    lora = row(Setting("lora lcm", {"loras": [{"id": "lcm"}]}), 1.0, [50.0, 50.0])
    window = row(named_setting({"steps": 15, "control_guidance_end": 0.6}), 1.0, [50.0, 50.0])
    guidance = row(setting(15, guidance_end=0.8), 1.0, [50.0, 50.0])
    assert chosen([baseline, lora, window, guidance], Rule(BASELINE)) is baseline
