"""How far two sets of pictures are apart, by the features of their pictures: FID and KID.

    FID = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))
of means m and covariances S: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local
Nash Equilibrium", 2017. With few pictures it is too large, the more so the fewer there are.

    KID = mean k(x, x') + mean k(y, y') - 2 mean k(x, y), with k(a, b) = (a b / d + 1)^3
over pairs of different pictures: Binkowski et al., "Demystifying MMD GANs", 2018. It is unbiased, so that of
equal distributions is around 0, and may lie below.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["fid", "kid"]

_Features = NDArray[np.float64]
_FEWEST: Final = 2


def fid(found: _Features, expected: _Features) -> float:
    """The Frechet distance of the normal distributions that fit the features, [pictures, features] each.

    Raises:
        ValueError: fewer than two pictures.
    """
    _check(found, expected)
    means = found.mean(axis=0) - expected.mean(axis=0)
    one, other = _root(found), _root(expected)
    # With S1 = A'A and S2 = B'B, tr (S1 S2)^(1/2) is the sum of the singular values of AB': no root of a
    # matrix, for which scipy would be needed, and no root of eigenvalues that rounding made negative.
    overlap = np.linalg.svd(one @ other.T, compute_uv=False).sum()
    return float(means @ means + (one**2).sum() + (other**2).sum() - 2 * overlap)


def kid(found: _Features, expected: _Features) -> float:
    """The squared maximum mean discrepancy of the features with a cubic kernel.

    Raises:
        ValueError: fewer than two pictures.
    """
    _check(found, expected)
    return _different(found) + _different(expected) - 2 * float(_kernel(found, expected).mean())


def _different(features: _Features) -> float:
    """Mean kernel of every picture with every other one."""
    values = _kernel(features, features)
    count = len(features)
    return float((values.sum() - np.trace(values)) / (count * (count - 1)))


def _kernel(one: _Features, other: _Features) -> _Features:
    products: _Features = one @ other.T / one.shape[1] + 1
    return products * products * products


def _root(features: _Features) -> _Features:
    """A, where A'A is the covariance; as small as it can be."""
    centred = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r"), np.float64)


def _check(found: _Features, expected: _Features) -> None:
    if min(len(found), len(expected)) < _FEWEST:
        raise ValueError(f"{len(found)} and {len(expected)} pictures; at least {_FEWEST} each are needed")
