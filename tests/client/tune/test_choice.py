"""Which settings become presets, with numbers computed by hand."""

from __future__ import annotations

from intaglio_client.tune.choice import chosen, presets_of
from intaglio_client.tune.settings import Setting, named_setting

from .rows import anchors, row, setting


def test_each_preset_is_the_cheapest_that_equals_its_anchor() -> None:
    rows = [
        *anchors(),
        row(setting(8), 2.7, [25.0, 25.2]),
        row(setting(10), 3.2, [29.0, 30.0]),
        row(setting(12), 4.0, [33.0, 33.8]),
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


def test_worse_by_more_than_its_error_is_worse() -> None:
    """Differences of -3 and -1 are -2 ± 1, and of -4 and +2 they are -1 ± 3."""
    baseline, *others = anchors()
    worse = row(setting(10), 3.0, [31.0, 33.0])
    no_worse = row(setting(12), 4.0, [30.0, 36.0])
    assert chosen([baseline, *others, worse, no_worse], baseline) is no_worse
    assert chosen([baseline, *others, worse, no_worse], baseline, allowed=1.0) is worse


def test_of_settings_of_the_same_cost_the_nearest_is_taken() -> None:
    baseline, *_ = anchors()
    cheapest = row(setting(12), 4.00, [36.0, 36.0])
    within = row(setting(15, guidance_end=0.8), 4.19, [38.0, 38.0])  # 4.75 % more
    beyond = row(setting(15), 4.21, [44.0, 44.0])  # 5.25 % more
    assert chosen([baseline, cheapest, within, beyond], baseline) is within


def test_the_anchor_is_taken_where_nothing_equals_it() -> None:
    baseline, *_ = anchors()
    worse = row(setting(8), 2.0, [33.0, 33.5])
    assert chosen([baseline, worse], baseline) is baseline


def test_what_no_preset_can_hold_is_not_chosen() -> None:
    """A LoRA is another model, and a control's window is no input of its own."""
    baseline, *_ = anchors()
    lora = row(Setting("lora lcm", {"loras": [{"id": "lcm"}]}), 1.0, [50.0, 50.0])
    window = row(named_setting({"steps": 15, "control_guidance_end": 0.6}), 1.0, [50.0, 50.0])
    assert chosen([baseline, lora, window], baseline) is baseline
