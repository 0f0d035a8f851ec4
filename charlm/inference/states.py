"""The state of a model at a place in a text, with its prediction there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, State
from charlm.backends.softmax import log_softmax
from charlm.inference.generation import read_prompt


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """State of a model after a text, and its prediction of the next token.

    `log_probabilities` has shape (V,): ln P(token | text so far) by token id, in nats.
    """

    hidden: State
    log_probabilities: NDArray[np.float64]

    def __repr__(self) -> str:
        entropy = -float(np.dot(np.exp(self.log_probabilities), self.log_probabilities))
        return f"ModelState({len(self.log_probabilities):,} entries, entropy {entropy:.3f} nats)"


def state_after(backend: Backend, ids: Ids, state: State | None = None) -> ModelState:
    """Return the state after ids; without a state they start a document (see `read_prompt`)."""
    logits, hidden = read_prompt(backend, ids, state)
    return ModelState(hidden=hidden, log_probabilities=log_softmax(logits)[0])
