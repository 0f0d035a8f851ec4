"""Weights of a mixture, by EM on a text from the nats of its members.

As in SRILM's compute-best-mix; EM by Dempster, Laird & Rubin 1977.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Nats = NDArray[np.float64]
MAX_STEPS = 200
TOLERANCE = 1e-7
MIN_WEIGHT = 1e-9
"""Smallest weight, so that every model of a mixture has one between 0 and 1."""


def fitted_weights(
    nats: Sequence[Nats], fixed: Sequence[float | None] | None = None
) -> list[float]:
    """Return the weights that maximise the likelihood of a text, by EM from equal weights.

    `nats` has the nats of each model, shapes (N,). A model with a `fixed` weight keeps it. A step
    of EM multiplies each other weight by its mean responsibility per weight, which never lowers the
    likelihood. Models that are alike need thousands of such steps, so the factors are raised to a
    power that doubles while the likelihood rises, and is 1 again otherwise (Salakhutdinov & Roweis
    2003). The likelihood is concave in the weights, so its maximum is global.
    """
    table = -np.stack(nats)
    table = np.exp(table - table.max(axis=0))
    weights = np.array([np.nan if weight is None else weight for weight in fixed or []])
    weights = weights if len(weights) else np.full(len(table), np.nan)
    free = np.isnan(weights)
    rest = 1.0 - weights[~free].sum()
    weights[free] = rest / max(free.sum(), 1)
    mixed, power = weights @ table, 1.0
    for _ in range(MAX_STEPS):
        factors = np.log(np.maximum((table[free] / mixed).mean(axis=1), 1e-300))
        updated = weights.copy()
        updated[free] *= np.exp(power * (factors - factors.max(initial=-np.inf)))
        updated[free] = np.maximum(updated[free] / updated[free].sum(), MIN_WEIGHT)
        updated[free] *= rest / updated[free].sum()
        likely = updated @ table
        if power > 1.0 and np.log(likely / mixed).mean() < 0.0:
            power = 1.0
            continue
        change = float(np.abs(updated - weights).max())
        weights, mixed, power = updated, likely, 2.0 * power
        if change < TOLERANCE:
            break
    return [float(weight) for weight in weights]
