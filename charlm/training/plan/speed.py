"""Training speed of this machine: threads, assumed speed, measured speed."""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from charlm.backends.kernel_library import useful_threads
from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings
from charlm.nn.devices import Precision
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.phases import phase
from charlm.tasks.language_model import LanguageModelLoss
from charlm.text.batches import Batch, Position
from charlm.training.optim import build_optimizer
from charlm.training.plan import constants

OPERATIONS_PER_WEIGHT_AND_TOKEN = 6
"""Two for each of three products: forward, and backward for the inputs and for the weights."""
MIN_STEPS = 5
"""Fewest steps that are measured."""


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
    least five, after one that allocates memory: disturbances of a machine last for seconds.
    """
    model = RecurrentLanguageModel(settings, vocab_size)
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(generator)
    model.to(device)
    ids = torch.randint(vocab_size, shape, generator=generator).numpy()
    training = TrainingSettings(learning_rate=1e-9)
    optimizer = build_optimizer(model.parameters(), training)
    loss, generator = LanguageModelLoss(training, precision), torch.Generator(device)
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
        optimizer.zero_grad()
        value = loss(model, batch, None, generator).loss / batch.tokens
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    times: list[float] = []
    with phase("measuring the speed of this machine"):
        _seconds(train, device)
        while len(times) < MIN_STEPS or sum(times) < seconds:
            times.append(_seconds(train, device))
    weights = multiplied_weights(settings, vocab_size)
    return OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * ids.size / statistics.median(times)


def _seconds(train: Callable[[], None], device: torch.device) -> float:
    """Return the seconds that one whole training step takes."""
    _finish_queued(device)
    start = time.perf_counter()
    train()
    _finish_queued(device)
    return time.perf_counter() - start


def _finish_queued(device: torch.device) -> None:
    """Wait for an accelerator, which only queues what it is given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
