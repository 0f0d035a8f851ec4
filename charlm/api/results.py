"""Results of the API: the state of a model in a text, next tokens, the history of a training."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import State
from charlm.inference.generation import NextToken
from charlm.listing import Listing


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


class NextTokens(Listing[NextToken]):
    """Possible next tokens, the likeliest first."""


class History(Listing[dict[str, Any]]):
    """Records of a run's training, as in its `metrics.jsonl`, the oldest first."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the records without the values that are themselves tables."""
        return [
            {name: value for name, value in record.items() if not isinstance(value, dict | list)}
            for record in self
        ]

    def __repr__(self) -> str:
        return f"History({len(self):,} records)"
