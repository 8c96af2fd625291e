"""What is computed from what the rules read."""

from __future__ import annotations

import numpy as np
import pytest

from miniature.judging import judge_control, judge_picture, judge_text, mean_pck, psnr
from miniature.painter import cases
from miniature.world import control_map


def test_psnr_of_equal_pictures_and_of_a_known_error() -> None:
    black = np.zeros((4, 4, 3), np.uint8)
    assert psnr(black, black) == 100.0
    assert psnr(black, black + 1) == pytest.approx(48.13, abs=0.01)


def test_truth_is_judged_right_and_another_scene_is_not() -> None:
    judged = cases(4)
    pictures = [case.rendered.picture for case in judged]
    assert judge_text(pictures, judged) == {"text.attire_right": 1.0, "text.background_right": 1.0}
    assert mean_pck(pictures, judged) > 0.9
    shifted = pictures[1:] + pictures[:1]
    assert judge_text(shifted, judged)["text.attire_right"] < 0.9
    assert mean_pck(shifted, judged) < 0.5


def test_one_picture_is_judged_by_its_own_scene() -> None:
    one, other = cases(2)
    assert judge_picture(one.rendered.picture, one) == {"attire": 1.0, "place": 1.0, "pck": 1.0}
    assert judge_picture(other.rendered.picture, one)["pck"] < 0.5


def test_a_control_is_compared_with_the_next_cases_map() -> None:
    judged = cases(4)
    maps = [control_map(case.scene, case.rendered, "depth") for case in judged]
    found = judge_control("depth", [case.rendered.picture for case in judged], maps)
    assert found["depth.agreement"] > 0.5
    assert found["depth.times_shuffled"] == found["depth.agreement"] / found["depth.shuffled"] > 2
