"""Calibration at the end of a run: choose the weights to keep and a factor on their logits."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from charlm.backends.interface import Backend
from charlm.inference.adapt.calibration import fitting_tokens, sample_to_fit, text_logits
from charlm.inference.likelihood import evaluate
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.nn.torch_backend import TorchBackend
from charlm.runs.layout import WEIGHTS
from charlm.runs.networks import load_backend, torch_network
from charlm.runs.run import write_logit_scale, write_weights
from charlm.runs.weights import load_arrays
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.training.trainer import Trainer
from charlm.units import Tally

MIN_GAIN = 0.001
"""Fraction of the validation nats that calibration must save to be kept."""


def calibrate(
    path: Path, trainer: Trainer, dataset: Dataset, save: Callable[[], object]
) -> tuple[Tally, float]:
    """Fit the factor on all logits of a run's best weights, and keep it if it helps.

    If training keeps an average of weights, the last average is fitted too and replaces the best
    weights if it is better: longer training makes a model know more but too confident (names:
    2.093 nats per character instead of 2.103). `save` then saves a checkpoint at once. Returns the
    validation figures and the factor, which is 1 if it does not help.
    """
    text, before = dataset.valid, cast("Tally | None", trainer.counters.best)
    assert text is not None and before is not None, "there are validation figures"
    enough = (1.0 - MIN_GAIN) * before.nats
    most = tokens_to_fit(trainer)
    scale = _fitted(best_backend(path, trainer), text, most)
    after = before if scale == 1.0 else evaluate(best_backend(path, trainer, scale), text)
    best = trainer.counters.best_step
    if trainer.state.average:
        model = cast(RecurrentLanguageModel, trainer.model)
        with trainer.state.kept_weights():
            own_scale = _fitted(TorchBackend(model), text, most)
            scaled = TorchBackend(model, own_scale)
            last = evaluate(scaled, text) if own_scale != 1.0 else before
            if last.nats < min(after.nats, enough):
                write_weights(path, model)
                trainer.counters.take_as_best(evaluate(TorchBackend(model), text))
                scale, after = own_scale, last
    if trainer.counters.best_step != best:
        save()  # the trained weights, not their average
    if scale == 1.0 or after.nats > enough:
        return before, 1.0
    write_logit_scale(path, scale)
    return after, scale


def tokens_to_fit(trainer: Trainer) -> int:
    """Return the limit of the validation tokens on which factors are fitted."""
    model = cast(RecurrentLanguageModel, trainer.model)
    return fitting_tokens(multiplied_weights(model.settings, model.vocab_size))


def _fitted(backend: Backend, text: EncodedText, most: int) -> float:
    """Return the best factor for a backend on a sample of the text, or 1 if it gains too little."""
    logits = text_logits(backend, sample_to_fit(text, backend.vocab_size, most))
    scale = logits.best_factor()
    before, after = (float(logits.nats(factor).sum()) for factor in (1.0, scale))
    return scale if after <= (1.0 - MIN_GAIN) * before else 1.0


def best_backend(path: Path, trainer: Trainer, logit_scale: float = 1.0) -> Backend:
    """Load a run's best weights on the training device; on a CPU, with the fastest backend."""
    model, device = cast(RecurrentLanguageModel, trainer.model), trainer.state.generator.device
    if model.conditions is not None:  # only torch reads several in one text
        arrays = load_arrays(
            path / WEIGHTS, model.settings, model.vocab_size, None, len(model.conditions.weight)
        )
        best = torch_network(
            model.settings, model.vocab_size, arrays, torch.get_num_threads(),
            len(model.conditions.weight),
        )  # fmt: skip
        return TorchBackend(best.to(device), logit_scale)
    name = "auto" if device.type == "cpu" else "torch"
    backend = load_backend(
        path / WEIGHTS, model.settings, model.vocab_size, name, logit_scale=logit_scale
    )
    if isinstance(backend, TorchBackend):
        return TorchBackend(backend.model.to(device), backend.logit_scale)
    return backend
