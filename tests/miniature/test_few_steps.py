"""The LoRA for few steps draws what was asked; the comparison with many steps is paired."""

from __future__ import annotations

import numpy as np
import pytest

from miniature.few_steps import FEW, LORA, compared, missed, shares
from miniature.painter import Painter, held_out_case


def test_differences_are_paired_scene_by_scene() -> None:
    few = np.array([1.0, 0.0, 1.0, 0.5])
    many = np.array([1.0, 0.5, 1.0, 1.0])
    figure = compared(few, many)
    assert figure["few_steps"] == 0.625
    assert figure["many_steps"] == 0.875
    assert figure["difference"] == -0.25
    assert figure["standard_error"] == pytest.approx(np.sqrt(0.25 / 3) / 2)
    assert compared(many, many)["standard_error"] == 0


def test_a_loss_above_the_limit_is_named() -> None:
    def lost(share: float) -> dict[str, float]:
        return {"difference": -share}

    assert missed({"text.attire": lost(0.05), "text.place": lost(-0.1)}) == []
    assert missed({"text.attire": lost(0.06)}) == ["text.attire loses 0.060, at most 0.05 is allowed"]
    assert missed({"text.attire": lost(float("nan"))})


def test_four_steps_draw_attire_as_asked_because_of_the_lora() -> None:
    """On scenes whose attire the base alone misses in so few steps. Their places it draws either way."""
    judged = [held_out_case(index) for index in (2, 7, 8, 12, 21, 22)]
    prompts = [case.prompt for case in judged]
    painter = Painter(lambda _: None)
    alone = shares(painter.paint(prompts, drawing=FEW), judged)
    found = shares(painter.with_lora(str(LORA), prompts, drawing=FEW), judged)
    assert found["attire"].mean() >= max(0.75, alone["attire"].mean() + 0.3)
    assert found["place"].mean() >= 5 / 6
