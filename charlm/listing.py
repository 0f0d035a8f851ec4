"""Lists of results that notebooks show as tables and pandas takes as data frames."""

import html
import importlib
from collections.abc import Iterable
from typing import Any, TypeVar

from charlm.errors import EnvironmentFailure
from charlm.files.escapes import escape_unprintable

T = TypeVar("T")
SHOWN_ROWS = 30
"""Maximum number of rows of a table in a notebook; a last row counts the others."""


class Listing(list[T]):
    """List of results of one kind. Subclasses define the columns in `rows`."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a dictionary for each result: plain values by column."""
        return [dict(vars(item)) for item in self]

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with one row for each result.

        Raises EnvironmentFailure if pandas is not installed.
        """
        return data_frame(self.rows())

    def _repr_html_(self) -> str:
        """Return the first rows as an HTML table, which notebooks show."""
        rows = self.rows()
        columns = list(dict.fromkeys(name for row in rows for name in row))
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
        lines = ["".join(_cell(row.get(name)) for name in columns) for row in rows[:SHOWN_ROWS]]
        if len(rows) > SHOWN_ROWS:
            more = f"{len(rows) - SHOWN_ROWS:,} more rows; to_pandas() has them all"
            lines.append(f'<td colspan="{len(columns)}">{more}</td>')
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def data_frame(rows: Iterable[dict[str, Any]]) -> Any:
    """Return a pandas.DataFrame. Raises EnvironmentFailure if pandas is not installed."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise EnvironmentFailure(
            "pandas is not installed, and to_pandas needs it; install it with: "
            "pip install 'charlm[pandas]'"
        ) from error
    return pandas.DataFrame(list(rows))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td style="text-align: right">{value:.6g}</td>'
    text = "" if value is None else str(value)
    shown = html.escape(escape_unprintable(text))
    return f'<td style="text-align: left; white-space: pre">{shown}</td>'
