"""Comparison of runs that give labels, text by text."""

from collections.abc import Mapping, Sequence
from typing import Any

from charlm.api.comparison import common_parts
from charlm.api.label_evaluation import (
    encoded_pairs,
    held_out_labelled,
    logits_of,
    read_pairs,
)
from charlm.api.task_api import file_rules
from charlm.inference.counts import mcnemar, paired_interval
from charlm.inference.figures import TaskComparison, TaskDifference
from charlm.runs.agreement import check_same_labels
from charlm.runs.columns import common_columns
from charlm.runs.label_run import LabelRun
from charlm.runs.locate import run_name


def compare_labels(
    runs: Sequence[LabelRun],
    files: Sequence[str] | None = None,
    *,
    target: str | None = None,
    reading: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> TaskComparison:
    """Compare runs on files with labels, or on the texts that all of them held out.

    `target`, `reading` are as in `evaluate_labels`; `seed` seeds the bootstrap. Raises UsageError
    for runs of different labels, and for runs that held out different texts.
    """
    first, notes = runs[0], list[str]()
    paths = [run.path for run in runs]
    check_same_labels(paths, [run.labels.names for run in runs])
    if files:
        columns = common_columns(paths, files, reading, target)
        rules = file_rules(reading, target, notes.append, columns)
        pairs = read_pairs(first, files, rules, notes)
        parts = [encoded_pairs(run, pairs) for run in runs]
    else:
        kept = [held_out_labelled(run) for run in runs]
        parts = common_parts(paths, kept, notes, lambda part: len(part.targets))
    counts, right = [], []
    for run, part in zip(runs, parts, strict=True):
        logits = logits_of(run, part, run_name(run.path))
        counts.append(run.counts(logits, part.targets))
        right.append(logits.argmax(axis=1) == part.targets)
    differences = [
        TaskDifference("accuracy", *paired_interval(right[0], each, seed), mcnemar(right[0], each))
        for each in right[1:]
    ]
    return TaskComparison(
        names=[run_name(run.path) for run in runs],
        counts=counts,
        differences=[None, *differences],
        notes=notes,
    )
