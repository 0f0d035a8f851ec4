"""Evaluation and comparison of runs that give labels, on held-out texts or on files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.api.comparison import common_parts
from charlm.api.task_api import FROM_FILES, file_rules, held_out
from charlm.backends.softmax import log_softmax
from charlm.commands import command
from charlm.errors import CorpusError
from charlm.inference.counts import mcnemar, paired_interval
from charlm.inference.figures import TaskComparison, TaskDifference, TaskEvaluation
from charlm.inference.labelling import WrongText
from charlm.phases import phase
from charlm.runs.agreement import check_same_labels, unknown_names
from charlm.runs.columns import common_columns, run_columns
from charlm.runs.label_run import LabelRun
from charlm.runs.layout import RECORD, read_record
from charlm.runs.locate import exists, run_name
from charlm.text.bag_of_words import BagOfWords
from charlm.text.encoded import EncodedText
from charlm.text.examples import read_examples
from charlm.text.floors import majority
from charlm.text.labels import UNSEEN, Targets
from charlm.text.sources.text_lines import FileRules
from charlm.units import count_of


@dataclass(frozen=True, kw_only=True)
class LabelledTexts:
    """Encoded texts with their targets; `texts` has those of files as they were read, else None."""

    encoded: EncodedText
    targets: Targets
    texts: Sequence[str] | None = None


def evaluate_labels(
    run: LabelRun,
    files: Sequence[str] | None = None,
    *,
    target: str | None = None,
    reading: Mapping[str, Any] | None = None,
    worst: int = 0,
) -> TaskEvaluation:
    """Return the figures of files with labels, or of the texts that the run held out.

    `target` is the column of the labels and `reading` has fields of `ReadSettings`. The `worst`
    texts are those with the greatest nats of their gold label. Raises UsageError if the run keeps
    no texts, CorpusError for files without texts or labels.
    """
    notes: list[str] = []
    if files:
        rules = file_rules(reading, target, notes.append, run_columns(run.path))
        pairs = read_pairs(run, files, rules, notes)
        parts = {FROM_FILES: encoded_pairs(run, pairs)}
    else:
        parts = held_out_labelled(run)
    counts, worst_texts = {}, {}
    for name, part in parts.items():
        logits = logits_of(run, part, name)
        counts[name] = run.counts(logits, part.targets)
        worst_texts[name] = _worst(run, logits, part, worst)
    return TaskEvaluation(
        labels=run.labels.names,
        counts=counts,
        floors={name: _floors(run, name, part) for name, part in parts.items()},
        worst=worst_texts,
        notes=notes,
    )


def logits_of(run: LabelRun, part: LabelledTexts, name: str) -> NDArray[np.float64]:
    """Return the calibrated logits of texts, shape (N, K)."""
    with phase(f"evaluating: {name}"):
        return run.reader.logits(part.encoded)


def held_out_labelled(run: LabelRun) -> dict[str, LabelledTexts]:
    """Return the validation and test texts of a run. Raises UsageError if it keeps none."""
    return {
        name: LabelledTexts(encoded=encoded, targets=targets)
        for name, (encoded, targets) in held_out(run).items()
    }


def read_pairs(
    run: LabelRun, files: Sequence[str], rules: FileRules, notes: list[str]
) -> list[tuple[str, str]]:
    """Return the texts of files that have a label, with their labels.

    Raises CorpusError if none of the labels is one of the run.
    """
    examples = list(read_examples(files, replace(rules, needed=False), compared=True))
    pairs = [
        (text, each.label)
        for each in examples
        if each.label is not None and (text := each.text or "").strip()
    ]
    where = ", ".join(files)
    if not pairs:
        advice = "Name the column of the labels with --target"
        if rules.target is not None:
            advice = f"--target {rules.target!r:.80} finds none: name another column"
        read = "".join(f"{note.removesuffix('.')}. " for note in notes)
        raise CorpusError(
            f"{where}: no text has a label; expected the right label of each, to compare answers "
            f"with. {read}{advice}, or use: "
            f"{command('predict', '--file', files[0], run=run.path)}"
        )
    if skipped := len(examples) - len(pairs):
        notes.append(f"{where}: {count_of(skipped, 'row')} without a text or a label skipped")
    labels = [label for _, label in pairs]
    try:
        notes += unknown_names(run.path, run.labels.names, labels, where, "label", "text")
    except CorpusError as error:
        raise CorpusError(". ".join([str(error), *(n.removesuffix(".") for n in notes)])) from error
    return pairs


def encoded_pairs(run: LabelRun, pairs: Sequence[tuple[str, str]]) -> LabelledTexts:
    """Encode texts, with the ids that a run has for their labels."""
    texts = [text for text, _ in pairs]
    targets = run.labels.ids(label for _, label in pairs)
    with phase("encoding the text"):
        return LabelledTexts(encoded=run.encode(texts), targets=targets, texts=texts)


def _floors(run: LabelRun, name: str, part: LabelledTexts) -> dict[str, float]:
    """Return the accuracies of simple methods: as recorded, or fitted again for texts of files."""
    floors: dict[str, float] = {}
    if name != FROM_FILES:
        known = read_record(run.path).get("floors", {}) if exists(run.path / RECORD) else {}
        pairs = ((key, (known.get(key) or {}).get(name)) for key in ("majority", "bag_of_words"))
        return {key: value for key, value in pairs if value is not None}
    if (train := run.kept("train")) is None:
        return floors
    text, targets = train
    with phase("fitting the floors"):
        most = majority(targets, len(run.labels))
        bayes = BagOfWords.naive_bayes(text, targets, len(run.labels), len(run.vocabulary))
        guesses = bayes.logits(part.encoded).argmax(axis=1)
    return {
        "majority": float((part.targets == most).mean()),
        "bag_of_words": float((part.targets == guesses).mean()),
    }


def _worst(
    run: LabelRun, logits: NDArray[np.float64], part: LabelledTexts, number: int
) -> list[WrongText]:
    """Return the texts whose gold label has the greatest nats; those of unseen labels are left out.

    Texts with equal nats keep their order.
    """
    known = np.flatnonzero(part.targets != UNSEEN)
    logs, gold = log_softmax(logits[known]), part.targets[known]
    own = logs[np.arange(len(known)), gold]
    order = np.argsort(own, kind="stable")[:number]
    texts = _texts(run, part, known[order])
    return [
        WrongText(
            text=text,
            gold=run.labels.names[gold[at]],
            predicted=run.labels.names[int(logs[at].argmax())],
            probability=float(np.exp(logs[at].max())),
            gold_probability=float(np.exp(own[at])),
        )
        for at, text in zip(order, texts, strict=True)
    ]


def _texts(run: LabelRun, part: LabelledTexts, rows: NDArray[np.int64]) -> Iterator[str]:
    """Yield some texts, as they were read or as the run keeps them."""
    ends = part.encoded.ends
    for row in rows.tolist():
        if part.texts is not None:
            yield part.texts[row]
        else:
            begin = int(ends[row - 1]) if row else 0
            yield run.vocabulary.decode(part.encoded.ids[begin : int(ends[row]) - 1])


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
