"""What a request says of its trajectory is consistent."""

from __future__ import annotations

from typing import Any

import pytest

from intaglio.errors import InvalidRequest
from intaglio.sampling.trajectory import Trajectory


@pytest.mark.parametrize(
    ("steps", "values", "kept"),
    [
        (5, {}, [0, 1, 2, 3, 4]),
        (5, {"sparse_every": 1}, [0, 1, 2, 3, 4]),
        (10, {"sparse_every": 3}, [0, 1, 2, 3, 6, 9]),
        (20, {"sparse_every": 2, "sparse_begin": 0.9}, [*range(18), 18]),
        (4, {"sparse_every": 2, "sparse_begin": 0.0}, [0, 2]),
        (4, {"sparse_every": 2, "sparse_begin": 1.0}, [0, 1, 2, 3]),
        (1, {"sparse_every": 9}, [0]),
    ],
)
def test_steps_that_are_kept(steps: int, values: Any, kept: list[int]) -> None:
    assert Trajectory(scheduler="euler", steps=steps, **values).kept == kept


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"schedule": "karas"}, "schedule: 'karas' is unknown; allowed: leading, trailing"),
        ({"schedule": "beta", "sigmas": (2, 1, 0)}, "sigmas: given beside schedule; allowed: one of"),
        ({"timesteps": (9, 8), "sigmas": (2, 1, 0)}, "sigmas: given beside timesteps"),
        ({"timesteps": (999, 500, 1)}, "steps: 2, but timesteps makes 3 steps; allowed: absent beside"),
        ({"sigmas": (9.0, 0.0)}, "steps: 2, but sigmas makes 1 steps"),
        ({"timesteps": ()}, r"timesteps: \[\]; allowed: whole training times"),
        ({"timesteps": (1, 2)}, r"timesteps: \[1, 2\]"),
        ({"timesteps": (5, 5)}, r"timesteps: \[5, 5\]"),
        ({"timesteps": (5.5, 2)}, r"timesteps: \[5.5, 2\]"),
        ({"timesteps": (5, -1)}, r"timesteps: \[5, -1\]"),
        ({"timesteps": (float("nan"), 2)}, r"timesteps: \[nan, 2\]"),
        ({"timesteps": tuple(range(20))}, r"10, 11, \.\.\.\]"),
        ({"sigmas": (5.0,)}, r"sigmas: \[5\]; allowed: two or more noise levels"),
        ({"sigmas": (5.0, 6.0, 0.0)}, r"sigmas: \[5, 6, 0\]"),
        ({"sigmas": (5.0, 1.0, -1.0)}, r"sigmas: \[5, 1, -1\]"),
        ({"sigmas": (float("inf"), 1.0, 0.0)}, r"sigmas: \[inf, 1, 0\]"),
        ({"sparse_begin": 0.5}, "sparse_begin: no step is taken out; allowed: absent, or sparse_every"),
    ],
)
def test_contradictions_are_refused(values: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        Trajectory(scheduler="euler", steps=2, **values)


@pytest.mark.parametrize("sigmas", [(14, 13.999999, 1, 0), (14, 1, 1e-40, 0), (14, 1e-38), (1, 1e-5, 0)])
def test_sigmas_that_solvers_cannot_divide_by_are_refused(sigmas: tuple[float, ...]) -> None:
    says = r"^sigmas: \[.*\]; allowed: two or more noise levels, each at most 0\.999 of the one before"
    with pytest.raises(InvalidRequest, match=says):
        Trajectory(scheduler="dpmpp_2m", steps=len(sigmas) - 1, sigmas=sigmas)


def test_the_last_sigma_may_be_a_small_one() -> None:
    assert Trajectory(scheduler="euler", steps=2, sigmas=(14.0, 1.0, 1e-4)).sigmas == (14.0, 1.0, 1e-4)
