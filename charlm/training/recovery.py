"""Recovery from failed steps: too little memory, numbers that are not finite.

`Recovery.run` wraps a training step. A step that fails has not changed the weights yet, so it is
undone and either repeated with smaller batches or skipped. The third remedy, rewinding to an older
checkpoint, is in `session`.
"""

from collections.abc import Callable, Sequence

import torch

from charlm.errors import DivergenceError, EnvironmentFailure, assigned, named
from charlm.runs.weights import MAX_WEIGHT
from charlm.text.batches import Batch
from charlm.training.step import MemoryFull, Overflow, Step
from charlm.training.train_state import TrainState

MAX_SKIPPED = 20
"""Steps that may be skipped in a row before training gives up."""


class Recovery:
    """Runs steps, repeats or skips those that fail, and collects warnings in `warnings`."""

    def __init__(self, state: TrainState, step: Step) -> None:
        self.state, self.step = state, step
        self.warnings: list[str] = []
        self._slow = False

    def run(self, take_step: Callable[[], None], batches: Sequence[Batch]) -> None:
        """Take one step with some batches.

        Raises EnvironmentFailure if not even single sequences fit in memory, and DivergenceError
        if a number is not finite, with `on_nonfinite` skip only after many such steps in a row.
        """
        state = self.state
        while True:
            before = state.mark()  # again after each try, which has settled earlier steps
            try:
                take_step()
                state.counters.skipped_in_a_row = 0
                return
            except MemoryFull:
                state.return_to(before)
            except DivergenceError as error:
                problem = f"step {before[0].step + 1}: {error}; {text_position(state)}"
                state.return_to(before)
                self._skip(batches, problem)
                return
            except Overflow:
                state.return_to(before)
                self._pass(batches)
                return
            self._split_more(max(len(batch.kept) for batch in batches))

    def settle(self) -> None:
        """Bring the counters up to date with the device, and warn of what failed there.

        Raises DivergenceError as `run` does.
        """
        found, counters = self.step.settle(), self.state.counters
        if self.step.uncaptured and not self._slow:
            self._slow = True
            self.warnings.append(
                f"step {counters.step}: steps cannot be captured in CUDA graphs "
                f"({self.step.uncaptured}); training continues, but takes longer"
            )
        if found is None:
            return
        if found.failed:
            if self.state.settings.on_nonfinite != "skip" or found.in_a_row > MAX_SKIPPED:
                raise diverged(found.problem)
            counters.skipped += found.failed
            steps = "this step was" if found.failed == 1 else f"{found.failed} steps were"
            self.warn(f"{found.problem}; {steps} skipped")
        counters.skipped_in_a_row = found.in_a_row
        if found.explodes:
            self.warn(f"{found.explodes}; {text_position(self.state)}")

    def warn(self, text: str) -> None:
        """Add a warning, unless there were many before."""
        if self.state.counters.warns:
            self.state.counters.warnings += 1
            self.warnings.append(text)

    def _split_more(self, size: int) -> None:
        """Split batches of this size into twice as many parts."""
        counters, device = self.state.counters, self.state.generator.device
        if counters.parts >= size:
            raise EnvironmentFailure(
                f"{device.type} has too little memory for one sequence of this model; "
                f"expected enough for one. Use a smaller {named('bptt')} or {named('hidden_size')}"
            )
        self.settle()
        counters.parts = min(2 * counters.parts, size)
        self.step.reset()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        self.warnings.append(
            f"step {counters.step + 1}: too little memory for {size} sequences at once; "
            f"batches are now split into {counters.parts} parts"
        )

    def _skip(self, batches: Sequence[Batch], problem: str) -> None:
        """Count a step that failed and continue after its text."""
        state = self.state
        if state.settings.on_nonfinite != "skip" or state.counters.skipped_in_a_row >= MAX_SKIPPED:
            raise diverged(problem)
        self._pass(batches)
        state.counters.skipped_in_a_row += 1
        self.warn(f"{problem}; this step was skipped")

    def _pass(self, batches: Sequence[Batch]) -> None:
        """Continue after batches whose step has changed nothing, from the initial state."""
        self.state.hidden = None
        for batch in batches:
            self.state.counters.pass_batch(batch)
        self.state.counters.step += 1
        self.state.counters.skipped += 1


def diverged(problem: str) -> DivergenceError:
    """Return the error for a number that is not finite."""
    return DivergenceError(
        f"training diverged at {problem}. Expected finite numbers; nothing of this step "
        f"was kept. Try a smaller {named('learning_rate')} or {named('clip_norm')}, or "
        f"{assigned('on_nonfinite', 'rewind')}",
        problem,
    )


def text_position(state: TrainState) -> str:
    """Describe the place in the text that training has reached."""
    counters = state.counters
    return f"epoch {counters.epoch + 1}, {counters.tokens:,} {state.target}s read"


def check_weights(state: TrainState) -> None:
    """Raise DivergenceError if a weight is not finite or too large to compute with.

    Such a model is never saved.
    """
    weights = {name: weight.detach() for name, weight in state.model.named_parameters()}
    averages = state.average.tensors if state.average else {}
    for name, weight in [*weights.items(), *averages.items()]:
        if not (weight.abs() <= MAX_WEIGHT).all():
            problem = f"{name} is not finite after step {state.counters.step}"
            raise DivergenceError(
                f"training diverged: {problem}; expected finite numbers. This model was "
                f"not saved. Try a smaller {named('learning_rate')}, or "
                f"{assigned('on_nonfinite', 'rewind')}",
                problem,
            )
