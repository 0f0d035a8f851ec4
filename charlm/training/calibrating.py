"""Calibration at the end of a run: choose the weights to keep and a factor on their logits."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.inference.adapt.calibration import (
    TargetLogits,
    fitting_tokens,
    sample_to_fit,
    text_logits,
)
from charlm.inference.likelihood import evaluate
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.nn.torch_backend import TorchBackend
from charlm.runs.layout import WEIGHTS
from charlm.runs.model_files import write_logit_scale, write_weights
from charlm.runs.networks import load_backend, torch_network
from charlm.runs.weights import load_arrays
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.training.trainer import Trainer
from charlm.units import Tally

MIN_GAIN = 0.001
"""Fraction of the validation nats that calibration must save to be kept."""


def calibrate(
    weights: "BestWeights", trainer: Trainer, dataset: Dataset, save: Callable[[], object]
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
    scale = _fitted(weights.sample_logits(text, most))
    after = before if scale == 1.0 else evaluate(weights.backend(scale), text)
    best = trainer.counters.best_step
    if trainer.state.average:
        model = cast(RecurrentLanguageModel, trainer.model)
        with trainer.state.kept_weights():
            own_scale = _fitted(_sample_logits(TorchBackend(model), text, most))
            scaled = TorchBackend(model, own_scale)
            last = evaluate(scaled, text) if own_scale != 1.0 else before
            if last.nats < min(after.nats, enough):
                write_weights(weights.path, model)
                weights.forget()
                trainer.counters.take_as_best(evaluate(TorchBackend(model), text))
                scale, after = own_scale, last
    if trainer.counters.best_step != best:
        save()  # the trained weights, not their average
    if scale == 1.0 or after.nats > enough:
        return before, 1.0
    write_logit_scale(weights.path, scale)
    return after, scale


def tokens_to_fit(trainer: Trainer) -> int:
    """Return the limit of the validation tokens on which factors are fitted."""
    model = cast(RecurrentLanguageModel, trainer.model)
    return fitting_tokens(multiplied_weights(model.settings, model.vocab_size))


def _sample_logits(backend: Backend, text: EncodedText, most: int) -> TargetLogits:
    """Return the logits of a backend for a sample of about `most` tokens of a text."""
    return text_logits(backend, sample_to_fit(text, backend.vocab_size, most))


def _fitted(logits: TargetLogits) -> float:
    """Return the best factor on logits, or 1 if it gains too little."""
    scale = logits.best_factor()
    before, after = (float(logits.nats(factor).sum()) for factor in (1.0, scale))
    return scale if after <= (1.0 - MIN_GAIN) * before else 1.0


class BestWeights:
    """The best weights of a run, read from its file once; backends compute with them.

    They are on the training device; on a CPU, the fastest backend has them.
    """

    def __init__(self, path: Path, trainer: Trainer) -> None:
        self.path = path
        self._model = cast(RecurrentLanguageModel, trainer.model)
        self._device = trainer.state.generator.device
        self._arrays: dict[str, NDArray[np.float32]] | None = None
        self._network: RecurrentLanguageModel | None = None
        self._logits: TargetLogits | None = None

    def forget(self) -> None:
        """Read the file again when a backend is needed, since it has changed."""
        self._arrays = self._network = self._logits = None

    def sample_logits(self, text: EncodedText, most: int) -> TargetLogits:
        """Return the logits for a sample of about `most` tokens of a text.

        They are computed once: all calls must give the same text.
        """
        if self._logits is None:
            self._logits = _sample_logits(self.backend(), text, most)
        return self._logits

    def backend(self, logit_scale: float = 1.0) -> Backend:
        """Return a backend that multiplies all logits by a factor."""
        if self._network is not None:
            return TorchBackend(self._network, logit_scale)
        model, count = self._model, self._conditions
        if self._arrays is None:
            self._arrays = load_arrays(
                self.path / WEIGHTS, model.settings, model.vocab_size, None, count
            )
        if count:  # only torch reads several in one text
            best = torch_network(
                model.settings, model.vocab_size, self._arrays, torch.get_num_threads(), count
            )
            return self._kept(best, logit_scale)
        backend = load_backend(
            self.path / WEIGHTS, model.settings, model.vocab_size,
            "auto" if self._device.type == "cpu" else "torch",
            logit_scale=logit_scale, arrays=self._arrays,
        )  # fmt: skip
        if isinstance(backend, TorchBackend):
            return self._kept(backend.model, logit_scale)
        return backend

    @property
    def _conditions(self) -> int:
        conditions = self._model.conditions
        return 0 if conditions is None else len(conditions.weight)

    def _kept(self, network: RecurrentLanguageModel, logit_scale: float) -> Backend:
        """Keep a network in place of the arrays, and return its backend."""
        self._network, self._arrays = network.to(self._device), None
        return TorchBackend(self._network, logit_scale)
