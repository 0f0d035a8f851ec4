"""Beam search: the likeliest outputs of a decoder that looks at a source text.

Letters: B texts, K beams of each, T steps of the source, D its memory, V' entries of the output.
Scores of finished outputs are divided by a power of their length, as in Wu et al. 2016
(arxiv.org/abs/1609.08144), with 0 + |Y| in place of 5 + |Y|.
"""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Array, Nats, State, select_rows
from charlm.phases import advance, phase
from charlm.text.batches import Int64
from charlm.text.encoded import EncodedText
from charlm.text.groups import groups_by_length, text_lengths
from charlm.text.tokenizers.tokenizer_json import EOS

BEAM, MAX_BEAM = 5, 50
"""Usual and maximum width of the beam."""
TOGETHER = 128
"""Number of beams that are computed side by side."""
Memory = tuple[Array, Int64, State]
"""What is read of sources: vectors (B, T, D), padded; steps (B,); the first state of the output."""


class Steps(Protocol):
    """Computation of a translator, step by step: `ArraySteps`, or `nn`'s `TorchSteps`."""

    @property
    def name(self) -> str:
        """Name for people: `native avx512`, `numpy`, `torch cpu`."""

    def begin(self, text: EncodedText, rows: Int64) -> Memory:
        """Read the sources with these row numbers (B,)."""

    def step(self, ids: Int64, state: State, vectors: Array, steps: Int64) -> tuple[
        Array, Array, State
    ]:  # fmt: skip
        """Read the last token of each beam (B, K), with states of B K rows.

        Returns ln P (B, K, V') of the next token, the attention (B, K, T), and the states.
        """


class Found(NamedTuple):
    """Ids of an output with EOS, unless it was cut: ln P of each (T',), and attention (T', T)."""

    ids: Int64
    log_p: Nats
    weights: Array


