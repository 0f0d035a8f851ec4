"""Examples: texts with labels, from tables, fastText lines, and folders whose folders are labels.

label,text             __label__pos A stirring film.      train/pos/1.txt
pos,A stirring film.   __label__neg Dull.                 train/neg/2.txt
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, UsageError, named
from charlm.text.labels import MAX_LABELS
from charlm.text.sources.files import Spool, TextFile, shown
from charlm.text.sources.kinds import LABEL_PREFIX
from charlm.text.sources.names import Source, find, reads_once
from charlm.text.sources.rows import (
    TEXT_NAMES,
    Rows,
    TwoColumns,
    Warn,
)
from charlm.text.sources.text_lines import FileRules, LineReader
from charlm.units import count_of

PEEK_LINES = 100
"""Lines at the beginning of a file in which fastText labels are looked for."""
MAX_COMPARED = 10_000
"""Rows of a table in which a better column of labels is looked for."""
_FAST_TEXT = re.compile(rf"\s*{LABEL_PREFIX}(\S*)\s*(.*)", re.DOTALL)
_MORE_LABELS = re.compile(rf"(?<!\S){LABEL_PREFIX}")  # fastText reads labels at any place of a line


class Example(NamedTuple):
    """A text, its label, and where it was read."""

    text: str | None
    """None if the row has no text."""
    label: str | None
    """None if the row has no label."""
    place: str
    """Place for messages, such as "train.tsv: line 7"."""


class LabelColumns(TwoColumns):
    """Rule that chooses the columns of texts and labels in a table."""

    first_names = TEXT_NAMES

    def choose(self, label: str, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Return the column of the texts, which is not that of the labels."""
        labels = self.second_column(label, columns)
        return super().choose(label, columns, [name for name in texts if name != labels])


class ConditionColumns(LabelColumns):
    """Rule that chooses the columns of texts and conditions in a table."""

    setting = noun = "condition"


def read_examples(
    sources: Sequence[str],
    rules: FileRules,
    kind: type[LabelColumns] = LabelColumns,
    *,
    compared: bool = False,
) -> Iterator[Example]:
    """Yield the texts of sources with their labels, or if these are not needed, what there is.

    A file of plain text has a text on each line then. `kind` chooses the columns of tables. Answers
    of a run are `compared` with the labels, so that those of another column than that of training
    may be wrong ones. Raises CorpusError for a source without labels that are needed, and for a
    table without the columns of the run if another choice is not clear.
    """
    return _Reader(rules, kind, compared=compared).read(sources)


def near_targets(sources: Sequence[str], reading: ReadSettings, target: str | None) -> str:
    """Return advice on a column of a table whose cells look like labels, or "".

    Its distinct values are few, and repeated three times or more on average. A text that can be
    read only once has been read already, so there is no advice about it.
    """
    if any(map(reads_once, sources)):
        return ""
    for source in find(sources, reading, lambda _: None):
        if not isinstance(source, Rows):
            continue
        table = source.read(lambda _: None, True, LabelColumns(target=target))
        rows = [record.cells for record in islice(table.records, MAX_COMPARED)]
        for column in table.columns:
            values = {cells.get(column, "") for cells in rows} - {""}
            most = min(MAX_LABELS, len(rows) / 3)
            if column != table.column and 2 <= len(values) <= most:
                return f". Did you mean {named('target')} {shown(column)}?"
    return ""


class _Reader(LineReader):
    """Reader of the sources of one split."""

    def __init__(self, rules: FileRules, kind: type[LabelColumns], *, compared: bool) -> None:
        super().__init__(rules)
        self.rule = self.column_rule(kind, compared=compared)

    def read(self, names: Sequence[str]) -> Iterator[Example]:
        sources, setting = self.find(names), self.rule.setting
        no_table = not any(isinstance(source, Rows) for source in sources)
        is_label = setting == "condition" and self.target == "label"  # of a line or a folder
        if self.target and no_table and not is_label:
            raise UsageError(
                f"{named(setting)} was given, but no source is a table. Leave it out, or name a "
                "table"
            )
        folders = _label_folders(names, sources, self.warn)
        beside: list[str] = []
        with self.opened(sources):
            for source in sources:
                if isinstance(source, Rows):
                    for text, cell, place in self.cells(source, self.rule):
                        yield Example(text, cell.strip() or None, place)
                elif (label := folders.get(source.label, "")) is None:
                    beside.append(source.label)
                else:
                    yield from self._file(source, label)
        if beside:
            self.warn(
                f"{beside[0]}{_others(beside)} skipped, beside folders whose names are labels."
            )

    def _file(self, source: TextFile | Spool, label: str) -> Iterator[Example]:
        """Yield the text of a file under the label of its folder, or that of each line."""
        numbered = enumerate(self.lines(source), 1)
        head = list(islice(numbered, PEEK_LINES))
        rest = chain(head, numbered)
        if any(line.lstrip().startswith(LABEL_PREFIX) for _, line in head):
            yield from _fast_text_lines(rest, source.label)
        elif label:
            text = "\n".join(line for _, line in rest)
            yield Example(text or None, label, source.label)
        elif self.needed:
            raise CorpusError(
                f"{source.label} has no labels; expected a table with a column of them, lines that "
                f"begin with {LABEL_PREFIX}, or a folder of folders named by label. Name one"
            )
        else:
            self.advise([line for _, line in head], source.label)
            for number, line in rest:
                yield Example(line, None, f"{source.label}: line {number:,}")


def _others(names: Sequence[str]) -> str:
    return f" and {count_of(len(names) - 1, 'other file')} were" if len(names) > 1 else " was"


def _label_folders(
    names: Sequence[str], sources: Sequence[Source], warn: Warn
) -> dict[str, str | None]:
    """Return the label of each file of plain text inside a folder that was named.

    It is the name of the first folder below the one that was named; None for a file beside such
    folders. `warn` takes a sentence about a first folder that holds others.
    """
    labels: dict[str, str | None] = {}
    for top in filter(Path.is_dir, map(Path, names)):
        inner: dict[str, tuple[str, ...]] = {}
        for source in sources:
            if isinstance(source, TextFile):
                with suppress(ValueError):  # it is of another folder
                    inner[source.label] = source.path.relative_to(top).parts[:-1]
        if any(inner.values()):
            labels |= {file: parts[0] if parts else None for file, parts in inner.items()}
        if deep := next((parts for parts in inner.values() if len(parts) > 1), None):
            folder = shown(top / deep[0])
            warn(
                f"{folder} holds folders, such as {shown(deep[1])}; all its texts have the label "
                f"{shown(deep[0])}. If its folders are the labels, name {folder} instead."
            )
    return labels


def _fast_text_lines(numbered: Iterable[tuple[int, str]], label: str) -> Iterator[Example]:
    """Yield the examples of lines that begin with a label, `__label__pos A film.`"""
    for number, line in numbered:
        place = f"{label}: line {number:,}"
        match = _FAST_TEXT.match(line)
        if match is None:
            if not line.strip():
                continue
            raise CorpusError(
                f"{place} does not begin with {LABEL_PREFIX} (it is {line.strip()!r:.60}); "
                "expected a label on each line, as on others. Add it, or remove the line"
            )
        name, text = match.groups()
        if _MORE_LABELS.search(text):
            raise CorpusError(
                f"{place} has several labels; expected one for each text. Keep the one to learn"
            )
        yield Example(text or None, name or None, place)
