"""Comparison of runs that give labels, text by text."""

from collections.abc import Mapping, Sequence
from typing import Any

from charlm.api.comparison import check_same_text
from charlm.api.label_evaluation import (
    LabelledTexts,
    encoded_pairs,
    held_out_labelled,
    logits_of,
    read_pairs,
)
from charlm.errors import UsageError
from charlm.inference.counts import mcnemar, paired_interval
from charlm.inference.label_results import AccuracyDifference, LabelComparison
from charlm.runs.label_run import LabelRun
from charlm.runs.locate import run_name
from charlm.units import count_of


def compare_labels(
    runs: Sequence[LabelRun],
    files: Sequence[str] | None = None,
    *,
    target: str | None = None,
    reading: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> LabelComparison:
    """Compare runs on files with labels, or on the texts that all of them held out.

    `target`, `reading` are as in `evaluate_labels`; `seed` seeds the bootstrap. Raises UsageError
    for runs of different labels, and for runs that held out different texts.
    """
    first, notes = runs[0], list[str]()
    for other in runs[1:]:
        if set(other.labels.names) != set(first.labels.names):
            raise UsageError(
                f"{run_name(first.path)} has the labels {', '.join(first.labels.names):.200}, and "
                f"{run_name(other.path)} has {', '.join(other.labels.names):.200}; expected runs "
                "of the same labels"
            )
    if files:
        pairs = read_pairs(first, files, target, reading, notes)
        parts = [encoded_pairs(run, pairs) for run in runs]
    else:
        parts = _held_out(runs, notes)
    counts, right = [], []
    for run, part in zip(runs, parts, strict=True):
        logits = logits_of(run, part, run_name(run.path))
        counts.append(run.counts(logits, part.targets))
        right.append(logits.argmax(axis=1) == part.targets)
    differences = [
        AccuracyDifference(accuracy=change, low=low, high=high, p=mcnemar(right[0], each))
        for each in right[1:]
        for change, low, high in [paired_interval(right[0], each, seed)]
    ]
    return LabelComparison(
        names=[run_name(run.path) for run in runs],
        counts=counts,
        differences=[None, *differences],
        notes=notes,
    )


def _held_out(runs: Sequence[LabelRun], notes: list[str]) -> list[LabelledTexts]:
    """Return the test texts that all runs keep, or else the validation texts."""
    check_same_text([run.path for run in runs])
    kept = [held_out_labelled(run) for run in runs]
    name = next((n for n in ("test", "valid") if all(n in parts for parts in kept)), None)
    if name is None:
        raise UsageError("these runs keep no common texts; expected some to compare on. Use --file")
    parts = [each[name] for each in kept]
    which = "validation" if name == "valid" else name
    notes.append(f"compared on {count_of(len(parts[0].targets), f'{which} text')} of these runs")
    if name == "valid":
        notes.append(
            "these texts also chose the best weights of each run; for a fair test use --file"
        )
    return parts
