"""The processes that train one model together; here the case of one process.

Each process reads some of the sequences of a batch. What they compute is summed once in a step, so
that all of them take the same decisions from the same numbers.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from charlm.nn.encoder import State
from charlm.text.batches import Batch
from charlm.training.train_state import Counters, TrainState


class Processes:
    """One process that trains alone; it reads whole batches and agrees with itself."""

    rank: int = 0
    """Number of this process, from 0."""
    count: int = 1
    """Number of processes."""

    def own(self, batch: Batch, state: TrainState) -> Batch:  # noqa: ARG002
        """Return the sequences of a batch that this process reads; `kept` is of its own state."""
        return batch

    def total(self, weights: Sequence[nn.Parameter], numbers: Tensor) -> Tensor:  # noqa: ARG002
        """Sum the gradients of weights (in place) and a vector of numbers over all processes."""
        return numbers

    def agree(
        self,
        counters: Counters,
        stop_reason: str,
        failed: bool = False,  # noqa: ARG002
    ) -> tuple[Counters, str]:
        """Return the counters and the reason to stop of process 0, where validation `failed`."""
        return counters, stop_reason

    def whole_state(self, hidden: State | None) -> State | None:
        """Return the state of all sequences in their order, None except in process 0."""
        return hidden


ALONE = Processes()
