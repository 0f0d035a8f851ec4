"""Pairs of texts, a source and its translation: in two columns of a table, or in two files.

en,de                          train.en                       train.de
A dog runs.,Ein Hund läuft.    line 1: A dog runs.            line 1: Ein Hund läuft.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import NamedTuple

from charlm.errors import CorpusError, UsageError, named
from charlm.text.sources.files import Spool, TextFile, shown
from charlm.text.sources.kinds import MAX_LINES, table_of
from charlm.text.sources.rows import Rows, TwoColumns, listed
from charlm.text.sources.text_lines import FileRules, LineReader


class Pair(NamedTuple):
    """A source text, its translation, and where they were read."""

    source: str | None
    """None if it is missing or empty."""
    target: str | None
    """None if it is missing or empty."""
    place: str
    """Place for messages, such as "pairs.tsv: line 7"."""


def read_pairs(sources: Sequence[str], rules: FileRules, like: str | None = None) -> Iterator[Pair]:
    """Yield the pairs of tables, or of files and the files that run parallel to them.

    The target of the rules names a column of tables or, for plain text, the file that is parallel
    to the file `like` (by default the first source); the names of other parallel files follow from
    the two (see `parallel_name`). If translations are not needed, the lines of a file have none.
    Raises CorpusError and UsageError.
    """
    return _Reader(rules).read(sources, like)


def parallel_name(source: str, target: str, other: str) -> str:
    """Return the name that belongs to `other` as `target` belongs to `source`, or "".

    The parts in which the two names differ are replaced: of train.en, train.de and dev.en it is
    dev.de.
    """
    if not _alike(source, target):  # one of them is in another folder
        folder, source, target = str(Path(target).parent), Path(source).name, Path(target).name
        name = parallel_name(source, target, Path(other).name) if _alike(source, target) else ""
        return str(Path(folder) / name) if name else ""
    parts = _parts(other)
    for old, new in zip(_parts(source), _parts(target), strict=True):
        if old != new:
            if old not in parts:
                return ""
            last = len(parts) - 1 - parts[::-1].index(old)
            parts[last] = new
    return "".join(parts)


def _alike(source: str, target: str) -> bool:
    return len(_parts(source)) == len(_parts(target))


def _parts(name: str) -> list[str]:
    """Return the words of a name and what separates them."""
    return re.split(r"([^A-Za-z0-9]+)", name)


class PairColumns(TwoColumns):
    """Rule that chooses the columns of the sources and the translations in a table."""

    noun = "translation"

    def choose(self, label: str, columns: Sequence[str], texts: Sequence[str]) -> str:
        """Return the column that is named, else the first of two, else the only one of text."""
        if self.column is not None:
            return self.chosen(label, columns, texts)
        usual = self.found(self.usual, texts)
        if self.usual_target is not None and usual:
            return usual
        second = self.named_target(label, columns)
        others = [name for name in texts if name != second]
        if self.is_bound(columns):
            if not others and not self.found(self.usual, columns) and second:
                raise self.only_second(label, second)
            return self.trained_column(label, columns, others)
        if len(others) == 1 or (self.target is None and len(others) == 2):
            return others[0]
        raise self._unclear(label, columns, "texts" if self.target else "texts and translations")

    def second_column(self, label: str, columns: Sequence[str], first: str = "") -> str | None:
        """Return the column of the translations: the one named, else the only other one.

        Raises CorpusError if a column that is needed or named is not there.
        """
        if (known := self.named_target(label, columns)) is not None:
            return known
        others = [name for name in columns if name != first]
        if self.is_bound(columns) and self.usual_target:
            if not self.needed:
                return None
            raise CorpusError(
                f"{label} has no column {self.lacks(self.usual_target)}; expected that of the "
                f"translations. {listed(columns)} Name it with {named('target')}",
                columns=columns,
            )
        if len(others) == 1 or not self.needed:
            return others[0] if len(others) == 1 else None
        if others:
            raise self._unclear(label, columns, "translations")
        raise CorpusError(
            f"{label} has one column, {shown(first)}; expected another with the translations. Add "
            f"it, or give a file of them with {named('target')}",
            columns=columns,
        )

    def _unclear(self, label: str, columns: Sequence[str], what: str) -> CorpusError:
        flags = {"texts": "column", "translations": "target"}
        flag = " and ".join(named(flags[word]) for word in what.split(" and "))
        return CorpusError(
            f"{label}: which column holds the {what} is not clear. {listed(columns)} Name "
            f"{'them' if ' and ' in what else 'it'} with {flag}",
            columns=columns,
        )


class _Reader(LineReader):
    """Reader of the sources of one split."""

    def read(self, names: Sequence[str], like: str | None) -> Iterator[Pair]:
        sources = self.find(names)
        with self.opened(sources):
            for source in sources:
                if isinstance(source, Rows):
                    for text, cell, place in self.cells(source, self.column_rule(PairColumns)):
                        yield Pair(_kept(text), _kept(cell), place)
                else:
                    yield from self._file(source, like or sources[0].label)

    def _file(self, source: TextFile | Spool, like: str) -> Iterator[Pair]:
        """Yield the lines of a file, with the lines of the file that is parallel to it."""
        label = source.label
        if not self.needed and self.target is None:
            lines = self.lines(source)
            head = list(islice(lines, MAX_LINES))
            self.advise(head, label)
            for number, line in enumerate(chain(head, lines), 1):
                yield Pair(_kept(line), None, f"{label}: line {number:,}")
            return
        other = self._parallel(source, like)
        counts = [0, 0]
        pairs = zip_longest(self.lines(source), self.lines(other))
        for number, pair in enumerate(pairs, 1):
            for side, line in enumerate(pair):
                counts[side] += line is not None
            yield Pair(_kept(pair[0]), _kept(pair[1]), f"{label}: line {number:,}")
        if counts[0] != counts[1]:
            raise CorpusError(
                f"{label} has {counts[0]:,} lines, {other.label} {counts[1]:,}; expected as many, "
                "a translation for each line. Add or remove lines where they begin to differ"
            )

    def _parallel(self, source: TextFile | Spool, like: str) -> TextFile:
        """Return the file with the translations of a file."""
        if isinstance(source, Spool):
            raise UsageError(
                f"{source.label} has no parallel file; expected a file, or a table with a column "
                f"of translations. Write it to a file first, or name the format of a table with "
                f"{named('input_format')}"
            )
        label = source.label
        if self.target is None:
            raise self._no_target(source)
        name = self.target if label == like else parallel_name(like, self.target, label)
        if not name or not Path(name).is_file():
            looked = f"{shown(name)} is not there" if name else "its name does not follow from them"
            given, advice = "", f"Give {named('target')} an existing file"
            if label != like:
                given = f" as {shown(self.target)} for {shown(like)}"
                advice = "Name files alike, such as train.en train.de and dev.en dev.de"
            raise CorpusError(
                f"{label} has no file of translations{given}: {looked}. Expected one line for each "
                f"line. {advice}"
            )
        if Path(name).samefile(source.path):
            raise CorpusError(
                f"{label} is both source and translation; expected two files. Give "
                f"{named('target')} the file of the translations"
            )
        if label != like:
            self.warn(f"{label}: its translations are in {shown(name)}.")
        return TextFile(shown(name), Path(name))

    def _no_target(self, source: TextFile) -> UsageError:
        """Return the error of a file of plain text alone: it may be a table by another name."""
        table = table_of(list(islice(self.lines(source), MAX_LINES)))
        advice = f"Give {named('target')} FILE"
        if table:
            kind, delimiter = table
            advice = (
                f"It looks like a table ({delimiter} between the fields): add "
                f"{named('input_format')} {kind}, and --no-header if its first line is data"
            )
        return UsageError(
            f"{source.label} is plain text and {named('target')} is not given; expected the file "
            f"with its translations, or a table. {advice}"
        )


def _kept(text: str | None) -> str | None:
    """Return a text that is not blank, else None."""
    return text if text and text.strip() else None
