"""Posteriors: which condition a text has, by Bayes' rule."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from charlm.backends.softmax import log_softmax


@dataclass(frozen=True, kw_only=True)
class Posteriors:
    """Probabilities of N texts under K conditions, and of the conditions given the texts."""

    labels: tuple[str, ...]
    log_p: NDArray[np.float64]
    """ln P(text | condition) in nats, shape (N, K)."""
    probabilities: NDArray[np.float64]
    """P(condition | text), shape (N, K); rows sum to 1."""

    @classmethod
    def of(
        cls, labels: Sequence[str], log_p: NDArray[np.float64], documents: ArrayLike
    ) -> "Posteriors":
        """Return the posteriors if each condition has this number of training documents, not 0.

        P(condition | text) is proportional to P(text | condition) P(condition), whose second factor
        is the fraction of the documents: a generative classifier.
        """
        priors = np.asarray(documents, np.float64)
        logs = log_p + np.log(priors / priors.sum())
        return cls(labels=tuple(labels), log_p=log_p, probabilities=np.exp(log_softmax(logs)))
