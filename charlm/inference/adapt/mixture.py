"""Weights of a mixture, by EM on a text from the nats of its members.

As in SRILM's compute-best-mix; EM by Dempster, Laird & Rubin 1977.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Nats = NDArray[np.float64]
MAX_STEPS = 200
TOLERANCE = 1e-7


def fitted_weights(
    nats: Sequence[Nats], fixed: Sequence[float | None] | None = None
) -> list[float]:
    """Return the weights that maximise the likelihood of a text, by EM from equal weights.

    `nats` has the nats of each model, shapes (N,). A model with a `fixed` weight keeps it. A step
    replaces each other weight by its mean responsibility, which never lowers the likelihood. The
    likelihood is concave in the weights, so its maximum is global.
    """
    table = -np.stack(nats)
    weights = np.array([np.nan if weight is None else weight for weight in fixed or []])
    weights = weights if len(weights) else np.full(len(table), np.nan)
    free = np.isnan(weights)
    rest = 1.0 - weights[~free].sum()
    weights[free] = rest / max(free.sum(), 1)
    for _ in range(MAX_STEPS):
        logs = np.log(np.maximum(weights, 1e-300))[:, None] + table
        likelihoods = np.exp(logs - logs.max(axis=0))
        updated = weights.copy()
        updated[free] = (likelihoods / likelihoods.sum(axis=0)).mean(axis=1)[free]
        updated[free] *= rest / updated[free].sum()
        change, weights = float(np.abs(updated - weights).max()), updated
        if change < TOLERANCE:
            break
    return [float(weight) for weight in weights]
