"""Floors of a run that gives labels: the most frequent label, a bag of words, one unit alone."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import SPLIT_NAMES
from charlm.inference.bootstrap import fraction_interval
from charlm.inference.counts import paired_interval
from charlm.nn.classifier import Classifier
from charlm.phases import phase
from charlm.tasks.classify import ClassifyLoss, LabelValidation
from charlm.text.bag_of_words import BagOfWords
from charlm.text.dataset import Dataset
from charlm.text.floors import best_unit, majority
from charlm.text.labels import Labelled
from charlm.text.task_text import gold_of
from charlm.training.fit import Floor
from charlm.training.labelled import HELD_OUT
from charlm.training.trainer import Trainer

Right = NDArray[np.bool_]


def floors(dataset: Dataset) -> dict[str, Any]:
    """Return the accuracies of the most frequent label and of a bag of words, as in run.json."""
    labelled = gold_of(dataset, Labelled)
    most = majority(labelled.targets["train"], len(labelled.labels))
    named = {name: labelled.targets[name] == most for name in HELD_OUT if name in labelled.targets}
    return {
        "majority": {"label": labelled.labels.names[most]} | _accuracies(named),
        "bag_of_words": _accuracies(bag_of_words(dataset, HELD_OUT)),
    }


def bag_of_words(dataset: Dataset, names: Sequence[str]) -> dict[str, Right]:
    """Return which texts naive Bayes over words and pairs labels correctly, by split.

    Splits of these names that are not there are left out.
    """
    labelled = gold_of(dataset, Labelled)
    texts = {name: text for name in names if (text := dataset.split(name)) is not None}
    with phase("comparing with a bag of words"):
        bayes = BagOfWords.naive_bayes(
            dataset.train,
            labelled.targets["train"],
            len(labelled.labels),
            len(dataset.vocabulary),
        )
        return {
            name: bayes.logits(text).argmax(axis=1) == labelled.targets[name]
            for name, text in texts.items()
        }


def _accuracies(right: Mapping[str, Right]) -> dict[str, float]:
    return {name: float(values.mean()) for name, values in right.items()}


def compared(
    dataset: Dataset, logits: Mapping[str, NDArray[np.float64]], trainer: Trainer
) -> dict[str, Any]:
    """Return the floors as in the results of a run, whose logits (N, K) are given by split.

    `difference` is the accuracy on the test text minus that of the bag of words, with an interval.
    If the encoder was frozen, `unit` is the best of its features alone.
    """
    results: dict[str, Any] = {}
    if "test" in logits:
        right = logits["test"].argmax(axis=1) == gold_of(dataset, Labelled).targets["test"]
        bag = bag_of_words(dataset, ["test"])["test"]
        results["difference"] = list(paired_interval(bag, right))
    return results | _one_unit(dataset, trainer)


def floors_beside(
    dataset: Dataset,
    split: str,
    logits: NDArray[np.float64],
    network: NDArray[np.float64],
    mixed: NDArray[np.float64] | None,
) -> list[Floor]:
    """Return the most frequent label and the bag of words beside logits (N, K) of a split.

    `network` are the logits without the bag of words, and `mixed` those of the bag that is mixed
    in; without one, the floor is naive Bayes.
    """
    labelled, where = gold_of(dataset, Labelled), SPLIT_NAMES[split]
    targets = labelled.targets[split]
    right = logits.argmax(axis=1) == targets
    if mixed is None:
        name, bag = "a bag of words", bag_of_words(dataset, [split])[split]
    else:
        name, bag = "the bag of words mixed into it", mixed.argmax(axis=1) == targets
    frequent = targets == majority(labelled.targets["train"], len(labelled.labels))
    own, most = float(right.mean()), float(frequent.mean())
    low, high = fraction_interval(int(right.sum()), len(right))
    _, *ends = paired_interval(bag, right)
    alone = network.argmax(axis=1) == targets
    over_network = mixed is not None and paired_interval(alone, bag)[1] > 0.0
    figures = f"accuracy {{:.3f}} on {len(right):,} {where} texts, this run {own:.3f}"
    return [
        Floor(
            name="the most frequent label",
            figures=figures.format(most),
            low=low - most, high=high - most, trivial=True,
        ),
        Floor(
            name=name,
            figures=figures.format(bag.mean()),
            low=ends[0], high=ends[1], over_network=over_network,
        ),
    ]  # fmt: skip


def _one_unit(dataset: Dataset, trainer: Trainer) -> dict[str, Any]:
    """Return the best single feature of a frozen encoder, and its accuracy."""
    labelled, model = gold_of(dataset, Labelled), cast(Classifier, trainer.model)
    train, valid = trainer.task.loss, trainer.task.evaluate
    assert isinstance(train, ClassifyLoss)
    if train.features is None or not isinstance(valid, LabelValidation) or valid.features is None:
        return {}
    with phase("comparing with one unit"):
        features = train.features.of(model)
        unit, accuracy = best_unit(
            features, labelled.targets["train"], valid.features.of(model), valid.targets,
            len(labelled.labels),
        )  # fmt: skip
    return {"unit": {"unit": unit, "accuracy": accuracy, "of": features.shape[1]}}
