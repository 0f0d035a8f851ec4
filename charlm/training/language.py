"""Training of language models: the object of the task `language-model`."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.errors import EnvironmentFailure, UsageError, named
from charlm.inference.likelihood import evaluate
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.nn.model import RecurrentLanguageModel, count_parameters
from charlm.phases import phase
from charlm.runs import layout
from charlm.runs.built_in import is_built_in_text
from charlm.runs.parent import Parent
from charlm.tasks.language_model import language_model_task
from charlm.tasks.task import Task
from charlm.text.conditioned import CONDITIONED, check_conditioned
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.labels import Labelled
from charlm.text.task_text import Given, gold_of
from charlm.training import fine_tuning, pretrained
from charlm.training.calibrating import (
    BestWeights,
    calibrate,
    tokens_to_fit,
)
from charlm.training.companion import fit_companion
from charlm.training.plan.expectation import expected
from charlm.training.plan.planner import Plan, plan, usual_order
from charlm.training.plan.speed import PlanInputs
from charlm.training.records import Companion, FinishedRecord
from charlm.training.review import review
from charlm.training.task_training import Start, TaskTraining

if TYPE_CHECKING:
    from charlm.training.session import Session


class LanguageModelTraining:
    """Training of a model that predicts the next token; see `TaskTraining`.

    Texts may have conditions, with which they begin; then `dataset.labelled` has those.
    """

    static = True

    def dataset(self, settings: Settings, given: Given) -> Dataset:
        """Read, split and encode a text."""
        if column := settings.task.condition:
            check_conditioned(settings)
            sources = settings.corpus.sources
            if given.corpus or (given.examples is None and is_built_in_text(sources)):
                raise UsageError(
                    f"{named('condition')} {column} with a text that has no columns; expected a "
                    f"table with the columns text and {column}. Name its file, or give examples "
                    "in Python"
                )
            return CONDITIONED.load(settings, given)
        return load_dataset(
            settings.corpus, settings.vocabulary, corpus=given.corpus,
            vocabulary=given.vocabulary, grow=given.grow,
        )  # fmt: skip

    def start(self, parent: Parent, settings: Settings, dataset: Dataset) -> Start:
        """Return the weights of a parent for the entries of the text's vocabulary."""
        weights = fine_tuning.starting_weights(parent, dataset)
        foreign = fine_tuning.is_foreign(parent, weights, dataset)
        notes = parent.lost_calibration, fine_tuning.FOREIGN.format(parent.name) if foreign else ""
        return Start(weights, foreign, tuple(filter(None, notes)))

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of entries of the vocabulary."""
        return len(dataset.vocabulary)

    def networks(self, settings: Settings, dataset: Dataset) -> list[ModelSettings]:
        """Return the settings of the model, whose layers are its only ones."""
        return [settings.model]

    def plan(self, settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
        """Decide every setting that is open, and the loss to expect."""
        reasons: dict[str, str] = {}
        if settings.task.condition:
            settings, reasons = _without_ngrams(settings)
        planned = plan(settings, dataset, inputs)
        planned.reasons.update(reasons)
        known = is_built_in_text(settings.corpus.sources)  # its own entropy says more
        known = known or bool(inputs.parent)
        return replace(planned, expected=None if known else expected(dataset, planned))

    def parameters(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of weights."""
        return count_parameters(settings.model, len(dataset.vocabulary), condition_count(dataset))

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return no further keys."""
        return {}

    def config(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the conditions, if there are some."""
        if not settings.task.condition:
            return {}
        beside = gold_of(dataset, Labelled)
        documents = list(beside.counts("train").values())
        return {
            "format": layout.NEWEST,
            layout.CONDITIONS: {
                "column": settings.task.condition,
                "labels": list(beside.labels.names),
                "documents": documents,
                "without": dataset.train.documents - sum(documents),
            },
        }

    def model(self, settings: Settings, dataset: Dataset) -> Encoder:
        """Return the model with its initial weights."""
        size, conditions = len(dataset.vocabulary), condition_count(dataset)
        model = RecurrentLanguageModel(settings.model, size, conditions)
        model.reset_parameters(torch.Generator().manual_seed(settings.training.seed or 0))
        if settings.training.frequency_bias:
            pretrained.set_output_bias(model, dataset.train)
        return model

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return windows of the text, the loss of the next token, and the likelihood."""
        return language_model_task(dataset, settings.training, precision)

    def begin(self, session: "Session") -> None:
        """Save the weights of the parent as the best so far, with their figures."""
        fine_tuning.begin(session)

    def finish(self, session: "Session") -> FinishedRecord:
        """Calibrate and evaluate the best weights, review them, and fit the n-gram companion."""
        trainer, dataset, counters = session.trainer, session.dataset, session.trainer.counters
        stopped = trainer.stop_reason  # requests to stop are too late from here on
        valid, scale = counters.best, 1.0
        weights = BestWeights(session.path, trainer)
        if not stopped and trainer.settings.calibrate and valid:
            with phase("calibrating"):
                valid, scale = calibrate(weights, trainer, dataset, session.save)
        backend, text, test = weights.backend(scale), dataset.test, None
        if not stopped and text is not None:
            with phase("evaluating the test text", total=len(text.ids)):
                test = evaluate(backend, text)
        old = None if stopped else fine_tuning.old_text(session.path)
        finished = session.end_record(
            stopped,
            valid=valid,
            test=test,
            valid_uncalibrated=counters.best if scale != 1.0 else None,
            logit_scale=scale,
            old_valid=None if old is None else evaluate(backend, old),
        )
        if not stopped:  # save the results first: the review takes a moment
            session.write_end(finished, whole=False)
            nats = valid.nats_per_token if valid else None
            companion = None if nats is None else _companion(session, weights, scale, nats)
            weights.forget()  # what the review does not need
            ngrams = companion.ngram_nats_per_token if companion else None
            reviewed = review(trainer, dataset, backend, nats, ngrams)
            finished = replace(finished, review=reviewed, companion=companion)
        return finished


def condition_count(dataset: Dataset) -> int:
    """Return the number of conditions of a dataset."""
    return len(dataset.labelled.labels) if isinstance(dataset.labelled, Labelled) else 0


def _without_ngrams(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Return settings of a run with conditions, without n-grams, and the reasons."""
    reasons = {"training.ngram": "n-grams know no conditions"}
    corpus = settings.corpus
    if not corpus.valid and corpus.valid_frac != 0.0:
        corpus = replace(corpus, hold_out="random")
        reasons["corpus.hold_out"] = "of each condition"
    training = replace(settings.training, ngram=0)
    return replace(settings, corpus=corpus, training=training), reasons


def _companion(
    session: "Session", weights: BestWeights, scale: float, nats: float
) -> Companion | None:
    """Fit the n-gram companion; one that cannot be saved is a warning.

    The network has these `nats` per token on the validation text, calibrated by `scale`.
    """
    order = session.trainer.settings.ngram
    if order is None:  # in runs of older versions
        order, _ = usual_order(session.dataset)
    if not order or session.dataset.valid is None or session.dataset.labelled is not None:
        return None
    try:
        sample = weights.sample_logits(session.dataset.valid, tokens_to_fit(session.trainer))
        return fit_companion(
            session.path, order, session.dataset,
            lambda factor: weights.backend(factor * scale), replace(sample, scale=scale),
            nats_per_token=nats,
        )  # fmt: skip
    except EnvironmentFailure as error:
        session.warnings.append(f"{error}. The run is complete without its n-grams")
        return None


LANGUAGE_MODEL: TaskTraining = LanguageModelTraining()
