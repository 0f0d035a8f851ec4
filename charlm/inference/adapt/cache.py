"""Neural cache: words that occurred recently are likely to occur again.

Grave, Joulin & Usunier 2017 (arxiv.org/abs/1612.04426) mix the probability of the model with the
probability of a cache of the last N tokens, where a token counts for more the more its context
resembles the present one:

    P(w) = (1 - weight) P_model(w) + weight sum_i [x_i = w] s_i / sum_i s_i,  s_i = exp(theta h h_i)

h_i is the input of the output layer before token i, and h its input now. Nothing is trained; weight
and theta are chosen on another text than the one that is scored.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError
from charlm.inference.likelihood import WINDOW, tally
from charlm.nn.torch_backend import TorchBackend
from charlm.phases import advance, phase
from charlm.products import product
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.units import Tally

BLOCK = 256
"""Tokens whose caches are computed in one matrix product."""
WEIGHTS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.3)
THETAS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
TUNING_TOKENS = 50_000
"""Tokens of the validation text by which weight and theta are chosen."""


@dataclass(frozen=True, kw_only=True)
class Contexts:
    """Tokens as the model sees them: h before each (N, H), ids (N,) and nats (N,)."""

    hidden: NDArray[np.float32]
    targets: NDArray[np.int64]
    nats: NDArray[np.float64]

    def part(self, begin: int, end: int | None = None) -> "Contexts":
        """Return the contexts of the tokens from `begin` to `end`."""
        span = slice(begin, end)
        return Contexts(hidden=self.hidden[span], targets=self.targets[span], nats=self.nats[span])


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Settings of a cache: its size in tokens, its weight, and theta, which makes it selective."""

    size: int
    weight: float
    theta: float


def read_contexts(backend: TorchBackend, text: EncodedText, most: int | None = None) -> Contexts:
    """Read a text once, or its first `most` tokens. Each document begins from the first state.

    Raises CorpusError if the text is empty.
    """
    return _joined(list(_windows(backend, text, most)))


def _windows(backend: TorchBackend, text: EncodedText, most: int | None) -> Iterator[Contexts]:
    ids = np.asarray(text.ids[:most], np.int64)
    if len(ids) == 0:
        raise CorpusError("the text is empty; expected at least one token to read with a cache")
    for document in np.split(ids, text.ends[text.ends < len(ids)]):
        inputs, state = np.concatenate([[EOS], document[:-1]]), backend.initial_state(1)
        for begin in range(0, len(document), WINDOW):
            span = slice(begin, begin + WINDOW)
            targets = document[span]
            hidden, nats, state = backend.contexts(inputs[span, None], targets[:, None], state)
            advance(len(nats))
            yield Contexts(hidden=hidden[:, 0], targets=targets, nats=nats[:, 0])


def _blocks(windows: Iterator[Contexts]) -> Iterator[Contexts]:
    """Yield the same tokens, at least BLOCK at a time, since documents may be short."""
    block: list[Contexts] = []
    for window in windows:
        block.append(window)
        if sum(len(contexts.nats) for contexts in block) >= BLOCK:
            yield _joined(block)
            block = []
    if block:
        yield _joined(block)


def _joined(contexts: Sequence[Contexts]) -> Contexts:
    return Contexts(
        hidden=np.concatenate([each.hidden for each in contexts]),
        targets=np.concatenate([each.targets for each in contexts]),
        nats=np.concatenate([each.nats for each in contexts]),
    )


def cached_nats(contexts: Contexts, cache: Cache, known: int = 0) -> NDArray[np.float64]:
    """Return -ln P of each token under the mixture, except for the first `known` tokens.

    Those only fill the cache. For the first token of all the cache is empty.
    """
    cached = _in_cache(contexts, cache.size, cache.theta, known)
    return _mixed(contexts, cached, cache.weight)[known:]


def _mixed(contexts: Contexts, cached: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """Return -ln((1 - weight) P + weight * cached); P alone for the first token."""
    nats = contexts.nats.copy()
    nats[1:] = -np.log((1.0 - weight) * np.exp(-contexts.nats[1:]) + weight * cached[1:])
    return nats


def _in_cache(contexts: Contexts, size: int, theta: float, known: int = 0) -> NDArray[np.float64]:
    """Return the probability of each token in the cache alone, shape (N,); 0 for known tokens."""
    cached = np.zeros(len(contexts.nats))
    for begin in range(max(known, 1), len(cached), BLOCK):
        end = min(begin + BLOCK, len(cached))
        cached[begin:end] = _block(contexts, begin, end, size, theta)
        advance(end - begin)
    return cached


def _block(
    contexts: Contexts, begin: int, end: int, size: int, theta: float
) -> NDArray[np.float64]:
    """Return the probabilities of the tokens from `begin` to `end`, each with its own past."""
    first = max(0, begin - size)
    scores = theta * product(contexts.hidden[begin:end], contexts.hidden[first:end].T)
    place, past = np.arange(begin, end)[:, None], np.arange(first, end)[None]
    seen = (past < place) & (past >= place - size)
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    same = contexts.targets[begin:end, None] == contexts.targets[None, first:end]
    return np.asarray((weights * same).sum(axis=1, dtype=np.float64) / weights.sum(axis=1))


def tuned(contexts: Contexts, size: int) -> Cache:
    """Return the cache of this size with the least nats, from a grid of weight and theta."""
    contexts = contexts.part(0, TUNING_TOKENS)
    totals: dict[Cache, float] = {}
    with phase("choosing the weight of the cache", total=len(THETAS) * len(contexts.nats)):
        for theta in THETAS:
            cached = _in_cache(contexts, size, theta)
            for weight in WEIGHTS:
                cache = Cache(size=size, weight=weight, theta=theta)
                totals[cache] = float(_mixed(contexts, cached, weight).sum())
    return min(totals, key=totals.__getitem__)


def cached_tally(backend: TorchBackend, text: EncodedText, cache: Cache) -> Tally:
    """Return the tally of a text under a model with a cache. Memory grows with the cache only."""
    past: list[Contexts] = []
    nats: list[NDArray[np.float64]] = []
    for new in _blocks(_windows(backend, text, None)):
        seen = _joined([*past, new])
        known = len(seen.nats) - len(new.nats)
        nats.append(cached_nats(seen, cache, known))
        past = [seen.part(-cache.size)]
    return tally(text, np.concatenate(nats))
