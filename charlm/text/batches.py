"""Batches: the order in which training reads a text, and its position in that order.

A text is cut into segments (parts of a stream, documents, or single windows). B segments are read
side by side as a group, in windows of `bptt` tokens. The recurrent state is carried from one window
to the next and reset at the start of each group:

    group   sequence 0  |a b c d|e f g h|i . . .|     "." is padding: no target, no loss
            sequence 1  |k l m n|o p q r|s t . .|
                          batch   batch   batch

Every token is a target exactly once per epoch. The first input of a segment is the start symbol
(EOS, or that of its document) if the segment begins a document or a line, else the token before it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS

PADDING = -1
"""Target at positions behind the end of a segment."""
MAX_LONGER = 20
"""Tokens by which windows of random length may be longer than `bptt`."""
MIN_FILLED = 0.5
"""Fraction of a group's places that should hold tokens: documents are cut until they do."""
MIN_WINDOWS = 8
"""Windows of the shortest segments that documents are cut into for that."""
MAX_COUNTED_GROUPS = 2_000
"""Groups that `Batches.stats` averages over; counting millions would take seconds."""

Int64 = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """Settings that decide how a text is cut into batches.

    With `random_bptt` the length of each window is random (see `random_window_ends`).
    """

    batch_size: int
    bptt: int
    stateless: bool = False
    seed: int = 0
    line_end: int | None = None
    random_bptt: bool = False


@dataclass(frozen=True, kw_only=True)
class Position:
    """Place of the next batch: its epoch, its group, and its offset in tokens in that group."""

    epoch: int = 0
    group: int = 0
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class Places:
    """Numbers of sequences in their group of `width`: those of a batch, and of the batch before.

    They stay when other sequences end, so a process can own the same sequences for a whole group.
    """

    now: Int64
    before: Int64
    width: int

    def at(self, columns: Int64) -> "Places":
        """Return the places of some sequences of the batch, by their columns."""
        return replace(self, now=self.now[columns])


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Inputs and targets, both (T, B), of B sequences that are read side by side.

    The state before the `first` batch of a group is the initial state. Sequences that have ended
    are left out of later batches: `kept` holds the index of each sequence in the batch before.
    `next` is the position after this batch. Batches of whole texts have no `places`.
    """

    inputs: Int64
    targets: Int64
    first: bool
    kept: Int64
    tokens: int
    next: Position
    places: Places | None = None

    def split(self, parts: int) -> list[Self]:
        """Return this batch as at most `parts` batches of fewer sequences."""
        if parts == 1:
            return [self]
        size = len(self.kept)
        return [self.at(part) for part in np.array_split(np.arange(size), min(parts, size))]

    def at(self, columns: Int64) -> Self:
        """Return a batch of some sequences of this one, by their columns."""
        targets = self.targets[:, columns]
        return replace(
            self,
            inputs=self.inputs[:, columns],
            targets=targets,
            kept=self.kept[columns],
            tokens=int(np.count_nonzero(targets != PADDING)),
            places=self.places and self.places.at(columns),
        )


@dataclass(frozen=True, kw_only=True)
class BatchStats:
    """Averages over batches: target tokens, time steps, and the fraction that is no padding."""

    tokens: float
    steps: float
    token_fraction: float


class Batches:
    """The batches of a text, epoch by epoch, from any position."""

    batch_type = Batch

    def __init__(self, text: EncodedText, spec: BatchSpec) -> None:
        self.text, self.spec = text, spec

    @property
    def total(self) -> int:
        """Number of tokens in an epoch."""
        return len(self.text.ids)

    def typical(self, batch: Batch) -> float:
        """Return the tokens of a full batch with as many steps as this one."""
        spec = self.spec
        steps = len(batch.inputs) if spec.random_bptt else spec.bptt
        mean = len(self.text.ids) / max(self.text.documents, 1)
        return math.ceil(spec.batch_size * min(steps, mean))

    def epoch(self, position: Position) -> Iterator[Batch]:
        """Yield the rest of an epoch. Its order depends on the seed and the epoch number only."""
        starts, stops, groups = self._segments(position.epoch)
        for number in range(position.group, len(groups)):
            group = groups[number]
            offset = position.offset if number == position.group else 0
            last = number == len(groups) - 1
            after = Position(epoch=position.epoch + last, group=0 if last else number + 1)
            here = replace(position, group=number, offset=offset)
            yield from self._group(starts[group], stops[group], here, after)

    def stats(self) -> BatchStats:
        """Return averages over the first groups of an epoch, for windows of `bptt` tokens."""
        starts, stops, groups = self._segments(0)
        bptt = self.spec.bptt
        batches = tokens = steps = places = 0
        for group in groups[:MAX_COUNTED_GROUPS]:
            lengths = stops[group] - starts[group]
            longest = int(lengths.max())
            batches += -(-longest // bptt)
            steps += longest
            tokens += int(lengths.sum())
            places += int(np.minimum(-(-lengths // bptt) * bptt, longest).sum())
        return BatchStats(
            tokens=tokens / batches, steps=steps / batches, token_fraction=tokens / places
        )

    def _segments(self, epoch: int) -> tuple[Int64, Int64, list[Int64]]:
        """Return the bounds of an epoch's segments, and which of them each group holds."""
        order = np.random.default_rng([self.spec.seed, epoch])
        starts, stops = cut_segments(self.text, self.spec, order)
        return starts, stops, group_segments(stops - starts, self.text, self.spec, order)

    def _group(
        self, starts: Int64, stops: Int64, position: Position, after: Position
    ) -> Iterator[Batch]:
        """Yield the batches of a group from the offset of `position`; `after` follows the last."""
        lengths = stops - starts
        longest = int(lengths.max())
        bounds = self._window_bounds(longest, position)
        for index in range(int(np.searchsorted(bounds, position.offset)), len(bounds) - 1):
            offset, end = int(bounds[index]), int(bounds[index + 1])
            previous = lengths > (bounds[index - 1] if index else -1)
            current = lengths > offset
            span = range(offset, min(end, longest))
            yield self.batch_type(
                **self.arrays(starts[current], stops[current], span),
                first=offset == 0,
                kept=np.flatnonzero(current[previous]),
                tokens=int(np.minimum(lengths[current] - offset, len(span)).sum()),
                next=replace(position, offset=end) if end < longest else after,
                places=Places(
                    now=np.flatnonzero(current), before=np.flatnonzero(previous), width=len(lengths)
                ),
            )

    def arrays(self, starts: Int64, stops: Int64, span: range) -> dict[str, Any]:
        """Return the arrays of a batch by field: tokens `span` of segments [starts, stops)."""
        text, line_end = self.text, self.spec.line_end
        firsts = (
            text.ids[starts + span.start - 1]
            if span.start
            else first_inputs(text, starts, line_end)
        )
        inputs, targets = window_arrays(text.ids, starts, stops, span, firsts)
        return {"inputs": inputs, "targets": targets}

    def _window_bounds(self, longest: int, position: Position) -> Int64:
        """Return the offset of each window of a group, and the end of the last one."""
        spec = self.spec
        if not spec.random_bptt:
            return np.append(np.arange(0, longest, spec.bptt), longest + spec.bptt)
        draws = np.random.default_rng([spec.seed, position.epoch, position.group, 1])
        return random_window_ends(longest, spec.bptt, draws)


