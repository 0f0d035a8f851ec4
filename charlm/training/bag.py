"""The bag of words that is mixed into the answers of a network that gives labels."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.backends.softmax import log_softmax
from charlm.phases import advance, phase
from charlm.products import product
from charlm.text.bag_of_words import BagOfWords, Floats
from charlm.text.encoded import EncodedText
from charlm.text.labels import Targets

PENALTY = 0.1
"""Penalty on the squares of weights, in nats, if the features of a text have the mean length 1.

It is that of scikit-learn's LogisticRegression(C=10).
"""
EVALUATIONS, HISTORY = 50, 5
"""Maximum of evaluations of the loss, and steps that L-BFGS remembers."""
TOLERANCE = 1e-6
"""Change of the nats per text below which the fit ends."""
MAX_ENTRIES = 20_000_000
"""Maximum of the features of all texts, times labels: about 15 seconds of work."""


def logistic_regression(bag: BagOfWords, text: EncodedText, targets: Targets) -> BagOfWords:
    """Fit multinomial logistic regression to labelled texts, with the features of a bag.

    A feature is multiplied by its inverse document frequency, so weights of rare features are
    penalised less. Of very many texts, every n-th is used. The loss is minimised by L-BFGS.
    """
    rows, places = bag.places(text)
    every = max(-(-len(rows) * len(bag.priors) // MAX_ENTRIES), 1)
    used = rows % every == 0
    rows, places, targets = rows[used] // every, places[used], targets[::every]
    texts, features, labels = len(targets), len(bag.features), len(bag.priors)
    frequency = np.bincount(places, minlength=features)
    rarity = np.log((1 + texts) / (1 + frequency)) + 1.0
    penalty = PENALTY * float(product(frequency, rarity**2)) / texts**2
    gold = np.eye(labels)[targets]

    def loss(values: Floats) -> tuple[float, Floats]:
        """Return the nats per text with the penalty, and the gradient.

        The values of a feature, shape (features + 1, K), sum to 0, as does their gradient. The last
        row has the priors.
        """
        weights = values[:-1] * rarity[:, np.newaxis]
        logs = log_softmax(_sums(rows, places, weights, texts) + values[-1])
        error = (np.exp(logs) - gold) / texts
        slope = _sums(places, rows, error, features) * rarity[:, np.newaxis]
        gradient = np.vstack([slope + penalty * values[:-1], error.sum(axis=0)])
        nats = -float(logs[np.arange(texts), targets].mean())
        return nats + penalty / 2 * float((values[:-1] ** 2).sum()), gradient

    values = _minimised(loss, np.zeros((features + 1, labels)))
    return BagOfWords(
        features=bag.features,
        weights=values[:-1] * rarity[:, np.newaxis],
        priors=values[-1],
        vocab_size=bag.vocab_size,
    )


def _sums(groups: NDArray[np.int64], places: NDArray[np.int64], table: Floats, size: int) -> Floats:
    """Return the sum of the rows of a table at places, by group; rows of the table sum to 0."""
    sums = [np.bincount(groups, column[places], size) for column in table.T[:-1]]
    return np.stack([*sums, -np.sum(sums, axis=0)], axis=1)


def _minimised(loss: Callable[[Floats], tuple[float, Floats]], start: Floats) -> Floats:
    """Return the values with the least loss, by L-BFGS from a start."""
    values = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [values], max_iter=EVALUATIONS, max_eval=EVALUATIONS, history_size=HISTORY,
        tolerance_change=TOLERANCE, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def evaluate() -> float:
        """Return the loss, with its gradient beside the values."""
        found, gradient = loss(values.detach().numpy())
        values.grad = torch.from_numpy(gradient)
        advance()
        return found

    with phase("fitting a bag of words", total=EVALUATIONS):
        optimizer.step(evaluate)  # type: ignore[no-untyped-call]
    return values.detach().numpy()
