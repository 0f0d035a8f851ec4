"""The backend of a mixture: linear interpolation of the probabilities of several backends.

    P(token) = sum_k weight_k P_k(token)

Jelinek & Mercer 1980. Every member reads every token and has a state of its own. The weights of a
network and n-grams can depend on the length of the context that the n-grams know, so on the tokens
before only: the probabilities sum to 1 in any case.
"""

from collections.abc import Sequence

import numpy as np

from charlm.backends.interface import Array, Backend, Entries, Ids, Logits, Nats, State
from charlm.backends.ngram_backend import NgramBackend
from charlm.backends.softmax import log_sum_exp


def mixed_nats(nats: Sequence[Nats], weights: Sequence[float] | Nats) -> Nats:
    """Return -ln sum_k w_k P_k from the nats of each member, which have one shape.

    Each member has one weight, or weights whose shape fits that of its nats.
    """
    table = -np.stack(nats)
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(weights, np.float64))
    shifted = table + (logs if logs.ndim > 1 else logs.reshape(-1, *[1] * (table.ndim - 1)))
    return -log_sum_exp(shifted, axis=0)


class MixedBackend:
    """Compute with several backends of one vocabulary, each with a fixed weight.

    The weights are positive or zero, and their sum is 1. If the second of two members is an n-gram
    model, `by_length` can have its weight for each length of the context that it knows, from 0 to
    n-1; they take the place of `weights`. A state has the layers of the first member's state, then
    those of the second, and so on.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        weights: Sequence[float],
        by_length: Sequence[float] = (),
    ) -> None:
        self.backends, self.weights = tuple(backends), tuple(weights)
        self.by_length = np.asarray(by_length, np.float64)
        self.name = "mixture of " + " and ".join(backend.name for backend in backends)
        self.vocab_size = backends[0].vocab_size
        self.logits_each = sum(backend.logits_each for backend in backends)
        self._layers = [len(backend.initial_state(1)) for backend in backends]

    def initial_state(self, batch_size: int) -> State:
        """See `Backend.initial_state`."""
        return _joined([backend.initial_state(batch_size) for backend in self.backends])

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """See `Backend.nats`."""
        results = [backend.nats(inputs, targets, own) for backend, own in self._members(state)]
        nats = mixed_nats([nats for nats, _ in results], self._weights(inputs, state))
        return nats, _joined([after for _, after in results])

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """See `Backend.ranks`."""
        nats, after = self.nats(inputs, targets, state)
        log_p, _ = self.distribution(inputs, state)
        own = np.take_along_axis(log_p, targets[..., None], axis=2)
        return nats, (log_p > own).sum(axis=2) + 1, after

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """See `Backend.masses`."""
        results = [
            backend.masses(inputs, targets, entries, own) for backend, own in self._members(state)
        ]
        weights = self._weights(inputs, state)
        nats = mixed_nats([nats for nats, _, _ in results], weights)
        log_masses = -mixed_nats([-log_masses for _, log_masses, _ in results], weights)
        return nats, log_masses, _joined([after for _, _, after in results])

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.logits`; these are ln P, so they need no normalisation."""
        results = [backend.logits(inputs, own) for backend, own in self._members(state)]
        losses = self._losses([logits for logits, _ in results])
        weights = self._weights(inputs, state)[:, -1, :, None]  # after the last input: (K, B, 1)
        return -mixed_nats(losses, weights), _joined([after for _, after in results])

    def distribution(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.distribution`; these are ln P."""
        results = [backend.distribution(inputs, own) for backend, own in self._members(state)]
        losses = self._losses([logits for logits, _ in results])
        weights = self._weights(inputs, state)[..., None]  # (K, T, B, 1)
        return -mixed_nats(losses, weights), _joined([after for _, after in results])

    def log_probabilities(self, logits: Array | Logits) -> Nats:
        """See `Backend.log_probabilities`; logits are ln P here."""
        return np.asarray(logits, np.float64)

    def _losses(self, logits: Sequence[Array | Logits]) -> list[Nats]:
        """Return the nats of every entry (..., V) under each member, by the logits of each."""
        pairs = zip(self.backends, logits, strict=True)
        return [-backend.log_probabilities(own) for backend, own in pairs]

    def trace(
        self, inputs: Ids, state: State, signals: Sequence[str]
    ) -> tuple[dict[str, Array], State]:
        """See `Backend.trace`; these are the units of the first member."""
        (first, own), *others = self._members(state)
        values, after = first.trace(inputs, own, signals)
        rest = [backend.logits(inputs, other)[1] for backend, other in others]
        return values, _joined([after, *rest])

    def _weights(self, inputs: Ids, state: State) -> Nats:
        """Return the weight of each member after each input, (K, T, B); (K, 1, 1) if fixed."""
        ngrams, own_state = self._members(state)[-1]
        if not len(self.by_length) or not isinstance(ngrams, NgramBackend):
            return np.reshape(self.weights, (-1, 1, 1))
        own = self.by_length[ngrams.known_lengths(inputs, own_state)]
        return np.stack([1.0 - own, own])

    def _members(self, state: State) -> list[tuple[Backend, State]]:
        """Return each member with its part of the state."""
        ends = np.cumsum(self._layers).tolist()
        parts = [state[end - count : end] for end, count in zip(ends, self._layers, strict=True)]
        return list(zip(self.backends, parts, strict=True))


def _joined(states: Sequence[State]) -> State:
    return tuple(layer for state in states for layer in state)
