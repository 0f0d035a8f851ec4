"""A backend for all other uses of a served model: it computes on the worker thread of its rows."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from charlm.backends.interface import Array, Entries, Ids, Logits, Nats, State
from charlm.inference.rows import Rows
from charlm.server.client import check_client

Value = TypeVar("Value")


class SharedBackend:
    """Compute between the rounds of rows, one window at a time, so samples go on meanwhile.

    Callers wait for their turn: they need a thread of their own, in the context of a request that
    is `watched`. Every method raises `QueueFull` and `Stopping` as `Rows.call`, and `ClientGone`.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows, self._backend = rows, rows.backend
        self.name, self.vocab_size = self._backend.name, self._backend.vocab_size
        self.logits_each = self._backend.logits_each

    def _call(self, function: Callable[[], Value]) -> Value:
        check_client()
        value: Value = self._rows.call(function).result()
        return value

    def initial_state(self, batch_size: int) -> State:
        """See `Backend.initial_state`; nothing is computed for it."""
        return self._backend.initial_state(batch_size)

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """See `Backend.nats`."""
        return self._call(lambda: self._backend.nats(inputs, targets, state))

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """See `Backend.ranks`."""
        return self._call(lambda: self._backend.ranks(inputs, targets, state))

    def masses(
        self, inputs: Ids, targets: Ids, entries: Entries, state: State
    ) -> tuple[Nats, Nats, State]:
        """See `Backend.masses`."""
        return self._call(lambda: self._backend.masses(inputs, targets, entries, state))

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """See `Backend.logits`."""
        return self._call(lambda: self._backend.logits(inputs, state))

    def distribution(self, inputs: Ids, state: State) -> tuple[Array | Logits, State]:
        """See `Backend.distribution`."""
        return self._call(lambda: self._backend.distribution(inputs, state))

    def log_probabilities(self, logits: Array | Logits) -> Nats:
        """See `Backend.log_probabilities`."""
        return self._call(lambda: self._backend.log_probabilities(logits))

    def trace(
        self, inputs: Ids, state: State, signals: Sequence[str]
    ) -> tuple[dict[str, Array], State]:
        """See `Backend.trace`."""
        return self._call(lambda: self._backend.trace(inputs, state, signals))
