"""Entropy: how uncertain a model was before each token, whatever the token then was.

    H_t = -sum_v P(v | tokens before t) ln P(v | tokens before t)

Hale 2006 (doi.org/10.1207/s15516709cog0000_64) and van Schijndel & Linzen 2019
(arxiv.org/abs/1810.11481) relate the reading times of people to it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, State
from charlm.inference.likelihood import Read

MAX_LOGITS = 1 << 22
"""Maximum number of log-probabilities in memory."""


def with_entropy(backend: Backend, read: Read) -> Read:
    """Return a function that reads as `read` does; the entropy is a second figure of each token."""

    def read_both(inputs: Ids, targets: Ids, state: State) -> tuple[Nats, NDArray[Any], State]:
        """Return nats (T, B), the figure of `read` and the entropy (T, B, 2), and the state."""
        nats, figures, after = read(inputs, targets, state)
        return nats, np.stack([figures, entropies(backend, inputs, state)], axis=-1), after

    return read_both


def entropies(backend: Backend, inputs: Ids, state: State) -> Nats:
    """Return the entropy (T, B), in nats, of the prediction after each input (T, B)."""
    values = np.empty(inputs.shape)
    step = max(1, MAX_LOGITS // (inputs.shape[1] * backend.logits_each))
    for begin in range(0, len(inputs), step):
        span = slice(begin, begin + step)
        logits, state = backend.distribution(inputs[span], state)
        values[span] = _entropy(backend.log_probabilities(logits))
    return values


def _entropy(log_p: Nats) -> Nats:
    """Return -sum P ln P of ln P (..., V); an entry of probability 0 adds nothing."""
    terms = np.exp(log_p)
    terms *= np.where(terms > 0.0, log_p, 0.0)
    return np.asarray(np.maximum(-terms.sum(axis=-1), 0.0))
