"""A solver's algebra: rows of a coefficient matrix, written as formulas.

`X`, `H1`, `H2`, `H3`, `OUTPUT` and `NOISE` are the unit vectors of the six-dimensional space that
`intaglio.sampling.solvers` describes, so an expression such as `(X - sigma * eps) / alpha` *is* a row.
Rows are computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.contract.sdxl import SOLVER_ROWS
from intaglio.errors import ConfigError
from intaglio.sampling.noise_levels import Level
from intaglio.sampling.schedules import Schedule

__all__ = ["H1", "H2", "H3", "NOISE", "OUTPUT", "Course", "Row", "X"]

Row = NDArray[np.float64]
"""One row of a coefficient matrix: [6], weights of S0, S1, S2, S3, the model's output and noise."""

X, H1, H2, H3, OUTPUT, NOISE = np.eye(SOLVER_ROWS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A schedule, and what the model predicts along it."""

    schedule: Schedule
    prediction_type: str
    """epsilon (the noise), v_prediction (arXiv 2202.00512) or sample (the image)."""
    sigma_space: bool
    """x = x0 + sigma eps, scaled before the model sees it; otherwise x = alpha x0 + sigma eps."""
    eta: float = 0.0

    def at(self, i: int) -> Level:
        """The noise level of x in step i."""
        return self.schedule.level(i)

    def to(self, i: int) -> Level:
        """The noise level that step i leads to."""
        return self.schedule.goal(i)

    def first(self, i: int) -> bool:
        """Whether step i is the first that is taken, so that no history exists."""
        return i == self.schedule.begin

    def last(self, i: int) -> bool:
        """Whether step i is the last."""
        return i + 1 == len(self.schedule)

    def input_scale(self, i: int) -> float:
        """Factor of x in the model's input, which is alpha x0 + sigma eps."""
        return self.at(i).alpha if self.sigma_space else 1.0

    def denoised(self, i: int) -> Row:
        """The image x0 that the model's output means in step i."""
        level = self.at(i)
        model_input = self.input_scale(i) * X
        if self.prediction_type == "sample":
            output: Row = OUTPUT
            return output
        if self.prediction_type == "v_prediction":
            denoised: Row = level.alpha * model_input - level.sigma * OUTPUT
            return denoised
        if level.alpha == 0:
            raise ConfigError(
                "scheduler config: a model that predicts noise says nothing at zero terminal SNR; "
                "prediction_type must be v_prediction or sample with rescale_betas_zero_snr"
            )
        denoised = (model_input - level.sigma * OUTPUT) / level.alpha
        return denoised

    def eps(self, i: int) -> Row:
        """The noise that the model's output means in step i."""
        level = self.at(i)
        model_input = self.input_scale(i) * X
        eps: Row = OUTPUT
        if self.prediction_type == "sample":
            eps = (model_input - level.alpha * OUTPUT) / level.sigma
        elif self.prediction_type == "v_prediction":
            eps = level.alpha * OUTPUT + level.sigma * model_input
        return eps
