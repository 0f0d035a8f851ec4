"""Several models as one: linear interpolation of their probabilities, weights by EM.

Jelinek & Mercer 1980; as SRILM's compute-best-mix. Dempster, Laird & Rubin 1977 for the steps.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Nats = NDArray[np.float64]
MAX_STEPS = 200
TOLERANCE = 1e-7


def mixed_nats(nats: Sequence[Nats], weights: Sequence[float]) -> Nats:
    """-ln sum_k w_k P_k(token) of each token, from each model's nats of it, all of shape (N,)."""
    table = np.stack(nats)
    logs = np.log(np.maximum(np.asarray(weights, np.float64), 1e-300))[:, None] - table
    top = logs.max(axis=0)
    return np.asarray(-(top + np.log(np.exp(logs - top).sum(axis=0))))


def fitted_weights(nats: Sequence[Nats]) -> list[float]:
    """The weights under which a text is likeliest: from equal ones, each is set to its mean share.

    Every step makes the text likelier; there is one maximum, the likelihood being concave in them.
    """
    table = -np.stack(nats)
    weights = np.full(len(table), 1.0 / len(table))
    for _ in range(MAX_STEPS):
        logs = np.log(np.maximum(weights, 1e-300))[:, None] + table
        shares = np.exp(logs - logs.max(axis=0))
        after = (shares / shares.sum(axis=0)).mean(axis=1)
        moved, weights = float(np.abs(after - weights).max()), after
        if moved < TOLERANCE:
            break
    return [float(weight) for weight in weights]
