"""Evaluation and comparison of runs that give translations, on held-out texts or on files."""

from collections.abc import Mapping, Sequence
from typing import Any

from charlm.api.comparison import common_parts
from charlm.api.task_api import FROM_FILES, file_rules, held_out
from charlm.api.translations import check_beam
from charlm.commands import command
from charlm.errors import CorpusError
from charlm.inference.figures import TaskComparison, TaskEvaluation
from charlm.inference.search import BEAM
from charlm.inference.translation_counts import copy_floor, differences, worst_translations
from charlm.phases import phase
from charlm.runs.columns import common_columns, run_columns
from charlm.runs.locate import run_name
from charlm.runs.translate_run import TranslateRun
from charlm.text.parallel_files import read_pairs
from charlm.text.sources.text_lines import FileRules
from charlm.units import count_of

Pairs = Sequence[tuple[str, str]]


def evaluate_translations(
    run: TranslateRun,
    files: Sequence[str] | None = None,
    *,
    target: str | None = None,
    reading: Mapping[str, Any] | None = None,
    worst: int = 0,
    beam: int = BEAM,
) -> TaskEvaluation:
    """Return the figures of files with translations, or of the texts that the run held out.

    `target` is the column of the translations, or their file; `reading` has fields of
    `ReadSettings`. The `worst` texts are those whose output has the least chrF. Raises UsageError
    if the run keeps no texts, CorpusError for files without texts or translations.
    """
    check_beam(beam)
    notes: list[str] = []
    if files:
        rules = file_rules(reading, target, notes.append, run_columns(run.path))
        parts = {FROM_FILES: run.encoded(pairs_of(run, files, rules))}
    else:
        parts = held_out(run)
    counts, floors, worst_texts = {}, {}, {}
    for name, part in parts.items():
        with phase(f"evaluating: {name}"):
            counts[name], answers = run.evaluate(part, beam)
        floors[name] = copy_floor(part.pairs)
        rows = counts[name].rows
        if worst and rows is not None:
            outputs = [each.text for each in answers]
            worst_texts[name] = worst_translations(part.pairs, outputs, rows, worst)
    return TaskEvaluation(beam=beam, counts=counts, floors=floors, worst=worst_texts, notes=notes)


def compare_translations(
    runs: Sequence[TranslateRun],
    files: Sequence[str] | None = None,
    *,
    target: str | None = None,
    reading: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> TaskComparison:
    """Compare runs on files with translations, or on the texts that all of them held out.

    `target`, `reading` are as in `evaluate_translations`; `seed` seeds the bootstrap. Raises
    UsageError for runs that held out different texts.
    """
    notes: list[str] = []
    pairs: Pairs
    if files:
        columns = common_columns([run.path for run in runs], files, reading, target)
        pairs = pairs_of(runs[0], files, file_rules(reading, target, notes.append, columns))
    else:
        kept, paths = [held_out(run) for run in runs], [run.path for run in runs]
        parts = common_parts(paths, kept, notes, lambda part: len(part.pairs))
        # a run that reads by other tokens may have left out other long pairs
        pairs = min((part.pairs for part in parts), key=len)
    counts = []
    for run in runs:
        with phase(f"evaluating {run_name(run.path)}"):
            counts.append(run.evaluate(run.encoded(pairs))[0])
    return TaskComparison(
        names=[run_name(run.path) for run in runs],
        counts=counts,
        differences=[None, *(differences(counts[0], other, seed) for other in counts[1:])],
        notes=notes,
    )


def pairs_of(run: TranslateRun, files: Sequence[str], rules: FileRules) -> list[tuple[str, str]]:
    """Return the texts of files that have a translation, with it. Raises CorpusError for none."""
    every = list(read_pairs(files, rules))
    pairs = [(each.source, each.target) for each in every if each.source and each.target]
    where = ", ".join(files)
    if not pairs:
        raise CorpusError(
            f"{where}: no text has a translation; expected one for each, to compare outputs with. "
            f"Name their column or file with --target, or use: "
            f"{command('predict', '--file', files[0], run=run.path)}"
        )
    if skipped := len(every) - len(pairs):
        rows = count_of(skipped, "row")
        rules.warn(f"{where}: {rows} without a text or a translation skipped")
    return pairs
