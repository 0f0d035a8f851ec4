"""Memory that training needs, and whether it is free.

Several processes on a machine need several times as much: each has all weights and what is kept for
them, and only the activations are shared out.
"""

import math

import torch

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings
from charlm.errors import named
from charlm.files.memory import free_memory
from charlm.nn.chunked_softmax import MAX_LOGITS
from charlm.nn.model import count_parameters
from charlm.nn.output import has_chunked_loss, logits_of_a_target
from charlm.training.processes import current_processes

PROCESS_BYTES = 200_000_000
"""Memory of Python and torch in one more process, without a model: 160 MB with torch 2.13."""

COPIES = 5.5
"""Numbers for each weight: itself, its gradient, two moments, and what torch needs for the backward
pass of a layer, such as its weights in another order. Peaks of LSTMs in fp32, beyond a small model:
297 MB with 44 MB of weights, 978 MB with 171 MB; 481 MB with 44 MB when a checkpoint was copied
before it was written. The end of a run, which reads the best weights, has no gradients."""


def training_memory(model: ModelSettings, training: TrainingSettings, vocab_size: int) -> int:
    """Return the bytes that training a language model needs in each process, within about a third.

    As in `memory_of`, and 5.5 numbers for each logit, of a mixture for each of its softmaxes, of an
    adaptive softmax for the frequent entries. If the loss is computed in chunks, 2.5 numbers for
    each logit of one chunk.
    """
    logits, most = 5.5 * logits_of_a_target(model, vocab_size), math.inf
    if has_chunked_loss(model, vocab_size):
        logits, most = 2.5 * vocab_size, 2.5 * MAX_LOGITS
    weights = count_parameters(model, vocab_size)
    return memory_of(model, training, weights, logits=logits, most_logits=most)


def memory_of(
    model: ModelSettings,
    training: TrainingSettings,
    weights: int,
    *,
    ways: int = 1,
    logits: float = 0.0,
    most_logits: float = math.inf,
) -> int:
    """Return the bytes that training needs in each process, beyond the program itself.

    Measured with torch 2.13 on a processor: 100 MB of buffers; COPIES numbers for each of the
    weights; for each token and unit of a layer six numbers a gate and two more (1.5 times as many
    in cells computed step by step), in each of the `ways` in which a text is read. `logits` adds
    numbers for each token, `most_logits` at most. Several processes read some sequences of a batch
    each, and keep the sum of their gradients too.
    """
    count = current_processes().count
    sequences = -(-(training.batch_size or 1) // count)
    spec, tokens = CELLS[model.cell], sequences * (training.bptt or 1)
    units = ways * (model.num_layers or 1) * (model.hidden_size or 1)
    numbers = tokens * units * (6.0 * len(spec.blocks) + 2.0) * spec.memory_factor
    numbers += min(tokens * logits, most_logits)
    copies = COPIES + bool(training.average or training.average_trigger) + (count > 1)
    return int(1e8 + 4.0 * (copies * weights + numbers))


def memory_problem(
    needed: int, settings: Settings, device: torch.device, least: int = 0
) -> str | None:
    """Explain why the run does not fit in memory, or return None.

    `needed` and `least` are what each process needs, `least` for one token. An accelerator trains
    on parts of a batch that does not fit, so only a CPU is checked.
    """
    free, here = free_memory(), current_processes().here
    needed, least = (here * each + (here - 1) * PROCESS_BYTES for each in (needed, least))
    if device.type != "cpu" or free is None or needed <= free:
        return None
    training, model = settings.training, settings.model
    advice = f"{named('hidden_size')} (now {model.hidden_size})"
    if least <= free:
        sizes = f"{named('batch_size')} (now {training.batch_size}), {named('bptt')}"
        advice = f"{sizes} ({training.bptt}) or {named('hidden_size')} ({model.hidden_size})"
    who = f"training with {here} processes" if here > 1 else "training"
    return (
        f"{who} needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are "
        f"free here. Use {'fewer processes, or ' if here > 1 else ''}a smaller {advice}"
    )
