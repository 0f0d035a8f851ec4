"""The softmax and its logarithms in numpy, in float64."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]


def log_sum_exp(values: NDArray[np.floating], axis: int = -1) -> Float64:
    """Return ln of the sum of exp(values) along an axis, -inf if it is empty or all are -inf."""
    least = np.finfo(values.dtype).min
    top = values.max(axis=axis, keepdims=True, initial=least).astype(np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis))


def softmax(logits: ArrayLike) -> Float64:
    """Return the probabilities of logits (..., K), which sum to one."""
    values = np.asarray(logits, np.float64)
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def log_softmax(logits: ArrayLike) -> Float64:
    """Return ln P of logits (..., K), in nats."""
    values = np.asarray(logits, np.float64)
    values = values - values.max(axis=-1, keepdims=True)
    return np.asarray(values - log_sum_exp(values)[..., np.newaxis])
