"""Floors of a series: simple forecasts of the next number that a network has to beat."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.products import product

Values = NDArray[np.float64]
ORDER = 2
"""Numbers that a linear recurrence looks back on; two are enough for a damped oscillation."""


class Recurrence(NamedTuple):
    """A linear recurrence: v_t - mean = c_0 + c_1 (v_{t-1} - mean) + ... + c_n (v_{t-n} - mean)."""

    mean: float
    coefficients: Values
    """c_0 to c_n, shape (n + 1,)."""

    @classmethod
    def fit(cls, values: Values, order: int = ORDER) -> "Recurrence":
        """Fit a series (N,) by least squares."""
        mean = float(values.mean())
        targets = (values - mean)[order:]
        coefficients, *_ = np.linalg.lstsq(_lagged(values - mean, order), targets, rcond=None)
        return cls(mean, coefficients)

    def forecasts(self, values: Values) -> Values:
        """Return the forecast of each number but the first from those before it, shape (N - 1,).

        Where fewer are known than the recurrence needs, it is the last one.
        """
        order = len(self.coefficients) - 1
        known = product(_lagged(values - self.mean, order), self.coefficients) + self.mean
        return np.concatenate([values[: order - 1], known])[: len(values) - 1]


def _lagged(values: Values, order: int) -> NDArray[Any]:
    """Return 1 and the `order` numbers before each number but the first ones, newest first."""
    count = max(len(values) - order, 0)
    lags = [values[order - lag : order - lag + count] for lag in range(1, order + 1)]
    return np.stack([np.ones(count), *lags], axis=1)
