"""Intervals and p-values, most of them by the bootstrap (Efron 1979)."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
"""Samples of the bootstrap."""
MIN_PARTS = 20
"""Minimum number of parts of a text for an interval of a ratio."""
TAILS = (0.025, 0.975)
"""Quantiles of the samples that bound an interval of 95 %."""
NORMAL_975 = 1.959964
"""Quantile 0.975 of the standard normal distribution."""
_BLOCK = 1 << 22


def drawn_sums(rows: NDArray[np.int64], seed: int = 0) -> NDArray[np.int64]:
    """Return the sums of the rows (N, S) in each bootstrap sample of them, shape (DRAWS, S).

    Of equally many rows, equal seeds draw equal ones, so that the differences of two runs are
    paired.
    """
    random, count = np.random.default_rng(seed), len(rows)
    sums = []
    block = max(_BLOCK // max(count, 1), 1)
    for begin in range(0, DRAWS, block):
        drawn = random.integers(0, count, (min(block, DRAWS - begin), count))
        often = np.stack([np.bincount(own, minlength=count) for own in drawn])
        sums.append(often @ rows)
    return np.concatenate(sums)


def interval(samples: NDArray[np.float64]) -> tuple[float, float]:
    """Return the ends of the central 95 % of bootstrap samples."""
    low, high = np.quantile(samples, TAILS).tolist()
    return low, high


def ratio_interval(
    amounts: NDArray[np.float64], sizes: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """Return the central 95 % of the bootstrap samples of sum(amounts) / sum(sizes).

    Both are of the parts of a text, shape (n,). Returns None for fewer than MIN_PARTS parts.
    """
    if len(amounts) < MIN_PARTS:
        return None, None
    random = np.random.default_rng(seed)
    samples = np.empty(draws)
    for draw in range(draws):
        chosen = random.integers(0, len(sizes), len(sizes))
        samples[draw] = amounts[chosen].sum() / sizes[chosen].sum()
    return interval(samples)


def fraction_interval(right: int, count: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a fraction of independent cases (Wilson 1927).

    A bootstrap would claim that 12 right of 12 are certainly 100 %; here the low end is 76 %.
    """
    z2, fraction = NORMAL_975**2, right / count
    middle = (fraction + z2 / (2 * count)) / (1 + z2 / count)
    spread = math.sqrt(fraction * (1 - fraction) / count + z2 / (4 * count**2))
    half = NORMAL_975 * spread / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap_interval(samples: NDArray[np.float64], count: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a figure between 0 and 1, of `count` cases.

    If all samples are 1 (or 0), so are the figures of all cases, and a bootstrap would claim that
    no case is otherwise: then the interval is Wilson's.
    """
    low, high = interval(samples)
    return (
        fraction_interval(round(low) * count, count) if low == high in (0.0, 1.0) else (low, high)
    )


def mean_interval(
    values: Sequence[float], ends: Sequence[tuple[float, float]]
) -> tuple[float, float]:
    """Return the ends of the interval of a mean of independent values, from those of each value.

    The distances to the ends add up as deviations do (Zou and Donner 2008).
    """
    middle, count = sum(values) / len(values), len(values)
    below = math.hypot(*(value - low for value, (low, _) in zip(values, ends, strict=True)))
    above = math.hypot(*(high - value for value, (_, high) in zip(values, ends, strict=True)))
    return max(0.0, middle - below / count), min(1.0, middle + above / count)


def sign_p(samples: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of a difference, from bootstrap samples of it.

    It is twice the fraction of samples on the less frequent side of zero, with the difference
    itself as one more sample.
    """
    beyond = min(int((samples <= 0).sum()), int((samples >= 0).sum()))
    return min(2 * (1 + beyond) / (1 + len(samples)), 1.0)
