"""Beam search: the likeliest outputs of a decoder that looks at a source text.

Letters: B texts, K beams of each, T steps of the source, D its memory, V' entries of the output.
Scores of finished outputs are divided by a power of their length, as in Wu et al. 2016
(arxiv.org/abs/1609.08144), with 0 + |Y| in place of 5 + |Y|.
"""

from collections.abc import Iterator
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
MAX_STEPS = 1 << 12
"""Maximum number of steps of the sources that are read side by side."""
MAX_OUTPUT = 1000
"""Maximum length of an output, in tokens."""
Memory = tuple[Array, Int64, State]
"""Memory of sources: vectors (B, T, D), padded; steps (B,); the first state of the output."""


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


def search_texts(steps: Steps, text: EncodedText, beam: int = BEAM) -> Iterator[tuple[int, Found]]:
    """Yield the number and the output of each document of an encoded text, the shortest first.

    An output does not depend on the other documents, but for rounding.
    """
    lengths = text_lengths(text)
    with phase("translating", total=len(lengths)):
        for rows in groups_by_length(lengths, max(TOGETHER // beam, 1), MAX_STEPS):
            outputs = beam_search(steps, steps.begin(text, rows), beam, max_tokens(lengths[rows]))
            for row, output in zip(rows.tolist(), outputs, strict=True):
                yield row, output._replace(weights=output.weights[:, : lengths[row]])
            advance(len(rows))


def max_tokens(lengths: Int64) -> Int64:
    """Return the maximum length of outputs, for sources of these steps."""
    return np.minimum(3 * lengths + 50, MAX_OUTPUT)


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
        beams.advance(*steps.step(beams.last, beams.state, beams.vectors, beams.steps))
    return [beams.outputs[text] for text in range(len(limits))]


class _Kept(NamedTuple):
    """Tokens that one step appended to the beginnings of the texts (B,) that were not done."""

    texts: Int64
    parents: Int64
    """Place of each beginning (B, K) among those of the step before."""
    ids: Int64
    log_p: Nats
    weights: Array
    """Attention of the beginnings of the step before (B, K, T), which read their last token."""


class _Best(NamedTuple):
    """An output that has ended: the normalised score, and where its last token was appended."""

    score: float
    parent: int
    log_p: float
    length: int


class _Beams:
    """Beginnings of the outputs of the texts that are not done; the best ended one of each."""

    def __init__(self, memory: Memory, beam: int, limits: Int64, norm: float) -> None:
        self.vectors, self.steps, first = memory
        texts = len(limits)
        self.texts, self.limits, self.norm = np.arange(texts), limits, norm
        self.state = select_rows(first, np.repeat(self.texts, beam))
        self.scores = np.full((texts, beam), -np.inf)
        self.scores[:, 0] = 0.0  # of equal beginnings one is enough
        self.last = np.full((texts, beam), EOS, np.int64)
        self.ended = np.zeros(texts, np.int64)
        self.kept: list[_Kept] = []
        self.best: dict[int, _Best] = {}
        self.outputs: dict[int, Found] = {}

    def advance(self, log_p: Array, weights: Array, state: State) -> None:
        """Append the next token to beginnings, keep the likeliest, and drop texts that are done."""
        texts, beam = self.scores.shape
        parents, ids, own = _likeliest(self.scores, log_p)
        rows = np.arange(texts)[:, np.newaxis]
        scores = self.scores[rows, parents] + own
        is_end = ids == EOS
        for row, place in np.argwhere(is_end[:, :beam] & (scores[:, :beam] > -np.inf)).tolist():
            self._end(row, scores[row, place], int(parents[row, place]), own[row, place])
        stays = rows, np.argsort(is_end, axis=1, kind="stable")[:, :beam]  # as likely as before
        parents, self.last, self.scores = parents[stays], ids[stays], scores[stays]
        self.kept.append(_Kept(self.texts, parents, self.last, own[stays], weights))
        self.state = select_rows(state, (rows * beam + parents).ravel())
        self._drop_done()

    def _end(self, row: int, score: float, parent: int, log_p: float) -> None:
        """Remember an output that ends here, if it is the best one of its text."""
        self.ended[row] += 1
        text, length = int(self.texts[row]), len(self.kept) + 1
        normed = score / length**self.norm
        if text not in self.best or normed > self.best[text].score:
            self.best[text] = _Best(normed, parent, log_p, length)

    def _drop_done(self) -> None:
        beam, length = self.scores.shape[1], len(self.kept)
        bound = self.scores.max(axis=1) / self.limits**self.norm  # scores only fall
        ended = [
            self.best[text].score if text in self.best else -np.inf for text in self.texts.tolist()
        ]
        done = (self.limits <= length) | (self.ended >= beam) | (np.array(ended) >= bound)
        for row in np.flatnonzero(done).tolist():
            self._finish(row)
        if not done.any():
            return
        left = np.flatnonzero(~done)
        self.state = select_rows(self.state, (left[:, np.newaxis] * beam + np.arange(beam)).ravel())
        for name in ("texts", "limits", "vectors", "steps", "scores", "ended", "last"):
            setattr(self, name, getattr(self, name)[left])

    def _finish(self, row: int) -> None:
        """Write the best output of a text, or its likeliest beginning if none has ended."""
        text = int(self.texts[row])
        ids: list[int] = []
        logs: list[float] = []
        weights: list[Array] = []
        if best := self.best.get(text):
            ids, logs, place, length = [EOS], [best.log_p], best.parent, best.length - 1
            weights.append(self.kept[length].weights[self._row(length, text), place])
        else:
            place, length = int(self.scores[row].argmax()), len(self.kept)
        for step in range(length - 1, -1, -1):
            kept, at = self.kept[step], self._row(step, text)
            ids.append(int(kept.ids[at, place]))
            logs.append(float(kept.log_p[at, place]))
            place = int(kept.parents[at, place])
            weights.append(kept.weights[at, place])
        self.outputs[text] = Found(
            np.array(ids[::-1], np.int64), np.array(logs[::-1]), np.stack(weights[::-1])
        )

    def _row(self, step: int, text: int) -> int:
        """Return the row that a text had in a step."""
        return int(np.searchsorted(self.kept[step].texts, text))


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
