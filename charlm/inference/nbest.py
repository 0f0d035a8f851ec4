"""Weights of the features of n-best lists, tuned for the fewest errors (Och 2003, MERT).

The score of a hypothesis is the weighted sum of its features. Along one weight, the scores of the
hypotheses of an utterance are lines, and the best hypothesis changes only where the upper envelope
of these lines has a corner. The errors of all utterances are therefore a step function of the
weight, and its minimum is exact. Tuning minimises one weight after the other from several starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError
from charlm.inference.word_errors import edit_distances, split_text
from charlm.phases import advance, phase
from charlm.text.nbest import NBestLists, Utterance

STARTS = 20
"""Random starts of the tuning, beside the given weights and each feature alone."""
MAX_ROUNDS = 50
"""Maximum number of passes over the weights from one start."""
Array = NDArray[np.float64]
Ints = NDArray[np.int64]


def hypothesis_errors(utterance: Utterance, reference: str, *, chars: bool = False) -> Ints:
    """Return the number of word errors of each hypothesis, or of characters, shape (H,)."""
    texts = [split_text(each.text, chars=chars) for each in utterance.hypotheses]
    return edit_distances(split_text(reference, chars=chars), texts)


@dataclass(frozen=True)
class _Candidates:
    """Hypotheses of all utterances, padded to the longest list with copies of the first one.

    `features` has the shape (K, U, H), `errors` (U, H). Features are differences from those of the
    first hypothesis, so a copy never comes before it.
    """

    features: Array
    errors: Ints

    def scores(self, weights: Array) -> Array:
        """Return the scores (U, H), rounded as in `NBestLists.best`."""
        total = np.zeros(self.errors.shape)
        for weight, values in zip(weights.tolist(), self.features, strict=True):
            total += weight * values
        return total

    def count(self, weights: Array) -> int:
        """Return the errors of the best hypotheses."""
        chosen = self.scores(weights).argmax(1)
        return int(self.errors[np.arange(len(chosen)), chosen].sum())


def tune(
    lists: NBestLists,
    errors: Sequence[Ints],
    start: Mapping[str, float],
    *,
    seed: int = 0,
    starts: int = STARTS,
) -> dict[str, float]:
    """Return the weights of the features with the fewest errors, the greatest weight being 1.

    `errors` are those of `hypothesis_errors` for each utterance. The search begins at the weights
    `start`, at each feature alone and at `starts` random weights, which depend on `seed` only; so
    the result is never worse than the start or any single feature. Among weights with equal
    errors those with the smallest sum of magnitudes are chosen. Raises CorpusError if no weights
    can make a difference.
    """
    names = [name for name in lists.features if name in start]
    candidates = _candidates(lists, errors, names)
    if candidates is None:
        raise CorpusError(
            "all hypotheses of each utterance have equal errors; expected lists in which one is "
            "better than another. Give other lists or references"
        )
    spread = _spread(candidates)
    random = np.random.default_rng(seed).normal(size=(starts, len(names))) / spread
    begins = [np.array([start[name] for name in names]), *np.eye(len(names)), *random]
    best: tuple[int, float] | None = None
    chosen = begins[0]
    with phase("tuning weights", total=len(begins), unit="starts"):
        for begin in begins:
            weights = _shortened(candidates, _descend(candidates, begin))
            rank = candidates.count(weights), float(np.abs(weights).sum())
            if best is None or rank < best:
                best, chosen = rank, weights
            advance(1)
    return {name: float(value) for name, value in zip(names, chosen, strict=True)}


def _candidates(
    lists: NBestLists, errors: Sequence[Ints], names: Sequence[str]
) -> _Candidates | None:
    """Return the hypotheses of the utterances for which the choice matters; None without any."""
    pairs = [
        (utterance, counts)
        for utterance, counts in zip(lists, errors, strict=True)
        if counts.min() < counts.max()
    ]
    if not pairs:
        return None
    width = max(len(counts) for _, counts in pairs)
    features = np.zeros((len(names), len(pairs), width))
    padded = np.empty((len(pairs), width), np.int64)
    for row, (utterance, counts) in enumerate(pairs):
        values = np.array([each.values(names) for each in utterance.hypotheses])
        features[:, row, : len(counts)] = (values - values[0]).T
        padded[row] = counts[0]
        padded[row, : len(counts)] = counts
    return _Candidates(features, padded)


def _spread(candidates: _Candidates) -> Array:
    """Return the standard deviation of each feature within the lists, 1 for a constant one."""
    spread = np.sqrt(candidates.features.var(axis=2).mean(1))
    return np.asarray(np.where(spread > 0.0, spread, 1.0))


def _descend(candidates: _Candidates, begin: Array) -> Array:
    """Return weights that no change of a single one improves."""
    weights, errors = begin.copy(), candidates.count(begin)
    for _ in range(MAX_ROUNDS):
        before = errors
        for place in range(len(weights)):
            trial = weights.copy()
            trial[place] = _line_search(candidates, weights, place)
            count = candidates.count(trial)
            smaller = abs(trial[place]) < abs(weights[place])
            if np.any(trial) and (count < errors or (count == errors and smaller)):
                weights, errors = trial, count
        if errors == before:
            break
    return weights


def _shortened(candidates: _Candidates, weights: Array) -> Array:
    """Return weights with a maximum of 1, of as few digits as leave the errors as they are."""
    scaled: Array = weights / np.abs(weights).max()
    for digits in range(1, 8):
        short = np.array([float(f"{value:.{digits}g}") for value in scaled])
        if candidates.count(short) <= candidates.count(scaled):
            return short
    return scaled


def _line_search(candidates: _Candidates, weights: Array, place: int) -> float:
    """Return the value of one weight with the fewest errors, the others being as they are.

    Of several intervals with the fewest errors the nearest to zero is chosen, and in it a value
    between its end nearest to zero and its centre.
    """
    slopes = candidates.features[place]
    without = weights.copy()
    without[place] = 0.0
    heights = candidates.scores(without)
    corners, changes, first = _envelopes(slopes, heights, candidates.errors)
    order = np.argsort(corners, kind="stable")
    corners, counts = corners[order], first + np.cumsum(changes[order])
    is_last = np.append(corners[1:] > corners[:-1], True)[: len(corners)]  # of equal corners
    lows = np.concatenate([[-np.inf], corners[is_last]])
    highs = np.concatenate([corners[is_last], [np.inf]])
    totals = np.concatenate([[first], counts[is_last]])
    joined = np.flatnonzero(np.append(True, totals[1:] != totals[:-1]))  # intervals of equal errors
    lows, totals = lows[joined], totals[joined]
    highs = np.append(lows[1:], highs[-1])
    values = [
        _value(low, high)
        for low, high in zip(
            lows[totals == totals.min()], highs[totals == totals.min()], strict=True
        )
    ]
    return min(values, key=abs)


def _value(low: float, high: float) -> float:
    """Return a value inside an interval: 0, or one near its end nearest to zero."""
    if low < 0.0 < high:
        return 0.0
    near, far = (low, high) if low >= 0.0 else (high, low)
    step = abs(far - near) / 2.0
    limit = abs(near) / 2.0 if near else 1.0
    return float(near + np.copysign(min(step, limit), far - near))


def _envelopes(slopes: Array, heights: Array, errors: Ints) -> tuple[Array, Ints, int]:
    """Return the corners of the upper envelopes of the lines of all utterances.

    Lines have slopes and heights at 0, shape (U, H). Returns the places of all corners, shape (N,),
    the change of the errors at each, and the sum of the errors left of all corners. The envelopes
    are followed from left to right side by side: the next corner of a line is its nearest crossing
    with a steeper one.
    """
    flattest = slopes == slopes.min(1, keepdims=True)
    current = np.where(flattest, heights, -np.inf).argmax(1)
    rows = np.arange(len(slopes))
    first = int(errors[rows, current].sum())
    corners, changes = [np.empty(0)], [np.empty(0, np.int64)]
    while len(rows):
        slope, height = slopes[rows, current], heights[rows, current]
        steeper = slopes[rows] > slope[:, None]
        active = steeper.any(1)
        rows, current, steeper = rows[active], current[active], steeper[active]
        slope, height = slope[active], height[active]
        rise = np.where(steeper, slopes[rows] - slope[:, None], 1.0)
        places = np.where(steeper, (height[:, None] - heights[rows]) / rise, np.inf)
        nearest = places.min(1)
        ties = places == nearest[:, None]
        following = np.where(ties, slopes[rows], -np.inf).argmax(1)
        corners.append(nearest)
        changes.append(errors[rows, following] - errors[rows, current])
        current = following
    return np.concatenate(corners), np.concatenate(changes), first
