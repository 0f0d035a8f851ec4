"""The answers of a tagger: likeliest tags, their probabilities and likelihoods; no torch.

Letters: W words, B sentences side by side, N sentences, K tags. With a linear-chain CRF (see
`nn.crf`) the tags of a sentence are chosen together, else each for itself.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Array
from charlm.backends.softmax import log_softmax, log_sum_exp
from charlm.backends.tagger_weights import ILLEGAL
from charlm.inference.adapt.calibration import fit_scale
from charlm.text.groups import groups_by_length
from charlm.text.labels import UNSEEN, Targets

TOGETHER = 256
"""Sentences that are computed side by side."""
Amounts = NDArray[np.float64]
Int64 = NDArray[np.int64]


class Transitions(NamedTuple):
    """Scores of steps from tag to tag (K, K), and of the first and the last tag (K,)."""

    between: Amounts
    first: Amounts
    last: Amounts

    @classmethod
    def of(
        cls, between: Array, first: Array, last: Array, legal: NDArray[np.bool_]
    ) -> "Transitions":
        """Return scores with ILLEGAL at steps (K + 1, K) that are not legal; row K is the start."""
        return cls(
            np.where(legal[:-1], between.astype(np.float64), ILLEGAL),
            np.where(legal[-1], first.astype(np.float64), ILLEGAL),
            last.astype(np.float64),
        )

    def scaled(self, factor: float) -> "Transitions":
        """Return all scores multiplied by a factor."""
        return Transitions(self.between * factor, self.first * factor, self.last * factor)


class Answers(NamedTuple):
    """Answers of a tagger to words: the tags (W,), and the log-probability of every tag (W, K).

    `nats` (N,) are those of the gold tags of each sentence together, zero without them.
    """

    tags: Targets
    log_probabilities: Amounts
    nats: Amounts


def answers(
    emissions: Amounts,
    ends: Int64,
    steps: Transitions | None,
    scale: float = 1.0,
    targets: Targets | None = None,
) -> Answers:
    """Return the answers to sentences for the emissions (W, K) of all their words.

    `ends` (N,) counts words up to the end of each sentence; `steps` are those of a CRF. `scale`
    multiplies emissions and steps. Gold tags that are UNSEEN may be any: they cost nothing.
    """
    logs = emissions * scale
    if steps is None:
        logs = log_softmax(logs)
        return Answers(
            logs.argmax(axis=1).astype(np.int32), logs, _softmax_nats(logs, ends, targets)
        )
    steps = steps.scaled(scale)
    tags, result = np.empty(len(logs), np.int32), np.empty(logs.shape)
    nats = np.zeros(len(ends))
    for rows, places, inside in _groups(ends):
        scores, counts = logs[places], inside.sum(axis=0)  # (W, B, K)
        tags[places[inside]] = viterbi(scores, counts, steps)[inside]
        result[places[inside]] = log_marginals(scores, counts, steps)[inside]
        if targets is not None:
            gold = path_scores(scores, targets[places], counts, steps)
            nats[rows] = log_partition(scores, counts, steps) - gold
    return Answers(tags, result, nats)


def tag_nats(
    emissions: Amounts, targets: Targets, ends: Int64, steps: Transitions | None, scale: float = 1.0
) -> Amounts:
    """Return the nats (N,) of the gold tags (W,) of each sentence, as in `answers`."""
    logs = emissions * scale
    if steps is None:
        return _softmax_nats(log_softmax(logs), ends, targets)
    steps, nats = steps.scaled(scale), np.zeros(len(ends))
    for rows, places, inside in _groups(ends):
        scores, counts = logs[places], inside.sum(axis=0)
        gold = path_scores(scores, targets[places], counts, steps)
        nats[rows] = log_partition(scores, counts, steps) - gold
    return nats


def fit_tag_scale(
    emissions: Amounts, targets: Targets, ends: Int64, steps: Transitions | None
) -> float:
    """Return the factor on all scores with the least nats; 1 without a known tag."""
    if not (targets != UNSEEN).any():
        return 1.0
    return fit_scale(lambda scale: float(tag_nats(emissions, targets, ends, steps, scale).sum()))


def _softmax_nats(logs: Amounts, ends: Int64, targets: Targets | None) -> Amounts:
    """Return the nats (N,) of the known gold tags of each sentence."""
    if targets is None:
        return np.zeros(len(ends))
    own = np.where(targets != UNSEEN, -logs[np.arange(len(logs)), np.maximum(targets, 0)], 0.0)
    return np.diff(np.concatenate([[0.0], np.cumsum(own)])[ends], prepend=0.0)


def _groups(ends: Int64) -> Iterator[tuple[Int64, Int64, NDArray[np.bool_]]]:
    """Yield sentences of like length: their rows (B,), the place of each word, and which are there.

    Places and the mask have shape (W, B); places behind the end of a sentence hold its last word.
    """
    counts = np.diff(ends, prepend=0)
    rows = np.flatnonzero(counts)
    for chosen in groups_by_length(counts[rows], TOGETHER):
        group = rows[chosen]
        own = counts[group]
        words = np.arange(own.max())[:, np.newaxis]
        places = (ends[group] - own) + np.minimum(words, own - 1)
        yield group, places, words < own


# ------------------------------------------------------------------ the CRF itself


def log_partition(emissions: Amounts, counts: Int64, steps: Transitions) -> Amounts:
    """Return the logarithm (B,) of the sum of exp(score) over all paths of each sentence.

    `emissions` has shape (W, B, K). Words from `counts` (B,) on are padding, here and below; every
    sentence has a word.
    """
    return log_sum_exp(_alphas(emissions, counts, steps)[-1] + steps.last, axis=1)


def path_scores(
    emissions: Amounts, tags: NDArray[Any], counts: Int64, steps: Transitions
) -> Amounts:
    """Return the score (B,) of the path of tags (W, B), summed as in `log_partition` over those
    that UNSEEN words may have.
    """
    free = (tags[..., np.newaxis] == UNSEEN) | (
        tags[..., np.newaxis] == np.arange(emissions.shape[2])
    )
    return log_partition(np.where(free, emissions, -np.inf), counts, steps)


def log_marginals(emissions: Amounts, counts: Int64, steps: Transitions) -> Amounts:
    """Return the log-probability (W, B, K) of each tag of each word."""
    alphas = _alphas(emissions, counts, steps)
    beta = np.broadcast_to(steps.last, alphas.shape[1:])
    logs = np.empty_like(alphas)
    for word in reversed(range(len(emissions))):
        if word + 1 < len(emissions):
            ways = steps.between + (emissions[word + 1] + beta)[:, np.newaxis]  # (B, from, to)
            before = log_sum_exp(ways, axis=2)
            beta = np.where((counts > word + 1)[:, np.newaxis], before, beta)
        logs[word] = alphas[word] + beta
    return np.asarray(logs - log_sum_exp(logs, axis=2)[..., np.newaxis])


def viterbi(emissions: Amounts, counts: Int64, steps: Transitions) -> Targets:
    """Return the tags (W, B) of the path with the greatest score; those of padding are 0."""
    words, sentences, _ = emissions.shape
    pointers = np.empty(emissions.shape, np.int32)
    best = steps.first + emissions[0]
    for word in range(1, words):
        ways = best[:, :, np.newaxis] + steps.between  # (B, from, to)
        pointers[word] = ways.argmax(axis=1)
        best = np.where((counts > word)[:, np.newaxis], ways.max(axis=1) + emissions[word], best)
    tags, columns = np.zeros((words, sentences), np.int32), np.arange(sentences)
    now = (best + steps.last).argmax(axis=1)
    for word in reversed(range(words)):
        inside = counts > word
        tags[word] = np.where(inside, now, 0)
        now = np.where(inside & (word > 0), pointers[word, columns, now], now)
    return tags


def _alphas(emissions: Amounts, counts: Int64, steps: Transitions) -> Amounts:
    """Return the log-sum (W, B, K) over all paths up to each word with each tag there."""
    alphas = np.empty(emissions.shape)
    alphas[0] = steps.first + emissions[0]
    for word in range(1, len(emissions)):
        after = log_sum_exp(alphas[word - 1][:, :, np.newaxis] + steps.between, axis=1)
        inside = (counts > word)[:, np.newaxis]
        alphas[word] = np.where(inside, after + emissions[word], alphas[word - 1])
    return alphas
