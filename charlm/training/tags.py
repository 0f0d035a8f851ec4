"""Training of taggers: the object of the task `tag`."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from charlm.backends.tagger_weights import CRF, letter_settings
from charlm.config.corpus import SPLIT_NAMES
from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.text_units import UNITS
from charlm.errors import UsageError, named
from charlm.inference.tag_counts import Known, TagCounts, counted_tags, paired_difference
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.nn.model import multiplied_weights
from charlm.nn.tagger import Tagger, TorchTagReader
from charlm.phases import phase
from charlm.tasks.tag import Emissions, steps_of, tag_task
from charlm.tasks.task import Task
from charlm.text.dataset import Dataset
from charlm.text.tag_floors import FrequentTag
from charlm.text.tagged import Tagged
from charlm.text.task_text import Given, gold_of
from charlm.text.word_batches import MAX_LETTERS
from charlm.training.fit import Course, Fit, Floor, Limits
from charlm.training.labelled import (
    HELD_OUT,
    LabelledTraining,
    begin_biases,
    last_split,
    reviewed_rows,
)
from charlm.training.plan.labelled import Costs
from charlm.training.plan.memory import memory_of
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.task_training import TaskTraining
from charlm.units import finite

if TYPE_CHECKING:
    from charlm.training.session import Session

PASSES = 12.0
"""Passes of a run without a given length."""
EFFICIENCY = 0.3
"""Fraction of the assumed speed that layers this small reach: 40 Gop/s were measured."""
MAX_LENGTHS = 3.0
"""Multiple of the usual length above which more minutes gain nothing."""
DISTINCT = 0.6
"""Spellings of a batch of sentences, as a fraction of its words."""
LIMITS = Limits(small_gap=0.25, large_gap=0.75, almost_nothing=0.005, far=0.15)
"""Limits of a `Fit`, for errors that are fractions of words or spans."""
OUTPUTS = {True: CRF, False: "softmax"}
"""Output layers by rule: tags that are spans depend on each other."""


class TagTraining(LabelledTraining):
    """Training of a model that gives each word a tag; see `TaskTraining`."""

    def dataset(self, settings: Settings, given: Given) -> Dataset:
        """Read sentences with tags, and the letters of words if the unit is the word.

        Without letters, text is lower-cased only if the user says so.
        """
        settings = with_letters(settings)
        if settings.task.characters is False and "vocabulary.lowercase" in given.open_settings:
            own = replace(settings.vocabulary, lowercase=False)
            settings = replace(settings, vocabulary=own)
        return super().dataset(settings, given)

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of tags, or of entries if the input is one-hot."""
        tags = len(gold_of(dataset, Tagged).labels)
        return len(dataset.vocabulary) if settings.model.one_hot else tags

    def networks(self, settings: Settings, dataset: Dataset) -> list[ModelSettings]:
        """Return the settings of the encoders of words and of letters."""
        width = self._letter_width(settings, dataset)
        letters = [letter_settings(settings.model, width)] if width else []
        return [settings.model, *letters]

    def plan(self, settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
        """Decide every setting that is open."""
        if settings.training.label_smoothing and self._output(settings, dataset) == CRF:
            raise UsageError(
                f"{named('label_smoothing')} with a CRF, whose loss is that of whole sentences; "
                f"expected {named('head')} softmax. Leave one of them out"
            )
        planned = super().plan(settings, dataset, inputs)
        reads_letters = gold_of(dataset, Tagged).letters is not None
        if settings.task.characters is None:
            obstacle, _ = letters_obstacle(settings)
            planned.reasons["task.characters"] = f"with {obstacle or 'unit word'}"
        task = replace(settings.task, characters=reads_letters)
        return replace(planned, settings=replace(planned.settings, task=task))

    def costs(self, settings: Settings, dataset: Dataset) -> Costs:
        """Return what training costs, the letters of words included."""
        costs, tagged = super().costs(settings, dataset), gold_of(dataset, Tagged)
        train, ways = tagged.sentences["train"], 1 + settings.task.both_ways
        steps = np.array([min(len(word), MAX_LETTERS) + 1 for word in train.words])
        letters = DISTINCT * float(steps[train.spelling].sum()) if tagged.letters else 0.0
        each = 2.0 * letters / len(train.text.ids)  # letters of a token, read both ways
        kept = 0
        if settings.task.freeze:
            kept = sum(len(targets) for targets in tagged.targets.values())

        def memory(planned: Settings) -> int:
            """Return the bytes; long spellings pad others to twice their length."""
            model = planned.model
            width = self._letter_width(planned, dataset)
            numbers = 2.0 * each * width * 26.0 + 4.0 * len(tagged.labels)
            weights = self.parameters(planned, dataset)
            features = 4 * kept * ways * model.output_size
            own = memory_of(model, planned.training, weights, ways=ways, logits=numbers)
            return own + features

        def work(model: ModelSettings) -> float:
            """Return the multiplied weights of a pass."""
            if not letters or not model.embedding_size:
                return costs.work(model)
            small = letter_settings(model, model.embedding_size // 2)
            return costs.work(model) + 2.0 * letters * multiplied_weights(small, 2)

        return costs._replace(
            work=work, memory=memory, passes=PASSES, efficiency=EFFICIENCY, most=MAX_LENGTHS
        )

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the figure of the most frequent tag of each word, on the held-out texts."""
        counts = frequent_tag(dataset, HELD_OUT)
        figure = "f1" if gold_of(dataset, Tagged).spans else "accuracy"
        figures = {name: finite(getattr(own, figure)) for name, own in counts.items()}
        return {"floors": {"frequent_tag": {"figure": figure, **figures}}}

    def table(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the tags, and how sentences are read."""
        tagged = gold_of(dataset, Tagged)
        return {
            "labels": list(tagged.labels.names),
            "spans": tagged.spans,
            "both_ways": settings.task.both_ways,
            "output": self._output(settings, dataset),
            "letter_width": self._letter_width(settings, dataset),
            "letters": len(tagged.letters) if tagged.letters else 0,
        }

    def _output(self, settings: Settings, dataset: Dataset) -> str:
        """Return the output layer: the one that is set, or by rule."""
        head = settings.task.head
        return OUTPUTS[gold_of(dataset, Tagged).spans] if head == "auto" else head

    def _letter_width(self, settings: Settings, dataset: Dataset) -> int:
        """Return the hidden units of each encoder of letters: together the width of a word."""
        width = settings.model.embedding_size or 0
        if gold_of(dataset, Tagged).letters is None:
            return 0
        if width % 2:
            raise UsageError(
                f"{named('embedding_size')} {width} with letters of words, which are read from "
                f"both ends; expected an even number. Choose one, or set characters=false"
            )
        return width // 2

    def begin_head(self, settings: Settings, dataset: Dataset, model: Encoder) -> None:
        """Let output biases follow the frequencies of the tags."""
        tagged = gold_of(dataset, Tagged)
        begin_biases(model, tagged.targets["train"], len(tagged.labels))

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return batches of like length, the loss of the tags, and the figures."""
        return tag_task(dataset, cast(Tagger, model), settings, precision)

    def answers(self, session: "Session", model: Encoder, split: str) -> tuple[Tagger, Emissions]:
        """Return the model, and the emissions of the words of a split, shape (W, K)."""
        tagged, tagger = gold_of(session.dataset, Tagged), cast(Tagger, model)
        reader = TorchTagReader(tagger, tagged.letters)
        return tagger, reader.emissions(tagged.sentences[split])

    def figures(
        self, session: "Session", answers: tuple[Tagger, Emissions], split: str, scale: float
    ) -> TagCounts:
        """Return the figures of the emissions of a split."""
        tagged, (model, emissions) = gold_of(session.dataset, Tagged), answers
        names = tagged.labels.names
        counts, _ = counted_tags(
            emissions, tagged.targets[split], tagged.sentences[split], names,
            steps_of(model, names), scale=scale,
            known=Known.of(tagged.sentences["train"], tagged.targets["train"], names),
        )  # fmt: skip
        return counts

    def compared(
        self, session: "Session", answers: Mapping[str, tuple[Tagger, Emissions]]
    ) -> dict[str, Any]:
        """Return the figure of the test text minus that of the floor, with an interval."""
        if "test" not in answers:
            return {}
        own = self.figures(session, answers["test"], "test", 1.0)
        floor = frequent_tag(session.dataset, ["test"])["test"]
        assert own.rows is not None and floor.rows is not None, "counted here"
        change = paired_difference(floor.rows, own.rows, own.headline)
        return {"difference": [change.value, change.low, change.high]}

    def fit(
        self,
        session: "Session",
        model: Encoder,
        answers: Mapping[str, tuple[Tagger, Emissions]],
        course: Course,
    ) -> Fit:
        """Return the F1 of spans, or the accuracy of tags, and the most frequent tags beside it.

        Without spans in a text there is no F1 of it; then it is the accuracy.
        """
        tagged, tagger = gold_of(session.dataset, Tagged), cast(Tagger, model)
        sentences, names = tagged.sentences["train"], tagged.labels.names
        rows = reviewed_rows(sentences.text)
        part = sentences.sentences_at(rows)
        train, _ = counted_tags(
            TorchTagReader(tagger, tagged.letters).emissions(part),
            tagged.targets["train"][sentences.numbers(rows)],
            part, names, steps_of(tagger, names), scale=1.0,
        )  # fmt: skip
        valid = self.figures(session, answers["valid"], "valid", 1.0)
        split = last_split(answers)
        own = self.figures(session, answers[split], split, 1.0)
        frequent = frequent_tag(session.dataset, [split])[split]
        known = [getattr(counts, train.headline) for counts in (train, valid, own, frequent)]
        key = train.headline if all(map(math.isfinite, known)) else "accuracy"
        return Fit(
            key=key,
            figure="span-F1 {}" if key == "f1" else "accuracy {}",
            train=getattr(train, key),
            new=getattr(valid, key),
            perfect=1.0,
            limits=LIMITS,
            noun="sentences",
            examples=sentences.documents,
            floors=[_floor(frequent, own, key, split)],
            course=replace(course, validations=()) if train.headline == "f1" else course,
        )  # see `badness`


def _floor(frequent: TagCounts, own: TagCounts, key: str, split: str) -> Floor:
    """Return the most frequent tags beside the figures of a run, of a held-out split."""
    assert own.rows is not None and frequent.rows is not None, "counted here"
    change = paired_difference(frequent.rows, own.rows, key)
    return Floor(
        name="the most frequent tag of each word",
        figures=f"{getattr(frequent, key):.3f} on {len(own.rows):,} {SPLIT_NAMES[split]} "
        f"sentences, this run {getattr(own, key):.3f}",
        low=change.low,
        high=change.high,
    )


def with_letters(settings: Settings) -> Settings:
    """Return the settings, with letters off where they have no place.

    Raises UsageError if they are asked for there.
    """
    obstacle, why = letters_obstacle(settings)
    if not obstacle:
        return settings
    if settings.task.characters:
        raise UsageError(f"{named('characters')} with {obstacle}{why}. Leave one of them out")
    return replace(settings, task=replace(settings.task, characters=False))


def letters_obstacle(settings: Settings) -> tuple[str, str]:
    """Return the setting that leaves no place for the letters of words, if any, and why."""
    unit = settings.vocabulary.unit
    if not UNITS[unit].whole_words:
        return f"{named('unit')} {unit}", f"; expected {named('unit')} word"
    if settings.model.one_hot:
        return named("one_hot"), "; expected a learned embedding"
    if settings.task.freeze:
        return named("freeze"), ", which trains the output layer only"
    return "", ""


def frequent_tag(dataset: Dataset, names: Collection[str]) -> dict[str, TagCounts]:
    """Return the figures of the most frequent tag of each word, by split that is there."""
    tagged = gold_of(dataset, Tagged)
    with phase("comparing with the most frequent tags"):
        floor = FrequentTag.fit(
            tagged.sentences["train"], tagged.targets["train"], len(tagged.labels)
        )
        return {
            name: TagCounts.of_tags(
                floor.tags(sentences), tagged.targets[name], sentences, tagged.labels.names
            )
            for name, sentences in tagged.sentences.items()
            if name in names
        }


TAGS: TaskTraining = TagTraining()
