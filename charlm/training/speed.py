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


def measured_speed(
    settings: ModelSettings,
    vocab_size: int,
    shape: tuple[int, int],
    device: torch.device,
    precision: Precision,
) -> float:
    """Operations a second of a training step of this model in windows of (steps, rows).

    More rows and longer windows make faster steps. The median of five, after one that allocates.
    """
    model = RecurrentLanguageModel(settings, vocab_size)
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(generator)
    model.to(device)
    ids = torch.randint(vocab_size, shape, generator=generator).to(device)
    optimizer = build_optimizer(model.parameters(), TrainingSettings(learning_rate=1e-9))
    times = [_step_seconds(model, ids, precision, optimizer) for _ in range(6)]
    weights = multiplied_weights(settings, vocab_size)
    seconds = statistics.median(times[1:])
    return OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * ids.numel() / seconds


def _step_seconds(
    model: RecurrentLanguageModel,
    ids: torch.Tensor,
    precision: Precision,
    optimizer: torch.optim.Optimizer,
) -> float:
    """Seconds of one whole training step."""
    if ids.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    model.zero_grad()
    with precision.autocast(ids.device):
        logits, _ = model(ids)
    F.cross_entropy(logits.float().flatten(0, 1), ids.flatten()).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if ids.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start
