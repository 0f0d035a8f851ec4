"""Training of classifiers: the object of the task `classify`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from charlm.backends.weights import feature_count
from charlm.config.settings import Settings
from charlm.inference.counts import LabelCounts
from charlm.nn.classifier import Classifier, TorchReader
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.tasks.classify import classify_task
from charlm.tasks.task import Task
from charlm.text.dataset import Dataset
from charlm.text.labelled import labelled_of
from charlm.training.label_floors import compared, floors
from charlm.training.labelled import LabelledTraining, begin_biases
from charlm.training.plan.labelled import Costs
from charlm.training.task_training import TaskTraining

if TYPE_CHECKING:
    from charlm.training.session import Session

Logits = NDArray[np.float64]


class LabelTraining(LabelledTraining):
    """Training of a model that gives each text a label; see `TaskTraining`."""

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of labels, or of entries if the input is one-hot."""
        labels = len(labelled_of(dataset).labels)
        return len(dataset.vocabulary) if settings.model.one_hot else labels

    def costs(self, settings: Settings, dataset: Dataset) -> Costs:
        """Return what training costs; the features of a frozen encoder are kept for every text."""
        costs, task = super().costs(settings, dataset), settings.task
        if not task.freeze:
            return costs
        texts = dataset.train.documents + (dataset.valid.documents if dataset.valid else 0)
        return costs._replace(
            memory=lambda planned: (
                costs.memory(planned)
                + 4 * texts * feature_count(planned.model, task.pooling, task.both_ways)
            )
        )

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:  # noqa: ARG002
        """Return the floors."""
        return {"floors": floors(dataset)}

    def table(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the labels, and how texts are read."""
        task = settings.task
        return {
            "labels": list(labelled_of(dataset).labels.names),
            "pooling": task.pooling,
            "both_ways": task.both_ways,
            "max_tokens": task.max_tokens,
            "kept_part": task.kept_part,
        }

    def begin_head(self, settings: Settings, dataset: Dataset, model: Encoder) -> None:
        """Let output biases follow the frequencies of the labels."""
        if not settings.task.balance:
            labelled = labelled_of(dataset)
            begin_biases(model, labelled.targets["train"], len(labelled.labels))

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return batches of like length, the loss of the label, and the figures."""
        return classify_task(dataset, cast(Classifier, model), settings, precision)

    def answers(self, session: "Session", model: Encoder, split: str) -> Logits:
        """Return the logits of the texts of a split, shape (N, K)."""
        text = session.dataset.split(split)
        assert text is not None, "a split that is there"
        return TorchReader(cast(Classifier, model)).logits(text)

    def figures(self, session: "Session", answers: Logits, split: str, scale: float) -> LabelCounts:
        """Return the figures of the logits of a split."""
        return LabelCounts.of(answers, labelled_of(session.dataset).targets[split], scale)

    def compared(self, session: "Session", answers: Mapping[str, Logits]) -> dict[str, Any]:
        """Return how the answers compare with a bag of words."""
        return compared(session.dataset, answers, session.trainer)


LABELS: TaskTraining = LabelTraining()
