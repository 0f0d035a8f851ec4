"""Hidden: the values of all units of a network after each token of a text.

Karpathy et al. 2015, "Visualizing and Understanding Recurrent Networks".
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Array, Ids, Logits, State
from charlm.backends.softmax import log_softmax
from charlm.config.cells import CELLS
from charlm.errors import UsageError, check_choice, check_count, named
from charlm.inference.likelihood import window_length
from charlm.inference.samplers import likeliest
from charlm.inference.states import ModelState, state_after
from charlm.inspect.text_tokens import reordered, text_tokens
from charlm.listing import Listing, UnitText
from charlm.runs.run import Run, model_settings
from charlm.text.tokenizers.tokenizer_json import EOS

MAX_BYTES = 1 << 30
"""Maximum size of the values of one text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hidden:
    """Values of all units after each of the N tokens of a text, in text order.

    `signals` has arrays (L, N, H) by their letter (see `config.cells.SIGNALS`): L layers of up to H
    units, of which a narrower layer has NaN. `start` is the state before the text, `after` the
    state after it; a model that reads backward starts at the end of the text.
    """

    tokens: Ids
    pieces: list[str]
    """Slices of the text, one for each token; joined, they are the text."""
    cuts: NDArray[np.int64]
    """First character of each piece, and the end of the last one, shape (N + 1,)."""
    signals: dict[str, Array]
    sizes: tuple[int, ...]
    """Number of units of each layer."""
    start: ModelState
    after: ModelState
    run: Run | None = field(repr=False)
    """Run of the model; None in a copy, such as one from another process."""

    def __repr__(self) -> str:
        units = f"{sum(self.sizes):,} units in {len(self.sizes)} layers"
        return f"Hidden({len(self.tokens):,} tokens, {units}, signals {', '.join(self.signals)})"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "run": None}

    def __len__(self) -> int:
        return len(self.tokens)

    def unit(self, name: str, signal: str | None = None) -> Array:
        """Return the values (N,) of a unit such as "2:8": layer 2, unit 8.

        Layers count from 1, units from 0. The default signal is c, or else the first one. Raises
        UsageError for a unit or a signal that is not there.
        """
        layer, unit = unit_number(name, self.sizes)
        signal = self._signal(signal)
        return self.signals[signal][layer - 1, :, unit]

    def _signal(self, signal: str | None) -> str:
        """Return a signal that is there, by default the usual one."""
        signal = signal or usual_signal(self.signals)
        check_choice(named("signals"), signal, self.signals)
        return signal

    def show(self, name: str, signal: str | None = None) -> "UnitValues":
        """Return the pieces with the values of a unit; a notebook colours the text by them.

        The arguments are as in `unit`.
        """
        values = self.unit(name, signal).tolist()
        return UnitValues(zip(self.pieces, values, strict=True), f"{name} {self._signal(signal)}")

    def top(self, count: int = 5) -> tuple[Ids, NDArray[np.float64]]:
        """Return the likeliest tokens at each place, before it was read, the likeliest first.

        Both the ids and their probabilities have shape (N, count). Raises UsageError unless `count`
        is 1 or more, and in a copy, which has no model.
        """
        check_count(named("top"), count, 1)
        if self.run is None:
            raise UsageError(
                "a copy of hidden values has no model; call top before the copy is made"
            )
        count = min(count, self.run.backend.vocab_size)
        first = likeliest_chances(self.start.log_probabilities[None], count)
        order = reordered(self.run, self.tokens)
        later = (
            likeliest_chances(log_softmax(logits), count)
            for logits in logits_after(self.run, order, self.start.hidden)
        )
        ids, chances = (np.concatenate(parts)[:-1] for parts in zip(first, *later, strict=True))
        return reordered(self.run, ids), reordered(self.run, chances)


class UnitValues(Listing[tuple[str, float]]):
    """Pieces of a text, each with the value of one unit, such as "2:8 c", after it."""

    def __init__(self, pairs: Iterable[tuple[str, float]], unit: str) -> None:
        super().__init__(pairs)
        self.unit = unit

    def rows(self) -> list[dict[str, Any]]:
        """Return the piece and the value of each token."""
        return [{"piece": piece, self.unit: value} for piece, value in self]

    def shown_rows(self) -> list[dict[str, Any]]:
        """See `Listing.shown_rows`."""
        pieces, values = zip(*self, strict=True) if self else ((), ())
        return [{f"unit {self.unit}": UnitText(pieces, values, self.unit)}]


def usual_signal(signals: Iterable[str]) -> str:
    """Return the signal to show of these if none is named: c, the cell, or else the first one."""
    names = list(signals)
    return "c" if "c" in names else next(iter(names), "")


