"""The tasks that `--task` takes: one row for each, with every fact about it.

A new task is an object of the protocol `charlm.training.task_training.TaskTraining` and its row
here. Rows name it by import path, so that this module imports nothing heavy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charlm.config.text_units import UNITS

LANGUAGE_MODEL, CLASSIFY, TAG, TRANSLATE = "language-model", "classify", "tag", "translate"
SERIES = "series"
OF_TASK = "task "
"""Begin of the origin of settings that have the default value of a task."""
POOLINGS = ("concat", "last", "mean", "max")
"""Ways to make one vector of the hidden vectors of a text; concat is the other three together."""
SHORT_TRANSLATION = 40
"""Number of characters below which translations, such as dates, are short.

They are read by characters, and equality comes first among their figures.
"""
Figures = Mapping[str, Any]


def figure_of_tags(figures: Figures) -> str:
    """Return f1 if tags are spans, else accuracy."""
    return "f1" if "f1" in figures else "accuracy"


def figure_of_translations(figures: Figures) -> str:
    """Return exact for short translations, else chrf, as in runs that lack the length."""
    letters = figures.get("reference_letters")
    is_short = isinstance(letters, int | float) and letters < SHORT_TRANSLATION
    return "exact" if is_short else "chrf"


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """Facts about one task."""

    summary: str
    """One line for help texts."""
    training: str
    """Import path of its object of the protocol `TaskTraining`."""
    text: str = ""
    """Import path of its object of the protocol `TaskText`; "" if nothing lies beside the text."""
    model: str = ""
    """Import path of its model, a class with the method `of_task(settings, vocab_size, task)`.

    `task` is the table in config.json; so it is for `shapes`.
    """
    shapes: str = ""
    """Import path of the function `(settings, vocab_size, task)` that returns the shape of each
    tensor by its name, for cells that run without torch."""
    counts: str = ""
    """Import path of the class of its figures, made from their sums by name."""
    run: str = ""
    """Import path of the function `(path, *, engine, threads)` that returns its `TaskRun`."""
    report: str = ""
    """Import path of its object of the protocol `TaskReport`."""
    api: str = ""
    """Import path of its object of the protocol `TaskApi`."""
    needs_example: str = ""
    """Text that training needs, for a message: "a table with columns text and label"."""
    noun: str = "language model"
    """Noun of its model."""
    pipeline: str = "text-generation"
    """Name that model hubs have for what it does."""
    headline: Callable[[Figures], str] = lambda _: "bits_per_byte"
    """Function of the figures of a text that returns the key of the most important one."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """Figures of a model card: keys in run.json, and their names."""
    floors: Mapping[str, str] = field(default_factory=dict)
    """Floors of a model card: keys in run.json, and their names."""
    target: str = "token"
    """Noun of one target: names of figures (`nats_per_text`) and of counts in records."""
    gives: str = "text"
    """Noun of what a run of the task gives, for messages about misuse."""
    verb: str = "sample"
    """Command that uses a run of the task."""
    format: int = 1
    """Format number of config.json and run.json."""
    settings: tuple[str, ...] = ()
    """Settings that this task reads and some other task does not."""
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Lowest layer of settings, by section. None of them may belong to another task alone."""
    fine_tuning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Values in place of those of `defaults` for a run that starts with the weights of another."""

    @property
    def labelled(self) -> bool:
        """True if something lies beside the text: labels, tags, translations or numbers."""
        return bool(self.text)


TASKS: dict[str, TaskSpec] = {
    LANGUAGE_MODEL: TaskSpec(
        summary="predict the next token",
        training="charlm.training.language:LANGUAGE_MODEL",
        settings=(
            "bptt", "stateless", "random_bptt", "state_reset", "document", "hold_out", "direction",
            "tie_weights", "mixture", "adaptive_softmax", "ngram", "activation_penalty",
            "slowness_penalty", "frequency_bias", "freeze_layers", "keep_cr", "glue", "condition",
            "valid_tokens",
        ),
    ),
    CLASSIFY: TaskSpec(
        summary="give each text a label",
        training="charlm.training.labels:LABELS",
        text="charlm.text.labelled:LABELLED",
        model="charlm.nn.classifier:Classifier",
        shapes="charlm.backends.weights:classifier_shapes",
        counts="charlm.inference.counts:LabelCounts",
        run="charlm.runs.label_run:load_label_run",
        report="charlm.report.labels:LABEL_REPORT",
        api="charlm.api.labels:LABEL_API",
        needs_example="a table with columns text and label",
        noun="classifier",
        pipeline="text-classification",
        headline=lambda _: "accuracy",
        figures={
            "texts": "texts", "accuracy": "accuracy", "macro_f1": "macro-F1",
            "macro_recall": "macro-recall", "nats_per_text": "nats per text",
            "ece": "calibration error",
        },
        floors={
            "majority": "accuracy of the most frequent label",
            "bag_of_words": "accuracy of a bag of words (naive Bayes)",
        },
        target="text",
        gives="labels",
        verb="predict",
        format=2,
        settings=(
            "target", "pooling", "both_ways", "freeze", "bag_of_words", "balance", "max_tokens",
            "kept_part",
        ),
        defaults={
            "vocabulary": {"unit": "word", "words": "bare", "lowercase": True, "max_size": 20_000},
            "model": {
                "num_layers": 1, "hidden_size": 128, "embedding_size": 128, "dropout": 0.4,
                "embedding_dropout": 0.2,
            },
            "training": {
                "batch_size": 32, "learning_rate": 0.002, "average": 0.998,
            },
        },
        fine_tuning={"training": {"learning_rate": 0.005}},
    ),
    TAG: TaskSpec(
        summary="give each word of a sentence a tag",
        training="charlm.training.tags:TAGS",
        text="charlm.text.tagged:TAGGED",
        model="charlm.nn.tagger:Tagger",
        shapes="charlm.backends.tagger_weights:tagger_shapes",
        counts="charlm.inference.tag_counts:TagCounts",
        api="charlm.api.tags:TAG_API",
        run="charlm.runs.tag_run:load_tag_run",
        report="charlm.report.tags:TAG_REPORT",
        needs_example="CoNLL files",
        noun="tagger",
        pipeline="token-classification",
        headline=figure_of_tags,
        figures={
            "tags": "words", "f1": "span-F1", "precision": "precision", "recall": "recall",
            "accuracy": "accuracy", "nats_per_tag": "nats per tag", "ece": "calibration error",
        },
        floors={"frequent_tag": "most frequent tag of each word (span-F1, or accuracy)"},
        target="tag",
        gives="tags",
        verb="predict",
        format=2,
        settings=("target", "both_ways", "freeze", "head", "characters"),
        defaults={
            "vocabulary": {
                "unit": "word", "words": "whitespace", "lowercase": True, "min_count": 2,
                "max_size": 20_000,
            },
            "model": {
                "num_layers": 1, "hidden_size": 128, "embedding_size": 128, "dropout": 0.4,
                "embedding_dropout": 0.3, "input_dropout": 0.3,
            },
            "training": {
                "batch_size": 32, "learning_rate": 0.003, "average": 0.0,
            },
        },
    ),
    TRANSLATE: TaskSpec(
        summary="translate each text",
        training="charlm.training.translations:TRANSLATIONS",
        text="charlm.text.parallel:PARALLEL",
        model="charlm.nn.translator:Translator",
        shapes="charlm.backends.translator_weights:translator_shapes",
        counts="charlm.inference.translation_counts:TranslationCounts",
        run="charlm.runs.translate_run:load_translate_run",
        report="charlm.report.translations:TRANSLATE_REPORT",
        api="charlm.api.translations:TRANSLATE_API",
        needs_example="a table with --column en --target de, or two files",
        noun="translator",
        pipeline="translation",
        headline=figure_of_translations,
        figures={
            "texts": "texts", "exact": "exact", "chrf": "chrF", "bleu": "BLEU",
            "nats_per_token": "nats per token",
        },
        floors={"copy": "copy of the source (chrF, or exact if short)"},
        gives="translations",
        verb="predict",
        format=2,
        settings=("target", "both_ways"),
        defaults={
            "vocabulary": {"unit": "bpe", "max_size": 4000},
            "model": {"num_layers": 1},
            "training": {"batch_size": 64, "learning_rate": 0.002, "average": 0.0},
        },
    ),
    SERIES: TaskSpec(
        summary="forecast the next number of a series",
        training="charlm.training.series:SERIES",
        text="charlm.text.series:SERIES_TEXT",
        model="charlm.nn.series:SeriesModel",
        shapes="charlm.backends.series_weights:series_shapes",
        counts="charlm.inference.series_counts:SeriesCounts",
        run="charlm.runs.series_run:load_series_run",
        report="charlm.report.series:SERIES_REPORT",
        api="charlm.api.series:SERIES_API",
        needs_example="a file with a column of numbers",
        noun="series model",
        pipeline="time-series-forecasting",
        headline=lambda _: "mse",
        figures={
            "values": "values", "mse": "mean squared error", "mae": "mean absolute error",
            "explained": "explained", "nats_per_value": "nats per value",
        },
        floors={
            "last_value": "mean squared error of the last value",
            "recurrence": "mean squared error of a linear recurrence",
        },
        target="value",
        gives="numbers",
        format=2,
        settings=("bptt", "stateless"),
        defaults={
            "task": {"task": SERIES},
            "vocabulary": {"unit": "number"},
            "model": {
                "num_layers": 1, "hidden_size": 64, "embedding_size": 32, "dropout": 0.0,
            },
            "training": {
                "minutes": 1.0, "batch_size": 32, "learning_rate": 0.003, "weight_decay": 0.0,
                "average": 0.0, "precision": "fp32",
                "clip_norm": 100.0,  # narrow forecasts have steep gradients
            },
        },
    ),
}  # fmt: skip
"""Every task, by the name that `--task` takes."""


def task_name(settings: Mapping[str, Any]) -> str:
    """Return the task of nested plain settings, as in run.json; older ones name none.

    Without a name, a unit of numbers implies the task that reads it.
    """
    unit = settings.get("vocabulary", {}).get("unit")
    usual = LANGUAGE_MODEL
    if isinstance(unit, str) and unit in UNITS and UNITS[unit].numeric:
        usual = SERIES
    return str(settings.get("task", {}).get("task", usual))


def is_labelled(settings: Mapping[str, Any]) -> bool:
    """Return whether the task of nested plain settings learns what lies beside the text."""
    row = TASKS.get(task_name(settings))
    return row is not None and row.labelled


def is_of_task(origin: str) -> bool:
    """Return whether a setting of this origin has the default value of a task."""
    return origin.startswith(OF_TASK)
