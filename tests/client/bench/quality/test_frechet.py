"""FID and KID beside a root of a matrix, loops over pairs, and what is known of normal distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg  # type: ignore[import-untyped]

from intaglio_client.bench.quality.frechet import fid, kid

DRAWN = np.random.default_rng(7)
ONE = DRAWN.standard_normal((40, 5)) @ DRAWN.standard_normal((5, 5)) + 1.0
OTHER = DRAWN.standard_normal((60, 5)) @ DRAWN.standard_normal((5, 5))


def test_fid_is_that_of_its_formula() -> None:
    means = ONE.mean(0) - OTHER.mean(0)
    covariances = [np.cov(one, rowvar=False) for one in (ONE, OTHER)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    expected = means @ means + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    assert fid(ONE, OTHER) == pytest.approx(float(expected), rel=1e-9)
    assert fid(OTHER, ONE) == pytest.approx(fid(ONE, OTHER), rel=1e-9)


def test_a_shift_adds_its_square_and_nothing_else() -> None:
    assert fid(ONE, ONE) == pytest.approx(0, abs=1e-8)
    assert fid(ONE, ONE + 2.0) == pytest.approx(5 * 2.0**2)


def test_fewer_pictures_than_features_are_no_failure() -> None:
    few, others = DRAWN.standard_normal((4, 32)), DRAWN.standard_normal((5, 32))
    assert np.isfinite(fid(few, others))
    assert fid(few, few) == pytest.approx(0, abs=1e-6)


def test_few_pictures_bias_fid_and_not_kid() -> None:
    """Both sets are of one distribution: both distances should be 0."""
    found: dict[int, tuple[float, float]] = {}
    for count in (8, 64):
        pairs = [(DRAWN.standard_normal((count, 6)), DRAWN.standard_normal((count, 6))) for _ in range(200)]
        kids = [kid(*pair) for pair in pairs]
        assert abs(np.mean(kids)) < 4 * np.std(kids) / len(kids) ** 0.5
        found[count] = (float(np.mean([fid(*pair) for pair in pairs])), float(np.mean(kids)))
    assert found[8][0] > 4 * found[64][0] > 0


def test_kid_is_that_of_its_formula() -> None:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    within = [
        np.mean([kernel(a, b) for a, b in itertools.permutations(values, 2)]) for values in (ONE, OTHER)
    ]
    across = np.mean([kernel(a, b) for a in ONE for b in OTHER])
    assert kid(ONE, OTHER) == pytest.approx(within[0] + within[1] - 2 * across)


def test_one_picture_has_no_covariance() -> None:
    for measure in (fid, kid):
        with pytest.raises(ValueError, match="1 and 60 pictures; at least 2"):
            measure(ONE[:1], OTHER)
