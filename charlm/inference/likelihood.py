"""The one place that computes a likelihood: nats of every token of a text, and their `Tally`.

A text scores the same however it is cut into windows, batches or pieces. A long stream is read as
many pieces side by side; a piece starts from the state at the end of the piece before it, and is
read again from there until its states agree with those of the first reading.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, State, rows_of
from charlm.errors import check_count
from charlm.phases import advance
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.units import Tally

WINDOW = 256
"""Tokens read at once; bounds the memory, changes no result."""
MAX_ROWS = 32
MIN_PIECE = 1024
"""A stream is not cut into pieces shorter than this many tokens."""
SAME_STATE = 1e-5
"""Two states agree when no unit differs by more than this, relative to one plus its size."""
ALL_MARKED = 16
"""Windows after each of which the states are kept; beyond, after each power of two."""
MAX_LOGITS = 1 << 25
"""Most logits held at once (rows x window x vocabulary)."""


def stream_nats(
    engine: Backend,
    ids: NDArray[Any],
    state: State | None = None,
    first_input: int = EOS,
    rows: int = MAX_ROWS,
) -> tuple[Nats, State]:
    """Nats of each token of one endless text, shape (N,), read from `state`, and the state after.

    `first_input` is the token before the text: the start symbol, or the last token already read.
    """
    if len(ids) == 0:
        return np.empty(0), engine.initial_state(1) if state is None else state
    parts = max(1, min(rows, len(ids) // MIN_PIECE))
    size = len(ids) // parts
    pieces = _Pieces(engine, ids[: parts * size], parts, first_input, state)
    pieces.read()
    _settle(pieces)
    nats, after = pieces.flat.reshape(-1), rows_of(pieces.after, [parts - 1])
    if parts * size == len(ids):
        return nats, after
    rest, after = stream_nats(
        engine, ids[parts * size :], after, first_input=int(ids[parts * size - 1])
    )
    return np.concatenate([nats, rest]), after


def _settle(pieces: "_Pieces") -> None:
    """Read rows again until each began where the row before it ended.

    Side by side at first. A network that does not forget (a GRU early in its training) would be
    read so once for each row; it is read on row after row, which takes a third of that time.
    """
    changed = list(range(1, pieces.parts))
    while changed:
        again = [row + 1 for row in pieces.correct(changed) if row + 1 < pieces.parts]
        if 2 * len(again) > len(changed):
            break
        changed = again
    else:
        return
    for row in range(again[0], pieces.parts):
        if row in again and pieces.correct([row]):
            again.append(row + 1)


class _Pieces:
    """A stream cut into parts of equal length that are read side by side.

    `marks[w]` is the state of every row after its window w, from the latest reading of it: of the
    first windows, and of ever fewer after them, so that memory does not go with the text.
    """

    def __init__(
        self,
        engine: Backend,
        ids: NDArray[Any],
        parts: int,
        first_input: int,
        state: State | None,
    ) -> None:
        self.engine, self.parts = engine, parts
        self.window = window_length(engine, parts)
        self.length = len(ids) // parts
        self.targets = np.asarray(ids).reshape(parts, self.length)
        before = np.concatenate([np.array([first_input], ids.dtype), ids[:-1]])
        self.inputs = before.reshape(parts, self.length)
        self.flat = np.zeros((parts, self.length))
        self.start = engine.initial_state(parts)
        if state is not None:
            for all_rows, first in zip(self.start, state, strict=True):
                for part, value in zip(all_rows, first, strict=True):
                    part[0] = value[0]
        self.marks: dict[int, State] = {}
        self.after = self.start

    def read(self) -> None:
        """Read every row from its start state."""
        state, every = self.start, np.arange(self.parts)
        for number, begin in enumerate(range(0, self.length, self.window)):
            state = self._step(every, begin, state)
            if number < ALL_MARKED or number & (number - 1) == 0:
                self.marks[number] = rows_of(state, every)
        self.after = rows_of(state, every)

    def correct(self, rows: list[int]) -> list[int]:
        """Read rows again from the end of the row before; returns those whose end state moved."""
        going = np.array(rows, np.int64)
        state = rows_of(self.after, going - 1)
        for number, begin in enumerate(range(0, self.length, self.window)):
            state = self._step(going, begin, state)
            if number in self.marks:
                going, state = self._moved(going, state, self.marks[number])
            if not len(going):
                return []
        going, state = self._moved(going, state, self.after)
        return [int(row) for row in going]

    @staticmethod
    def _moved(rows: Ids, state: State, known: State) -> tuple[Ids, State]:
        """Rows whose state is another one than is known, which is then replaced; with their state.

        Where it is the same, all that follows would be the same too.
        """
        differ = np.flatnonzero(_differing(state, rows_of(known, rows)))
        rows, state = rows[differ], rows_of(state, differ)
        _write_rows(known, rows, state)
        return rows, state

    def _step(self, rows: Ids, begin: int, state: State) -> State:
        end = min(begin + self.window, self.length)
        inputs = self.inputs[rows, begin:end].T.astype(np.int64)
        targets = self.targets[rows, begin:end].T.astype(np.int64)
        nats, state = self.engine.nats(inputs, targets, state)
        self.flat[rows, begin:end] = nats.T
        advance(nats.size)
        return state


def window_length(engine: Backend, rows: int) -> int:
    """Tokens that so many rows may be read at once without too many logits."""
    return max(1, min(WINDOW, MAX_LOGITS // (rows * engine.logits_each)))


def _write_rows(into: State, rows: Ids, values: State) -> None:
    for parts, news in zip(into, values, strict=True):
        for part, new in zip(parts, news, strict=True):
            part[rows] = new


def _differing(left: State, right: State) -> NDArray[np.bool_]:
    """Which rows differ by more than rounding, shape (B,)."""
    worst = [
        (np.abs(a - b) / (1.0 + np.abs(b))).max(axis=1)
        for parts, others in zip(left, right, strict=True)
        for a, b in zip(parts, others, strict=True)
    ]
    return np.asarray(np.max(worst, axis=0) > SAME_STATE)


def document_nats(
    engine: Backend,
    documents: Sequence[NDArray[Any]],
    rows: int = MAX_ROWS,
    first_inputs: Sequence[int] | None = None,
) -> list[Nats]:
    """Nats of each token of independent texts, each read from the zero state and start symbol.

    Texts of similar length are read side by side; padding is never counted.
    """
    found = nats_and_ranks(engine, documents, rows, first_inputs, ranked=False)
    return [nats for nats, _ in found]


def nats_and_ranks(
    engine: Backend,
    documents: Sequence[NDArray[Any]],
    rows: int = MAX_ROWS,
    first_inputs: Sequence[int] | None = None,
    *,
    ranked: bool,
) -> list[tuple[Nats, Ids]]:
    """As `document_nats`, and beside them one more than the number of tokens that were likelier.

    Where not `ranked`, zeros stand for that.
    """
    results: list[tuple[Nats, Ids]] = [(np.empty(0), np.empty(0, np.int64))] * len(documents)
    order = sorted(range(len(documents)), key=lambda number: len(documents[number]))
    firsts = first_inputs or [EOS] * len(documents)
    for start in range(0, len(order), rows):
        group = order[start : start + rows]
        chosen = [documents[number] for number in group]
        found = _group(engine, chosen, [firsts[number] for number in group], ranked)
        for number, pair in zip(group, found, strict=True):
            results[number] = pair
    return results


def _group(
    engine: Backend, group: list[NDArray[Any]], firsts: list[int], ranked: bool
) -> list[tuple[Nats, Ids]]:
    longest = max(len(ids) for ids in group)
    targets = np.full((longest, len(group)), EOS, np.int64)
    for row, ids in enumerate(group):
        targets[: len(ids), row] = ids
    inputs = np.concatenate([[firsts], targets[:-1]])
    nats, ranks = np.zeros(targets.shape), np.zeros(targets.shape, np.int64)
    state = engine.initial_state(len(group))
    step = window_length(engine, len(group))
    for begin in range(0, longest, step):
        part = slice(begin, begin + step)
        if ranked:
            nats[part], ranks[part], state = engine.ranks(inputs[part], targets[part], state)
        else:
            nats[part], state = engine.nats(inputs[part], targets[part], state)
        advance(sum(min(max(len(ids) - begin, 0), step) for ids in group))
    return [(nats[: len(ids), row], ranks[: len(ids), row]) for row, ids in enumerate(group)]


def text_nats(engine: Backend, text: EncodedText) -> Nats:
    """Nats of every token of a text, shape (N,): documents apart, a stream in one go."""
    if text.is_stream:
        return stream_nats(engine, text.ids)[0]
    pieces = np.split(np.asarray(text.ids), text.ends[:-1])
    short = [piece for piece in pieces if len(piece) <= MAX_ROWS * MIN_PIECE]
    found = iter(document_nats(engine, short))
    nats = [
        next(found) if len(piece) <= MAX_ROWS * MIN_PIECE else stream_nats(engine, piece)[0]
        for piece in pieces
    ]
    return np.concatenate([*nats, np.empty(0)])


def windowed_nats(engine: Backend, text: EncodedText, window: int) -> Nats:
    """Nats when the state is reset every `window` tokens, as transformer repositories report.

    Each window is read from the zero state, its first input being the token before it; a document
    begins a window of its own. This is a worse model than `text_nats` measures, and is only for
    comparison with such reports.
    """
    ids = np.asarray(text.ids)
    ends = [len(ids)] if text.is_stream else [int(end) for end in text.ends]
    spans = [
        (start, min(start + window, end))
        for begin, end in pairwise([0, *ends])
        for start in range(begin, end, window)
    ]
    documents = [ids[start:stop] for start, stop in spans]
    firsts = [int(ids[start - 1]) if start else EOS for start, _ in spans]
    found = document_nats(engine, documents, first_inputs=firsts)
    return np.concatenate([*found, np.empty(0)])


def tally(text: EncodedText, nats: Nats) -> Tally:
    """The sums of a text's nats, in float64, with the text's own counts."""
    ids = np.asarray(text.ids)
    unknown, ends = ids == UNK, ids == EOS
    return Tally(
        nats=float(nats.sum()),
        tokens=len(ids),
        words=text.counts.words,
        chars=text.counts.chars,
        bytes=text.counts.bytes,
        oov=int(unknown.sum()),
        oov_nats=float(nats[unknown].sum()),
        eos=int(ends.sum()),
        eos_nats=float(nats[ends].sum()),
        documents=text.documents,
    )


def evaluate(engine: Backend, text: EncodedText, *, reset_every: int | None = None) -> Tally:
    """The tally of a text under a model: one full deterministic pass, in float32.

    `reset_every` switches to the windowed protocol of `windowed_nats`.
    """
    if reset_every is not None:
        check_count("reset_every", reset_every, 1)
    found = text_nats(engine, text) if not reset_every else windowed_nats(engine, text, reset_every)
    return tally(text, found)
