"""Training of classifiers: the object of the task `classify`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from charlm.backends.weights import feature_count
from charlm.config.settings import Settings, settings_from
from charlm.inference.counts import LabelCounts, fit_label_mixture
from charlm.nn.classifier import Classifier, TorchReader
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.runs.bag import bag_to_bytes
from charlm.runs.layout import BAG
from charlm.runs.model_files import replace_file, write_logit_scale
from charlm.tasks.classify import classify_task
from charlm.tasks.task import Task
from charlm.text.bag_of_words import BagOfWords
from charlm.text.dataset import Dataset
from charlm.text.labels import Labelled, Targets
from charlm.text.task_text import gold_of
from charlm.training.bag import logistic_regression
from charlm.training.fit import Course, Fit, Limits
from charlm.training.label_floors import compared, floors, floors_beside
from charlm.training.labelled import LabelledTraining, begin_biases, last_split, reviewed_rows
from charlm.training.plan.labelled import Costs, plan_labelled
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.task_training import TaskTraining

if TYPE_CHECKING:
    from charlm.training.session import Session

Logits = NDArray[np.float64]
MIN_TEXTS = 2
"""Minimum number of texts in which a feature of the bag of words occurs.

A third of all words and pairs of words do, and they separate the labels of IMDb's reviews as well
as all of them.
"""
ERRORS = 4.0
"""Width of a 95 % interval in standard errors."""
MIN_SAVED, MIN_FRACTION = 2.0, 0.005
"""Minimum of validation nats that the bag of words saves, and of their fraction.

