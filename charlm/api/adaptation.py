"""Methods that adapt a model to a text while it is read, fitted on the run's validation text."""

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

from charlm.api.methods import Methods
from charlm.api.model import Model
from charlm.config.corpus import SPLIT_NAMES
from charlm.errors import UsageError, assigned, named
from charlm.inference.adapt import cache, dynamic
from charlm.inference.adapt.calibration import sample_to_fit, text_logits
from charlm.inference.likelihood import evaluate, tally
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.phases import phase
from charlm.runs.checkpoints import mean_weights
from charlm.runs.tensors import put_weights
from charlm.text.encoded import EncodedText
from charlm.units import Tally

Method = tuple[str, Callable[[EncodedText], Tally]]
"""Name of a method, and the function that evaluates a text with it."""


class Adaptation:
    """Methods that are ready to use: the averaged weights are loaded.

    `notes` say which settings were fitted. Raises UsageError, before any text is read, if the run
    keeps too little for one of the methods.
    """

    def __init__(self, model: Model, methods: Methods) -> None:
        model.run.check_network(methods.in_torch)
        if not isinstance(model.run.backend, TorchBackend):
            raise UsageError(
                f"the model runs on engine {model.run.backend.name}; expected torch, which "
                f"adaptation needs. Use {assigned('engine', 'torch')}"
            )
        self.model, self.methods, self.backend = model, methods, model.run.backend
        self.notes: list[str] = []
        for given, name, purpose in (
            (methods.temperature, "valid", "fit a temperature on"),
            (methods.cache, "valid", "choose a cache on"),
            (methods.dynamic, "valid", "choose a rate on"),
            (methods.dynamic, "train", "measure gradients on"),
        ):
            if given:
                _kept_text(model, name, purpose)
        self.averaged = _averaged(model) if methods.average else ({}, [])

    def tallies(self, texts: Mapping[str, EncodedText]) -> dict[str, Tally]:
        """Return the tally of each text with each method, by "text, method"."""
        tallies = {}
        for method, evaluate_text in self._ready():
            for name, text in texts.items():
                with phase(f"evaluating: {name}, {method}", total=len(text.ids)):
                    tallies[f"{name}, {method}"] = evaluate_text(text)
        return tallies

    def _ready(self) -> Iterator[Method]:
        if self.methods.temperature:
            yield from self._temperatures()
        if self.methods.average:
            yield self._average()
        if self.methods.cache:
            yield self._cache(self.methods.cache)
        if self.methods.dynamic:
            yield self._dynamic()

    def _temperatures(self) -> Iterator[Method]:
        model = self.backend.model
        valid = _kept_text(self.model, "valid", "fit a temperature on")
        text = sample_to_fit(valid, model.vocab_size)
        with phase("fitting the temperature"):
            scale = text_logits(TorchBackend(model), text).best_factor()
        if self.backend.logit_scale != 1.0:
            yield "uncalibrated", lambda text: evaluate(TorchBackend(model), text)
        fitted = TorchBackend(model, scale)
        yield f"temperature {1.0 / scale:.3f}", lambda text: evaluate(fitted, text)

    def _average(self) -> Method:
        weights, steps = self.averaged
        model = self.backend.model
        averaged = RecurrentLanguageModel(model.settings, model.vocab_size)
        put_weights(averaged, weights)
        backend = TorchBackend(averaged, self.backend.logit_scale)
        numbers = ", ".join(f"{step:,}" for step in steps)
        self.notes.append(f"average of the checkpoints at steps {numbers}")
        return f"average of {len(steps)}", lambda text: evaluate(backend, text)

    def _cache(self, size: int) -> Method:
        valid = _kept_text(self.model, "valid", "choose a cache on")
        tokens = min(len(valid.ids), cache.TUNING_TOKENS)
        with phase("reading the validation text", total=tokens):
            contexts = cache.read_contexts(self.backend, valid, cache.TUNING_TOKENS)
        chosen = cache.tuned(contexts, size)
        self.notes.append(
            f"cache of {size:,}: weight {chosen.weight:g}, theta {chosen.theta:g}, chosen on the "
            f"first {tokens:,} tokens of the validation text"
        )
        return "cache", lambda text: cache.cached_tally(self.backend, text, chosen)

    def _dynamic(self) -> Method:
        valid = _kept_text(self.model, "valid", "choose a rate on")
        train = _kept_text(self.model, "train", "measure gradients on")
        rms = dynamic.gradient_rms(self.backend, train)
        chosen = dynamic.tuned(self.backend, valid, rms)
        tokens = min(dynamic.TUNING_TOKENS, len(valid.ids))
        self.notes.append(
            f"dynamic evaluation: rate {chosen.rate:g}, decay {chosen.decay:g}, pieces of "
            f"{chosen.window}, chosen on the first {tokens:,} tokens of the validation text"
        )
        return "dynamic", lambda text: tally(
            text, dynamic.dynamic_nats(self.backend, text, rms, chosen)
        )


def _kept_text(model: Model, name: str, purpose: str) -> EncodedText:
    """Return a text that the run keeps. Raises UsageError if it does not keep it."""
    text = model.run.kept(name)
    if text is None:
        raise UsageError(
            f"this run keeps no {SPLIT_NAMES[name]} text to {purpose}; leave that option out"
        )
    return text


def _averaged(model: Model) -> tuple[dict[str, Tensor], list[int]]:
    """Return the mean weights of a run's checkpoints, and their steps."""
    if model.conditions:
        raise UsageError(
            f"{named('average')} with a run that has conditions; expected one without. Leave out "
            f"{named('average')}"
        )
    weights, steps = mean_weights(model.path)
    if len(steps) < 2:
        raise UsageError(
            f"this run keeps {len(steps)} checkpoint; an average needs two. Train with "
            "--set keep=10 --save-minutes 0.5 to keep more of them"
        )
    return weights, steps