def search_texts(steps: Steps, text: EncodedText, beam: int = BEAM) -> list[Found]:
    """Return the output for each document of an encoded text.

    It does not depend on the other documents, but for rounding.
    """
    lengths = text_lengths(text)
    found: dict[int, Found] = {}
    with phase("translating", total=len(lengths)):
        for rows in groups_by_length(lengths, max(TOGETHER // beam, 1)):
            outputs = beam_search(steps, steps.begin(text, rows), beam, max_tokens(lengths[rows]))
            found |= zip(rows.tolist(), outputs, strict=True)
            advance(len(rows))
    return [
        found[row]._replace(weights=found[row].weights[:, :steps_of])
        for row, steps_of in enumerate(lengths.tolist())
    ]


def max_tokens(lengths: Int64) -> Int64:
    """Return the maximum length of outputs, for sources of these steps."""
    return np.asarray(3 * lengths + 50)


def beam_search(
    steps: Steps, memory: Memory, beam: int, limits: Int64, norm: float = 1.0
) -> list[Found]:
    """Return the best output for each source, of at most `limits` (B,) tokens.

    The beam keeps the likeliest beginnings of equal length. Outputs end with EOS; the best has the
    greatest ln P / length^norm. A text is done if as many have ended as the beam is wide, or if no
    beginning can become better. With a beam of 1 the likeliest token is taken each time.
    """
    beams = _Beams(memory, beam, limits, norm)
    while len(beams.texts):
        beams.advance(*steps.step(beams.last(), beams.state, beams.vectors, beams.steps))
    return [beams.best[text] for text in range(len(limits))]


class _Beams:
    """Beginnings of the outputs of the texts that are not done; the best ended one of each."""

    def __init__(self, memory: Memory, beam: int, limits: Int64, norm: float) -> None:
        self.vectors, self.steps, first = memory
        texts = len(limits)
        self.texts, self.limits, self.norm = np.arange(texts), limits, norm
        self.state = select_rows(first, np.repeat(self.texts, beam))
        self.scores = np.full((texts, beam), -np.inf)
        self.scores[:, 0] = 0.0  # of equal beginnings one is enough
        self.ids = np.empty((texts, beam, 0), np.int64)
        self.log_p = np.empty((texts, beam, 0))
        self.weights = np.empty((texts, beam, 0, self.vectors.shape[1]), np.float32)
        self.ended = np.zeros(texts, np.int64)
        self.best: dict[int, Found] = {}
        self.best_scores = np.full(texts, -np.inf)

    def last(self) -> Int64:
        """Return the last token of each beginning (B, K); EOS at the start."""
        if self.ids.shape[-1]:
            return np.asarray(self.ids[..., -1])
        return np.full(self.scores.shape, EOS, np.int64)

    def advance(self, log_p: Array, weights: Array, state: State) -> None:
        """Append the next token to beginnings, keep the likeliest, and drop texts that are done."""
        texts, beam = self.scores.shape
        parents, ids, own = _likeliest(self.scores, log_p)
        rows = np.arange(texts)[:, np.newaxis]
        self.ids = np.concatenate([self.ids[rows, parents], ids[..., np.newaxis]], axis=2)
        self.log_p = np.concatenate([self.log_p[rows, parents], own[..., np.newaxis]], axis=2)
        seen = weights[rows, parents][:, :, np.newaxis]
        self.weights = np.concatenate([self.weights[rows, parents], seen], axis=2)
        scores = self.scores[rows, parents] + own
        is_end = ids == EOS
        for text, place in np.argwhere(is_end[:, :beam] & (scores[:, :beam] > -np.inf)).tolist():
            self._end(text, place, scores[text, place])
        kept = np.argsort(is_end, axis=1, kind="stable")[:, :beam]  # as likely as before
        self.state = select_rows(state, (rows * beam + parents[rows, kept]).ravel())
        self._take((rows, kept))
        self.scores = scores[rows, kept]
        self._drop_done()

    def _end(self, text: int, place: int, score: float) -> None:
        """Keep an output that ends here, if it is the best one of its text."""
        self.ended[text] += 1
        normed = score / self.ids.shape[-1] ** self.norm
        if normed > self.best_scores[text]:
            self.best_scores[text] = normed
            self._keep(text, place)

    def _keep(self, text: int, place: int) -> None:
        arrays = (self.ids, self.log_p, self.weights)
        self.best[int(self.texts[text])] = Found(*(array[text, place].copy() for array in arrays))

    def _drop_done(self) -> None:
        beam = self.scores.shape[1]
        bound = self.scores.max(axis=1) / self.limits**self.norm  # scores only fall
        is_cut = self.limits <= self.ids.shape[-1]
        for text in np.flatnonzero(is_cut & (self.ended == 0)).tolist():
            self._keep(text, int(self.scores[text].argmax()))
        left = np.flatnonzero(~is_cut & (self.ended < beam) & (self.best_scores < bound))
        if len(left) == len(self.texts):
            return
        rows = left[:, np.newaxis] * beam + np.arange(beam)
        self.state = select_rows(self.state, rows.ravel())
        for name in ("texts", "limits", "vectors", "steps", "scores", "ended", "best_scores"):
            setattr(self, name, getattr(self, name)[left])
        self._take(left)

    def _take(self, places: Int64 | tuple[Int64, Int64]) -> None:
        self.ids, self.log_p, self.weights = (
            self.ids[places], self.log_p[places], self.weights[places]
        )  # fmt: skip


def _likeliest(scores: Nats, log_p: Array) -> tuple[Int64, Int64, Nats]:
    """Return the parents, ids and ln P of the next tokens with the greatest sums, (B, 2 K) each.

    As many as K of them may be ends, so that K beginnings remain.
    """
    texts, beam, size = log_p.shape
    count = min(2 * beam, size)
    ids = np.argpartition(log_p, size - count, axis=2)[..., size - count :]
    ids.sort(axis=2)  # of equal sums the one with the smaller id comes first
    own = np.take_along_axis(log_p, ids, axis=2).astype(np.float64)
    sums = (scores[..., np.newaxis] + own).reshape(texts, -1)
    order = np.argsort(-sums, axis=1, kind="stable")[:, : 2 * beam]
    flat = [array.reshape(texts, -1) for array in (ids, own)]
    chosen_ids, chosen = (np.take_along_axis(array, order, axis=1) for array in flat)
    return np.asarray(order // count), np.asarray(chosen_ids, np.int64), np.asarray(chosen)


def forced_nats(steps: Steps, source: EncodedText, targets: EncodedText) -> NDArray[np.float64]:
    """Return the negative log-likelihood of the target of each source, shape (N,).

    Targets are documents with EOS, in the order of their sources.
    """
    nats = np.zeros(source.documents)
    sizes = text_lengths(targets)
    for rows in groups_by_length(text_lengths(source), TOGETHER // 2):
        vectors, lengths, state = steps.begin(source, rows)
        ids = np.full((len(rows), 1), EOS, np.int64)
        for step in range(int(sizes[rows].max(initial=0))):
            log_p, _, state = steps.step(ids, state, vectors, lengths)
            places = np.minimum(step, sizes[rows] - 1)
            begins = targets.ends[rows] - sizes[rows]
            ids = targets.ids[begins + places].astype(np.int64)[:, np.newaxis]
            own = np.take_along_axis(log_p[:, 0], ids, axis=1)[:, 0]
            nats[rows] -= np.where(step < sizes[rows], own, 0.0)
    return nats
