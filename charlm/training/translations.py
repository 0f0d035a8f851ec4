"""Training of translators: the object of the task `translate`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from charlm.backends.translator_weights import decoder_settings
from charlm.config.corpus import SPLIT_NAMES
from charlm.config.model import ModelSettings
from charlm.config.presets import OUTER_DROPOUT
from charlm.config.settings import Settings
from charlm.config.tasks import figure_of_translations
from charlm.inference.translation_counts import TranslationCounts, copy_floor
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.nn.model import multiplied_weights
from charlm.nn.translator import Translator
from charlm.runs.translate_run import EncodedPairs, load_translate_run
from charlm.tasks.task import Task
from charlm.tasks.translate import TranslateValidation, translate_task
from charlm.text.dataset import Dataset
from charlm.text.groups import text_lengths
from charlm.text.pair_batches import pair_lengths
from charlm.text.parallel import Parallel
from charlm.text.task_text import gold_of
from charlm.training.fit import Course, Fit, Floor, Limits
from charlm.training.labelled import LabelledTraining, last_split, reviewed_rows
from charlm.training.plan.labelled import Costs
from charlm.training.plan.memory import memory_of
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.task_training import TaskTraining

if TYPE_CHECKING:
    from charlm.training.session import Session

PASSES = 12.0
"""Passes of a run without a given length."""
FEW_PAIRS = 20_000
"""Number of pairs of characters below which the model is small and dropout is low."""
LIMITS = Limits(small_gap=0.05, large_gap=0.35, almost_nothing=0.02)
"""Limits of a `Fit`, for nats per token."""
SIZES = ("hidden_size", "embedding_size")
"""Sizes that follow from the unit of the text."""


class TranslationTraining(LabelledTraining):
    """Training of a model that translates texts; see `TaskTraining`."""

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of entries of the target's vocabulary, of both if input is one-hot."""
        entries = len(gold_of(dataset, Parallel).vocabulary)
        return max(entries, len(dataset.vocabulary)) if settings.model.one_hot else entries

    def networks(self, settings: Settings, dataset: Dataset) -> list[ModelSettings]:
        """Return the settings of the encoders and of the decoder, which may be twice as wide."""
        return [settings.model, decoder_settings(settings.model, settings.task.both_ways)]

    def plan(self, settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
        """Decide every setting that is open; sizes and dropout follow from the unit of the text."""
        values, reason = _usual_sizes(settings.model, dataset)
        open_ = {name: v for name, v in values.items() if getattr(settings.model, name) is None}
        if settings.model.parameters:
            open_.pop("hidden_size", None)
        plan = super().plan(
            replace(settings, model=replace(settings.model, **open_)), dataset, inputs
        )
        chosen = {f"model.{name}": reason for name in open_}
        return replace(plan, reasons=chosen | dict(plan.reasons))

    def costs(self, settings: Settings, dataset: Dataset) -> Costs:
        """Return what training costs, for the plan."""
        targets = gold_of(dataset, Parallel)
        ways, entries = 1 + settings.task.both_ways, len(targets.vocabulary)
        steps = float(text_lengths(dataset.train).sum())

        def work(model: ModelSettings) -> float:
            """Return the multiplied weights of a pass over sources and targets."""
            own = decoder_settings(model, settings.task.both_ways)
            width, embedding = own.hidden_size or 0, own.embedding_size or 0
            decoder = multiplied_weights(own, 2) + embedding * (2 * width + entries)
            return steps * ways * multiplied_weights(model, 2) + targets.total("train") * decoder

        return Costs(
            weights=lambda model: self.parameters(replace(settings, model=model), dataset),
            work=work,
            memory=lambda planned: memory_of(
                planned.model, planned.training, self.parameters(planned, dataset),
                ways=2 * ways, logits=5.5 * entries,
            ),
            longest=int(pair_lengths(dataset.train, targets.texts["train"]).max()),
            passes=PASSES,
        )  # fmt: skip

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the floors."""
        pairs = gold_of(dataset, Parallel).pairs
        return {"floors": {"copy": {name: copy_floor(own) for name, own in pairs.items()}}}

    def table(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return how sources are read, and the size of the target's vocabulary."""
        entries = len(gold_of(dataset, Parallel).vocabulary)
        return {"both_ways": settings.task.both_ways, "target_size": entries}

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return batches of pairs of like length, the loss of translations, and the figures."""
        return translate_task(dataset, settings, precision)

    def answers(self, session: "Session", model: Encoder, split: str) -> TranslationCounts:
        """Return the figures of a split; of a stopped run those of known translations only."""
        text, beside = session.dataset.split(split), gold_of(session.dataset, Parallel)
        assert text is not None, "a split that is there"
        if session.trainer.stop_reason:
            return TranslateValidation(text, beside.texts[split])(cast(Translator, model))
        pairs = EncodedPairs(sources=text, targets=beside.texts[split], pairs=beside.pairs[split])
        return load_translate_run(session.path).evaluate(pairs)[0]

    def fit(
        self,
        session: "Session",
        model: Encoder,
        answers: Mapping[str, TranslationCounts],
        course: Course,
    ) -> Fit:
        """Return the nats of known translations, and a copy of the source beside the outputs."""
        train, targets = session.dataset.train, gold_of(session.dataset, Parallel).texts["train"]
        rows = reviewed_rows(train)
        known = TranslateValidation(train.documents_at(rows), targets.documents_at(rows))
        floors = session.record.get("floors")
        return Fit(
            key="nats_per_token",
            figure="{} nats/token",
            train=known(cast(Translator, model)).nats_per_token,
            new=answers["valid"].nats_per_token,
            limits=LIMITS,
            noun="texts",
            examples=train.documents,
            floors=[_floor(floors["copy"], answers)] if floors else (),
            course=course,
        )


def _floor(copies: Mapping[str, Any], answers: Mapping[str, TranslationCounts]) -> Floor:
    """Return copies of the sources beside the answers to the last held-out split."""
    split = last_split(answers)
    own = answers[split].summary()
    key = figure_of_translations(own)
    change = (own[key] or 0.0) - copies[split][key]
    name, where = {"exact": "exact", "chrf": "chrF"}[key], SPLIT_NAMES[split]
    return Floor(
        name="a copy of the source",
        figures=f"{name} {copies[split][key]:.3g} on {where} texts, this run {own[key]:.3g}",
        low=change,
        high=change,
        trivial=True,
    )


def _usual_sizes(model: ModelSettings, dataset: Dataset) -> tuple[dict[str, Any], str]:
    """Return sizes for the unit of a text, dropout unless it is given, and the reason."""
    if not dataset.vocabulary.spec.letter:
        sizes, rate, reason = (256, 256), 0.3, "for translations of sentences"
    elif dataset.train.documents < FEW_PAIRS:
        sizes, rate, reason = (64, 64), 0.1, f"for fewer than {FEW_PAIRS:,} short texts"
    else:
        sizes, rate, reason = (128, 64), 0.1, "for short texts"
    usual: dict[str, Any] = dict(zip(SIZES, sizes, strict=True))
    if model.dropout is None:
        usual |= dict.fromkeys(("dropout", *OUTER_DROPOUT), rate)
    return usual, reason


TRANSLATIONS: TaskTraining = TranslationTraining()
