"""Likelihood of a text: the nats of every token, and their `Tally`. No other module computes it.

The result does not depend on how a text is cut into windows, batches or pieces. A long stream is
read as many pieces side by side. Then each piece is read again from the state at the end of the
piece before, until its states agree with those of the first reading.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, State, select_rows
from charlm.errors import check_count
from charlm.phases import advance
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.units import Tally

WINDOW = 256
"""Tokens read at a time; limits the memory, without an effect on results."""
MAX_ROWS = 32
MIN_PIECE = 1024
"""Minimum length of a piece of a stream, in tokens."""
WIDE_WINDOW = 64
"""Tokens of a stream read at a time by a wide backend, whose time grows with the steps and hardly
with the rows: most states agree after 50 to 150 tokens, and rows are compared after each window."""
WIDE_PIECE = 128
"""Minimum length of a piece of a stream, in tokens, for a wide backend."""
SAME_STATE = 1e-5
"""Maximum difference of equal states, in each unit, relative to one plus its size."""
WIDE_SAME_STATE = 3e-5
"""SAME_STATE of a wide backend: on a GPU, rounding depends on the shape of what is read. Simulated
for 50,000 characters, 2 x 384 units: 592 steps with noise of up to 3e-6 in each unit; with 2.5e-6
and a limit of 1e-5, no end within three minutes. Against a limit of 1e-7, the worst token differs
by 5.3e-5 nats."""
ALL_KEPT = 16
"""The state is kept after each of this number of windows, then after each power of two."""
MAX_LOGITS = 1 << 25
"""Maximum number of logits in memory (rows x window x vocabulary)."""

Read = Callable[[Ids, Ids, State], tuple[Nats, NDArray[Any], State]]
"""Function of inputs, targets and state; it returns nats, another figure of each target (or several
in further axes) and the state after them."""


def stream_nats(
    backend: Backend,
    ids: NDArray[Any],
    state: State | None = None,
    first_input: int = EOS,
    rows: int | None = None,
) -> tuple[Nats, State]:
    """Return the nats of each token of a stream, shape (N,), and the state after it.

    `first_input` is the token before the text: the start symbol, or the last token that was read.
    `rows` is the largest number of pieces; a backend on a GPU reads more of them side by side.
    """
    if len(ids) == 0:
        return np.empty(0), backend.initial_state(1) if state is None else state
    count = _piece_count(backend, len(ids), rows or rows_of(backend))
    covered = len(ids) // count * count
    pieces = _Pieces(backend, ids[:covered], count, first_input, state)
    pieces.read()
    _settle(pieces)
    nats, after = pieces.nats.reshape(-1), select_rows(pieces.after, [count - 1])
    if covered == len(ids):
        return nats, after
    rest, after = stream_nats(backend, ids[covered:], after, first_input=int(ids[covered - 1]))
    return np.concatenate([nats, rest]), after


def rows_of(backend: Backend) -> int:
    """Return the number of sequences that a backend reads side by side."""
    return int(getattr(backend, "max_rows", MAX_ROWS))


def is_wide(backend: Backend) -> bool:
    """Report whether a backend has `max_rows`, so that it reads many rows in the time of one."""
    return hasattr(backend, "max_rows")


def _piece_count(backend: Backend, length: int, rows: int) -> int:
    """Return the number of pieces of a stream.

    A wide backend takes as long for a remainder as for all pieces, so that it gets a short one.
    """
    if not is_wide(backend):
        return max(1, min(rows, length // MIN_PIECE))
    most = max(1, min(rows, length // WIDE_PIECE))
    counts = range(most, most - most // 4 - 1, -1)
    return min(counts, key=lambda count: length // count + length % count)


def _set_row(state: State, row: int, other: State | None) -> None:
    """Overwrite one row of a new state by the only row of another state, if there is one."""
    for layer, values in zip(state, other or (), strict=False):
        for rows, value in zip(layer, values, strict=True):
            rows[row] = value[0]


def _settle(pieces: "_Pieces") -> None:
    """Read rows again until each started from the state at the end of the row before.

    Rows are first read side by side. A network that does not forget (a GRU early in training) would
    need as many passes as rows; reading its rows one by one takes a third of that time. A wide
    backend takes as long for one row as for all, so that it reads them side by side in any case.
    """
    changed, wide = list(range(1, pieces.count)), is_wide(pieces.backend)
    while changed:
        again = [row + 1 for row in pieces.correct(changed) if row + 1 < pieces.count]
        if 2 * len(again) > len(changed):
            if not wide:
                break
            pieces.widen()
        changed = again
    else:
        return
    for row in range(again[0], pieces.count):
        if row in again and pieces.correct([row]):
            again.append(row + 1)


class _Pieces:
    """A stream in pieces of equal length, the rows, that are read side by side.

    `kept[w]` is the state of every row after window w, as last read. The number of kept windows
    grows with the logarithm of the length.
    """

    def __init__(
        self,
        backend: Backend,
        ids: NDArray[Any],
        count: int,
        first_input: int,
        state: State | None,
    ) -> None:
        self.backend, self.count = backend, count
        most = int(getattr(backend, "max_logits", MAX_LOGITS))
        self.max_window = self.window = window_length(backend, count, most)
        self.same_state = SAME_STATE
        if is_wide(backend):
            self.same_state = WIDE_SAME_STATE
            if count > 1:  # one piece is not compared with others
                self.window = min(self.window, WIDE_WINDOW)
        self.length = len(ids) // count
        self.targets = np.asarray(ids).reshape(count, self.length)
        before = np.concatenate(
            [np.array([first_input], np.min_scalar_type(first_input)), ids[:-1]]
        )
        self.inputs = before.reshape(count, self.length)
        self.nats = np.zeros((count, self.length))
        self.start = backend.initial_state(count)
        _set_row(self.start, 0, state)
        self.kept: dict[int, State] = {}
        self.after = self.start

    def read(self) -> None:
        """Read every row from its start state. Only this reading advances the phase."""
        state, every = self.start, np.arange(self.count)
        extra = int(is_wide(self.backend))  # windows that end where those of `widen` do
        for number, begin in enumerate(range(0, self.length, self.window)):
            state = self._step(every, begin, state)
            advance(self.count * min(self.window, self.length - begin))
            power = number + extra
            if number < ALL_KEPT or power & (power - 1) == 0:
                self.kept[number] = select_rows(state, every)
        self.after = select_rows(state, every)

    def correct(self, rows: list[int]) -> list[int]:
        """Read rows again from the end of the row before; return those whose end state changed."""
        changed = np.array(rows, np.int64)
        state = select_rows(self.after, changed - 1)
        for number, begin in enumerate(range(0, self.length, self.window)):
            state = self._step(changed, begin, state)
            if number in self.kept:
                changed, state = self._changed(changed, state, self.kept[number])
            if not len(changed):
                return []
        changed, state = self._changed(changed, state, self.after)
        return [int(row) for row in changed]

    def widen(self) -> None:
        """Double the window, if that fits: states that agree nowhere need few comparisons."""
        if 2 * self.window <= self.max_window:
            self.window *= 2
            self.kept = {number // 2: state for number, state in self.kept.items() if number % 2}

    def _changed(self, rows: Ids, state: State, kept: State) -> tuple[Ids, State]:
        """Return the rows whose state differs from the kept one, and their state, which is kept.

        The other rows need no further reading.
        """
        differing = np.flatnonzero(_differ(state, select_rows(kept, rows), self.same_state))
        rows, state = rows[differing], select_rows(state, differing)
        for layer, new_layer in zip(kept, state, strict=True):
            for array, new in zip(layer, new_layer, strict=True):
                array[rows] = new
        return rows, state

    def _step(self, rows: Ids, begin: int, state: State) -> State:
        """Read a window of some rows, and return the state after it.

        A wide backend always gets the same number of rows, some of them twice, so that it rounds
        alike.
        """
        count, read = len(rows), rows
        if is_wide(self.backend):
            read = np.resize(rows, self.count)
            state = select_rows(state, np.resize(np.arange(count), self.count))
        end = min(begin + self.window, self.length)
        inputs = self.inputs[read, begin:end].T.astype(np.int64)
        targets = self.targets[read, begin:end].T.astype(np.int64)
        nats, state = self.backend.nats(inputs, targets, state)
        self.nats[rows, begin:end] = nats.T[:count]
        return state if len(read) == count else select_rows(state, np.arange(count))


def window_length(backend: Backend, rows: int, max_logits: int | None = None) -> int:
    """Return the window length, in tokens, for a number of rows; it limits the logits.

    By default, they are limited to MAX_LOGITS.
    """
    return max(1, min(WINDOW, (max_logits or MAX_LOGITS) // (rows * backend.logits_each)))


def _differ(left: State, right: State, same_state: float) -> NDArray[np.bool_]:
    """Test whether rows differ by more than rounding, shape (B,)."""
    largest = [
        (np.abs(a - b) / (1.0 + np.abs(b))).max(axis=1)
        for left_layer, right_layer in zip(left, right, strict=True)
        for a, b in zip(left_layer, right_layer, strict=True)
    ]
    return np.asarray(np.max(largest, axis=0) > same_state)


def document_nats(
    backend: Backend,
    documents: Sequence[NDArray[Any]],
    rows: int | None = None,
    first_inputs: Sequence[int] | None = None,
) -> list[Nats]:
    """Return the nats of each token of texts that are read from the zero state and start symbol.

    Texts of similar length are read side by side; padding does not count. `rows` is as in
    `stream_nats`.
    """
    rows = rows or rows_of(backend)
    pairs = read_documents(backend, documents, partial(nats_alone, backend), rows, first_inputs)
    return [nats for nats, _ in pairs]


def nats_alone(
    backend: Backend, inputs: Ids, targets: Ids, state: State
) -> tuple[Nats, Nats, State]:
    """Return the nats, twice, and the state, as a `Read` function does."""
    nats, after = backend.nats(inputs, targets, state)
    return nats, nats, after


def read_documents(
    backend: Backend,
    documents: Sequence[NDArray[Any]],
    read: Read,
    rows: int = MAX_ROWS,
    first_inputs: Sequence[int] | None = None,
    states: Sequence[State | None] | None = None,
) -> list[tuple[Nats, NDArray[Any]]]:
    """Return the nats of `document_nats`, and the other figure of `read`, for each token.

    `states` are those in which the documents begin, None for the initial one.
    """
    results: list[tuple[Nats, NDArray[Any]]] = [(np.empty(0), np.empty(0))] * len(documents)
    order = sorted(range(len(documents)), key=lambda number: len(documents[number]))
    firsts = first_inputs or [EOS] * len(documents)
    begins = states or [None] * len(documents)
    for start in range(0, len(order), rows):
        group = order[start : start + rows]
        chosen = [documents[number] for number in group]
        state = backend.initial_state(len(group))
        for row, number in enumerate(group):
            _set_row(state, row, begins[number])
        pairs = _group(backend, chosen, [firsts[number] for number in group], read, state)
        for number, pair in zip(group, pairs, strict=True):
            results[number] = pair
    return results


def _group(
    backend: Backend, group: list[NDArray[Any]], firsts: list[int], read: Read, state: State
) -> list[tuple[Nats, NDArray[Any]]]:
    """Return the figures of texts that are read side by side, the shortest first.

    Once at least half of the rows have ended they are left out, so one long text beside many short
    ones takes little longer than alone.
    """
    found: list[list[tuple[Nats, NDArray[Any]]]] = [[] for _ in group]
    before, first, begin = np.array(firsts, np.int64), 0, 0
    while begin < len(group[-1]):
        ended = sum(len(ids) <= begin for ids in group) if begin else 0
        if ended > first and 2 * (ended - first) >= len(group) - first:
            kept = np.arange(ended - first, len(group) - first)
            state, before, first = select_rows(state, kept), before[kept], ended
        rows = group[first:]
        size = min(window_length(backend, len(rows)), len(group[-1]) - begin)
        pieces = [ids[begin : begin + size] for ids in rows]
        targets = np.full((size, len(rows)), EOS, np.int64)
        for row, ids in enumerate(pieces):
            targets[: len(ids), row] = ids
        nats, figures, state = read(np.concatenate([before[None], targets[:-1]]), targets, state)
        for row, ids in enumerate(pieces):
            found[first + row].append((nats[: len(ids), row], figures[: len(ids), row]))
        before, begin = targets[-1], begin + size
        advance(sum(map(len, pieces)))
    return [_joined(parts) for parts in found]


def _joined(parts: list[tuple[Nats, NDArray[Any]]]) -> tuple[Nats, NDArray[Any]]:
    """Return the figures of a text, given those of its pieces."""
    if not parts:
        return np.empty(0), np.empty(0)
    nats, figures = zip(*parts, strict=True)
    return np.concatenate(nats), np.concatenate(figures)


def text_nats(backend: Backend, text: EncodedText, *, reset_every: int | None = None) -> Nats:
    """Return the nats of every token of a text, shape (N,); the state resets after documents.

    With `reset_every`, the state resets after that number of tokens (see `windowed_nats`).
    """
    if reset_every is not None:
        check_count("reset_every", reset_every, 1)
        return windowed_nats(backend, text, reset_every)
    if text.is_stream:
        return stream_nats(backend, text.ids)[0]
    pieces = np.split(np.asarray(text.ids), text.ends[:-1])
    firsts = [EOS] * len(pieces) if text.firsts is None else text.firsts.tolist()
    short = [number for number, ids in enumerate(pieces) if len(ids) <= MAX_ROWS * MIN_PIECE]
    short_pieces, short_firsts = [pieces[n] for n in short], [firsts[n] for n in short]
    short_nats = iter(document_nats(backend, short_pieces, first_inputs=short_firsts))
    nats = [
        next(short_nats)
        if len(ids) <= MAX_ROWS * MIN_PIECE
        else stream_nats(backend, ids, first_input=first)[0]
        for ids, first in zip(pieces, firsts, strict=True)
    ]
    return np.concatenate([*nats, np.empty(0)])


def windowed_nats(backend: Backend, text: EncodedText, window: int) -> Nats:
    """Return the nats if the state resets every `window` tokens, as transformer repositories do.

    Each window is read from the zero state; its first input is the token before it. A document
    begins a new window. Losses are higher than in `text_nats`; use this only to compare with such
    reports.
    """
    ids = np.asarray(text.ids)
    spans = [
        (start, min(start + window, end))
        for begin, end in pairwise([0, *text.ends.tolist()])
        for start in range(begin, end, window)
    ]
    documents = [ids[start:stop] for start, stop in spans]
    firsts = [int(ids[start - 1]) if start else EOS for start, _ in spans]
    if text.firsts is not None:
        begins = dict(zip([0, *text.ends.tolist()], text.firsts.tolist(), strict=False))
        firsts = [begins.get(start, first) for (start, _), first in zip(spans, firsts, strict=True)]
    nats = document_nats(backend, documents, first_inputs=firsts)
    return np.concatenate([*nats, np.empty(0)])


def tally(text: EncodedText, nats: Nats) -> Tally:
    """Return the sums of a text's nats, in float64, with the counts of the text."""
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


def evaluate(backend: Backend, text: EncodedText, *, reset_every: int | None = None) -> Tally:
    """Return the tally of a text under a model: one deterministic pass, in float32.

    `reset_every` is as in `text_nats`.
    """
    return tally(text, text_nats(backend, text, reset_every=reset_every))
