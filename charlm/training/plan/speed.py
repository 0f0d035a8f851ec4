"""Training speed of this machine: threads, assumed speed, measured speed."""

import os
import statistics
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from charlm.backends.kernel_library import useful_threads
from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings
from charlm.nn.devices import Precision, PrecisionRule
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.nn.output import logits_of_a_target
from charlm.phases import phase
from charlm.runs.parent import Parent
from charlm.tasks.language_model import LanguageModelLoss
from charlm.tasks.task import Order, Task
from charlm.text.batches import Batch, Position
from charlm.training.plan import constants
from charlm.training.processes import current_processes
from charlm.training.static_step import step_of
from charlm.training.step import Step
from charlm.training.train_state import TrainState

OPERATIONS_PER_WEIGHT_AND_TOKEN = 6
"""Two for each of three products: forward, and backward for the inputs and for the weights."""
OPERATIONS_PER_LOGIT = 500
"""Operations of products that take as long as the softmax of one logit and its gradient. Fitted to
whole steps of 1 x 64 to 2 x 512 units, 10,000 and 38,661 entries, two threads: 700 in fp32; in bf16
1,000 without compiled kernels and 170 to 300 with them; 500 and 700 with AMX."""
MIN_STEPS = 5
"""Fewest steps that are measured."""
WARM_STEPS = {"cuda": 3}
"""Steps before those that are measured, by device, 1 by default: they allocate, and on a GPU they
are captured."""
QUEUED_STEPS = {"cuda": 8}
"""Steps that are measured together, by device, 1 by default: a GPU computes one while the host
prepares the next, as in training."""
MAX_SECONDS = 5.0
"""Seconds after which fewer than `MIN_STEPS` groups of queued steps are enough."""
LARGEST_WEIGHT = 0.03
"""Largest weight of the model whose steps are measured; 1 / sqrt(1024), so that no state grows."""
LITTLE = 1e-9
"""Learning rate of the steps that are measured."""


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """Facts that a plan depends on beside the settings and the text."""

    device: torch.device
    choose_precision: PrecisionRule
    measure: Callable[[], float] | None = None
    """Function that returns the machine's speed in operations per second.

    By default it is measured if minutes were given, whose sizes and passes depend on it, and
    nominal otherwise, so that the plan does not depend on the load.
    """
    parent: Parent | None = None
    """Run whose weights training starts with."""
    foreign: bool = False
    """True if the text is new to that run."""
    given: Collection[str] = ()
    """Names of the settings that have another origin than a default of charlm."""

    def are_evals_open(self, training: TrainingSettings) -> bool:
        """Return whether nobody asked for the number of validations, even for the usual one."""
        return training.evals == TrainingSettings().evals and "training.evals" not in self.given

    def nominal_speed(self, model: ModelSettings, training: TrainingSettings) -> float:
        """Return the assumed operations per second of a model with few outputs."""
        batch, device = training.batch_size or 1, self.device
        threads = training.threads or training_threads(model, 2, batch, device)
        return nominal_speed(device, self.choose_precision(model, batch).name, threads)


def training_threads(
    settings: ModelSettings, vocab_size: int, batch_size: int, device: torch.device
) -> int:
    """Return the threads to train with, by the work of a layer in one time step.

    An accelerator leaves the processor only small work.
    """
    if device.type != "cpu":
        return 1
    weights = multiplied_weights(settings, vocab_size)
    work = 2.0 * batch_size * weights / (settings.num_layers or 1)
    return useful_threads(work, constants.OPERATIONS_PER_THREAD)


def set_threads(number: int) -> int:
    """Set the threads of torch, at most one per core, and return their number."""
    number = min(number, os.cpu_count() or 1)
    if number != torch.get_num_threads():
        torch.set_num_threads(number)
    return torch.get_num_threads()


