"""Columns of the tables that a run was trained on, by which its other texts are read."""

from collections.abc import Sequence
from pathlib import Path

from charlm.config.settings import settings_from
from charlm.errors import RunError
from charlm.runs.layout import read_record
from charlm.runs.locate import run_name
from charlm.text.sources.rows import Columns

FORM = ("header", "delimiter", "quoting")
"""Settings of delimited tables that further tables of a run share."""


def run_columns(path: Path) -> Columns:
    """Return the columns that a run was trained on; without a record of them, as the user typed.

    A run whose run.json is missing or damaged has none: its weights answer without it.
    """
    try:
        record = read_record(path)
    except RunError:
        return Columns()
    settings = settings_from(record["settings"])
    form = {name: getattr(settings.corpus, name) for name in FORM}
    if known := record["corpus"].get("columns"):
        return Columns(
            text=known.get("text"), target=known.get("target"), run=run_name(path), form=form
        )
    if column := record["corpus"].get("column"):  # of a series
        return Columns(text=column, run=run_name(path), form=form)
    typed = settings.task.target or settings.task.condition
    return Columns(text=settings.corpus.column, target=typed, form=form)


def common_columns(paths: Sequence[Path]) -> Columns:
    """Return the columns that several runs were trained on, each only if they all agree."""
    first, *others = map(run_columns, paths)
    text = {each.text for each in others} <= {first.text}
    target = {each.target for each in others} <= {first.target}
    form = all(each.form == first.form for each in others)
    return Columns(
        text=first.text if text else None,
        target=first.target if target else None,
        run=first.run if text and target else "",
        form=first.form if form else {},
    )
