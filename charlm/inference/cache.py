"""The neural cache: what was said lately is likely to be said again.

Grave, Joulin & Usunier 2017 (arxiv.org/abs/1612.04426): the probability of a token is mixed with
that of a cache of the last N tokens, each as likely as the context that it came after is like this:

    P(w) = (1 - weight) P_model(w) + weight sum_i [x_i = w] s_i / sum_i s_i,  s_i = exp(theta h h_i)

h_i being what the output layer saw before token i, h what it sees now. Nothing is trained; weight
and theta are chosen on other text than that which is reported.
"""

from dataclasses import dataclass

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


def read_contexts(engine: TorchEngine, text: EncodedText, most: int | None = None) -> Contexts:
    """Read a text once, or its first `most` tokens: a stream in one go, documents each anew.

    Raises CorpusError when it is empty.
    """
    ids = np.asarray(text.ids[:most], np.int64)
    if len(ids) == 0:
        raise CorpusError("the text is empty; expected at least one token to read with a cache")
    pieces = np.split(ids, text.ends[text.ends < len(ids)]) if text.closed else [ids]
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
    return _mixed(contexts, _own(contexts, cache.size, cache.theta), cache.weight)


def _mixed(contexts: Contexts, own: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """-ln of (1 - weight) P + weight * own, where the cache holds something."""
    found = contexts.nats.copy()
    found[1:] = -np.log((1.0 - weight) * np.exp(-contexts.nats[1:]) + weight * own[1:])
    return found


def _own(contexts: Contexts, size: int, theta: float) -> NDArray[np.float64]:
    """What the cache alone gives each token, shape (N,); nothing to the first."""
    own = np.zeros(len(contexts.nats))
    for begin in range(1, len(own), BLOCK):
        end = min(begin + BLOCK, len(own))
        own[begin:end] = _block(contexts, begin, end, size, theta)
    return own


def _block(
    contexts: Contexts, begin: int, end: int, size: int, theta: float
) -> NDArray[np.float64]:
    """The same for the tokens from `begin` to `end`, each with its own past."""
    first = max(0, begin - size)
    scores = theta * (contexts.hidden[begin:end] @ contexts.hidden[first:end].T)
    place, past = np.arange(begin, end)[:, None], np.arange(first, end)[None]
    seen = (past < place) & (past >= place - size)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    same = contexts.targets[begin:end, None] == contexts.targets[None, first:end]
    return np.asarray((weights * same).sum(axis=1, dtype=np.float64) / weights.sum(axis=1))


def tuned(contexts: Contexts, size: int) -> Cache:
    """The cache of this size that gives a text the least nats, from a grid of weight and theta."""
    part = contexts.first(TUNING_TOKENS)
    totals: dict[Cache, float] = {}
    for theta in THETAS:
        own = _own(part, size, theta)
        for weight in WEIGHTS:
            cache = Cache(size=size, weight=weight, theta=theta)
            totals[cache] = float(_mixed(part, own, weight).sum())
    return min(totals, key=totals.__getitem__)


def cached_tally(contexts: Contexts, text: EncodedText, cache: Cache) -> Tally:
    """The tally of a text under a model with a cache."""
    return tally(text, cached_nats(contexts, cache))
