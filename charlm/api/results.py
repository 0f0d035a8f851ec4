"""Results of the API: answers to texts, next tokens, the history of a training."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from charlm.inference.generation import NextToken
from charlm.listing import Listing
from charlm.runs.layout import METRICS, read_metrics, read_record

COLUMNS = ("label", "words", "tags", "text", "probability")
"""Fields of answers that are columns of a table of them."""


class Predictions(Listing[Any]):
    """Answers to texts, in their order: labels, tags or translations."""

    def rows(self) -> list[dict[str, Any]]:
        """Return what an answer consists of; words and their tags are separated by blanks."""
        rows = [{n: getattr(each, n) for n in COLUMNS if hasattr(each, n)} for each in self]
        for row in rows:
            row |= {name: " ".join(row[name]) for name in ("words", "tags") if name in row}
        return rows


class NextTokens(Listing[NextToken]):
    """Possible next tokens, the likeliest first."""


class Neighbours(Listing[tuple[str, float]]):
    """Entries with similar embeddings and their cosines, the nearest first."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the token and the cosine of each entry."""
        return [{"token": token, "cosine": cosine} for token, cosine in self]


class History(Listing[dict[str, Any]]):
    """Records of a run's training, as in its `metrics.jsonl`, the oldest first.

    `path` is the folder of the run; notebooks show its curves.
    """

    def __init__(self, records: Iterable[dict[str, Any]] = (), path: Path | None = None) -> None:
        super().__init__(records)
        self.path = path

    @classmethod
    def of_run(cls, path: Path) -> "History":
        """Return the records of the run in a folder, none if it has no log."""
        return cls(read_metrics(path) if (path / METRICS).exists() else (), path)

    def rows(self) -> list[dict[str, Any]]:
        """Return the records without the values that are themselves tables."""
        return [
            {name: value for name, value in record.items() if not isinstance(value, dict | list)}
            for record in self
        ]

    def __repr__(self) -> str:
        return f"History({len(self):,} records)"

    def _repr_html_(self) -> str | None:
        """Return the curves as a picture in SVG, or else a table."""
        from charlm.report.axes import RunLog
        from charlm.report.curve_svg import svg
        from charlm.report.curves import plot_of
        from charlm.runs.locate import run_name

        if self.path is None or not self:
            return super()._repr_html_()
        run = read_record(self.path)
        plot = plot_of([RunLog(name=run_name(self.path), path=self.path, run=run, records=self)])
        return svg(plot) if plot.curves[0].end else super()._repr_html_()