Chance saves half a nat.
"""


LIMITS = Limits(small_gap=0.25, large_gap=0.75, almost_nothing=0.005, far=0.15, noisy=True)
"""Limits of a `Fit`, for errors that are fractions of texts."""


@dataclass(frozen=True)
class Answers:
    """Logits of a split by the network, and those of the bag of words if it is mixed in."""

    network: Logits
    bag: Logits | None = None

    @property
    def logits(self) -> Logits:
        """Logits of the run, before the factor on all of them, shape (N, K)."""
        return self.network if self.bag is None else self.network + self.bag


class LabelTraining(LabelledTraining):
    """Training of a model that gives each text a label; see `TaskTraining`."""

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of labels, or of entries if the input is one-hot."""
        labels = len(gold_of(dataset, Labelled).labels)
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

    def plan(self, settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
        """Decide every setting that is open; a run with a parent gets the usual passes at most.

        More gain nothing: on SST-2, 5.6 passes gave 0.364 nats per validation text, and 7.7 gave
        0.367 (means of three seeds).
        """
        costs = self.costs(settings, dataset)
        if inputs.parent and not settings.task.freeze:
            costs = costs._replace(most=1.0)
        return plan_labelled(settings, dataset, inputs, costs)

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the floors."""
        return {"floors": floors(dataset)}

    def table(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the labels, and how texts are read."""
        task = settings.task
        return {
            "labels": list(gold_of(dataset, Labelled).labels.names),
            "pooling": task.pooling,
            "both_ways": task.both_ways,
            "max_tokens": task.max_tokens,
            "kept_part": task.kept_part,
        }

    def begin_head(self, settings: Settings, dataset: Dataset, model: Encoder) -> None:
        """Let output biases follow the frequencies of the labels."""
        if not settings.task.balance:
            labelled = gold_of(dataset, Labelled)
            begin_biases(model, labelled.targets["train"], len(labelled.labels))

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return batches of like length, the loss of the label, and the figures."""
        return classify_task(dataset, cast(Classifier, model), settings, precision)

    def answers(self, session: "Session", model: Encoder, split: str) -> Answers:
        """Return the logits of the texts of a split."""
        text = session.dataset.split(split)
        assert text is not None, "a split that is there"
        return Answers(TorchReader(cast(Classifier, model)).logits(text))

    def calibrate(self, session: "Session", answers: dict[str, Answers]) -> float:
        """Write the factor on all logits, and a bag of words that helps on the validation text.

        A bag of words and a network are wrong on different texts. Their logits are added, as in
        Wang and Manning 2012 and in Mesnil et al. 2014 (https://arxiv.org/abs/1412.5335), who mix a
        recurrent network with it. The bag is the sum of naive Bayes, which is good with few texts,
        and of logistic regression, which is good with many.
        """
        task = settings_from(session.record["settings"]).task
        best = cast(LabelCounts, session.trainer.counters.best)
        if not task.bag_of_words or task.balance:
            return super().calibrate(session, answers)
        dataset, labelled = session.dataset, gold_of(session.dataset, Labelled)
        bayes = BagOfWords.naive_bayes(
            dataset.train, labelled.targets["train"], len(labelled.labels), len(dataset.vocabulary),
            least=MIN_TEXTS,
        )  # fmt: skip
        bags = bayes, logistic_regression(bayes, dataset.train, labelled.targets["train"])
        valid, targets = dataset.valid, labelled.targets["valid"]
        assert valid is not None, "there are validation figures"
        tables = [answers["valid"].network, *(bag.logits(valid) for bag in bags)]
        scale, *factors = fit_label_mixture(tables, targets)
        first, second = (
            bag.times(factor / scale) for bag, factor in zip(bags, factors, strict=True)
        )
        bag = first.plus(second)
        both = LabelCounts.of(tables[0] + bag.logits(valid), targets, scale)
        if not _helps(both, best):
            return super().calibrate(session, answers)
        replace_file(session.path, BAG, bag_to_bytes(bag))
        write_logit_scale(session.path, scale, bag=len(bag.features))
        for name, own in answers.items():
            if (text := dataset.split(name)) is not None:
                answers[name] = Answers(own.network, bag.logits(text))
        return scale

    def figures(
        self, session: "Session", answers: Answers, split: str, scale: float
    ) -> LabelCounts:
        """Return the figures of the logits of a split."""
        return LabelCounts.of(
            answers.logits, gold_of(session.dataset, Labelled).targets[split], scale
        )

    def compared(self, session: "Session", answers: Mapping[str, Answers]) -> dict[str, Any]:
        """Return how the answers compare with a bag of words, and with the network alone."""
        logits = {name: own.logits for name, own in answers.items()}
        results = compared(session.dataset, logits, session.trainer)
        if any(own.bag is not None for own in answers.values()):
            targets = gold_of(session.dataset, Labelled).targets
            for key in ("network", "bag"):
                results[key] = {
                    name: float((getattr(own, key).argmax(axis=1) == targets[name]).mean())
                    for name, own in answers.items()
                }
        return results

    def fit(
        self, session: "Session", model: Encoder, answers: Mapping[str, Answers], course: Course
    ) -> Fit:
        """Return the accuracies of the network, and what both floors have beside the run."""
        dataset, targets = session.dataset, gold_of(session.dataset, Labelled).targets
        rows = reviewed_rows(dataset.train)
        train = TorchReader(cast(Classifier, model)).logits(dataset.train.documents_at(rows))
        split = last_split(answers)
        own = answers[split]
        return Fit(
            key="accuracy",
            figure="accuracy {}",
            train=_accuracy(train, targets["train"][rows]),
            new=_accuracy(answers["valid"].network, targets["valid"]),
            perfect=1.0,
            limits=LIMITS,
            noun="texts",
            examples=dataset.train.documents,
            floors=floors_beside(dataset, split, own.logits, own.network, own.bag),
            course=course,
        )


LABELS: TaskTraining = LabelTraining()


def _accuracy(logits: Logits, targets: Targets) -> float:
    return float((logits.argmax(axis=1) == targets).mean())


def _helps(both: LabelCounts, network: LabelCounts) -> bool:
    """Return whether the bag of words makes answers likelier, and no label is given up for that.

    Where labels are uneven, naive Bayes prefers the frequent ones: nats fall, and so does the
    recall of the rare ones. A fall of less than the standard error is chance: of few texts, one
    of a rare label counts much.
    """
    saved = network.nats - both.nats
    enough = saved >= max(MIN_SAVED, MIN_FRACTION * network.nats)
    low, high = network.intervals().get("macro_recall", (0.0, 0.0))
    return enough and both.macro_recall >= network.macro_recall - (high - low) / ERRORS
