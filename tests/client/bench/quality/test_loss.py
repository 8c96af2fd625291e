"""The verdict on two servers, by hand and beside chance."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from intaglio.errors import ConfigError
from intaglio_client.bench.quality.loss import CHANCE, chance_of_loss, fewest_scenes, losses, verdict_of
from intaglio_client.bench.quality.parity import check_measures, compare, draw_both
from intaglio_client.tune.run import Measures
from intaglio_client.tune.scenes import Scene

from ...tune.drawn import Counted, FakeClient


def test_the_chance_is_the_share_of_signs_with_a_mean_as_low() -> None:
    differences = [-0.5, -0.25, 0.1, -0.4, 0.0]
    sums = [
        sum(sign * value for sign, value in zip(signs, (0.5, 0.25, 0.1, 0.4), strict=True))
        for signs in itertools.product((-1, 1), repeat=4)
    ]
    share = sum(1 for one in sums if one <= sum(differences) + 1e-9) / len(sums)
    assert chance_of_loss(differences) == pytest.approx(share) == pytest.approx(2 / 16)
    assert chance_of_loss([0.0] * 30) == 1.0
    assert chance_of_loss([-0.5] * 8) == 2**-8


def test_many_scenes_are_drawn_and_not_all_tried() -> None:
    drawn = np.random.default_rng(3)
    values = drawn.normal(-0.2, 1.0, 40)
    exact = float(
        np.mean([(drawn.choice((-1, 1), 40) * np.abs(values)).sum() <= values.sum() for _ in range(40_000)])
    )
    assert chance_of_loss(list(values)) == pytest.approx(exact, abs=0.01)


def test_equal_servers_are_called_worse_no_more_often_than_the_chance_says() -> None:
    drawn = np.random.default_rng(5)
    found = [chance_of_loss(list(drawn.choice((-0.5, 0.0, 0.5), 16))) for _ in range(1000)]
    assert np.mean([one <= CHANCE for one in found]) <= 2 * CHANCE


def test_a_loss_of_one_figure_of_two_is_seen() -> None:
    before = [{"attire": 1.0, "pck": 0.75}] * 12
    after = [{"attire": 0.5, "pck": 0.75}] * 12
    found = losses(before, after)
    assert {name: loss.worse for name, loss in found.items()} == {"attire": True, "pck": False}
    assert found["attire"].change.value == -0.5
    assert verdict_of(found, equal=False, far=False) == "worse"
    assert verdict_of(losses(after, before), equal=False, far=False) == "no loss shown", "better is not worse"


def test_too_few_scenes_for_a_verdict_are_refused() -> None:
    assert fewest_scenes(1) == 7
    assert fewest_scenes(3) == 9
    with pytest.raises(ConfigError, match="attire: 6 scenes show no loss, however large; take at least 7"):
        losses([{"attire": 1.0}] * 6, [{"attire": 0.0}] * 6)


def test_figures_that_only_one_server_has_are_refused() -> None:
    both, one = {"attire": 1.0, "pck": 1.0}, {"attire": 1.0}
    for before, after in ((both, one), (one, both)):
        with pytest.raises(ConfigError, match=r"^--judge: gives attire"):
            losses([before] * 12, [after] * 12)
    with pytest.raises(ConfigError, match=r"^--judge: attire of a picture is nan"):
        losses([one] * 12, [{"attire": float("nan")}] * 12)


SCENES = tuple(Scene(f"scene-{index}", "a cat", 32, 32, seed=index) for index in range(8))


class Stepping(FakeClient):
    """Draws with a number of steps of its own, whatever is asked."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.own = steps

    def generate(self, prompt: str, **parameters: Any) -> Any:
        return super().generate(prompt, **{**parameters, "steps": self.own})


def drawn(folder: Path, first: int, second: int) -> Any:
    clients = (Stepping(first), Stepping(second))
    progress = Counted()
    found = draw_both(cast(Any, clients), SCENES, folder, progress)
    assert progress.weight == len(SCENES)
    assert [len(client.asked) for client in clients] == [8, 8]
    return found


def judge(name: str, pixels: Any) -> dict[str, float]:
    return {"dark": 1 - float(pixels.mean()) / 255}


def test_two_servers_that_draw_the_same_are_equal(tmp_path: Path) -> None:
    found = compare(drawn(tmp_path, 20, 20), Measures(judge=judge), least_psnr=60.0)
    assert (found.verdict, found.equal, found.lowest_psnr) == ("equal", 8, 100.0)
    assert (tmp_path / "b" / "scene-7.png").is_file()


def test_a_server_that_draws_worse_is_found(tmp_path: Path) -> None:
    pictures = drawn(tmp_path, 20, 4)
    found = compare(pictures, Measures(judge=judge), least_psnr=None)
    assert (found.verdict, found.equal) == ("worse", 0)
    assert found.losses["dark"].chance == 2**-8
    assert found.cells()[-1][-1] == "chance 0.0039: worse"
    assert compare(drawn(tmp_path, 4, 20), Measures(judge=judge), least_psnr=None).verdict == "no loss shown"


def test_a_distance_is_a_verdict_only_where_one_is_stated(tmp_path: Path) -> None:
    pictures = drawn(tmp_path, 20, 4)
    assert compare(pictures, Measures(), least_psnr=40.0).verdict == "worse"
    assert compare(pictures, Measures(), least_psnr=10.0).verdict == "no loss shown"
    with pytest.raises(ConfigError, match="nothing says what is worse; give --judge"):
        compare(pictures, Measures(), least_psnr=None)
    with pytest.raises(ConfigError, match="6 scenes show no loss, however large; take at least 7"):
        check_measures(Measures(judge=judge), 6, least_psnr=None)
