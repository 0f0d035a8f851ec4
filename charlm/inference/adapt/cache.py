"""The neural cache: what was said lately is likely to be said again.

Grave, Joulin & Usunier 2017 (arxiv.org/abs/1612.04426): the probability of a token is mixed with
that of a cache of the last N tokens, each as likely as the context that it came after is like this:

    P(w) = (1 - weight) P_model(w) + weight sum_i [x_i = w] s_i / sum_i s_i,  s_i = exp(theta h h_i)

h_i being what the output layer saw before token i, h what it sees now. Nothing is trained; weight
and theta are chosen on other text than that which is reported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError
from charlm.inference.likelihood import WINDOW, tally
from charlm.nn.torch_backend import TorchEngine
from charlm.phases import advance, phase
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.units import Tally

BLOCK = 256
"""Tokens whose caches are looked at in one product."""
WEIGHTS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
THETAS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
TUNING_TOKENS = 50_000
"""Tokens of the validation text that are enough to choose by."""


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Tokens as their model sees them: h before each (N, H), the tokens, and their nats (N,)."""

    hidden: NDArray[np.float32]
    targets: NDArray[np.int64]
    nats: NDArray[np.float64]

    def part(self, begin: int, end: int | None = None) -> "Contexts":
        """Those of the tokens from `begin` to `end`."""
        span = slice(begin, end)
        return Contexts(hidden=self.hidden[span], targets=self.targets[span], nats=self.nats[span])


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
    return _joined(list(_windows(engine, text, most)))


def _windows(engine: TorchEngine, text: EncodedText, most: int | None) -> Iterator[Contexts]:
    ids = np.asarray(text.ids[:most], np.int64)
    if len(ids) == 0:
        raise CorpusError("the text is empty; expected at least one token to read with a cache")
    pieces = [ids] if text.is_stream else np.split(ids, text.ends[text.ends < len(ids)])
    for piece in pieces:
        inputs, state = np.concatenate([[EOS], piece[:-1]]), engine.initial_state(1)
        for begin in range(0, len(piece), WINDOW):
            span = slice(begin, begin + WINDOW)
            seen, found, state = engine.contexts(inputs[span, None], piece[span, None], state)
            advance(len(found))
            yield Contexts(hidden=seen[:, 0], targets=piece[span], nats=found[:, 0])


def _blocks(windows: Iterator[Contexts]) -> Iterator[Contexts]:
    """The same tokens, at least BLOCK at once: documents may be short."""
    waiting: list[Contexts] = []
    for window in windows:
        waiting.append(window)
        if sum(len(part.nats) for part in waiting) >= BLOCK:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Contexts]) -> Contexts:
    return Contexts(
        hidden=np.concatenate([part.hidden for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        nats=np.concatenate([part.nats for part in parts]),
    )


def cached_nats(contexts: Contexts, cache: Cache, known: int = 0) -> NDArray[np.float64]:
    """-ln P under the mixture, of each token but the first `known`, which are only looked back at.

    The first token of all has nothing to look back at.
    """
    own = _own(contexts, cache.size, cache.theta, known)
    return _mixed(contexts, own, cache.weight)[known:]


def _mixed(contexts: Contexts, own: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """-ln of (1 - weight) P + weight * own, where the cache holds something."""
    found = contexts.nats.copy()
    found[1:] = -np.log((1.0 - weight) * np.exp(-contexts.nats[1:]) + weight * own[1:])
    return found


def _own(contexts: Contexts, size: int, theta: float, known: int = 0) -> NDArray[np.float64]:
    """What the cache alone gives each token, shape (N,); nothing to the first and those known."""
    own = np.zeros(len(contexts.nats))
    for begin in range(max(known, 1), len(own), BLOCK):
        end = min(begin + BLOCK, len(own))
        own[begin:end] = _block(contexts, begin, end, size, theta)
        advance(end - begin)
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
    part = contexts.part(0, TUNING_TOKENS)
    totals: dict[Cache, float] = {}
    with phase("choosing the weight of the cache", total=len(THETAS) * len(part.nats)):
        for theta in THETAS:
            own = _own(part, size, theta)
            for weight in WEIGHTS:
                cache = Cache(size=size, weight=weight, theta=theta)
                totals[cache] = float(_mixed(part, own, weight).sum())
    return min(totals, key=totals.__getitem__)


def cached_tally(engine: TorchEngine, text: EncodedText, cache: Cache) -> Tally:
    """The tally of a text under a model with a cache; no more of it than the cache is held."""
    past: list[Contexts] = []
    nats: list[NDArray[np.float64]] = []
    for new in _blocks(_windows(engine, text, None)):
        seen = _joined([*past, new])
        known = len(seen.nats) - len(new.nats)
        nats.append(cached_nats(seen, cache, known))
        past = [seen.part(-cache.size)]
    return tally(text, np.concatenate(nats))