def unit_number(name: str, sizes: Sequence[int]) -> tuple[int, int]:
    """Return layer and unit of a name such as "2:8". Raises UsageError if there is no such unit."""
    last = f"1:0 to {len(sizes)}:{sizes[-1] - 1}"
    match = re.fullmatch(r"([1-9]\d*):(0|[1-9]\d*)", str(name), re.ASCII)
    layer, unit = (int(number) for number in match.groups()) if match else (0, 0)
    if not 1 <= layer <= len(sizes) or unit >= sizes[layer - 1]:
        raise UsageError(
            f"{named('unit')} is {name!r}; expected a layer and a unit, {last}. "
            f"Find some with {named('find_units')}"
        )
    return layer, unit


def layer_sizes(run: Run) -> tuple[int, ...]:
    """Return the number of units of each layer of a network."""
    settings = model_settings(run.config, run.path)
    hidden, layers = settings.hidden_size or 0, settings.num_layers or 0
    return (*[hidden] * (layers - 1), settings.last_hidden_size or hidden)


def checked_signals(run: Run, signals: Sequence[str] | None) -> list[str]:
    """Return signals of a network, by default h, and c if there is one.

    Raises UsageError for an n-gram model and for a signal that its cell does not have.
    """
    run.check_network("reading its units")
    known = CELLS[model_settings(run.config, run.path).cell].signals
    if signals is None:
        return [name for name in known if name in "hc"]
    for name in signals:
        check_choice(named("signals"), name, known)
    return list(signals)


def read_hidden(
    run: Run,
    text: str,
    signals: Sequence[str] | None = None,
    state: ModelState | None = None,
) -> Hidden:
    """Return the values of all units on a text; see `Model.hidden`."""
    signals, sizes = checked_signals(run, signals), layer_sizes(run)
    tokens = text_tokens(run, text)
    _check_size(len(tokens.ids), sizes, signals)
    start = state_after(run.backend, np.empty(0, np.int64)) if state is None else state
    values, after = _traced(run, reordered(run, tokens.ids), sizes, signals, start)
    return Hidden(
        tokens=tokens.ids,
        pieces=tokens.pieces,
        cuts=tokens.cuts,
        signals=values,
        sizes=sizes,
        start=start,
        after=after,
        run=run,
    )


def _check_size(tokens: int, sizes: Sequence[int], signals: Sequence[str]) -> None:
    """Raise UsageError for more values than fit in MAX_BYTES."""
    units = len(sizes) * max(sizes)
    size = 4 * tokens * units * len(signals)
    if size > MAX_BYTES:
        raise UsageError(
            f"{len(signals)} signals of {units:,} units after {tokens:,} tokens take "
            f"{size / 2**30:.1f} GB; expected 1 GB at most. Use a shorter text, or fewer signals "
            f"with {named('signals')}"
        )


def _traced(
    run: Run, ids: Ids, sizes: Sequence[int], signals: Sequence[str], start: ModelState
) -> tuple[dict[str, Array], ModelState]:
    """Return the signals after ids in reading order, in text order, and the state after them."""
    backend, after = run.backend, start
    state: State = start.hidden
    shape = len(sizes), len(ids), max(sizes)
    values = {name: np.empty(shape, np.float32) for name in signals}
    for span, fresh in windows(run, ids):
        inputs = ids[span, None]
        before = backend.initial_state(1) if fresh else state
        arrays, state = backend.trace(inputs, before, signals)
        for name, array in arrays.items():
            values[name][:, span] = array[:, :, 0]
        if span.stop == len(ids):
            after = state_after(backend, inputs[:, 0], before)
    if run.backward:
        values = {name: array[:, ::-1] for name, array in values.items()}
    return values, after


def windows(run: Run, ids: Ids) -> Iterator[tuple[slice, bool]]:
    """Yield windows of ids in reading order, and whether one begins in the initial state.

    An EOS after which the state resets begins a window.
    """
    step = window_length(run.backend, 1)
    cuts = np.flatnonzero(ids == EOS).tolist() if run.boundaries.resets else []
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(ids)], strict=True)):
        for first in range(begin, end, step):
            yield slice(first, min(first + step, end)), number > 0 and first == begin


def logits_after(run: Run, ids: Ids, state: State) -> Iterator[Array | Logits]:
    """Yield the logits after each of ids in reading order, (n, V) for each window."""
    for span, fresh in windows(run, ids):
        before = run.backend.initial_state(1) if fresh else state
        logits, state = run.backend.distribution(ids[span, None], before)
        yield logits[:, 0]


def likeliest_chances(rows: NDArray[np.float64], count: int) -> tuple[Ids, NDArray[np.float64]]:
    """Return the likeliest ids by log-probabilities (n, V), and their probabilities, (n, count)."""
    ids = likeliest(rows, count)
    return ids, np.exp(np.take_along_axis(rows, ids, axis=1))