def random_window_ends(longest: int, bptt: int, draws: np.random.Generator) -> Int64:
    """Return 0 and the ends of windows of random length (Merity et al. 2018, section 5).

    Lengths are normal with deviation 5 around `bptt`, one time in twenty around half of it. They
    are at least 5 (or `bptt`, if smaller) and at most `bptt` + 20, since the longest window decides
    how much memory is needed. If `bptt` is below 20, the lower bound makes the mean length larger.
    """
    least = min(5, bptt)
    count = longest // least + 1  # enough even if all windows are as short as possible
    mean = np.where(draws.random(count) < 0.95, bptt, bptt / 2)
    lengths = np.clip(np.rint(draws.normal(mean, 5.0)), least, bptt + MAX_LONGER)
    bounds = np.append(0, np.cumsum(lengths)).astype(np.int64)
    return bounds[: int(np.searchsorted(bounds, longest)) + 1]


def window_arrays(
    ids: NDArray[Any], starts: Int64, stops: Int64, span: range, firsts: NDArray[Any]
) -> tuple[Int64, Int64]:
    """Return inputs and targets (T, B): tokens `span` of the segments [starts, stops), padded.

    `firsts` are the first inputs, shape (B,).
    """
    shape = len(span), len(starts)
    inputs, targets = np.full(shape, EOS, np.int64), np.full(shape, PADDING, np.int64)
    for column, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        begin = start + span.start
        end = min(begin + len(span), stop)
        targets[: end - begin, column] = ids[begin:end]
        inputs[1 : end - begin, column] = ids[begin : end - 1]
    inputs[0] = firsts
    return inputs, targets


def first_inputs(text: EncodedText, starts: Int64, line_end: int | None) -> Int64:
    """Return the first input of segments: the start symbol of a text, else the token before."""
    symbols: Int64 | int = EOS
    if text.firsts is not None:
        symbols = text.firsts[np.searchsorted(text.ends, starts, "right")]
    before = text.ids[np.maximum(starts - 1, 0)]
    return np.where(begins_text(text, starts, line_end), symbols, before).astype(np.int64)


