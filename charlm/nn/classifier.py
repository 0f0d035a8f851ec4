"""The classifier: encoders that read a text from one or both ends, pooling and an output layer.

Letters as in `encoder`, with K labels and P pooled features.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from charlm.backends.interface import Array
from charlm.backends.weights import feature_count
from charlm.config.model import ModelSettings
from charlm.nn.dropout import dropped
from charlm.nn.encoder import Encoder
from charlm.nn.layers import without_init
from charlm.nn.pooling import pooled
from charlm.text.encoded import EncodedText
from charlm.text.groups import READ_TOGETHER, groups_by_length, padded, text_lengths


class Classifier(Encoder):
    """P(label | text), as logits.

    The encoder itself reads forward; with `both_ways`, `backward` is a second one of the same
    settings, with weights of its own, that reads each text from its end. Both are pooled by
    `pooling` and joined. Raises UsageError if a size is missing or does not fit.
    """

    def __init__(
        self, settings: ModelSettings, vocab_size: int, labels: int, pooling: str, both_ways: bool
    ) -> None:
        super().__init__(settings, vocab_size)
        self.pooling = pooling
        # checkpoints number weights in this order: the encoder's, the backward one's, the head's
        self.backward = Encoder(settings, vocab_size) if both_ways else None
        self.head = without_init(nn.Linear, feature_count(settings, pooling, both_ways), labels)

    @classmethod
    def of_task(
        cls, settings: ModelSettings, vocab_size: int, task: Mapping[str, Any]
    ) -> "Classifier":
        """Build the classifier of a table `task` in config.json; see `task_models`."""
        return cls(settings, vocab_size, len(task["labels"]), task["pooling"], task["both_ways"])

    def features(
        self, inputs: Tensor, lengths: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the pooled features (B, P) of texts (T, B) of these lengths (B,), padded.

        Those of the forward half come first. `generator` is as in `Encoder.forward`.
        """
        hidden, _ = Encoder.forward(self, inputs, None, generator)  # (T, B, H)
        features = [pooled(self.pooling, hidden, lengths)]
        if self.backward is not None:
            hidden, _ = self.backward(reversed_within(inputs, lengths), None, generator)
            features.append(pooled(self.pooling, hidden, lengths))
        return torch.cat(features, dim=1)

    def forward(  # type: ignore[override]
        self, inputs: Tensor, lengths: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return logits (B, K) of texts (T, B) of these lengths (B,), padded at their ends."""
        return self.logits(self.features(inputs, lengths, generator), generator)

    def logits(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return logits (B, K) for features (B, P), in float32, after output dropout."""
        with torch.autocast(features.device.type, enabled=False):
            rate = self.settings.output_dropout or 0.0
            logits: Tensor = self.head(dropped(features, rate, generator))
        return logits

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Initialise all weights as in `Encoder`; those of the output layer Xavier-uniform."""
        super().reset_parameters(generator)
        if self.backward is not None:
            self.backward.reset_parameters(generator)
        nn.init.xavier_uniform_(self.head.weight, generator=generator)
        nn.init.zeros_(self.head.bias)


def reversed_within(inputs: Tensor, lengths: Tensor) -> Tensor:
    """Return inputs (T, B, ...) with the steps of each text after its first one reversed.

    The first row, the start symbol, and the padding keep their places. Applied twice it gives the
    inputs again.
    """
    order = reversed_steps(len(inputs), lengths)  # (T, B)
    order = order.reshape(*order.shape, *[1] * (inputs.dim() - 2))
    return inputs.gather(0, order.expand_as(inputs))


def reversed_steps(steps: int, lengths: Tensor) -> Tensor:
    """Return the step (T, B) that is read at each step of `reversed_within`, and the reverse."""
    forward = torch.arange(steps, device=lengths.device)[:, None]
    inside = (forward > 0) & (forward < lengths)
    return torch.where(inside, lengths - forward, forward)


class TorchReader:
    """Features and logits of encoded texts by a classifier, on the device of its weights.

    `scale` multiplies all logits. Texts are read in batches of like length, in float32 and without
    dropout.
    """

    def __init__(self, model: Classifier, scale: float = 1.0) -> None:
        self.model, self.scale = model, scale
        self.device, self.name = model.device, model.engine

    @torch.inference_mode()
    def hidden(self, inputs: NDArray[np.int64]) -> Array:
        """Return the hidden vectors (T, B, H) of inputs (T, B), read forward."""
        hidden, _ = Encoder.forward(self.model, torch.from_numpy(inputs).to(self.device))
        return np.asarray(hidden.float().cpu().numpy())

    def features(self, text: EncodedText) -> Array:
        """Return the pooled features of each text, shape (N, P)."""
        return self._read(text, self.model.features, self.model.head.in_features)

    def logits(self, text: EncodedText) -> NDArray[np.float64]:
        """Return the logits of each text, shape (N, K)."""
        logits = self._read(text, self.model, self.model.head.out_features)
        return logits.astype(np.float64) * self.scale

    @torch.inference_mode()
    def _read(
        self, text: EncodedText, compute: Callable[[Tensor, Tensor], Tensor], width: int
    ) -> Array:
        """Return compute(inputs, lengths), shape (N, width), of all texts in their order."""
        result = np.empty((text.documents, width), np.float32)
        for rows in groups_by_length(text_lengths(text), READ_TOGETHER):
            arrays = padded(text, rows)
            inputs, lengths = (torch.from_numpy(array).to(self.device) for array in arrays)
            with torch.autocast(self.device.type, enabled=False):
                result[rows] = compute(inputs, lengths).cpu().numpy()
        return result
