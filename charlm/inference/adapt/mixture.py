"""Weights of a mixture, by EM on a text from the nats of its members.

As in SRILM's compute-best-mix; EM by Dempster, Laird & Rubin 1977.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.backends.mixed import mixed_nats
from charlm.inference.adapt.calibration import TargetLogits, fit_scale
from charlm.inference.likelihood import text_nats
from charlm.ngrams.model import NgramModel
from charlm.products import product
from charlm.text.encoded import EncodedText

Nats = NDArray[np.float64]
MIN_TOKENS = 100
"""Fewest tokens of a length of context on which a weight of its own is fitted."""
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
    mixed, power = product(weights, table), 1.0
    for _ in range(MAX_STEPS):
        factors = np.log(np.maximum((table[free] / mixed).mean(axis=1), 1e-300))
        updated = weights.copy()
        updated[free] *= np.exp(power * (factors - factors.max(initial=-np.inf)))
        updated[free] = np.maximum(updated[free] / updated[free].sum(), MIN_WEIGHT)
        updated[free] *= rest / updated[free].sum()
        likely = product(updated, table)
        if power > 1.0 and np.log(likely / mixed).mean() < 0.0:
            power = 1.0
            continue
        change = float(np.abs(updated - weights).max())
        weights, mixed, power = updated, likely, 2.0 * power
        if change < TOLERANCE:
            break
    return [float(weight) for weight in weights]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """The weights of the models of a mixture, whose sum is 1.

    For a network with n-grams, `by_length` can have the weight of the n-grams for each length of
    the context that they know, from 0 to n-1; `weights` are the means then. `scale` is a factor on
    all logits of the network beyond its calibration: mixed with n-grams it needs less smoothing.
    """

    weights: tuple[float, ...]
    by_length: tuple[float, ...] = ()
    scale: float = 1.0


def fit_to_ngrams(
    scaled: Callable[[float], Backend],
    ngrams: NgramModel,
    text: EncodedText,
    sample: TargetLogits,
) -> tuple[Mixing, Nats, Nats]:
    """Return the mixture of a network with n-grams that is best on a text, and nats there.

    These are the nats of the mixture and of the n-grams alone, (N,) each.
    `scaled(factor)` is the network with all logits multiplied by a factor, which is fitted first,
    on the logits of `scaled(1.0)` for a sample of the text and with one weight. Then each length of
    context has its weight, by EM.
    """
    sample_nats = ngrams.text_nats(sample.targets)

    def nats(factor: float) -> float:
        """Return the nats of the sample under the mixture with the best weight."""
        both = [sample.nats(factor), sample_nats]
        return float(mixed_nats(both, fitted_weights(both)).sum())

    scale = fit_scale(nats)
    ngram_nats, lengths = ngrams.text_figures(text.ids)
    both = [text_nats(scaled(scale), text), ngram_nats]
    usual = fitted_weights(both)[1]
    by_length = np.full(ngrams.order, usual)
    for length in range(ngrams.order):
        chosen = lengths == length
        if chosen.sum() >= MIN_TOKENS:
            by_length[length] = fitted_weights([own[chosen] for own in both])[1]
    own = by_length[lengths]
    mean = float(own.mean())
    mixing = Mixing(weights=(1.0 - mean, mean), by_length=tuple(by_length.tolist()), scale=scale)
    return mixing, mixed_nats(both, np.stack([1.0 - own, own])), ngram_nats
