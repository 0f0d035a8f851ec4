"""Calibration: one factor on all logits, fitted on held-out text (Guo et al. 2017).

A model that has read a small text many times is overconfident on new text. A factor on its logits
corrects this without changing any ranking, and one number fitted on thousands of tokens cannot
overfit.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, State
from charlm.inference.likelihood import read_documents, rows_of
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS

TOLERANCE = 0.01
FIRST_STEP = math.log(1.15)
WIDEST = math.log(4.0)
"""The factor is between 1/4 and 4."""
MAX_TOKENS = 40_000
"""Approximate limit of the tokens on which the factor is fitted."""
MIN_TOKENS = 4_000
MAX_PRODUCTS = 4e11
"""Approximate limit of the multiplications of one reading of them: some seconds."""
MAX_LOGITS = 1 << 26
"""Approximate limit of the logits that are kept of them: 268 MB."""
CACHED = 1 << 16
"""Number of logits that are multiplied by a factor at a time."""
FEWEST_TOKENS = 1_000
"""Tokens that are kept in any case, however large the vocabulary is."""
MIN_PIECE = 1_000
"""Fewest tokens of the pieces in which a stream is read side by side. Each begins without the text
before it, which matters to its first 50 to 150 tokens."""


def fit_scale(nats: Callable[[float], float]) -> float:
    """Return the factor s > 0 with the least nats(s), to a relative error of about 1 %.

    nats(s) is convex: steps in ln s go downhill from s = 1 until they bracket the minimum, then
    parabolas through the three best points approach it (successive parabolic interpolation).
    """
    points = {0.0: nats(1.0)}

    def at(x: float) -> float:
        """Return the nats at ln s = x, computed once."""
        if x not in points:
            points[x] = nats(math.exp(x))
        return points[x]

    step = FIRST_STEP if at(FIRST_STEP) < at(-FIRST_STEP) else -FIRST_STEP
    x = 0.0
    while abs(x + step) <= WIDEST and at(x + step) < at(x):
        x += step
    left, right = x - abs(step), x + abs(step)
    for _ in range(3):
        vertex = _vertex([(left, at(left)), (x, at(x)), (right, at(right))])
        if abs(vertex - x) < TOLERANCE or not left < vertex < right:
            break
        left, right = (left, x) if vertex < x else (x, right)
        x = vertex
    best = min((x for x in points if abs(x) <= WIDEST), key=lambda x: points[x])
    return math.exp(best)


def _vertex(points: list[tuple[float, float]]) -> float:
    """Return the minimum of the parabola through three points, or the middle if it has none."""
    (a, fa), (b, fb), (c, fc) = points
    top = (b - a) ** 2 * (fb - fc) - (b - c) ** 2 * (fb - fa)
    bottom = (b - a) * (fb - fc) - (b - c) * (fb - fa)
    return b if bottom == 0.0 else b - 0.5 * top / bottom


def fitting_tokens(weights: int) -> int:
    """Return the limit of the tokens to fit on, for the weights multiplied for each token."""
    return int(min(max(MAX_PRODUCTS / weights, MIN_TOKENS), MAX_TOKENS))


@dataclass(frozen=True)
class TargetLogits:
    """Logits in parts, (N, V) each, and the targets of each part, (N,), such as tokens or labels.

    A factor on logits changes no state of a network, so one reading of a text serves all factors.
    All logits are multiplied by `scale`.
    """

    parts: Sequence[tuple[NDArray[np.floating], NDArray[np.integer]]]
    scale: float = 1.0

    @property
    def targets(self) -> NDArray[np.integer]:
        """The targets of all parts, (N,)."""
        return np.concatenate([targets for _, targets in self.parts])

    def nats(self, factor: float) -> Nats:
        """Return the nats of each target, with all logits multiplied by a factor."""
        factor *= self.scale
        return np.concatenate([_nats(logits, ids, factor) for logits, ids in self.parts])

    def best_factor(self) -> float:
        """Return the factor with the least nats, see `fit_scale`."""
        return fit_scale(lambda factor: float(self.nats(factor).sum()))


def text_logits(backend: Backend, text: EncodedText) -> TargetLogits:
    """Read a text and keep its logits. A stream is read in pieces, each from the first state."""

    def read(inputs: Ids, targets: Ids, state: State) -> tuple[Nats, NDArray[Any], State]:
        """Return the logits as the other figure, as a `Read` function does."""
        logits, after = backend.distribution(inputs, state)
        return np.zeros(targets.shape), np.asarray(logits, np.float32), after

    ids, rows = np.asarray(text.ids), rows_of(backend)
    if text.is_stream:
        pieces = np.array_split(ids, max(1, min(rows, len(ids) // MIN_PIECE)))
        firsts = [EOS, *(int(piece[-1]) for piece in pieces[:-1])]
    else:
        pieces = np.split(ids, text.ends[:-1])
        firsts = [EOS] * len(pieces) if text.firsts is None else text.firsts.tolist()
    found = read_documents(backend, pieces, read, rows, firsts)
    logits = [own.reshape(-1, backend.vocab_size) for _, own in found]
    return TargetLogits(list(zip(logits, pieces, strict=True)))


def _nats(logits: NDArray[np.floating], targets: NDArray[np.integer], factor: float) -> Nats:
    """Return the nats of targets (N,) by logits (N, V) times a factor.

    Those of a text are in float32, with half the time; their sums are in float64. Few rows are
    computed at a time, in memory that stays in the cache of the processor.
    """
    rows, nats = max(1, CACHED // logits.shape[-1]), np.empty(len(logits))
    memory = np.empty((min(rows, len(logits)), logits.shape[-1]), logits.dtype)
    columns = targets[:, None].astype(np.int64)
    for first in range(0, len(logits), rows):
        here = slice(first, first + rows)
        scaled = np.multiply(logits[here], factor, out=memory[: len(logits[here])])
        scaled -= scaled.max(axis=-1, keepdims=True)
        own = np.take_along_axis(scaled, columns[here], axis=-1)[:, 0]
        np.exp(scaled, out=scaled)
        nats[here] = np.log(scaled.sum(axis=-1, dtype=np.float64)) - own
    return nats


def sample_to_fit(text: EncodedText, vocab_size: int, most: int = MAX_TOKENS) -> EncodedText:
    """Return a sample of at most about `most` tokens, whose logits fit in memory."""
    return sample_of(text, min(most, max(MAX_LOGITS // vocab_size, FEWEST_TOKENS)))


def sample_of(text: EncodedText, most: int = MAX_TOKENS, pieces: int = 1) -> EncodedText:
    """Return about `most` tokens: documents spread over the text, or a part of a stream.

    Of a stream, the part is its beginning, or several `pieces` of about equal length, spread over
    it and read as one stream. The size in characters and words is in proportion to the text.
    """
    if len(text.ids) <= most:
        return text
    if text.is_stream:
        lengths = np.diff(np.linspace(0, most, min(pieces, most) + 1).astype(int))
        begins = np.linspace(0, len(text.ids) - lengths.max(), len(lengths)).astype(int)
        spans = zip(begins, begins + lengths, strict=True)
        ids = np.concatenate([text.ids[begin:end] for begin, end in spans])
        counts = text.counts.part(len(ids) / len(text.ids))
        return replace(EncodedText.stream(ids), counts=counts)
    documents = len(text.ends)
    count = max(1, round(documents * most / len(text.ids)))
    longest = max(1, min(2 * most // count, most))  # longer documents are cut
    rows = np.linspace(0, documents - 1, count).astype(int)
    chosen = []
    for number in rows:
        begin = int(text.ends[number - 1]) if number else 0
        chosen.append(np.asarray(text.ids[begin : min(int(text.ends[number]), begin + longest)]))
    ids = np.concatenate(chosen)
    return EncodedText(
        ids=ids,
        ends=np.cumsum([len(piece) for piece in chosen], dtype=np.int64),
        counts=text.counts.part(len(ids) / len(text.ids)),
        is_stream=False,
        firsts=None if text.firsts is None else text.firsts[rows],
    )