def begins_text(text: EncodedText, starts: Int64, line_end: int | None) -> NDArray[np.bool_]:
    """Return which of these places begin a document or follow a line end."""
    before = np.maximum(starts - 1, 0)
    begins = (starts == 0) | (text.ends[np.searchsorted(text.ends, starts, "right") - 1] == starts)
    if line_end is not None:
        begins |= text.ids[before] == line_end
    return np.asarray(begins, np.bool_)


def cut_segments(
    text: EncodedText, spec: BatchSpec, order: np.random.Generator
) -> tuple[Int64, Int64]:
    """Return starts and stops of segments that cover the text, each token once.

    Stateless: windows of `bptt` tokens, shifted by a random offset. Otherwise documents; long ones
    are cut so that all sequences have work. A stream is one long document.
    """
    begins = np.concatenate([[0], text.ends[:-1]]).astype(np.int64)
    lengths = text.ends - begins
    longest = spec.bptt if spec.stateless else longest_segment(lengths, spec)
    cuts = [begins]
    for number in np.flatnonzero(lengths > longest):
        begin, end = int(begins[number]), int(text.ends[number])
        cuts.append(_cuts_inside(text, begin, end, longest, spec, order))
    starts = np.sort(np.concatenate(cuts)).astype(np.int64)
    return starts, np.append(starts[1:], len(text.ids)).astype(np.int64)


def longest_segment(lengths: Int64, spec: BatchSpec) -> int:
    """Return the length of documents above which they are cut, in tokens.

    A group lasts as long as its longest segment. If documents are very unequal, most sequences
    end long before it, and each step reads few tokens.
    """
    longest = max(-(-int(lengths.sum()) // spec.batch_size), spec.bptt)
    if len(lengths) < 2 * spec.batch_size or lengths.max() <= MIN_WINDOWS * spec.bptt:
        return longest
    sizes, counts = np.unique(lengths[lengths > 0], return_counts=True)
    while longest > MIN_WINDOWS * spec.bptt:
        if _filled(sizes, counts, longest, spec.batch_size) >= MIN_FILLED:
            break
        longest = max(longest * 4 // 5, MIN_WINDOWS * spec.bptt)
    return longest


def _filled(sizes: Int64, counts: Int64, longest: int, batch_size: int) -> float:
    """Return the fraction of the places of random groups that hold tokens.

    There are `counts` documents of each of these sizes, in rising order; those longer than
    `longest` are cut into equal segments.
    """
    pieces = -(-sizes // longest)
    segments, numbers = sizes / pieces, counts * pieces
    order = np.argsort(segments)
    at_most = np.cumsum(numbers[order]) / numbers.sum()  # chance that a segment is no longer
    chances = np.diff(at_most**batch_size, prepend=0.0)  # that the longest of a group is this one
    mean = float((sizes * counts).sum() / numbers.sum())
    return mean / float((segments[order] * chances).sum())


def _cuts_inside(
    text: EncodedText,
    begin: int,
    end: int,
    longest: int,
    spec: BatchSpec,
    order: np.random.Generator,
) -> Int64:
    """Return cuts inside the long document [begin, end), all moved by one random offset."""
    if spec.stateless:
        return np.arange(begin + int(order.integers(1, spec.bptt + 1)), end, spec.bptt)
    count = math.ceil((end - begin) / longest)
    if longest * spec.batch_size >= len(text.ids):  # all segments fit into one group
        count = int((end - begin) / len(text.ids) * spec.batch_size) - 1
    if count < 1:
        return np.empty(0, np.int64)
    step = (end - begin) / count
    places = begin + (np.arange(count) + order.random()) * step
    moved = {_line_start(text.ids, int(place), int(step / 8), spec.line_end) for place in places}
    return np.array(sorted(place for place in moved if begin < place < end), np.int64)


def _line_start(ids: NDArray[Any], place: int, reach: int, line_end: int | None) -> int:
    """Return the next line start within `reach` tokens, else the place itself."""
    if line_end is None:
        return place
    line_ends = np.flatnonzero(ids[place : place + reach] == line_end)
    return place + int(line_ends[0]) + 1 if len(line_ends) else place


def group_segments(
    lengths: Int64, text: EncodedText, spec: BatchSpec, order: np.random.Generator
) -> list[Int64]:
    """Return the segments of each group: a stream as one group, other segments shuffled.

    Documents are not sorted by length. Groups of one length need no padding, but what they teach
    about where documents end swings from group to group: on a list of names that cost 0.08 nats
    per character (2.42 instead of 2.34).
    """
    if text.documents == 1 and not spec.stateless:
        return [np.arange(len(lengths), dtype=np.int64)]
    shuffled = order.permutation(len(lengths))
    size = spec.batch_size
    return [shuffled[at : at + size] for at in range(0, len(shuffled), size)]