def nominal_speed(device: torch.device, precision: str, threads: int) -> float:
    """Return the assumed operations per second if no time was given; nothing is timed."""
    return (
        constants.NOMINAL_SPEED_OF_DEVICE.get(device.type)
        or threads * constants.NOMINAL_SPEED[precision]
    )


def measured_speed(
    settings: ModelSettings,
    vocab_size: int,
    shape: tuple[int, int],
    device: torch.device,
    precision: Precision,
    seconds: float = 0.0,
) -> float:
    """Return the operations per second of training steps on batches of shape (steps, sequences).

    Larger batches make faster steps. The result is the median of the steps in `seconds`, of at
    least five, after some that allocate memory: disturbances of a machine last for seconds. On a
    GPU, groups of queued steps are measured in the place of single ones.
    """
    together = current_processes().count > 1  # they take plain steps, which sum gradients
    step_class = Step if together else step_of
    train = training_step(settings, vocab_size, shape, device, precision, step_class)
    count = QUEUED_STEPS.get(device.type, 1)
    times: list[float] = []
    with phase("measuring the speed of this machine"):
        for _ in range(WARM_STEPS.get(device.type, 1)):
            _seconds(train, device)
        while not _are_enough(times, count, seconds):
            times.append(_seconds(train, device, count))
    tokens = shape[0] * shape[1] * count
    return operations_per_token(settings, vocab_size) * tokens / statistics.median(times)


def operations_per_token(settings: ModelSettings, vocab_size: int) -> float:
    """Return the operations of a training step for each token: the products' and the softmax's."""
    products = OPERATIONS_PER_WEIGHT_AND_TOKEN * multiplied_weights(settings, vocab_size)
    return products + OPERATIONS_PER_LOGIT * logits_of_a_target(settings, vocab_size)


def _are_enough(times: Sequence[float], count: int, seconds: float) -> bool:
    """Report whether groups of `count` steps with these times are at least `seconds` and five.

    Fewer groups are enough if they take long and have five steps together.
    """
    total = sum(times)
    few = total >= MAX_SECONDS and len(times) * count >= MIN_STEPS
    return total >= seconds and (few or len(times) >= MIN_STEPS)


def training_step(
    settings: ModelSettings,
    vocab_size: int,
    shape: tuple[int, int],
    device: torch.device,
    precision: Precision,
    step_class: Callable[[TrainState, Task], Step] = step_of,
) -> Callable[[], None]:
    """Return a function that makes a training step on random tokens of a shape (T, B).

    Its weights are random too: orthogonal ones take seconds to make.
    """
    model = RecurrentLanguageModel(settings, vocab_size)
    generator = torch.Generator().manual_seed(0)
    for weight in model.state_dict().values():
        weight.uniform_(-LARGEST_WEIGHT, LARGEST_WEIGHT, generator=generator)
    ids = torch.randint(vocab_size, shape, generator=generator).numpy()
    training = TrainingSettings(learning_rate=LITTLE, bptt=shape[0], batch_size=shape[1])
    one_batch = cast(Order, None)  # a step asks for no other
    loss = LanguageModelLoss(training, precision)
    task = Task(batches=one_batch, loss=loss, evaluate=None, low_precision=precision.copy_type)
    step = step_class(TrainState(model.to(device), training), task)
    batch = Batch(
        inputs=ids,
        targets=ids,
        first=True,
        kept=np.arange(ids.shape[1]),
        tokens=ids.size,
        next=Position(),
    )

    def train() -> None:
        """Make one training step."""
        step.add(batch, 1.0)
        step.update(LITTLE)

    return train


def _seconds(train: Callable[[], None], device: torch.device, count: int = 1) -> float:
    """Return the seconds that `count` whole training steps take."""
    finish_queued(device)
    start = time.perf_counter()
    for _ in range(count):
        train()
    finish_queued(device)
    return time.perf_counter() - start


def finish_queued(device: torch.device) -> None:
    """Wait for an accelerator, which only queues what it is given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
