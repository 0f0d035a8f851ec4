"""Tagging: give each word of a sentence a tag, read off where its tokens end."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.backends.interface import Array
from charlm.config.settings import Settings
from charlm.config.tasks import TASKS
from charlm.inference.crf import Transitions, fit_tag_scale
from charlm.inference.tag_counts import TagCounts, counted_tags
from charlm.nn.crf import crf_nats
from charlm.nn.devices import Precision
from charlm.nn.encoder import State
from charlm.nn.tagger import CrfHead, Tagger, TorchTagReader
from charlm.phases import phase
from charlm.tasks.classify import KnownFeatures, train_head_only
from charlm.tasks.task import Sums, Task
from charlm.text.batches import Batch
from charlm.text.dataset import Dataset
from charlm.text.labels import Targets
from charlm.text.sentences import Sentences
from charlm.text.spans import legal
from charlm.text.tagged import Tagged
from charlm.text.task_text import gold_of
from charlm.text.word_batches import WordBatch, WordGroups
from charlm.units import finite

Emissions = NDArray[np.float64]
Features = Callable[[Tagger], Array]
"""Function from a model to the features (W, P) of all words of a text."""


def tag_task(dataset: Dataset, model: Tagger, settings: Settings, precision: Precision) -> Task:
    """Return the task of a dataset with tags under complete settings.

    With `freeze`, all weights of the model but those of the output layer are frozen.
    """
    tagged, training, frozen = gold_of(dataset, Tagged), settings.training, settings.task.freeze
    assert training.batch_size, "planned settings"
    if frozen:
        train_head_only(model)
    train = tagged.sentences["train"]
    validation = None
    if "valid" in tagged.sentences:
        reads = read_features(tagged, "valid")
        validation = TagValidation(
            tagged.sentences["valid"],
            tagged.targets["valid"],
            tagged.labels.names,
            KnownFeatures(reads).of if frozen else reads,
        )
    return Task(
        batches=WordGroups(
            train, tagged.targets["train"], training.batch_size, training.seed or 0, tagged.letters
        ),
        loss=TagLoss(
            precision=precision,
            smoothing=training.label_smoothing,
            sentences=train,
            features=KnownFeatures(read_features(tagged, "train")).of if frozen else None,
        ),
        evaluate=validation,
        target=TASKS[settings.task.task].target,
        badness=badness,
    )


def read_features(tagged: Tagged, split: str) -> Features:
    """Return what reads the features of the words of a split."""
    sentences = tagged.sentences[split]
    return lambda model: TorchTagReader(model, tagged.letters).features(sentences)


@dataclass(frozen=True, kw_only=True)
class TagLoss:
    """Nats of the tags of a sentence under a CRF; without one, cross-entropy with smoothing.

    With `features`, those of all words of the `sentences`, only the output layer is computed.
    """

    precision: Precision
    sentences: Sentences = field(repr=False)
    smoothing: float = 0.0
    features: Features | None = None

    def __call__(
        self, model: Tagger, batch: Batch, state: State | None, generator: torch.Generator
    ) -> Sums:
        """Return the sums over the tags, and no state (see `Loss`)."""
        assert isinstance(batch, WordBatch), "batches of tagged words"
        device = generator.device
        scores = model.emissions(self._features(model, batch, generator), generator)  # (words, K)
        word, sentence = (torch.from_numpy(array).to(device) for array in batch.word_places())
        targets = torch.from_numpy(batch.targets).to(device)  # (W, B)
        if isinstance(model.head, CrfHead):
            emissions = scores.new_zeros(*targets.shape, scores.shape[1])
            emissions = emissions.index_put((word, sentence), scores)  # (W, B, K)
            counts = torch.from_numpy(batch.counts).to(device)
            nats = crf_nats(emissions, targets, counts, *model.head.steps()).sum()
            return Sums(nats, nats.detach(), ())
        targets = targets[word, sentence]
        loss = F.cross_entropy(scores, targets, reduction="sum", label_smoothing=self.smoothing)
        return Sums(loss, F.cross_entropy(scores.detach(), targets, reduction="sum"), ())

    def _features(self, model: Tagger, batch: WordBatch, generator: torch.Generator) -> Tensor:
        """Return the features of the words of a batch, shape (words, P)."""
        device = generator.device
        if self.features is not None:
            known = self.features(model)[self.sentences.numbers(batch.rows)]
            return torch.from_numpy(known).to(device)
        with self.precision.autocast(device):
            return model.features(batch, generator)


@dataclass(frozen=True)
class TagValidation:
    """Figures of tagged words, without dropout and under the best factor on all scores."""

    sentences: Sentences = field(repr=False)
    targets: Targets = field(repr=False)
    names: Sequence[str]
    features: Features

    @property
    def tokens(self) -> int:
        """Number of words."""
        return len(self.targets)

    def __call__(self, model: Tagger) -> TagCounts:
        """Return the figures of a model."""
        with phase("validating"):
            emissions = TorchTagReader(model).emissions_of(self.features(model))
            steps = steps_of(model, self.names)
            scale = fit_tag_scale(emissions, self.targets, self.sentences.ends, steps)
            counts, _ = counted_tags(
                emissions, self.targets, self.sentences, self.names, steps, scale=scale
            )
            return counts


def badness(counts: TagCounts) -> tuple[float, ...]:
    """Return 1 - F1 and the nats, or the nats alone if tags are no spans; see `Task.badness`.

    Most words are outside of spans, so that nats are least long before most spans are found.
    """
    return (1.0 - (finite(counts.f1) or 0.0), counts.nats) if counts.spans else (counts.nats,)


def steps_of(model: Tagger, names: Sequence[str]) -> Transitions | None:
    """Return the scores of steps between tags of these names, None without a CRF."""
    head = model.head
    if not isinstance(head, CrfHead):
        return None
    between, first, last = (
        weight.detach().cpu().numpy() for weight in (head.transitions, head.first, head.last)
    )
    return Transitions.of(between, first, last, legal(names))
