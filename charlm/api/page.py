"""Data of the page, as plain values for JSON: stored in an export, or requested one by one.

An export and the answers of a server have the same forms; see `report.page.data`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from charlm.api.inside import inspect
from charlm.api.model import Model
from charlm.api.plots import missing_log, read_log
from charlm.api.runs import list_runs
from charlm.commands import command
from charlm.config.tasks import TASKS
from charlm.errors import CharlmError, RunError
from charlm.inspect.find_units import UnitMatches, search_text
from charlm.inspect.hidden import checked_signals, layer_sizes, unit_number
from charlm.inspect.text_view import Inspection, view_text
from charlm.report.page.data import (
    compare_data,
    find_data,
    fitting_signals,
    inside_data,
    model_data,
    score_data,
)
from charlm.report.page.run_data import run_data
from charlm.runs.card import model_shape, model_size
from charlm.runs.layout import NETWORK, NGRAM, is_label_run, named_inside, read_record, run_task
from charlm.runs.overview import BROKEN, SEARCHED, RunInfo
from charlm.runs.pair import BACKWARD
from charlm.text.tokenizers.tokenizer_json import UNKNOWN_TEXT

EXAMPLE_CHARS = 300
"""Maximum length of the text that a page begins with."""


def page_data(
    model: Model, inspection: Inspection, pattern: str = "", matches: UnitMatches | None = None
) -> dict[str, Any]:
    """Return the data of a page about a text, with every unit if the model has some.

    The page opens with the first unit of the inspection, or the best of `matches`, which follow
    `pattern`.
    """
    view = inspection.view
    inside = None
    if model.run.kind == NETWORK:
        hidden = model.hidden(view.text, signals=fitting_signals(model.run, len(view.tokens)))
        first = next(iter(inspection.units), None)
        first = first or ((matches[0].name, matches[0].signal) if matches else None)
        inside = inside_data(model.run, view, hidden, first)
    begins = "compare" if inspection.other else "inside" if inspection.units or matches else "score"
    return {
        "schema_version": 1,
        "view": begins,
        "model": model_data(model.run, _size(model)),
        "score": score_data(view),
        "inside": inside,
        "find": find_data(pattern, matches) if matches else None,
        "compare": compare_data(inspection) if inspection.other else None,
    }


def facts(model: Model) -> dict[str, Any]:
    """Return the facts about a model, with some lines of its validation text if it is kept."""
    example = ""
    with contextlib.suppress(CharlmError):  # a damaged text; the page can begin without one
        example = _example(search_text(model.run))
    return model_data(model.run, _size(model), example)


def _size(model: Model) -> str:
    """Return the shape of a model, and its size if that is recorded."""
    try:
        return model_size(read_record(model.path))
    except (RunError, OSError):
        return model_shape(model.config["model"])


def _example(text: str) -> str:
    """Return the beginning of the longest part of a text whose lines have no unknown token."""
    blocks = groupby(text.split("\n"), key=lambda line: UNKNOWN_TEXT in line)
    known = max(("\n".join(lines) for no, lines in blocks if not no), key=len, default=text)
    cut = known[: EXAMPLE_CHARS + 1]
    lines = cut if len(known) <= EXAMPLE_CHARS else cut.rpartition("\n")[0]
    return (lines or cut[:EXAMPLE_CHARS]).strip("\n")


def score(model: Model, text: str, top: int = 5) -> dict[str, Any]:
    """Return the tokens of a text with their figures and their `top` likeliest alternatives."""
    return score_data(view_text(model.run, model.scorer(), text, top=top))


def inside(
    model: Model, text: str, units: Sequence[str] = (), signals: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the signals of units after each token of a text.

    The default is all units, and the signals c and h. The first signals that fit in a page are
    returned, or all of them for named units. Raises UsageError for an n-gram model, for unknown
    names, and for a text that leaves no room for one signal.
    """
    known = checked_signals(model.run, signals or None)
    if not signals:
        known.sort()  # c before h
    for unit in units:
        unit_number(unit, layer_sizes(model.run))
    view = view_text(model.run, model.scorer(), text)
    if not units:
        known = known[: len(fitting_signals(model.run, len(view.tokens)))]
    return inside_data(model.run, view, model.hidden(view.text, signals=known), units=units)


def find(model: Model, pattern: str, text: str = "", top: int = 10) -> dict[str, Any]:
    """Return the units that follow a pattern of the validation text, or of `text` if none is kept.

    Raises UsageError as `Model.find_units`.
    """
    is_kept = model.run.kept("valid") is not None
    searched = search_text(model.run) if is_kept else text
    return {
        **find_data(pattern, model.find_units(pattern, searched, top=top)),
        "characters": len(searched),
        "source": "validation text" if is_kept else "this text",
    }


def compare(model: Model, text: str, other: Model) -> dict[str, Any]:
    """Return the parts of a text with their bits under two models.

    Raises UsageError for models that read the text differently.
    """
    return compare_data(inspect(model, text, other=other))


def runs(checkpoints: str | Path | None = None) -> dict[str, Any]:
    """Return the runs in a folder as `charlm runs` lists them, with the curves of their training.

    The trials of a search follow it, the backward half of a run of both directions its run. A run
    without curves has a note that says why.
    """
    listed = list_runs(checkpoints)
    rows = [
        row
        for search in listed
        for run in (search, *search.trials)
        for row in _run_rows(run, "" if run is search else search.name)
    ]
    return {"runs": rows}


def _run_rows(run: RunInfo, search: str) -> Iterator[dict[str, Any]]:
    """Yield the row of a run, and that of its backward half if that has a log."""
    name = f"{search}/{run.name}" if search else run.name
    if note := _note(run):
        yield run_data(run, name, None, note)
    else:
        yield _with_log(run, name, run.path)
    half = run.path / BACKWARD
    if run.status != BROKEN and not missing_log(half):
        yield _with_log(replace(run, figures={}), f"{name}/{BACKWARD}", half)


def _note(run: RunInfo) -> str:
    """Return why a run has no curves, or ""."""
    if run.status == BROKEN:
        return run.problem
    if run.kind == SEARCHED:
        return "a search: see its trials"
    if run.kind == NGRAM:
        return "n-grams are not trained in steps"
    if is_label_run(run.path):
        gives = TASKS[run_task(run.path)].gives
        return f"it gives {gives}; see its curves with: {command('plot', run.name)}"
    if missing_log(run.path):
        return "ships without its log" if run.built_in else "it has no log"
    return ""


def _with_log(run: RunInfo, name: str, path: Path) -> dict[str, Any]:
    """Return the row of a run with its curves; a damaged log is noted."""
    try:
        return run_data(run, name, read_log(path))
    except (RunError, OSError) as error:
        return run_data(run, name, None, named_inside(path, str(error)))
