"""Rows of a table in which one column is text, whatever the format of the table."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from charlm.commands import command
from charlm.errors import CorpusError, ended, named
from charlm.text.documents import check_text
from charlm.text.sources.files import shown
from charlm.text.sources.nested import inner_advice, inner_names, inner_texts, with_inner
from charlm.units import count_of, first_few

Warn = Callable[[str], None]
"""Function that takes one sentence for the user."""
PEEK_ROWS = 100
"""Rows that are read ahead to find the column with the text."""
MAX_LISTED = 20
"""Columns that a message names."""
PLAIN_TABLES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
"""Suffixes of tables that can be read as plain text, too."""
TEXT_NAMES = ("text", "sentence", "review")
"""Names of a column of texts beside labels, in the order of preference."""
TARGET_NAMES = ("label", "labels", "class", "category", "sentiment", "target")
"""Names of a column of labels, in the order of preference."""

MISSING = frozenset(("NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"))
"""Missing cells as R, pandas, Excel and databases write them."""

Row = Mapping[str, object]
NO_CELLS: Mapping[str, str] = {}


class Record(NamedTuple):
    """One row of a table: its text and its other cells."""

    number: int
    """Number among all rows of data, from 1."""
    line: int | None
    """Line of the file where the row begins; None if the format has no lines."""
    text: str | None
    """Cell of the text column; None if it is missing or empty."""
    cells: Mapping[str, str] = NO_CELLS
    """Other cells by column name, in the order of the file."""

    @property
    def place(self) -> str:
        """Place for messages: its line, or its number if the format has no lines."""
        return f"row {self.number:,}" if self.line is None else f"line {self.line:,}"


class Opened(NamedTuple):
    """Table that was opened."""

    column: str
    """Column of the texts."""
    columns: Sequence[str]
    """All columns."""
    records: Iterator[Record]


@dataclass(kw_only=True)
class Columns:
    """Columns that several tables share: those of the first table, or of the text of a run."""

    text: str | None = None
    """Column of the texts; None if no table was read."""
    target: str | None = None
    """Column of the labels, conditions, tags or translations; None if there is none."""
    run: str = ""
    """Run that was trained on these columns; a table that lacks them is read only if no other
    choice is possible. "" for the columns of the first table, which are a mere preference."""
    form: Mapping[str, Any] = field(default_factory=dict)
    """Settings of delimited tables (header, delimiter, quoting) that the run was trained with."""

    def keep(self, text: str, target: str | None = None) -> None:
        """Keep the columns of a table, unless those of another one are known."""
        self.text = self.text or text or None
        self.target = self.target or target

    def apart_from(self, text: str | None, target: str | None) -> "Columns":
        """Return the columns without those that the user typed for the other part.

        Of a run that was trained from en to de, none is left if the texts are to be read in de.
        """
        if text is not None and target is None and text == self.target:
            return Columns()
        if target is not None and text is None and target == self.text:
            return Columns()
        return self

    def record(self) -> dict[str, str]:
        """Return the columns that are known, by what they hold."""
        known = {"text": self.text, "target": self.target}
        return {name: column for name, column in known.items() if column}


@dataclass(frozen=True, kw_only=True)
class TextColumn:
    """Rule that chooses the column of the texts of a table."""

    column: str | None = None
    """Column as the user named it."""
    usual: str = "text"
    """Column that is read if it is there and none is named: that of an earlier table, or a run."""
    run: str = ""
    """Run that was trained on the usual columns, or ""; see `Columns`."""
    no_header = "--no-header"
    """Flags of a table whose first row is data, but for --column."""
    holds = "text"
    """Kind of the cells of the column, for messages."""
    json_rows = (
        'an object such as {"text": "..."} or a text in quotes. Use --input-format json for one '
        "array of such values, text for plain text"
    )
    """Expected form of rows of JSON, and advice on others, for messages."""
    skips_blank = True
    """True if a blank line of a table with several columns is no row."""
    is_plain_too = True
    """True if the lines of any file can be read as plain text instead."""
    first_names: ClassVar[Sequence[str]] = ()
    """Names of a column that is read before others."""
    target_names: ClassVar[Sequence[str]] = TARGET_NAMES
    """Names of a second column, in the order of preference."""

    @classmethod
    def of(cls, columns: Columns) -> Self:
        """Return the rule for a table beside those that have these columns."""
        return cls(usual=columns.text, run=columns.run) if columns.text else cls()

    def naming(self, column: str | None) -> Self:
        """Return the rule with a column that the user named, unless one is known."""
        return replace(self, column=column) if self.column is None else self

    def fits(self, cells: Iterable[object]) -> bool:
        """Return whether a column with these cells, None for an empty one, may be the column."""
        return any(type(cell) is str for cell in cells)

    def cell(self, value: object, place: str, column: str) -> str:
        """Return a cell of the column as text. Raises CorpusError for any that does not belong."""
        return checked_text(value, place, column)

    def choose(self, label: str, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Return the column that is named, or the usual one, or one of `first_names`.

        If none of them is there, it is that of `chosen`.
        """
        if self.column is None:
            if usual := self.found(self.usual, texts):
                return usual
            if self.is_bound(columns):
                return self.trained_column(label, columns, texts)
            if known := columns_named(self.first_names, texts):
                return known[0]
        return self.chosen(label, columns, texts)

    def chosen(self, label: str, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Return the column that was named, else "text", else the only one of `texts`.

        Raises CorpusError, with the names of the columns, if there is no such column or several.
        """
        if self.column is not None:
            if self.column in columns:
                return self.column
            near = near_column(self.column, columns)
            advice = f'Did you mean "{shown(near)}"?' if near else "Give --column one of them."
            problem = f'{label} has no column "{shown(self.column)}". {listed(columns)} {advice}'
            raise CorpusError(problem, columns=columns)
        if "text" in texts:
            return "text"
        if len(texts) == 1:
            return texts[0]
        problem = f"{'several columns' if texts else 'no column'} of {self.holds}"
        otherwise = ""
        if self.is_plain_too and Path(label).suffix.lower() in PLAIN_TABLES:
            otherwise = ", or read every file as plain text with --input-format text"
        problem = f"{label} has {problem}. {listed(columns)} Choose one with --column{otherwise}."
        raise CorpusError(problem, columns=columns)

    @property
    def is_silent(self) -> bool:
        """True if the user named every column that is read, so that nothing is reported."""
        return self.column is not None

    @property
    def typed(self) -> list[str]:
        """Columns that the user named."""
        return [] if self.column is None else [self.column]

    @property
    def names(self) -> list[str]:
        """Columns that the user named, or that a run was trained on."""
        return [*self.typed, self.usual]

    def numbers_advice(self, columns: Sequence[str]) -> str:
        """Return what to do about a training table without a column of text: it may be numbers."""
        if not columns or self.holds != "text" or self.run:
            return ""
        name = ("--column", shown(columns[-1])) if len(columns) > 1 else ()
        words = command("train", "FILE", "--unit", "number", *name)
        return f" To learn a series of numbers, use: {words}"

    def described(self, label: str, column: str, columns: Sequence[str]) -> str:
        """Return a clause that says what is read."""
        end = self.as_trained(column, self.usual, columns)
        return f'{label}: the column "{shown(column)}" is read{end}'

    def trained_column(self, label: str, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Return the column that the run was trained on, else the only one of `texts`.

        Raises CorpusError if there is none, or several.
        """
        if usual := self.found(self.usual, columns):
            return usual
        if len(texts) == 1:
            return texts[0]
        raise CorpusError(
            f"{label} has no column {self.lacks(self.usual)}, and "
            f"{'several others' if texts else 'no other'} of {self.holds}. {listed(columns)} "
            f"Choose one with {named('column')}",
            columns=columns,
        )

    def is_bound(self, columns: Sequence[str]) -> bool:
        """Return True if the table should have the columns of a run.

        A run of tables without names knows their numbers only, which say nothing of other tables.
        """
        return bool(self.run) and (self.usual in columns or not self.usual.isdecimal())

    def found(self, name: str | None, columns: Sequence[str]) -> str | None:
        """Return the column of this name, or None.

        A column that a run was trained on is also found by a name that differs only in case or in
        blanks around it, if just one does.
        """
        if name is None or name in columns or not self.run:
            return name if name in columns else None
        alike = [each for each in columns if each.strip().casefold() == name.strip().casefold()]
        return alike[0] if len(alike) == 1 else None

    def as_trained(self, column: str | None, trained: str | None, columns: Sequence[str]) -> str:
        """Return the end of a clause that says if a column is the one that the run knows."""
        if not self.run or trained is None:
            return ""
        if column == trained:
            return ", as in training"
        missing = "" if self.found(trained, columns) else ", which is not there"
        return f' (run {shown(self.run)} was trained on "{shown(trained)}"{missing})'

    def lacks(self, trained: str) -> str:
        """Return a column that is not there, and the run or the first table that has it."""
        end = (
            f"on which run {shown(self.run)} was trained" if self.run else "as the first table has"
        )
        return f'"{shown(trained)}", {end}'


@dataclass(frozen=True, kw_only=True)
class TwoColumns(TextColumn):
    """Rule that chooses the column of the texts of a table, and that of what lies beside them."""

    target: str | None = None
    """Second column as the user named it."""
    needed: bool = True
    """True if a table without the second column is refused."""
    compared: bool = False
    """True if answers of the run are compared with the second column."""
    usual_target: str | None = None
    """Second column of an earlier table, which is read if none is named."""
    no_header = "--no-header --target N"
    is_plain_too = False
    setting = "target"
    """Setting that names the second column."""
    texts, noun = "texts", "label"
    """Nouns of the first column, and of a cell of the second one, for messages."""

    def second_column(self, label: str, columns: Sequence[str], first: str = "") -> str | None:
        """Return the second column: the one named, else that of a run, else one of a usual name.

        `first` is the column of the texts. Raises CorpusError if a column that is needed or named
        is not there, or if several may be that of the run.
        """
        if (known := self.named_target(label, columns)) is not None:
            return known
        own = columns_named(self.target_names, columns)
        if self.is_bound(columns) and self.usual_target and self.compared and len(own) > 1:
            raise CorpusError(
                f"{label} has no column {self.lacks(self.usual_target)}, and several others with a "
                f"name of {self.noun}s. {listed(columns)} Choose one with {named(self.setting)}",
                columns=columns,
            )
        if not own and self.needed:
            raise self.lacking(label, columns, f"{self.noun}s", self.setting)
        return own[0] if own else None

    def named_target(self, label: str, columns: Sequence[str]) -> str | None:
        """Return the second column that the user named, else that of a run, or None."""
        if self.target is None:
            return self.known_target(columns)
        return self.typed_target(label, columns, self.target)

    def lacking(self, label: str, columns: Sequence[str], what: str, setting: str) -> CorpusError:
        """Return the error of a table without a column of `what`, by the setting that names it."""
        return CorpusError(
            f"{label} has no column with a name of {what}. {listed(columns)} Name it with "
            f"{named(setting)}",
            columns=columns,
        )

    def only_second(self, label: str, second: str) -> CorpusError:
        """Return the error of a table with the second column of a run and not the first."""
        return CorpusError(
            f"{label} has no column {self.lacks(self.usual)}; its column "
            f'"{shown(second)}" is that of the {self.noun}s. If it holds the {self.texts}, '
            f"name it with {named('column')}"
        )

    def described(self, label: str, column: str, columns: Sequence[str]) -> str:
        """Return a clause that names the columns, the second one if its cells are used."""
        end = self.as_trained(column, self.usual or None, columns)
        second = self.second_column(label, columns, column) if self.is_used else None
        if second is not None:
            trained = self.as_trained(second, self.usual_target, columns)
            end += f', {self.noun}s in "{shown(second)}"{trained}'
        return f'{label}: {self.texts} are in the column "{shown(column)}"{end}'

    @property
    def is_silent(self) -> bool:
        """True if the user named both columns, or that of the texts if others are extra."""
        return self.column is not None and (self.target is not None or not self.is_used)

    @property
    def is_used(self) -> bool:
        """True if the cells of the second column are read."""
        return self.needed or self.compared

    @property
    def typed(self) -> list[str]:
        """Columns that the user named."""
        return [name for name in (self.column, self.target) if name is not None]

    @property
    def names(self) -> list[str]:
        """Columns that the user named, or that a run was trained on."""
        return [*super().names, *([self.usual_target] if self.usual_target else [])]

    def known_target(self, columns: Sequence[str]) -> str | None:
        """Return the second column of a run or of an earlier table, or None.

        Its number says nothing of a table that lacks the number of the texts.
        """
        if self.run and not self.is_bound(columns):
            return None
        return self.found(self.usual_target, columns)

    def typed_target(self, label: str, columns: Sequence[str], target: str) -> str:
        """Return the second column, by its name or number. Raises CorpusError if it is missing."""
        if target in columns:
            return target
        if target.isdecimal() and 1 <= int(target) <= len(columns):
            return columns[int(target) - 1]
        near = near_column(target, columns)
        own = f"Give {named(self.setting)} one of them"
        advice = f'Did you mean "{shown(near)}"?' if near else own
        raise CorpusError(
            f'{label} has no column "{shown(target)}". {listed(columns)} {advice}', columns=columns
        )


TEXT_COLUMN = TextColumn()


@dataclass(frozen=True)
class Rows:
    """Table in which one column is text."""

    label: str
    read: Callable[..., Opened]
    """Function that opens the table: read(warn, cells, rule=TEXT_COLUMN). The other cells of
    records are filled in if `cells` is true. A column that `rule` names takes the place of that in
    the settings."""
    path: Path | None = None
    """File of the table, if it is one."""

    def texts(self, warn: Warn, note: Warn = lambda _: None) -> Iterator[str]:
        """Yield the text of each row; warn of the number of rows without text, which are skipped.

        `note` takes a sentence about a column of labels that is not read. Raises CorpusError if the
        table cannot be read or has no such column, and EnvironmentFailure if the hub cannot be
        reached.
        """
        column, columns, records = self.read(warn, False)
        if labels := [name for name in columns_named(TARGET_NAMES, columns) if name != column]:
            label = shown(labels[0])
            note(f"{self.label} has a column of labels ({label}); --task classify reads it")
        skipped = 0
        for _, _, text, _ in records:
            if text is None:
                skipped += 1
            else:
                yield text
        if skipped:
            rows = count_of(skipped, "row")
            warn(f'{self.label}: {rows} without text in the column "{shown(column)}" skipped.')

    def sharing(self, columns: Columns) -> "Rows":
        """Return the table, read by `columns` where no other rule is given, which it fills in."""

        def read(warn: Warn, cells: bool, rule: TextColumn = TEXT_COLUMN) -> Opened:
            """Open the table; see `Rows.read`."""
            if type(rule) is not TextColumn:
                return self.read(warn, cells, rule)
            opened = self.read(warn, cells, TextColumn.of(columns).naming(rule.column))
            if opened.columns:
                columns.keep(opened.column)
            return opened

        return replace(self, read=read)

    def records(self, warn: Warn) -> Iterator[Record]:
        """Yield every row, including rows without text. Raises the errors of `texts`."""
        yield from self.read(warn, True).records


def named_records(
    label: str,
    rows: Iterator[tuple[int | None, Row]],
    warn: Warn,
    cells: bool,
    show: Callable[[object], str] = str,
    rule: TextColumn = TEXT_COLUMN,
    *,
    again: Callable[[Sequence[str]], Iterator[tuple[int | None, Row]]] | None = None,
) -> Opened:
    """Open a table of rows that are mappings.

    `rows` are pairs of line and row. `show` formats a cell that is not text for `Record.cells`. If
    the first rows are read for themselves, `again` reads all rows with the columns that are needed.
    """
    first = list(islice(rows, PEEK_ROWS))
    if not first:
        warn(f"{label} has no rows.")
        return Opened(rule.column or "", (), iter(()))
    peeked = [row for _, row in first]
    if inner := inner_names(peeked, rule.names):
        peeked = [with_inner(row, inner) for row in peeked]
    columns = list(dict.fromkeys(chain.from_iterable(peeked)))
    texts = [name for name in columns if rule.fits(row.get(name) for row in peeked)]
    try:
        column = rule.choose(label, columns, texts)
    except CorpusError as error:
        is_inner = not texts or "." in (rule.column or "")
        advice = inner_advice(peeked) if is_inner else ""
        if not texts and not advice:
            numbers = [each for each in columns if _holds_numbers(row.get(each) for row in peeked)]
            advice = rule.numbers_advice(numbers)
        problem = f"{ended(error)}{advice}" if advice else str(error)
        raise CorpusError(problem, columns=error.columns) from error
    if not inner and rule.column is None and (fields := inner_texts(peeked)):
        warn(f"{label}: texts inside objects ({fields}) are not read unless they are named.")
    if len(columns) > 1 and not rule.is_silent:
        warn(f"{rule.described(label, column, columns)}. {listed(columns)}")
    every: Iterator[tuple[int | None, Row]] = chain(first, rows)
    if again:
        own = [name for name in columns if name not in inner]
        every = again(own if cells or inner else [column])
    if inner:
        every = ((line, with_inner(row, inner)) for line, row in every)
    return Opened(column, columns, _records(label, every, column, cells, show, rule))


def _records(
    label: str,
    rows: Iterable[tuple[int | None, Row]],
    column: str,
    with_cells: bool,
    show: Callable[[object], str],
    rule: TextColumn,
) -> Iterator[Record]:
    cells = NO_CELLS
    for number, (line, row) in enumerate(rows, 1):
        text = row.get(column)
        place = f"{label}: " + (f"row {number:,}" if line is None else f"line {line:,}")
        if text is not None:
            text = rule.cell(text, place, column)
        try:
            if with_cells:
                cells = {k: cell_text(cell, show) for k, cell in row.items() if k != column}
        except RecursionError as error:
            raise CorpusError(
                f"{place} has lists or objects in each other that are too deep to read; expected "
                "a few. Remove them from the row"
            ) from error
        yield Record(number, line, text, cells)


def cell_text(cell: object, show: Callable[[object], str]) -> str:
    """Return a cell beside the text, "" for none or NaN; `show` formats what is not text."""
    if cell is None or cell != cell or (type(cell) is Number and cell == "NaN"):
        return ""
    if isinstance(cell, str):
        return cell
    return Nested(show(cell)) if isinstance(cell, list | dict) else show(cell)


def near_column(typed: str, columns: Sequence[str]) -> str:
    """Return the column that was probably meant, or ""."""
    folded = {name.casefold(): name for name in columns}
    alike = difflib.get_close_matches(typed.casefold(), folded, n=1)
    return folded[alike[0]] if alike else ""


def columns_named(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the columns that have one of these names, in any case, in the order of the names."""
    folded = {name.casefold(): name for name in reversed(columns)}
    return [folded[name] for name in names if name in folded]


def listed(columns: Sequence[str]) -> str:
    """Return a sentence that names the columns of a table."""
    return f"Its columns: {first_few(map(shown, columns), MAX_LISTED)}."


def checked_text(text: object, place: str, column: str) -> str:
    """Return a cell that is text. Raises CorpusError for any other cell or a lone surrogate."""
    if not isinstance(text, str) or type(text) is Number:
        advice = inner_advice([{column: text}]) or f" Choose another with {named('column')}."
        raise CorpusError(
            f'{place}: the column "{shown(column)}" holds {kind_of(text)}, expected text.{advice}'
        )
    check_text(text, place, "Correct that row.")
    return text


class Number(str):
    """Number of a JSON file, as it is written there."""

    __slots__ = ()


def _holds_numbers(cells: Iterable[object]) -> bool:
    """Return True if a cell is a number of JSON or of Python."""
    kinds = {type(cell) for cell in cells}
    return bool(kinds & {Number, int, float})


class Nested(str):
    """List or object of a table, as text."""

    __slots__ = ()

    def advice(self, column: str) -> str:
        """Return how to name a field of an object in a column, or ""."""
        return f", or a field of it: {shown(column)}.NAME" if self.startswith("{") else ""


def kind_of(value: object) -> str:
    """Return the kind of a value for a message."""
    if isinstance(value, Number | int | float) and not isinstance(value, bool):
        return f"the number {value!s:.40}"
    names = {bool: "true or false", list: "a list", dict: "an object", str: "a text"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
