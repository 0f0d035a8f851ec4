"""Sampling rules: small functions from logits to logits, and the choice of a token, in numpy.

A rule removes tokens by setting their logits to minus infinity. It never removes all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.softmax import softmax
from charlm.config.fields import check, field_problems, setting

Logits = NDArray[np.float64]
"""Unnormalised log-probabilities, shape (n, V)."""
FEW = 20
"""Number of tokens that are found one by one sooner than by a sort of the whole vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of sampling. Raises UsageError for values outside their range.

    `temperature` divides the logits (0: always the most probable token). `top_k` keeps the k most
    probable tokens (0: all), `top_p` the smallest set with this total probability (Holtzman et al.
    2020), `min_p` the tokens with at least this fraction of the highest probability (Nguyen et al.
    2024). These rules apply to the distribution of the model, before the temperature.
    """

    temperature: float = setting(1.0, "Divisor of the logits", at_least=0.0)
    top_k: int = setting(0, "Number of tokens to keep; 0 = all", at_least=0)
    top_p: float = setting(1.0, "Total probability to keep", above=0.0, at_most=1.0)
    min_p: float = setting(0.0, "Fraction of the highest probability", at_least=0.0, at_most=1.0)

    def __post_init__(self) -> None:
        check(field_problems(self))

    @property
    def is_plain(self) -> bool:
        """True if only the temperature has an effect."""
        return self.top_k == 0 and self.top_p == 1.0 and self.min_p == 0.0


@dataclass(frozen=True, kw_only=True)
class SamplingColumns:
    """Settings of sampling of n rows, each as a column (n, 1); see `Sampling`."""

    temperature: NDArray[np.float64]
    top_k: NDArray[np.int64]
    top_p: NDArray[np.float64]
    min_p: NDArray[np.float64]
    is_plain: bool

    @classmethod
    def of(cls, rows: Sequence[Sampling]) -> "SamplingColumns":
        """Return the settings of rows that each have their own."""
        return cls(
            **{
                name: np.array([[getattr(row, name)] for row in rows])
                for name in ("temperature", *RULES)
            },
            is_plain=all(row.is_plain for row in rows),
        )


def keep_top_k(logits: Logits, k: int | NDArray[np.int64]) -> Logits:
    """Keep the k largest logits, of equal ones those with the lowest id; 0 keeps all."""
    size = logits.shape[1]
    counts = np.minimum(np.where(np.equal(k, 0), size, k), size)
    if np.all(counts == size):
        return logits
    return _keep_largest(logits, np.sort(logits, axis=1)[:, ::-1], counts)


def keep_top_p(logits: Logits, p: float | NDArray[np.float64]) -> Logits:
    """Keep the smallest set of most probable tokens whose probabilities sum to at least p."""
    if np.all(np.greater_equal(p, 1.0)):
        return logits
    ordered = np.sort(logits, axis=1)[:, ::-1]
    weights = np.exp(ordered - ordered[:, :1])
    chances = weights / np.exp(logits - ordered[:, :1]).sum(axis=1, keepdims=True)
    kept = (np.cumsum(chances, axis=1) - chances < p) | np.greater_equal(p, 1.0)
    return _keep_largest(logits, ordered, np.maximum(kept.sum(axis=1, keepdims=True), 1))


def keep_min_p(logits: Logits, p: float | NDArray[np.float64]) -> Logits:
    """Keep tokens with at least p times the highest probability."""
    if not np.any(p):
        return logits
    with np.errstate(divide="ignore"):
        floor = logits.max(axis=1, keepdims=True) + np.log(p)
    return np.where(logits >= floor, logits, -np.inf)


RULES: dict[str, Callable[[Logits, Any], Logits]] = {
    "top_k": keep_top_k,
    "top_p": keep_top_p,
    "min_p": keep_min_p,
}
"""Rules by the name of their setting, in the order of their application.

The setting is one number for all rows, or a column (n, 1)."""


def _keep_largest(logits: Logits, ordered: Logits, counts: NDArray[np.int64]) -> Logits:
    """Keep this number of the largest logits of each row, of equal ones those with the lowest id.

    `ordered` are the logits in descending order. Faster than to sort the ids.
    """
    smallest = np.take_along_axis(ordered, np.broadcast_to(counts, (len(logits), 1)) - 1, axis=1)
    above, equal = logits > smallest, logits == smallest
    room = counts - above.sum(axis=1, keepdims=True)
    return np.where(above | (equal & (np.cumsum(equal, axis=1) <= room)), logits, -np.inf)


def likeliest(values: Logits, count: int) -> NDArray[np.int64]:
    """Return the ids of the largest entries of each row (n, V), the largest first, (n, count).

    Equal ones are in the order of their ids.
    """
    if count > FEW:
        return np.argsort(-values, axis=1, kind="stable")[:, :count]
    rest, rows = np.maximum(values, np.finfo(np.float64).min), np.arange(len(values))
    ids = np.empty((len(values), count), np.int64)
    for place in range(count):
        ids[:, place] = rest.argmax(axis=1)
        rest[rows, ids[:, place]] = -np.inf
    return ids


def next_distribution(logits: Logits, sampling: Sampling | SamplingColumns) -> Logits:
    """Return the probabilities with which the next token is sampled, shape (n, V).

    At temperature 0 the most probable token has probability 1, of equal ones that with the lowest
    id.
    """
    logits = np.asarray(logits, np.float64)
    greedy = np.equal(sampling.temperature, 0.0)
    likeliest_only = np.zeros(logits.shape)
    if np.any(greedy):
        np.put_along_axis(likeliest_only, logits.argmax(axis=1)[:, None], 1.0, axis=1)
    if np.all(greedy):
        return likeliest_only
    for name, rule in RULES.items():
        logits = rule(logits, getattr(sampling, name))
    shifted = logits - logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        chances = softmax(shifted / np.where(greedy, 1.0, sampling.temperature))
    return np.where(greedy, likeliest_only, chances)


def draw(distribution: Logits, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sample one id per row: invert the cumulative distribution at uniform numbers in [0, 1)."""
    cumulative = np.cumsum(distribution, axis=1)
    ids = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(axis=1)
    return np.asarray(ids, np.int64)


def fresh_seed() -> int:
    """Return a random seed that is short enough to type."""
    import secrets

    return secrets.randbelow(2**31)
