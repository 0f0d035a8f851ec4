"""Counts of the n-grams of a text.

The places of the text are sorted by the n-gram that ends there, which is a token longer each time:
the places of one n-gram follow each other, so the n-grams that extend it are found by sorting the
tokens after these places alone. That takes about 12 bytes of memory for each token and 16 for each
n-gram, and a slice of the places at a time stays in the cache of the processor.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import EnvironmentFailure
from charlm.files.memory import free_memory
from charlm.ngrams.model import Ids
from charlm.text.tokenizers.tokenizer_json import EOS

MAX_BITS = 63
"""Bits of a positive number in 64 bits."""
SLICE = 1 << 17
"""Places of a text that are sorted at a time: 1 MB of keys."""
TOKEN_BYTES, NGRAM_BYTES = 9, 16
"""Bytes of memory that `count` needs at least for each token, and for each different n-gram."""
Places = NDArray[np.signedinteger[Any]]
"""Places of a text, nodes or numbers of occurrences: int32, or int64 for texts of 2^31 tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """The n-grams of a text up to some order.

    `keys` are those of `NgramModel`, for orders 2 and up; `suffixes` are the nodes of the same
    n-grams without their first token; `occurrences` begin with order 1.
    """

    vocab_size: int
    keys: list[Ids]
    suffixes: list[Places]
    occurrences: list[Places]

    def adjusted(self, order: int, highest: int) -> Places:
        """Return the adjusted counts of one order for a model of order `highest`."""
        occurrences = self.occurrences[order - 1]
        if order == highest:
            counts = occurrences.copy()
        else:
            counts = np.zeros_like(occurrences)
            one = counts.dtype.type(1)  # other types take ten times as long
            for suffixes in slices_of(self.suffixes[order - 1]):
                np.add.at(counts, suffixes, one)
            first = self._first_after_start(order)
            counts[first:] = occurrences[first:]
        if order == 1:
            counts[self.vocab_size] = 0
        return counts

    def _first_after_start(self, order: int) -> int:
        """Return the first node that begins with the start symbol; the others follow it."""
        first = self.vocab_size
        for keys in self.keys[: order - 1]:
            first = int(np.searchsorted(keys, first * (self.vocab_size + 1)))
        return first


def count(
    ids: NDArray[np.integer], vocab_size: int, order: int, limit: int | None = None
) -> Counts:
    """Count the n-grams of a text; documents begin at its first id and after each EOS.

    Orders with which there would be more than `limit` different n-grams are left out. Raises
    EnvironmentFailure as soon as the memory that is free is known to be too little.
    """
    _check_memory(len(ids), 0, TOKEN_BYTES * len(ids))
    text = _SortedText(ids, vocab_size)
    counts = Counts(vocab_size=vocab_size, keys=[], suffixes=[], occurrences=[text.occurrences])
    for length in range(2, order + 1):
        known = sum(map(len, counts.occurrences))
        left = None if limit is None else limit - known
        more = _fewest_longer(counts, order)
        more = more if left is None else min(more, max(left, 0))
        _check_memory(len(ids), TOKEN_BYTES * len(ids) + NGRAM_BYTES * known, NGRAM_BYTES * more)
        longer = text.extend(left, last=length == order)
        if longer is None:
            break
        counts.keys.append(longer[0])
        counts.suffixes.append(longer[1])
        counts.occurrences.append(text.occurrences)
    return counts


def _fewest_longer(counts: Counts, order: int) -> int:
    """Return how many longer n-grams, up to an order, a text must have by its counts up to now.

    Each n-gram can be made longer, except at the ends of documents.
    """
    lengths = order - len(counts.occurrences)
    documents = int(counts.occurrences[0][counts.vocab_size])
    seen = int(np.count_nonzero(counts.occurrences[-1]))
    return lengths * max(seen - lengths * documents, 0)


def _check_memory(tokens: int, used: int, more: int) -> None:
    """Raise EnvironmentFailure if more bytes of memory are needed than are free."""
    free = free_memory()
    if free is not None and more > free:
        raise EnvironmentFailure(
            f"counting n-grams of {tokens:,} tokens needs at least {(used + more) / 1e9:.1f} GB of "
            f"memory, but only {(used + free) / 1e9:.1f} GB is free; expected enough for all. Use "
            "a part of the text, or shorter n-grams"
        )


