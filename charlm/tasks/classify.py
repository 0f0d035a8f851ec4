"""Classification: give each text a label, read from pooled hidden vectors of the text."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.backends.interface import Array
from charlm.backends.weights import HEAD
from charlm.config.settings import Settings
from charlm.config.tasks import TASKS
from charlm.inference.counts import LabelCounts, fit_label_scale
from charlm.nn.classifier import Classifier, TorchReader
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder, State
from charlm.phases import phase
from charlm.tasks.task import Sums, Task
from charlm.text.batches import Batch
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.text.groups import LabelBatch, LabelGroups
from charlm.text.labels import Labelled, Targets
from charlm.text.task_text import gold_of


def classify_task(
    dataset: Dataset, model: Classifier, settings: Settings, precision: Precision
) -> Task:
    """Return the task of a labelled dataset under complete settings.

    With `freeze`, all weights of the model but those of the output layer are frozen.
    """
    targets, training = gold_of(dataset, Labelled).targets, settings.training
    frozen = settings.task.freeze
    assert training.batch_size, "planned settings"
    loss = ClassifyLoss(
        precision=precision,
        smoothing=training.label_smoothing,
        weights=class_weights(targets["train"]) if settings.task.balance else None,
        features=_known(dataset.train) if frozen else None,
    )
    if frozen:
        train_head_only(model)
    validation = None
    if dataset.valid is not None:
        known = _known(dataset.valid) if frozen else None
        validation = LabelValidation(dataset.valid, targets["valid"], known)
    return Task(
        batches=LabelGroups(
            dataset.train, targets["train"], training.batch_size, training.seed or 0
        ),
        loss=loss,
        evaluate=validation,
        target=TASKS[settings.task.task].target,
    )


def _known(text: EncodedText) -> "KnownFeatures":
    """Return the pooled features of a text."""
    return KnownFeatures(lambda model: TorchReader(model).features(text))


def train_head_only(model: Encoder) -> None:
    """Freeze all weights of a model but those of its output layer."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(name.startswith(HEAD))


def class_weights(targets: Targets) -> Tensor:
    """Return a weight for each label (K,): the inverse of its frequency, with mean 1 over texts."""
    counts = np.bincount(targets)
    return torch.from_numpy(len(targets) / (len(counts) * np.maximum(counts, 1))).float()


@dataclass
class KnownFeatures:
    """Features by a model whose encoder does not change; they are computed once, by `read`."""

    read: Callable[[Any], Array]
    _features: Array | None = None

    def of(self, model: Encoder) -> Array:
        """Return the features, shape (N, P)."""
        if self._features is None:
            with phase("reading the texts once"):
                self._features = self.read(model)
        return self._features


@dataclass(frozen=True, kw_only=True)
class ClassifyLoss:
    """Cross-entropy of the label, with label smoothing and weights (K,) of the labels.

    With `features`, only the output layer is computed.
    """

    precision: Precision
    smoothing: float = 0.0
    weights: Tensor | None = None
    features: KnownFeatures | None = None

    def __call__(
        self, model: Classifier, batch: Batch, state: State | None, generator: torch.Generator
    ) -> Sums:
        """Return the sums over the texts, and no state (see `Loss`)."""
        assert isinstance(batch, LabelBatch), "batches of labelled texts"
        device = generator.device
        targets = torch.from_numpy(batch.targets).to(device)  # (B,)
        logits = model.logits(self._features(model, batch, generator), generator)  # (B, K)
        losses = F.cross_entropy(
            logits, targets, label_smoothing=self.smoothing, reduction="none"
        )  # (B,)
        if self.weights is not None:
            losses = losses * self.weights.to(device)[targets]
        nats = F.cross_entropy(logits.detach(), targets, reduction="sum")
        return Sums(losses.sum(), nats, ())

    def _features(self, model: Classifier, batch: LabelBatch, generator: torch.Generator) -> Tensor:
        """Return the features of a batch, shape (B, P)."""
        device = generator.device
        if self.features is not None:
            return torch.from_numpy(self.features.of(model)[batch.rows]).to(device)
        inputs = torch.from_numpy(batch.inputs).to(device)  # (T, B)
        lengths = torch.from_numpy(batch.lengths).to(device)  # (B,)
        with self.precision.autocast(device):
            return model.features(inputs, lengths, generator)


@dataclass(frozen=True)
class LabelValidation:
    """Figures of labelled texts, without dropout and under the best factor on all logits.

    Nats under the best factor compare weights by what they know: of two that rank labels alike,
    the more confident one would have more nats without it.
    """

    text: EncodedText
    targets: Targets = field(repr=False)
    features: KnownFeatures | None = None

    @property
    def tokens(self) -> int:
        """Number of texts."""
        return self.text.documents

    def __call__(self, model: Classifier) -> LabelCounts:
        """Return the figures of a model."""
        with phase("validating"):
            logits = self.logits(model)
            return LabelCounts.of(logits, self.targets, fit_label_scale(logits, self.targets))

    @torch.inference_mode()
    def logits(self, model: Classifier) -> NDArray[np.float64]:
        """Return the logits of each text, shape (N, K)."""
        if self.features is None:
            return TorchReader(model).logits(self.text)
        features = torch.from_numpy(self.features.of(model)).to(model.device)
        return model.logits(features).cpu().numpy().astype(np.float64)
