"""The backend of n-gram models, whose state is the last tokens that were read."""

from collections.abc import Iterator, Sequence

import numpy as np

from charlm.backends.interface import (
    Array,
    Entries,
    Ids,
    Logits,
    Nats,
    State,
    check_entries,
)
from charlm.errors import UsageError
from charlm.ngrams.model import NO_TOKEN, NgramModel

MAX_LOGITS = 1 << 22
"""Maximum number of log-probabilities that `ranks` and `masses` hold at a time."""


class NgramBackend:
    """Compute with an n-gram model.

    The state is one array (B, n-1): the last ids that were read as float32, which is exact up to
    2^24, and NO_TOKEN if fewer were read. EOS as input is the start symbol: nothing before it is
    visible.
    """

    name = "n-gram"
    logits_each = 1

    def __init__(self, model: NgramModel) -> None:
        self.model = model
        self.vocab_size = model.vocab_size
        self._width = max(model.order - 1, 1)

    def initial_state(self, batch_size: int) -> State:
        """See `Backend.initial_state`; no token was read."""
        return ((np.full((batch_size, self._width), NO_TOKEN, np.float32),),)

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """See `Backend.nats`."""
        nats, _, after = self.lengths(inputs, targets, state)
        return nats, after

    def lengths(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """Return nats, the order of the n-gram found for each target (T, B), and the state."""
        contexts, after = self._read(inputs, state)
        log_p, lengths = self.model.look_up(contexts, targets.ravel())
        return -log_p.reshape(targets.shape), lengths.reshape(targets.shape), after

    def known_lengths(self, inputs: Ids, state: State) -> Ids:
        """Return the length of the longest known context after each input, shape (T, B)."""
        contexts, _ = self._read(inputs, state)
        return self.model.known_lengths(contexts).reshape(inputs.shape)

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """See `Backend.ranks`."""
        contexts, after = self._read(inputs, state)
        own, ranks = targets.ravel(), np.empty(targets.size, np.int64)
        for span, rows in self._distributions(contexts):
            limits = np.take_along_axis(rows, own[span, None], axis=1)
            ranks[span] = (rows > limits).sum(axis=1) + 1
        nats = -self.model.look_up(contexts, own)[0]
        return nats.reshape(targets.shape), ranks.reshape(targets.shape), after

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """See `Backend.masses`."""
        check_entries(entries, self.vocab_size)
        contexts, after = self._read(inputs, state)
        masses = np.empty(targets.size)
        for span, rows in self._distributions(contexts):
            masses[span] = np.exp(rows[:, entries]).sum(axis=1)
        with np.errstate(divide="ignore"):
            log_masses = np.log(np.minimum(masses, 1.0)).reshape(targets.shape)
        nats = -self.model.look_up(contexts, targets.ravel())[0]
        return nats.reshape(targets.shape), log_masses, after

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.logits`; they are ln P."""
        contexts, after = self._read(inputs[-self._width :], state)
        return self.model.distributions(contexts[:, -inputs.shape[1] :]), after

    def distribution(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.distribution`; these are ln P."""
        contexts, after = self._read(inputs, state)
        log_p = self.model.distributions(contexts)
        return log_p.reshape(*inputs.shape, self.vocab_size), after

    def log_probabilities(self, logits: Array | Logits) -> Nats:
        """See `Backend.log_probabilities`; logits are ln P here, and differ by rounding."""
        return np.asarray(logits, np.float64)

    def trace(self, _: Ids, __: State, signals: Sequence[str]) -> tuple[dict[str, Array], State]:
        """Raise UsageError."""
        raise UsageError(
            f"an n-gram model has no units, so no {' or '.join(signals)}; expected a network. Name "
            "another run"
        )

    def _read(self, inputs: Ids, state: State) -> tuple[Ids, State]:
        """Return the contexts (n-1, T B) after each input, and the state after all."""
        tokens = np.concatenate([state[0][0].T.astype(np.int64), inputs])  # (n-1 + T, B)
        contexts = self.model.contexts(tokens)[:, self._width :]
        after = np.ascontiguousarray(tokens[-self._width :].T, np.float32)
        return contexts.reshape(self.model.order - 1, inputs.size), ((after,),)

    def _distributions(self, contexts: Ids) -> Iterator[tuple[slice, Nats]]:
        """Yield spans of the contexts and ln P of every entry after them, shape (N, V)."""
        step = max(1, MAX_LOGITS // self.vocab_size)
        for begin in range(0, contexts.shape[1], step):
            span = slice(begin, begin + step)
            yield span, self.model.distributions(contexts[:, span])
