"""Lists of results that notebooks show as tables and pandas takes as data frames."""

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from charlm.errors import EnvironmentFailure

T = TypeVar("T")
NOTEBOOK = "charlm.report.notebook"
"""Module that shows results in notebooks. It is on a floor above and imported when it is needed."""
MAX_SHOWN = 10
"""Number of results in the repr of a list."""
WORDS = 50_000
"""Size of a vocabulary of words, whose blind guess is the measure for the surprisal of words."""


class Part(NamedTuple):
    """Part of a text with its surprisal in bits; `oov` is true if a token of it is unknown."""

    text: str
    bits: float
    oov: bool = False


class HeatText(NamedTuple):
    """Text in parts that a notebook colours by surprisal, for a vocabulary of this size."""

    parts: Sequence[Part]
    vocab_size: int


class UnitText(NamedTuple):
    """Text in pieces, which a notebook colours by the values of a unit such as "2:8 c"."""

    pieces: Sequence[str]
    values: Sequence[float]
    unit: str


class Listing(list[T]):
    """List of results of one kind. Subclasses define the columns in `rows`."""

    def __repr__(self) -> str:
        more = f", and {len(self) - MAX_SHOWN:,} more" if len(self) > MAX_SHOWN else ""
        return f"{type(self).__name__}([{', '.join(map(repr, self[:MAX_SHOWN]))}{more}])"

    def rows(self) -> list[dict[str, Any]]:
        """Return a dictionary for each result: plain values by column."""
        return [dict(vars(item)) for item in self]

    def shown_rows(self) -> Sequence[Mapping[str, Any]]:
        """Return the rows that notebooks show; a value may be a `HeatText` or `UnitText`."""
        return self.rows()

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with one row for each result.

        Raises EnvironmentFailure if pandas is not installed.
        """
        return data_frame(self.rows())

    def _repr_html_(self) -> str | None:
        """Return the first rows as an HTML table, which notebooks show; None if there are none."""
        if not self:
            return None
        return str(importlib.import_module(NOTEBOOK).table_html(self.shown_rows()))


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