class _SortedText:
    """The places of a text, sorted by the n-gram of some length that ends there.

    `occurrences` has the number of places of each node, and `nodes` the node at each place of the
    text. Places where no n-gram of the length ends are not in `places`, and their nodes are not
    used.
    """

    def __init__(self, ids: NDArray[np.integer], vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._stream = _with_starts(ids, vocab_size)
        kind: type[np.signedinteger[Any]] = np.int64
        if len(self._stream) < 2**31 - SLICE:
            kind = np.int32
        self._places, sizes = self._by_token(np.arange(len(self._stream) - 1, dtype=kind))
        self.occurrences: Places = sizes.astype(kind)
        self._nodes = self._stream.astype(kind)

    def extend(self, limit: int | None, *, last: bool) -> tuple[Ids, Places] | None:
        """Sort the places by n-grams with one token more; return their keys and suffixes.

        Return None if there are more n-grams than `limit`. No other length can follow the `last`
        one, nor None.
        """
        ends = np.cumsum(self.occurrences, dtype=self._nodes.dtype)
        every_key, every_suffix, every_size = [np.empty(0, np.int64)], [ends[:0]], [ends[:0]]
        first, begin, written, total = 0, 0, 0, 0
        while begin < len(self._places):
            beyond = max(int(ends.searchsorted(ends.dtype.type(begin + SLICE), "right")), first + 1)
            end = int(ends[beyond - 1])
            places, keys, sizes = self._sorted(self._places[begin:end], first, beyond)
            every_key.append(keys)
            every_size.append(sizes.astype(ends.dtype))
            every_suffix.append(self._nodes[places[np.cumsum(sizes) - sizes]])
            if not last:
                nodes = np.arange(total, total + len(keys), dtype=ends.dtype)
                self._set_nodes(places, np.repeat(nodes, sizes))
                self._places[written : written + len(places)] = places
            first, begin, written, total = beyond, end, written + len(places), total + len(keys)
            if limit is not None and total > limit:
                return None
        self._places = self._places[:written]
        if last:
            del self._places, self._nodes, self._stream
        self.occurrences = _joined(every_size)
        return _joined(every_key), _joined(every_suffix)

    def _sorted(self, places: Places, first: int, beyond: int) -> tuple[Places, Ids, Ids]:
        """Return the next places sorted by their keys, the keys, and the number of places of each.

        The places given are those of the nodes from `first` to before `beyond`. They are changed.
        """
        start, every = self._vocab_size, self._vocab_size + 1
        places += 1
        if beyond == first + 1 and len(places) > SLICE:
            places, sizes = self._by_token(places)
            tokens = np.flatnonzero(sizes[:start])  # the start symbol is the last
            return places[: len(places) - sizes[start]], first * every + tokens, sizes[tokens]
        tokens = self._stream[places]
        contexts = np.repeat(np.arange(beyond - first), self.occurrences[first:beyond])
        inside = np.flatnonzero(tokens != start)
        keys, by_key = sorted_keys(contexts[inside] * every + tokens[inside])
        groups, sizes = _groups(keys)
        return places[inside[by_key]], keys[groups] + first * every, sizes

    def _by_token(self, places: Places) -> tuple[Places, Ids]:
        """Return places sorted by the token there, and the number of places of each token."""
        sizes = np.zeros(self._vocab_size + 1, np.int64)
        for part in slices_of(places):
            sizes += np.bincount(self._stream[part], minlength=len(sizes))
        begins, by_token = np.cumsum(sizes) - sizes, np.empty_like(places)
        for part in slices_of(places):
            tokens, order = sorted_keys(self._stream[part].astype(np.int64))
            groups, found = _groups(tokens)
            tokens = tokens[groups]
            by_token[np.arange(len(part)) + np.repeat(begins[tokens] - groups, found)] = part[order]
            begins[tokens] += found
        return by_token, sizes

    def _set_nodes(self, places: Places, nodes: Places) -> None:
        for begin in range(0, len(places), SLICE):
            self._nodes[places[begin : begin + SLICE]] = nodes[begin : begin + SLICE]


def _with_starts(ids: NDArray[np.integer], vocab_size: int) -> NDArray[Any]:
    """Return the ids with the start symbol before each document, and once after all.

    They have the smallest unsigned type that holds them.
    """
    stream = ids.astype(np.min_scalar_type(vocab_size), copy=False)
    firsts = np.flatnonzero(ids[:-1] == EOS) + 1
    begin = [0] if len(ids) else []
    return np.insert(
        stream, np.concatenate([begin, firsts, [len(ids)]]).astype(np.int64), vocab_size
    )


def _groups(keys: Ids) -> tuple[Ids, Ids]:
    """Return the first place of each different key in sorted keys, and its number of places."""
    is_new = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=is_new[1:])
    groups = np.flatnonzero(is_new)
    return groups, np.diff(groups, append=len(keys))


def _joined(parts: list[Any]) -> Any:
    """Return the arrays of a list as one, and empty the list."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def slices_of(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array in slices of SLICE values."""
    return (values[begin : begin + SLICE] for begin in range(0, len(values), SLICE))


def sorted_keys(keys: Ids) -> tuple[Ids, Ids]:
    """Return keys in ascending order, and the place that each of them had.

    Each key is sorted in one number with its place if there are enough bits, which takes less than
    half the time of an argsort.
    """
    bits = len(keys).bit_length()
    if int(keys.max(initial=0)).bit_length() + bits > MAX_BITS:
        places = np.argsort(keys)
        return keys[places], places
    both = (keys << bits) | np.arange(len(keys))
    both.sort()
    return both >> bits, both & ((1 << bits) - 1)
