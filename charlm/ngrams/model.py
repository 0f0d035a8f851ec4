"""Back-off n-gram models as sorted arrays, and the probabilities of tokens under them.

Each n-gram is a node. The nodes of order 1 are the ids 0 .. V-1, and V for the start symbol. The
nodes of order k > 1 are numbered by their sorted keys

    key = node of the first k-1 tokens * (V + 1) + last token

so a node is found by binary search. EOS as input is the start symbol, and contexts never reach
beyond it. Logarithms are of base 10, as in ARPA files, so numbers survive export and import.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.text.tokenizers.tokenizer_json import EOS

Ids = NDArray[np.int64]
Floats = NDArray[Any]
LN10 = math.log(10.0)
MIN_SORTED = 4096
"""Fewest values that are sorted before they are looked for in sorted keys."""
NO_TOKEN = -1
"""Id in a context where no token is visible: before the start of a document."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NgramModel:
    """A back-off model of order n over a vocabulary of V entries.

        log10 P(w | h) = log_p[h w]                          if the model has the n-gram h w
                       = log_backoff[h] + log10 P(w | h')    otherwise; h' is h without its first

    `keys` holds the sorted keys of orders 2 .. n, `log_p` the log-probabilities of orders 1 .. n
    (that of the start symbol is 0 and not used), `log_backoff` those of orders 1 .. n-1.
    """

    vocab_size: int
    keys: Sequence[Ids]
    log_p: Sequence[Floats]
    log_backoff: Sequence[Floats]

    @property
    def order(self) -> int:
        """Maximum length of an n-gram in tokens."""
        return len(self.log_p)

    @property
    def sizes(self) -> list[int]:
        """Number of n-grams of each order; order 1 has all entries and the start symbol."""
        return [len(values) for values in self.log_p]

    def find(self, order: int, contexts: Ids, tokens: Ids) -> Ids:
        """Return the nodes of order > 1 that extend nodes by tokens; -1 if there is none."""
        keys = self.keys[order - 2]
        if not len(keys):
            return np.full(len(tokens), -1, np.int64)
        wanted = np.where(contexts >= 0, contexts * (self.vocab_size + 1) + tokens, -1)
        places = places_of(wanted, keys)
        np.minimum(places, len(keys) - 1, out=places)
        places[keys[places] != wanted] = -1
        return places

    def contexts(self, tokens: Ids) -> Ids:
        """Return the nodes of orders 1 .. n-1 that end at each token, shape (n-1, T, ...).

        Tokens (T, ...) run along the first axis. A node is -1 if there is none. NO_TOKEN, and what
        is before EOS, is not visible.
        """
        nodes = np.full((self.order - 1, *tokens.shape), -1, np.int64)
        if self.order == 1:
            return nodes
        last = np.where(tokens == EOS, self.vocab_size, tokens)
        nodes[0] = last
        for order in range(2, self.order):
            before = nodes[order - 2][:-1]  # no n-gram extends it by the start symbol
            found = self.find(order, before.ravel(), last[1:].ravel())
            nodes[order - 1][1:] = found.reshape(before.shape)
        return nodes

    def look_up(self, contexts: Ids, targets: Ids) -> tuple[NDArray[np.float64], Ids]:
        """Return ln P of each target (N,) and the order of the n-gram that was found.

        `contexts` (n-1, N) are the nodes of orders 1 .. n-1 before each target.
        """
        log_p = np.asarray(self.log_p[0][targets], np.float64)
        lengths = np.ones(len(targets), np.int64)
        for order, nodes in enumerate(contexts, 2):
            known = np.flatnonzero(nodes >= 0)
            chosen = nodes[known]
            log_p[known] += self.log_backoff[order - 2][chosen]
            places = self.find(order, chosen, targets[known])
            hits = places >= 0
            log_p[known[hits]] = self.log_p[order - 1][places[hits]]
            lengths[known[hits]] = order
        return log_p * LN10, lengths

    def distributions(self, contexts: Ids) -> NDArray[np.float64]:
        """Return ln P of every entry after each context (n-1, N), shape (N, V)."""
        left = np.zeros((self.order, contexts.shape[1]))  # back-offs from the orders above
        for order in range(self.order - 1, 0, -1):
            nodes = contexts[order - 1]
            known = np.flatnonzero(nodes >= 0)
            left[order - 1] = left[order]
            left[order - 1][known] += self.log_backoff[order - 1][nodes[known]]
        rows = self.log_p[0][: self.vocab_size] + left[0][:, None]
        for order, nodes in enumerate(contexts, 2):
            known = np.flatnonzero(nodes >= 0)
            children, sizes = self._children(order, nodes[known])
            tokens = self.keys[order - 2][children] % (self.vocab_size + 1)
            places = np.repeat(known, sizes)
            rows[places, tokens] = self.log_p[order - 1][children] + left[order - 1][places]
        return np.asarray(rows * LN10, np.float64)

    def _children(self, order: int, nodes: Ids) -> tuple[Ids, Ids]:
        """Return the n-grams of an order that extend nodes, one node after another, and numbers."""
        offsets = self._offsets[order - 2]
        starts = offsets[nodes]
        sizes = offsets[nodes + 1] - starts
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        return np.arange(total) + np.repeat(starts - ends + sizes, sizes), sizes

    @cached_property
    def _offsets(self) -> list[Ids]:
        """First child of each node, and one more; the children of a node follow each other."""
        return [
            np.searchsorted(keys, np.arange(size + 1) * (self.vocab_size + 1))
            for keys, size in zip(self.keys, self.sizes[:-1], strict=True)
        ]

    def known_lengths(self, contexts: Ids) -> Ids:
        """Return the length in tokens, from 0 to n-1, of the longest of each context's nodes."""
        lengths = np.arange(1, self.order).reshape(-1, *[1] * (contexts.ndim - 1))
        return np.asarray(((contexts >= 0) * lengths).max(axis=0, initial=0))

    def text_nats(self, ids: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return -ln P of each token of a text that begins after the start symbol, shape (N,)."""
        return self.text_figures(ids)[0]

    def text_figures(self, ids: NDArray[np.integer]) -> tuple[NDArray[np.float64], Ids]:
        """Return `text_nats`, and `known_lengths` before each token, (N,) each."""
        targets = np.asarray(ids, np.int64)
        contexts = self.contexts(np.concatenate([[EOS], targets])[:-1])
        return -self.look_up(contexts, targets)[0], self.known_lengths(contexts)


def places_of(values: Ids, keys: Ids) -> Ids:
    """Return the first places in sorted keys that are no smaller than each of the values.

    Many values are looked for in their order, so that the keys near the last place are in the cache
    of the processor: about a third of the time.
    """
    if len(values) < MIN_SORTED:
        return np.searchsorted(keys, values)
    by_value = np.argsort(values)
    places = np.empty_like(by_value)
    places[by_value] = np.searchsorted(keys, values[by_value])
    return places


def ngram_tokens(model: NgramModel, order: int, nodes: Ids) -> Iterator[Ids]:
    """Yield the tokens of nodes of one order, the last position first; V is the start symbol."""
    for keys in reversed(model.keys[: order - 1]):
        key = keys[nodes]
        nodes = key // (model.vocab_size + 1)
        yield key - nodes * (model.vocab_size + 1)
    yield nodes
