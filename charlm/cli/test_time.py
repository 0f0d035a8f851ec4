"""What `charlm eval` can add to a model at test time, each a row of its own."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.cli.output import say
from charlm.phases import phase

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from charlm.api.model import Model
    from charlm.nn.torch_backend import TorchEngine
    from charlm.text.encoded import EncodedText
    from charlm.units import Tally

    Rows = Iterator[tuple[str, Callable[[EncodedText], Tally]]]


@dataclass
class Methods:
    """Which methods are asked for. What they need is fitted on the run's validation text.

    `check` comes first, and keeps what it had to load.
    """

    cache: int | None
    dynamic: bool
    temperature: bool
    average: bool
    others: tuple[str, ...]
    checkpoints: Path | None
    models: "list[Model]" = field(default_factory=list, init=False)
    averaged: "tuple[dict[str, Any], list[int]]" = field(default=({}, []), init=False)

    def check(self, model: "Model") -> None:
        """Refuse, before any text is read, what the run keeps too little for. Raises UsageError."""
        self.models = _with_others(model, self.others, self.checkpoints)
        for given, name, purpose in (
            (self.temperature, "valid", "fit a temperature on"),
            (self.cache, "valid", "choose a cache on"),
            (self.dynamic, "valid", "choose a rate on"),
            (self.dynamic, "train", "measure gradients on"),
            (self.others, "valid", "fit weights on"),
        ):
            if given:
                _kept_text(model, name, purpose)
        if self.average:
            self.averaged = _averaged(model)

    def tallies(self, model: "Model", texts: "Mapping[str, EncodedText]") -> "dict[str, Tally]":
        """The figures of each text under each method, by `text, method`."""
        found = {}
        for method, tally_of in self._methods(model):
            for name, text in texts.items():
                with phase(f"evaluating: {name}, {method}", total=len(text.ids)):
                    found[f"{name}, {method}"] = tally_of(text)
        return found

    def _methods(self, model: "Model") -> "Rows":
        from charlm.nn.torch_backend import TorchEngine

        engine = model.run.engine
        assert isinstance(engine, TorchEngine), "it was asked for"
        if self.temperature:
            yield from _temperatures(model, engine)
        if self.average:
            yield _average(engine, *self.averaged)
        if self.cache:
            yield _cache(model, engine, self.cache)
        if self.dynamic:
            yield _dynamic(model, engine)
        if self.others:
            yield from _mixtures(self.models)


def _kept_text(model: "Model", name: str, purpose: str) -> "EncodedText":
    """The validation or training text that a run keeps. Raises UsageError where it does not."""
    from charlm.errors import UsageError

    text = model.run.kept(name)
    if text is None:
        kind = {"valid": "validation", "train": "training"}[name]
        raise UsageError(f"this run keeps no {kind} text to {purpose}; leave that option out")
    return text


def _temperatures(model: "Model", engine: "TorchEngine") -> "Rows":
    from charlm.inference.adapt.calibration import fit_scale, sample_of
    from charlm.inference.likelihood import evaluate
    from charlm.nn.torch_backend import TorchEngine

    part = sample_of(_kept_text(model, "valid", "fit a temperature on"))
    with phase("fitting the temperature"):
        scale = fit_scale(lambda factor: evaluate(TorchEngine(engine.model, factor), part).nats)
    if engine.logit_scale != 1.0:
        yield "uncalibrated", lambda text: evaluate(TorchEngine(engine.model), text)
    fitted = TorchEngine(engine.model, scale)
    yield f"temperature {1.0 / scale:.3f}", lambda text: evaluate(fitted, text)


def _averaged(model: "Model") -> "tuple[dict[str, Any], list[int]]":
    """The mean of a run's checkpoints, and their steps. Raises UsageError where there is one."""
    from charlm.errors import UsageError
    from charlm.runs.checkpoints import mean_weights

    weights, steps = mean_weights(model.path)
    if len(steps) < 2:
        raise UsageError(
            f"this run keeps {len(steps)} checkpoint; an average needs two. Train with "
            "--set keep=10 --save-minutes 0.5 to keep more of them"
        )
    return weights, steps


