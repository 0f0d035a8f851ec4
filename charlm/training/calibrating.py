"""Calibration at the end of a run: which weights are kept, and the factor on all their logits."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from charlm.backends.interface import Backend
from charlm.inference.adapt.calibration import fit_scale, sample_of
from charlm.inference.likelihood import evaluate
from charlm.nn.torch_backend import TorchBackend
from charlm.runs.layout import WEIGHTS
from charlm.runs.run import load_backend, write_logit_scale, write_weights
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.training.trainer import Trainer
from charlm.units import Tally

MIN_GAIN = 0.001
"""Share of the validation nats that calibration must save to be kept."""


def calibrate(
    path: Path, trainer: Trainer, dataset: Dataset, save: Callable[[], object]
) -> tuple[Tally, float]:
    """Fit the factor on all logits of a run's best weights; kept only where it gains something.

    Where an average of weights is kept, the last one is fitted too, and takes the place of the best
    where it is then the better one, in the counters too: longer training makes a model know more
    and be too sure of it (names: 2.093 nats per character against 2.103); `save` then saves a
    state with its figures at once. Returns the validation figures and the factor, 1 where nothing
    was gained.
    """
    text, before = dataset.valid, trainer.counters.best
    assert text is not None and before is not None, "there are validation figures"
    enough = (1.0 - MIN_GAIN) * before.nats
    scale = _fitted(lambda factor: best_engine(path, trainer, factor), text)
    after = before if scale == 1.0 else evaluate(best_engine(path, trainer, scale), text)
    best = trainer.counters.best_step
    if trainer.state.average:
        with trainer.state.kept_weights():
            other = _fitted(lambda factor: TorchBackend(trainer.model, factor), text)
            last = evaluate(TorchBackend(trainer.model, other), text) if other != 1.0 else before
            if last.nats < min(after.nats, enough):
                plain = evaluate(TorchBackend(trainer.model), text)
                write_weights(path, trainer.model)
                trainer.counters.take_as_best(plain)
                scale, after = other, last
    if trainer.counters.best_step != best:
        save()  # of the weights that are trained, not of their average
    if scale == 1.0 or after.nats > enough:
        return before, 1.0
    write_logit_scale(path, scale)
    return after, scale


def _fitted(engine: Callable[[float], Backend], text: EncodedText) -> float:
    """The best factor for an engine that is made with one, on a part of the text.

    1 where it gains too little there to be kept: the whole text, which may be long, is then not
    read for it.
    """
    part = sample_of(text)
    nats = cache(lambda factor: evaluate(engine(factor), part).nats)
    scale = fit_scale(nats)
    return scale if nats(scale) <= (1.0 - MIN_GAIN) * nats(1.0) else 1.0


def best_engine(path: Path, trainer: Trainer, logit_scale: float = 1.0) -> Backend:
    """A run's best weights: on the device of the training, or on the CPU by the fastest engine."""
    model, device = trainer.model, trainer.state.generator.device
    name = "auto" if device.type == "cpu" else "torch"
    engine = load_backend(
        path / WEIGHTS, model.settings, model.vocab_size, name, logit_scale=logit_scale
    )
    if isinstance(engine, TorchBackend):
        return TorchBackend(engine.model.to(device), engine.logit_scale)
    return engine
