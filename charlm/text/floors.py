"""Floors of labels: the most frequent one, and the best single unit of a network."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.labels import UNSEEN, Targets

Floats = NDArray[np.float64]
UNITS_AT_ONCE = 64
"""Units of a network that are compared at a time, to bound the memory."""


def majority(targets: Targets, labels: int) -> int:
    """Return the id of the most frequent label; the first one of several."""
    return int(np.bincount(targets[targets != UNSEEN], minlength=labels).argmax())


Guess = Callable[[NDArray[Any]], NDArray[np.int64]]
"""Function from features (N, U) to the labels that each unit alone gives, shape (N, U)."""


def best_unit(
    train: NDArray[Any],
    train_targets: Targets,
    valid: NDArray[Any],
    valid_targets: Targets,
    labels: int,
) -> tuple[int, float]:
    """Return the unit that tells the labels of the training texts apart best, and its accuracy.

    `train` and `valid` are features of shape (N, P). Two labels are told apart by one threshold,
    more by a normal distribution for each. The accuracy is that on the validation texts.
    """
    best, unit, accuracy = -1.0, 0, 0.0
    for begin in range(0, train.shape[1], UNITS_AT_ONCE):
        units = slice(begin, begin + UNITS_AT_ONCE)
        values = np.asarray(train[:, units], np.float64)
        guess = (
            _threshold(values, train_targets)
            if labels == 2
            else _normal(values, train_targets, labels)
        )
        right = (guess(values) == train_targets[:, np.newaxis]).mean(axis=0)
        place = int(right.argmax())
        if right[place] > best:
            found = guess(np.asarray(valid[:, units], np.float64))[:, place]
            best, unit = float(right[place]), begin + place
            accuracy = float((found == valid_targets).mean())
    return unit, accuracy


def _threshold(values: Floats, targets: Targets) -> Guess:
    """Return the rule of one threshold for each unit, with the most texts right."""
    order = np.argsort(values, axis=0)
    ordered = np.take_along_axis(values, order, axis=0)
    ones = targets[order] == 1
    texts, start = len(targets), np.zeros((1, values.shape[1]), np.int64)
    below = np.concatenate([start, np.cumsum(~ones, axis=0)])  # zeros before each cut
    above = ones.sum(axis=0) - np.concatenate([start, np.cumsum(ones, axis=0)])
    right = np.stack([below + above, texts - below - above])  # label 1 above the cut, or below it
    right[:, 1:-1][:, ordered[1:] == ordered[:-1]] = -1  # no cut between equal values
    cuts = right.argmax(axis=1)  # (2, U)
    flipped = np.argmax(right.max(axis=1), axis=0)
    edges = np.concatenate([start - np.inf, ordered, start + np.inf])
    cut = np.take_along_axis(cuts, flipped[np.newaxis], axis=0)
    threshold = sum(np.take_along_axis(edges, cut + side, axis=0) / 2 for side in (0, 1))
    return lambda features: ((features > threshold) != flipped).astype(np.int64)


def _normal(values: Floats, targets: Targets, labels: int) -> Guess:
    """Return the rule of a normal distribution for each label and unit."""
    present = [label for label in range(labels) if np.any(targets == label)]
    groups = [values[targets == label] for label in present]
    means = [group.mean(axis=0) for group in groups]
    deviations = [group.std(axis=0) + 1e-9 for group in groups]
    priors = [np.log(len(group) / len(values)) for group in groups]

    def guess(features: NDArray[Any]) -> NDArray[np.int64]:
        """Return the likeliest label of each text by each unit."""
        likely = [
            prior - np.log(deviation) - 0.5 * ((features - mean) / deviation) ** 2
            for mean, deviation, prior in zip(means, deviations, priors, strict=True)
        ]
        labels_of: NDArray[np.int64] = np.array(present)[np.argmax(likely, axis=0)]
        return labels_of

    return guess
