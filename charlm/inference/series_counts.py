"""Figures of a series: `SeriesCounts`, sums from which every figure follows."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from charlm.config.tasks import SERIES
from charlm.text.series_floors import Recurrence, Values
from charlm.units import finite, ratio


@dataclass(frozen=True, kw_only=True)
class SeriesCounts:
    """Sums over forecasts of the next number, in its own unit, with the figures that follow.

    `squares` and `absolutes` are of the errors of the mean forecast, `nats` is the negative
    log-likelihood of the numbers. `total_squares` are the squares of their distances from the
    training mean. The last two are the squared errors of the floors: the last number, and a linear
    recurrence (NaN if that is not known).
    """

    values: int = 0
    squares: float = 0.0
    absolutes: float = 0.0
    nats: float = 0.0
    total_squares: float = 0.0
    last_squares: float = 0.0
    recurrence_squares: float = 0.0

    @classmethod
    def of(
        cls,
        values: Values,
        means: Values,
        deviations: Values,
        *,
        steps: int,
        mean: float,
        recurrence: Recurrence | None,
    ) -> "SeriesCounts":
        """Count the last `steps` of the numbers, shape (N,).

        `means` and `deviations`, shape (N - 1,), describe the forecast of each but the first;
        `mean` is that of the training numbers.
        """
        true = values[1:][-steps:]
        errors, deviations = true - means[-steps:], deviations[-steps:]
        floor = np.nan * true if recurrence is None else recurrence.forecasts(values)[-steps:]
        nats = 0.5 * (errors / deviations) ** 2 + np.log(deviations) + 0.5 * math.log(2 * math.pi)
        return cls(
            values=len(true),
            squares=float(np.sum(errors**2)),
            absolutes=float(np.sum(np.abs(errors))),
            nats=float(np.sum(nats)),
            total_squares=float(np.sum((true - mean) ** 2)),
            last_squares=float(np.sum(np.diff(values)[-steps:] ** 2)),
            recurrence_squares=float(np.sum((true - floor) ** 2)),
        )

    def __add__(self, other: "SeriesCounts") -> "SeriesCounts":
        """Add the sums of two series, field by field."""
        names = [each.name for each in fields(SeriesCounts)]
        return SeriesCounts(**{n: getattr(self, n) + getattr(other, n) for n in names})

    def __repr__(self) -> str:
        return f"SeriesCounts(MSE {self.mse:.4g}, {self.nats_per_value:.4f} nats/value)"

    @property
    def tokens(self) -> int:
        """Number of targets, as in a `Tally`: here the numbers."""
        return self.values

    @property
    def nats_per_value(self) -> float:
        """Mean negative log-likelihood of a number, in nats; negative if forecasts are narrow."""
        return ratio(self.nats, self.values)

    @property
    def nats_per_token(self) -> float:
        """Nats of one target, as in a `Tally`: here of one number."""
        return self.nats_per_value

    @property
    def mse(self) -> float:
        """Mean squared error of the forecasts."""
        return ratio(self.squares, self.values)

    @property
    def mae(self) -> float:
        """Mean absolute error of the forecasts."""
        return ratio(self.absolutes, self.values)

    @property
    def explained(self) -> float:
        """Fraction of the squared distances from the training mean that forecasts explain."""
        return 1.0 - ratio(self.squares, self.total_squares)

    @property
    def last_value_mse(self) -> float:
        """Mean squared error if each number is forecast as the one before it."""
        return ratio(self.last_squares, self.values)

    @property
    def recurrence_mse(self) -> float:
        """Mean squared error of a linear recurrence that was fitted to the training numbers."""
        return ratio(self.recurrence_squares, self.values)

    def summary(self) -> dict[str, Any]:
        """Return every figure by its name, None if it is not finite."""
        names = ("mse", "mae", "explained", "nats", "nats_per_value", "last_value_mse")
        figures = {name: finite(getattr(self, name)) for name in (*names, "recurrence_mse")}
        return {"values": self.values} | figures

    def sums(self) -> dict[str, Any]:
        """Return the raw sums, from which `figures_from` rebuilds the figures."""
        return {"kind": SERIES} | asdict(self)
