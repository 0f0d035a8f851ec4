"""Mixture of several models: linear interpolation of their probabilities, with weights by EM.

Jelinek & Mercer 1980, as in SRILM's compute-best-mix; EM by Dempster, Laird & Rubin 1977.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Nats = NDArray[np.float64]
MAX_STEPS = 200
TOLERANCE = 1e-7


def mixed_nats(nats: Sequence[Nats], weights: Sequence[float]) -> Nats:
    """Return -ln sum_k w_k P_k(token) of each token from the nats of each model, shapes (N,)."""
    table = np.stack(nats)
    logs = np.log(np.maximum(np.asarray(weights, np.float64), 1e-300))[:, None] - table
    top = logs.max(axis=0)
    return np.asarray(-(top + np.log(np.exp(logs - top).sum(axis=0))))


def fitted_weights(nats: Sequence[Nats]) -> list[float]:
    """Return the weights that maximise the likelihood of a text, by EM from equal weights.

    A step replaces each weight by its mean responsibility, which never lowers the likelihood. The
    likelihood is concave in the weights, so its maximum is global.
    """
    table = -np.stack(nats)
    weights = np.full(len(table), 1.0 / len(table))
    for _ in range(MAX_STEPS):
        logs = np.log(np.maximum(weights, 1e-300))[:, None] + table
        likelihoods = np.exp(logs - logs.max(axis=0))
        updated = (likelihoods / likelihoods.sum(axis=0)).mean(axis=1)
        change, weights = float(np.abs(updated - weights).max()), updated
        if change < TOLERANCE:
            break
    return [float(weight) for weight in weights]
