"""Evaluation and comparison of runs that give tags, on held-out sentences or on files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from charlm.api.comparison import common_parts
from charlm.api.task_api import FROM_FILES, file_rules, held_out
from charlm.inference.crf import Answers
from charlm.inference.figures import TaskComparison, TaskEvaluation
from charlm.inference.tag_counts import Known, TagCounts, paired_difference
from charlm.inference.tagging import WrongSentence
from charlm.phases import phase
from charlm.runs.agreement import check_same_labels, unknown_names
from charlm.runs.columns import common_columns, run_columns
from charlm.runs.layout import RECORD, TASK, read_record
from charlm.runs.locate import exists, run_name
from charlm.runs.tag_run import TagRun
from charlm.text.labels import Targets
from charlm.text.sentences import Sentences
from charlm.text.sources.text_lines import FileRules
from charlm.text.spans import as_iob2
from charlm.text.tag_floors import FrequentTag
from charlm.text.tagged_files import read_sentences

Part = tuple[Sentences, Targets]
"""Sentences, and the tags of all their words, shape (W,)."""


def evaluate_tags(
    run: TagRun,
    files: Sequence[str] | None = None,
    *,
    target: str | None = None,
    reading: Mapping[str, Any] | None = None,
    worst: int = 0,
) -> TaskEvaluation:
    """Return the figures of files with tags, or of the sentences that the run held out.

    `target` is the column of the tags and `reading` has fields of `ReadSettings`. The `worst`
    sentences are those whose tags have the greatest nats together. Raises UsageError if the run
    keeps no sentences, CorpusError for files without tags.
    """
    notes: list[str] = []
    train = run.kept("train")
    known = Known.of(*train, run.labels.names) if train else None
    parts: dict[str, Part]
    if files:
        rules = file_rules(reading, target, notes.append, run_columns(run.path))
        parts = {FROM_FILES: tagged_files(run, files, rules)}
    else:
        parts = held_out(run)
    counts, answers = {}, {}
    for name, part in parts.items():
        with phase(f"evaluating: {name}"):
            counts[name], answers[name] = run.counts(*part, known)
    return TaskEvaluation(
        labels=run.labels.names,
        counts=counts,
        floors={name: _floor(run, name, part, train) for name, part in parts.items()},
        worst={name: _worst(run, answers[name], part, worst) for name, part in parts.items()},
        notes=notes,
    )


def tagged_files(run: TagRun, files: Sequence[str], rules: FileRules) -> Part:
    """Return the sentences of files with their tags.

    Raises CorpusError for files without tags, or if none of them is a tag of the run.
    """
    every = list(read_sentences(files, rules))
    tags = [list(each.tags or ()) for each in every]
    if run.config[TASK]["spans"]:
        tags = [as_iob2(own) for own in tags]
    names = [tag for own in tags for tag in own]
    for note in unknown_names(run.path, run.labels.names, names, ", ".join(files), "tag", "word"):
        rules.warn(note)
    return run.encode(each.words for each in every), run.labels.ids(names)


def _floor(run: TagRun, name: str, part: Part, train: Part | None) -> float | None:
    """Return the figure of tagging each word with its most frequent tag in the training text."""
    if name != FROM_FILES:
        record = read_record(run.path) if exists(run.path / RECORD) else {}
        floor = (record.get("floors") or {}).get("frequent_tag") or {}
        return floor.get(name)
    if train is None:
        return None
    with phase("fitting the floor"):
        tags = FrequentTag.fit(*train, len(run.labels)).tags(part[0])
    counts = TagCounts.of_tags(tags, part[1], part[0], run.labels.names)
    return float(getattr(counts, counts.headline))


def _worst(run: TagRun, answers: Answers, part: Part, number: int) -> list[WrongSentence]:
    """Return the sentences whose tags have the greatest nats; of equal ones the first."""
    sentences, targets = part
    names = run.labels.names
    ends = np.append(0, sentences.ends)
    return [
        WrongSentence(
            words=tuple(sentences.words_of(row)),
            gold=tuple(
                names[tag] if tag >= 0 else "?" for tag in targets[ends[row] : ends[row + 1]]
            ),
            predicted=tuple(names[tag] for tag in answers.tags[ends[row] : ends[row + 1]]),
            nats=float(answers.nats[row]),
        )
        for row in np.argsort(-answers.nats, kind="stable")[:number].tolist()
    ]


def compare_tags(
    runs: Sequence[TagRun],
    files: Sequence[str] | None = None,
    *,
    target: str | None = None,
    reading: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> TaskComparison:
    """Compare runs on files with tags, or on the sentences that all of them held out.

    `target`, `reading` are as in `evaluate_tags`; `seed` seeds the bootstrap over sentences. Raises
    UsageError for runs of different tags, and for runs that held out different sentences.
    """
    notes = list[str]()
    paths = [run.path for run in runs]
    check_same_labels(paths, [run.labels.names for run in runs], "tags")
    if files:
        columns = common_columns(paths, files, reading, target)
        rules = file_rules(reading, target, notes.append, columns)
        own = [rules, *(replace(rules, warn=lambda _: None) for _ in runs[1:])]  # the same files
        parts = [
            tagged_files(run, files, replace(each, columns=replace(columns), reported={}))
            for run, each in zip(runs, own, strict=True)
        ]
    else:
        kept = [held_out(run) for run in runs]
        parts = common_parts(paths, kept, notes, lambda part: part[0].documents, "sentence")
    counts = []
    for run, part in zip(runs, parts, strict=True):
        with phase(f"evaluating: {run_name(run.path)}"):
            counts.append(run.counts(*part)[0])
    rows, figure = [each.rows for each in counts], counts[0].headline
    return TaskComparison(
        names=[run_name(run.path) for run in runs],
        counts=counts,
        differences=[
            None,
            *(
                paired_difference(rows[0], each, figure, seed)
                for each in rows[1:]
                if rows[0] is not None and each is not None
            ),
        ],
        notes=notes,
    )
