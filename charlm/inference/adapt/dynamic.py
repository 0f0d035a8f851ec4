"""Dynamic evaluation: a model that keeps learning from the text that it scores.

Krause et al. 2018 (arxiv.org/abs/1709.07432). The model first predicts each window of the text and
then learns from it, so every token is scored before it is known. The step of a weight is divided by
the root mean square (RMS) of its gradient over the training text, and the weight decays towards its
trained value, faster for a larger RMS:

    w <- w + decay * (RMS / mean RMS) * (w0 - w) - rate * gradient / (RMS + epsilon)

The loss is the sum of nats divided by the usual length of a window, so a short window at the end of
a document counts in proportion to its tokens.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.errors import CorpusError
from charlm.nn.encoder import State
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.phases import advance, phase
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS

EPSILON = 2e-5
WINDOW = 20
"""Tokens predicted before the model learns from them. 20 is nearly as good as 5 in the paper."""
STATISTICS_ROWS = 64
STATISTICS_TOKENS = 200_000
"""Tokens of the training text over which squared gradients are averaged."""
TUNING_TOKENS = 15_000
RATES = (3e-5, 1e-4, 3e-4, 1e-3)
DECAYS = (0.0, 0.003, 0.02)

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Settings: learning rate, decay towards the trained weights, tokens of a window."""

    rate: float
    decay: float
    window: int = WINDOW


def gradient_rms(
    backend: TorchBackend, text: EncodedText, window: int = WINDOW
) -> dict[str, Tensor]:
    """Return the RMS of the gradient of each trainable weight over batches of the training text.

    Raises CorpusError if the text is too short for one batch.
    """
    model = _learner_of(backend)
    squares = {name: torch.zeros_like(weight) for name, weight in _trainable(model)}
    count = 0
    with phase("measuring gradients", total=min(len(text.ids), STATISTICS_TOKENS)):
        for inputs, targets in _batches(text, window):
            model.zero_grad()
            ids, correct = (torch.from_numpy(a).to(backend.device) for a in (inputs, targets))
            _, shown, _ = model.read(ids)
            _mean_nats(model, shown, correct, backend.logit_scale).backward()  # type: ignore[no-untyped-call]
            for name, weight in _trainable(model):
                if weight.grad is not None:
                    squares[name] += weight.grad**2
            count += 1
            advance(inputs.size)
    return {name: (square / count).sqrt() for name, square in squares.items()}