def _average(
    engine: "TorchEngine", weights: dict[str, Any], steps: list[int]
) -> "tuple[str, Callable[[EncodedText], Tally]]":
    from charlm.inference.likelihood import evaluate
    from charlm.nn.model import RecurrentLanguageModel
    from charlm.nn.torch_backend import TorchEngine
    from charlm.runs.tensors import put_weights

    averaged = RecurrentLanguageModel(engine.model.settings, engine.model.vocab_size)
    put_weights(averaged, weights)
    other = TorchEngine(averaged, engine.logit_scale)
    say(f"average of the checkpoints at steps {', '.join(f'{step:,}' for step in steps)}")
    return f"average of {len(steps)}", lambda text: evaluate(other, text)


def _cache(
    model: "Model", engine: "TorchEngine", size: int
) -> "tuple[str, Callable[[EncodedText], Tally]]":
    from charlm.inference.adapt.cache import TUNING_TOKENS, cached_tally, read_contexts, tuned

    valid = _kept_text(model, "valid", "choose a cache on")
    with phase("reading the validation text", total=min(len(valid.ids), TUNING_TOKENS)):
        contexts = read_contexts(engine, valid, TUNING_TOKENS)
    chosen = tuned(contexts, size)
    say(
        f"cache of {size:,}: weight {chosen.weight:g}, theta {chosen.theta:g}, chosen on the first "
        f"{min(TUNING_TOKENS, len(valid.ids)):,} tokens of the validation text"
    )
    return "cache", lambda text: cached_tally(engine, text, chosen)


def _dynamic(model: "Model", engine: "TorchEngine") -> "tuple[str, Callable[[EncodedText], Tally]]":
    from charlm.inference.adapt.dynamic import TUNING_TOKENS, dynamic_nats, gradient_rms, tuned
    from charlm.inference.likelihood import tally

    valid = _kept_text(model, "valid", "choose a rate on")
    train = _kept_text(model, "train", "measure gradients on")
    rms = gradient_rms(engine, train)
    chosen = tuned(engine, valid, rms)
    read = min(TUNING_TOKENS, len(valid.ids))
    say(
        f"dynamic evaluation: rate {chosen.rate:g}, decay {chosen.decay:g}, pieces of "
        f"{chosen.window}, chosen on the first {read:,} tokens of the validation text"
    )
    return "dynamic", lambda text: tally(text, dynamic_nats(engine, text, rms, chosen))


def _with_others(model: "Model", names: tuple[str, ...], checkpoints: Path | None) -> "list[Model]":
    """The model and those to mix it with. Raises UsageError where they read other tokens."""
    from charlm.cli.options import open_model
    from charlm.errors import UsageError

    models = [model, *(open_model(name, checkpoints) for name in names)]
    for name, other in zip(names, models[1:], strict=True):
        same = other.vocabulary.to_json() == model.vocabulary.to_json()
        if not same or other.run.backward != model.run.backward:
            raise UsageError(
                f"{name} has another vocabulary or direction than {model.path.name}; expected runs "
                "that read the same tokens. Train it with --vocab of the first one"
            )
    return models


def _mixtures(models: "list[Model]") -> "Rows":
    """Equal weights, and weights fitted on the validation text."""
    from charlm.inference.adapt.mixture import fitted_weights, mixed_nats
    from charlm.inference.likelihood import tally, text_nats

    engines = [one.run.engine for one in models]
    valid = _kept_text(models[0], "valid", "fit weights on")
    with phase("fitting the mixture", total=len(engines) * len(valid.ids)):
        weights = fitted_weights([text_nats(engine, valid) for engine in engines])
    told = ", ".join(
        f"{one.path.name} {weight:.3f}" for one, weight in zip(models, weights, strict=True)
    )
    say(f"mixture: {told}, fitted on the validation text")
    equal = [1.0 / len(models)] * len(models)
    read: dict[int, list[NDArray[np.float64]]] = {}

    def mixed(text: "EncodedText", by: list[float]) -> "Tally":
        """The figures of a text under a mixture; each model reads it once."""
        if id(text) not in read:
            read[id(text)] = [text_nats(engine, text) for engine in engines]
        return tally(text, mixed_nats(read[id(text)], by))

    yield f"mean of {len(models)}", lambda text: mixed(text, equal)
    yield "fitted mixture", lambda text: mixed(text, weights)
