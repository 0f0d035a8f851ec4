"""How fast this machine trains, here and now."""

import statistics
import time

import torch
from torch.nn import functional as F

from charlm.config import ModelSettings, TrainingSettings
from charlm.nn.devices import Precision
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.training.optim import build_optimizer

OPERATIONS_PER_WEIGHT_AND_TOKEN = 6
"""Two for each of three products: forward, and backward for the inputs and for the weights."""
LEAST_STEPS = 5


def measured_speed(
    settings: ModelSettings,
    vocab_size: int,
    shape: tuple[int, int],
    device: torch.device,
    precision: Precision,
    seconds: float = 0.0,
) -> float:
    """Operations a second of a training step of this model in windows of (steps, rows).

    More rows and longer windows make faster steps. The median, after a step that allocates, of as
    many steps as `seconds` hold, but at least five: what disturbs a machine lasts for seconds.
    """
    model = RecurrentLanguageModel(settings, vocab_size)
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(generator)
    model.to(device)
    ids = torch.randint(vocab_size, shape, generator=generator).to(device)
    optimizer = build_optimizer(model.parameters(), TrainingSettings(learning_rate=1e-9))
    _step_seconds(model, ids, precision, optimizer)
    times: list[float] = []
    while len(times) < LEAST_STEPS or sum(times) < seconds:
        times.append(_step_seconds(model, ids, precision, optimizer))
    weights = multiplied_weights(settings, vocab_size)
    return OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * ids.numel() / statistics.median(times)


def _step_seconds(
    model: RecurrentLanguageModel,
    ids: torch.Tensor,
    precision: Precision,
    optimizer: torch.optim.Optimizer,
) -> float:
    """Seconds of one whole training step."""
    _finish_queued(ids.device)
    start = time.perf_counter()
    model.zero_grad()
    with precision.autocast(ids.device):
        logits, _ = model(ids)
    F.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    _finish_queued(ids.device)
    return time.perf_counter() - start


def _finish_queued(device: torch.device) -> None:
    """Wait for an accelerator, which only queues what it is given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()
