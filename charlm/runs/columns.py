"""Columns of the tables that a run was trained on, by which its other texts are read."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from charlm.config.corpus import ReadSettings
from charlm.config.settings import settings_from
from charlm.errors import RunError, UsageError, named
from charlm.runs.layout import TASK, read_config, read_record
from charlm.runs.locate import run_name
from charlm.text.sources.files import shown
from charlm.text.sources.names import find
from charlm.text.sources.rows import Columns, Rows

FORM = ("header", "delimiter", "quoting")
"""Settings of delimited tables that further tables of a run share."""


def run_columns(path: Path) -> Columns:
    """Return the columns that a run was trained on; without a record of them, as the user typed.

    A run whose run.json is missing or damaged has none but that of a series, which config.json
    names: its weights answer without it.
    """
    try:
        record = read_record(path)
    except RunError:
        return _of_config(path)
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


def _of_config(path: Path) -> Columns:
    """Return the column of a run on a series, and none for other runs."""
    column = None
    with suppress(RunError):
        column = read_config(path).get(TASK, {}).get("column")
    return Columns(text=column, run=run_name(path)) if column else Columns()


def common_columns(
    paths: Sequence[Path],
    files: Sequence[str],
    reading: Mapping[str, Any] | None = None,
    target: str | None = None,
    *,
    only_text: bool = False,
) -> Columns:
    """Return the columns that several runs were trained on, by which `files` are read.

    Runs without columns, such as those of plain text, are passed over, and so are numbers of
    columns if others have names. `reading` and `target` are what the user typed; with `only_text`
    no column is read beside the texts. Raises UsageError for tables if the runs were trained on
    different columns and the user named none.
    """
    reading, known = reading or {}, [run_columns(path) for path in paths]
    open_ = {"text": reading.get("column") is None, "target": target is None and not only_text}
    chosen: dict[str, str | None] = {}
    for part, is_open in open_.items():
        own = {str(name): each.run for each in known if (name := getattr(each, part))}
        own = {name: run for name, run in own.items() if not name.isdecimal()} or own
        chosen[part] = next(iter(own)) if len(own) == 1 else None
        if is_open and len(own) > 1 and _has_table(files, reading):
            trained = ", ".join(f'{run or "a run"} on "{shown(name)}"' for name, run in own.items())
            flag = named("column" if part == "text" else "target")
            raise UsageError(
                f"the runs were trained on different columns ({trained}); expected one that all of "
                f"them read. Name it with {flag}"
            )
    forms = [each.form for each in known if each.text or each.target] or [{}]
    same_form = all(form == forms[0] for form in forms)
    return Columns(
        text=chosen["text"],
        target=chosen["target"],
        run=next((each.run for each in known if each.text or each.target), ""),
        form=forms[0] if same_form else {},
    )


def _has_table(files: Sequence[str], reading: Mapping[str, Any]) -> bool:
    """Return True if one of the files is a table."""
    sources = find(files, ReadSettings(**reading), lambda _: None)
    return any(isinstance(source, Rows) for source in sources)
