"""The neural cache: what was said lately is likely to be said again.

Grave, Joulin & Usunier 2017 (arxiv.org/abs/1612.04426): the probability of a token is mixed with
that of a cache of the last N tokens, each as likely as the context that it came after is like this:

    P(w) = (1 - weight) P_model(w) + weight sum_i [x_i = w] s_i / sum_i s_i,  s_i = exp(theta h h_i)

h_i being what the output layer saw before token i, h what it sees now. Nothing is trained; weight
and theta are chosen on other text than that which is reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError
from charlm.inference.likelihood import WINDOW, tally
from charlm.nn.engine import TorchEngine
from charlm.text.encoded import EncodedText
from charlm.text.tokenizer_json import EOS
from charlm.units import Tally

BLOCK = 256
"""Tokens whose caches are looked at in one product."""
WEIGHTS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
THETAS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
TUNING_TOKENS = 50_000
"""Tokens of the validation text that are enough to choose by."""


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """A text as its model sees it: h before each token (N, H), the tokens, and their nats (N,)."""

    hidden: NDArray[np.float32]
    targets: NDArray[np.int64]
    nats: NDArray[np.float64]

    def first(self, count: int) -> "Contexts":
        """The first so many tokens."""
        return Contexts(
            hidden=self.hidden[:count], targets=self.targets[:count], nats=self.nats[:count]
        )


@dataclass(frozen=True, kw_only=True)
class Cache:
    """How a cache is used: its size in tokens, its weight, and theta, how choosy it is."""

    size: int
    weight: float
    theta: float


def read_contexts(engine: TorchEngine, text: EncodedText) -> Contexts:
    """Read a text once: a stream in one go, documents each from the first state.

    Raises CorpusError when it is empty.
    """
    ids = np.asarray(text.ids, np.int64)
    if len(ids) == 0:
        raise CorpusError("the text is empty; expected at least one token to read with a cache")
    pieces = np.split(ids, text.ends[:-1]) if text.closed else [ids]
    hidden, nats = [], []
    for piece in pieces:
        inputs, state = np.concatenate([[EOS], piece[:-1]]), engine.initial_state(1)
        for begin in range(0, len(piece), WINDOW):
            span = slice(begin, begin + WINDOW)
            seen, found, state = engine.contexts(inputs[span, None], piece[span, None], state)
            hidden.append(seen[:, 0])
            nats.append(found[:, 0])
    return Contexts(hidden=np.concatenate(hidden), targets=ids, nats=np.concatenate(nats))


def cached_nats(contexts: Contexts, cache: Cache) -> NDArray[np.float64]:
    """-ln P of each token under the mixture; the first token has nothing to look back at."""
    found = contexts.nats.copy()
    for begin in range(1, len(found), BLOCK):
        end = min(begin + BLOCK, len(found))
        own = _cache_probability(contexts, begin, end, cache)
        mixed = (1.0 - cache.weight) * np.exp(-contexts.nats[begin:end]) + cache.weight * own
        found[begin:end] = -np.log(mixed)
    return found


def _cache_probability(
    contexts: Contexts, begin: int, end: int, cache: Cache
) -> NDArray[np.float64]:
    """What the cache alone gives the tokens from `begin` to `end`, each with its own past."""
    first = max(0, begin - cache.size)
    scores = cache.theta * (contexts.hidden[begin:end] @ contexts.hidden[first:end].T)
    place, past = np.arange(begin, end)[:, None], np.arange(first, end)[None]
    seen = (past < place) & (past >= place - cache.size)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    same = contexts.targets[begin:end, None] == contexts.targets[None, first:end]
    return np.asarray((weights * same).sum(axis=1, dtype=np.float64) / weights.sum(axis=1))


def tuned(contexts: Contexts, size: int) -> Cache:
    """The cache of this size that gives a text the least nats, from a grid of weight and theta."""
    part = contexts.first(TUNING_TOKENS)
    return min(_grid(size), key=lambda cache: float(cached_nats(part, cache).sum()))


def _grid(size: int) -> Iterator[Cache]:
    for weight, theta in product(WEIGHTS, THETAS):
        yield Cache(size=size, weight=weight, theta=theta)


def cached_tally(contexts: Contexts, text: EncodedText, cache: Cache) -> Tally:
    """The tally of a text under a model with a cache."""
    return tally(text, cached_nats(contexts, cache))
