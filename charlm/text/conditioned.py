"""Texts with conditions: documents that begin with a symbol of their own instead of EOS.

    genre   text                        first input    targets
    jazz    Blue notes at midnight.     V + 0          B l u e ... EOS
    rock    Loud and fast.              V + 1          L o u d ... EOS
            Neither.                    EOS            N e i t ... EOS

The symbols follow the V entries of the vocabulary. They are inputs only, so no model can generate
them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from charlm.config.cells import CELLS
from charlm.config.corpus import CorpusSettings
from charlm.config.fields import MAX_COUNT
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.errors import CorpusError, UsageError, named
from charlm.text.advice import size_advice
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.text.examples import ConditionColumns, Example, read_examples
from charlm.text.labelled import (
    LabelledText,
    Texts,
    given_examples,
    held_out_parts,
    read_splits,
)
from charlm.text.labels import UNSEEN, Labelled, Labels, natural_order, read_targets
from charlm.text.sources.files import shown
from charlm.text.sources.rows import Warn
from charlm.text.sources.text_lines import FileRules
from charlm.text.task_text import NOTHING, Given, TaskText, gold_of
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.units import count_of

MAX_CONDITIONS = 1000
"""Maximum number of conditions; a column with more values is one of names or numbers."""


def with_firsts(dataset: Dataset) -> Dataset:
    """Return a dataset whose documents begin with the symbols of their conditions."""
    targets, size = gold_of(dataset, Labelled).targets, len(dataset.vocabulary)

    def begun(name: str, text: EncodedText) -> EncodedText:
        """Return a split with the first input of each document."""
        ids = targets[name].astype(np.int64)
        return replace(text, firsts=np.where(ids == UNSEEN, EOS, ids + size))

    return dataset.with_texts(begun)


def without_firsts(dataset: Dataset) -> Dataset:
    """Return a dataset whose documents begin with EOS, for models that know no conditions."""
    unlabelled = replace(dataset, labelled=None)
    return unlabelled.with_texts(lambda _, text: replace(text, firsts=None))


def check_conditioned(settings: Settings) -> None:
    """Raise UsageError for a setting that does not fit to conditions."""
    training, model = settings.training, settings.model
    line_only = "each text of a table is a document, whose line ends are kept as LF"
    misfits = (
        ("document", settings.corpus.document not in ("auto", "line"), "line", line_only),
        ("keep_cr", settings.corpus.keep_cr, "it off", line_only),
        ("direction", model.direction != "forward", "forward", "a condition is read before a text"),
        ("stateless", training.stateless, "it off", "only the first window sees its condition"),
        ("ngram", bool(training.ngram), "0", "n-grams know no conditions"),
        ("cell", not CELLS[model.cell].learns_input, "another", "its input is never trained"),
    )
    values = {**vars(settings.corpus), **vars(training), **vars(model)}
    for name, is_misfit, expected, reason in misfits:
        if is_misfit:
            value = "" if values[name] is True else f" {values[name]}"
            raise UsageError(
                f"{named('condition')} {settings.task.condition} with {named(name)}{value}; "
                f"expected {expected}, since {reason}. Leave out {named(name)}"
            )


class ConditionedText(LabelledText):
    """Texts with conditions; see `TaskText`."""

    noun, unseen_are = "condition", "read without a condition"

    def load(self, settings: Settings, given: Given = NOTHING) -> Dataset:
        """Read texts with conditions, hold some of each out, build the vocabulary and encode.

        A condition may be "". Raises CorpusError for texts that cannot be read, UsageError for
        documents that do not begin in the initial state.
        """
        whole = replace(settings.task, max_tokens=MAX_COUNT, kept_part="start")
        dataset = super().load(replace(settings, task=whole), given)
        if not dataset.boundaries.resets:
            raise UsageError(
                f"{named('condition')} {settings.task.condition} with {named('words')} whitespace, "
                "where each line of a text ends with EOS; expected texts of one line. Use "
                f"{named('words')} text"
            )
        train = dataset.train
        few = size_advice(len(train.ids), train.counts.chars, dataset.vocabulary.unit)
        return with_firsts(replace(dataset, warnings=[*dataset.warnings, *few]))

    def parts(
        self,
        corpus: CorpusSettings,
        task: TaskSettings,
        examples: Sequence[tuple[str, str]] | None,
        rules: FileRules,
    ) -> tuple[dict[str, Texts], Labels]:
        """Return the texts of each split, with a held-out part, and the conditions of training."""
        column = task.condition or ""
        rules = replace(rules, target=column)
        parts = read_splits(
            corpus, examples, given_examples,
            lambda names: read_examples(names, rules, ConditionColumns),
            partial(_with_text, warn=rules.warn),
        )  # fmt: skip
        conditions = _conditions(parts["train"].labels, column)
        return held_out_parts(parts, conditions, corpus.valid_frac), conditions

    def read(
        self, path: Path, config: Mapping[str, Any], splits: Mapping[str, EncodedText]
    ) -> Labelled:
        """Return the conditions of the kept texts of a run. Raises CorpusError if damaged."""
        labels = Labels(tuple(config["conditions"]["labels"]))
        targets = {
            name: read_targets(path / "data" / name, split.documents, len(labels), unseen=True)
            for name, split in splits.items()
        }
        return Labelled(labels=labels, targets=targets)


CONDITIONED: TaskText = ConditionedText()


def _with_text(examples: Iterable[Example], label: str, warn: Warn) -> Texts:
    """Return the examples with a text; those without a condition have the label "".

    Raises CorpusError if there is none.
    """
    rows = list(examples)
    kept = [(row.text, row.label or "") for row in rows if row.text and row.text.strip()]
    if not kept:
        raise CorpusError(f"{label} has no texts; expected some. Give other files")
    if skipped := len(rows) - len(kept):
        warn(f"{label}: {count_of(skipped, 'row')} without a text skipped.")
    texts, labels = zip(*kept, strict=True)
    return Texts(texts=texts, labels=labels)


def _conditions(labels: Sequence[str], column: str) -> Labels:
    """Return the conditions of the training texts in natural order. Raises CorpusError."""
    names = set(labels) - {""}
    if not 0 < len(names) <= MAX_CONDITIONS:
        found = f"{len(names):,} different values" if names else "no value in any training row"
        raise CorpusError(
            f'the column "{shown(column)}" has {found}; expected from 1 to {MAX_CONDITIONS:,}, '
            f"each the condition of many texts. Choose another column with {named('condition')}"
        )
    return Labels(tuple(sorted(names, key=natural_order)))
