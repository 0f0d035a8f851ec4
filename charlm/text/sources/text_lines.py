"""Files of a split, for texts that have labels, tags, translations or numbers, and their lines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, named
from charlm.text.documents import lines
from charlm.text.sources.decoding import AUTO, with_codec
from charlm.text.sources.encodings import decoded, invalid
from charlm.text.sources.files import Spool, TextFile, shown
from charlm.text.sources.kinds import advice_for
from charlm.text.sources.line_ends import LineEnds
from charlm.text.sources.names import Source, find
from charlm.text.sources.rows import Columns, Nested, Opened, Rows, TwoColumns, Warn, listed

R = TypeVar("R", bound=TwoColumns)


@dataclass(frozen=True, kw_only=True)
class FileRules:
    """Rules by which the files of a task are read. Files that share them are reported once."""

    settings: ReadSettings = field(default_factory=ReadSettings)
    target: str | None = None
    """Column, or file, of what lies beside the texts, as the user named it."""
    needed: bool = True
    """True if texts with nothing beside them are refused."""
    warn: Warn = lambda _: None
    columns: Columns = field(default_factory=Columns)
    """Columns of a run, or of the first table, by which others are read; filled in."""
    reported: dict[str, str] = field(default_factory=dict)
    """First file of those that are read in one way, by a sentence about that way; filled in."""


class LineReader:
    """Reader of files, which decodes each one and unifies its line ends."""

    def __init__(self, rules: FileRules) -> None:
        self.reading, self.rules = with_codec(rules.settings), rules
        self.target, self.needed, self.warn = rules.target, rules.needed, rules.warn
        self.columns = rules.columns
        self._ends = LineEnds("line", keep=None)

    def find(self, names: Sequence[str]) -> list[Source]:
        """Return the sources of names; see `charlm.text.sources.names.find`."""
        return find(names, self.reading, self.warn, self.rules.reported, self.columns)

    def column_rule(self, kind: type[R], **options: Any) -> R:
        """Return the rule of this kind that chooses the columns of a table."""
        known = self.columns.apart_from(self.reading.column, self.target)
        return kind(
            target=self.target,
            needed=self.needed,
            usual=known.text or kind.usual,
            usual_target=known.target,
            run=known.run if known.text else "",
            **options,
        )

    def open_table(self, rows: Rows, rule: TwoColumns) -> tuple[Opened, str | None]:
        """Open a table; return also the column beside the texts, or None.

        Raises CorpusError if one column is to be both.
        """
        table = rows.read(self.warn, True, rule)
        if not table.columns:
            return table, None
        second = rule.second_column(rows.label, table.columns, table.column)
        if second == table.column and rule.column is None and second == rule.known_target([second]):
            raise rule.only_second(rows.label, second)
        if second == table.column:
            raise CorpusError(
                f'{rows.label}: the column "{shown(second)}" holds the {rule.texts}; expected '
                f"another for the {rule.noun}s. {listed(table.columns)} Name the {rule.texts} with "
                f"{named('column')}"
            )
        if second is not None:
            self.columns.keep(table.column, second)
        return table, second

    def cells(self, rows: Rows, rule: TwoColumns) -> Iterator[tuple[str | None, str, str]]:
        """Yield the text of each row of a table, the cell beside it, and their place."""
        table, second = self.open_table(rows, rule)
        for record in table.records:
            place = f"{rows.label}: {record.place}"
            cell = record.cells.get(second, "") if second is not None else ""
            if second is not None and isinstance(cell, Nested):
                raise CorpusError(
                    f'{place}: the column "{shown(second)}" holds {cell:.40}, expected one '
                    f"{rule.noun}. Choose another with {named(rule.setting)}{cell.advice(second)}"
                )
            yield record.text, cell, place

    def lines(self, source: TextFile | Spool) -> Iterator[str]:
        """Yield the lines of a file. Raises CorpusError if it cannot be decoded."""
        pieces = decoded(source, self.reading, self.warn)
        return lines(self._ends.read(pieces, source.label))

    def advise(self, head: Sequence[str], label: str) -> None:
        """Warn if the first lines of a text look like rows of a table, or like JSON."""
        if self.reading.input_format != "auto":
            return
        if advice := advice_for("\n".join([*head, ""])):
            self.warn(f"{label} {advice}")

    @contextmanager
    def opened(self, sources: Sequence[Source]) -> Iterator[None]:
        """Name all files of the wrong encoding in an error; report the line ends at the end."""
        try:
            yield
        except CorpusError as error:
            if not error.place or self.reading.encoding == AUTO:
                raise
            raise invalid(sources, self.reading.encoding, error) from error
        self._ends.report(self.warn)
