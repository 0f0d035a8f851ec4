"""Differences between two runs as a table."""

from typing import Any

from rich.table import Table
from rich.text import Text

from charlm.files.escapes import escape_unprintable
from charlm.report.tables import plain_table
from charlm.report.text import duration, number
from charlm.runs.diff import RunDiff

GREATER_IS_BETTER = ("accuracy", "macro_f1", "macro_recall")
"""Ends of the names of figures that are not losses."""


def diff_table(diff: RunDiff) -> Table:
    """Return a row for each setting and fact that differs, then a row for each result.

    The origin of a setting is in parentheses; the better of two figures is bold.
    """
    table = plain_table("<", *(f"<{escape_unprintable(name)}" for name in diff.names))
    table.columns[0].no_wrap = True
    for setting in diff.settings:
        pairs = zip(setting.values, setting.origins, strict=True)
        table.add_row(setting.name, *(_with_origin(value, origin) for value, origin in pairs))
    for name, values in diff.facts.items():
        table.add_row(name, *(_shown(name, value) for value in values))
    if diff.settings or diff.facts:
        table.add_section()
        table.add_row("", "", "")
    for name, (one, two) in diff.results.items():
        texts = [_shown(name, value) for value in (one, two)]
        both = isinstance(one, float) and isinstance(two, float) and one != two
        if both and name != "seconds":
            first = one > two if name.endswith(GREATER_IS_BETTER) else one < two
            texts[0 if first else 1].stylize("bold")
        table.add_row(name.replace("_", " "), *texts)
    return table


def _with_origin(value: Any, origin: str) -> Text:
    text = Text(escape_unprintable(_plain(value)))
    return text.append(f" ({escape_unprintable(origin)})", style="dim")


def _shown(name: str, value: Any) -> Text:
    if value is not None and name == "seconds":
        return Text(duration(value))
    if isinstance(value, float | int) and not isinstance(value, bool):
        return Text(number(value))
    return Text(escape_unprintable("-" if value is None else str(value)))


def _plain(value: Any) -> str:
    """Return a value of a setting as it is written in a settings file."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