def _batches(text: EncodedText, window: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield inputs and targets (T, B) of windows that are spread over a text."""
    ids = np.asarray(text.ids, np.int64)
    number = min((len(ids) - 1) // window, STATISTICS_TOKENS // window)
    if number < 1:
        raise CorpusError(
            f"the training text has {len(ids)} tokens; dynamic evaluation needs at least "
            f"{window + 1} to measure gradients on"
        )
    starts = np.linspace(0, len(ids) - 1 - window, number).astype(np.int64)
    batches = -(-number // STATISTICS_ROWS)
    for first in range(batches):
        rows = starts[first::batches, None] + np.arange(window + 1)
        yield ids[rows[:, :-1]].T, ids[rows[:, 1:]].T


def dynamic_nats(
    backend: TorchBackend, text: EncodedText, rms: Mapping[str, Tensor], settings: Dynamic
) -> NDArray[np.float64]:
    """Return -ln P of every token (N,) under a copy of the model that learns as it reads.

    Each document begins from the first state, with the weights learnt so far.
    """
    learner = _Learner(backend, rms, settings)
    ids = np.asarray(text.ids, np.int64)
    nats = [learner.read(ids[begin:end]) for begin, end in pairwise([0, *text.ends])]
    return np.concatenate([*nats, np.empty(0)])


class _Learner:
    """Copy of a model that learns from each window after predicting it."""

    def __init__(self, backend: TorchBackend, rms: Mapping[str, Tensor], settings: Dynamic) -> None:
        self.model, self.settings, self.scale = _learner_of(backend), settings, backend.logit_scale
        named = [(name, weight) for name, weight in _trainable(self.model) if name in rms]
        self.weights = [weight for _, weight in named]
        self.trained = [weight.detach().clone() for weight in self.weights]
        self.divisors = [rms[name] + EPSILON for name, _ in named]
        mean = sum(float(rms[name].sum()) for name, _ in named)
        mean /= max(sum(weight.numel() for weight in self.weights), 1)
        pulls = [rms[name] / max(mean, 1e-30) * settings.decay for name, _ in named]
        self.pulls = [pull.clamp(max=1.0) for pull in pulls]

    def read(self, ids: Ids) -> NDArray[np.float64]:
        """Return the nats of one document, learning window by window."""
        inputs, nats = np.concatenate([[EOS], ids[:-1]]), []
        state = self.model.initial_state(1)
        for begin in range(0, len(ids), self.settings.window):
            span = slice(begin, begin + self.settings.window)
            window_nats, state = self._step(inputs[span, None], ids[span, None], state)
            nats.append(window_nats)
            advance(len(window_nats))
        return np.concatenate([*nats, np.empty(0)])

    def _step(self, inputs: Ids, targets: Ids, state: State) -> tuple[NDArray[np.float64], State]:
        """Return the nats of a window and the state after it, then learn from it."""
        device = self.weights[0].device
        _, shown, after = self.model.read(torch.from_numpy(inputs).to(device), state)
        logits = self.model.output(shown).float() * self.scale
        correct = torch.from_numpy(targets).to(device).flatten()
        nats = F.cross_entropy(logits.flatten(0, 1), correct, reduction="none")
        gradients = torch.autograd.grad(
            nats.sum() / self.settings.window, self.weights, allow_unused=True
        )
        with torch.no_grad():
            for weight, trained, pull in zip(self.weights, self.trained, self.pulls, strict=True):
                weight.lerp_(trained, pull)
            for weight, gradient, divisor in zip(
                self.weights, gradients, self.divisors, strict=True
            ):
                if gradient is not None:
                    weight.addcdiv_(gradient, divisor, value=-self.settings.rate)
        state = tuple(tuple(tensor.detach() for tensor in layer) for layer in after)
        return nats.detach().cpu().double().numpy(), state


def _learner_of(backend: TorchBackend) -> RecurrentLanguageModel:
    """Return a copy of the backend's model with trainable weights."""
    model = RecurrentLanguageModel(backend.model.settings, backend.model.vocab_size)
    model.load_state_dict(backend.model.state_dict())
    return model.to(backend.device)


def _trainable(model: RecurrentLanguageModel) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]


def _mean_nats(
    model: RecurrentLanguageModel, shown: Tensor, targets: Tensor, scale: float
) -> Tensor:
    logits = model.output(shown).float() * scale
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def tuned(
    backend: TorchBackend, text: EncodedText, rms: Mapping[str, Tensor], window: int = WINDOW
) -> Dynamic:
    """Return the rate and decay with the least nats on the beginning of a text.

    The rate is chosen first, with the middle decay, then the decay.
    """
    beginning = _beginning(text, TUNING_TOKENS)

    def nats(settings: Dynamic) -> float:
        """Return the nats of the beginning."""
        return float(dynamic_nats(backend, beginning, rms, settings).sum())

    rates = [Dynamic(rate=rate, decay=DECAYS[1], window=window) for rate in RATES]
    trials = len(RATES) + len(DECAYS)
    with phase("choosing the rate of dynamic evaluation", total=trials * len(beginning.ids)):
        best = min(rates, key=nats)
        return min((replace(best, decay=decay) for decay in DECAYS), key=nats)


def _beginning(text: EncodedText, most: int) -> EncodedText:
    """Return the first documents, or the first tokens of a stream: about `most` tokens."""
    if text.is_stream:
        return EncodedText.stream(text.ids[:most])
    number = max(1, int(np.searchsorted(text.ends, most, side="right")))
    ends = np.minimum(text.ends[:number], most)
    return replace(text, ids=text.ids[: ends[-1]], ends=ends)
