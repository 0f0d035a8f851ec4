"""Sentences whose words have tags, from CoNLL and CoNLL-U files.

EU NNP B-ORG          # text = EU rejects
rejects VBZ O         1   EU        EU      PROPN   NNP   _   2   nsubj   _   _
                      2   rejects   reject  VERB    VBZ   _   0   root    _   _
Peter NNP B-PER
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import NamedTuple

from charlm.errors import CorpusError, UsageError, named
from charlm.text.sentences import split_words
from charlm.text.sources.compressed import unpacked_name
from charlm.text.sources.files import Spool, TextFile, shown
from charlm.text.sources.kinds import MAX_LINES, is_conll
from charlm.text.sources.rows import Rows
from charlm.text.sources.text_lines import FileRules, LineReader
from charlm.text.tagged_heads import (
    DOCUMENT,
    Head,
    cells_of,
    check_words,
    check_words_alone,
    has_groups,
    is_row,
    names_columns,
)
from charlm.text.tagged_tables import Sentence, table_sentences, undivided
from charlm.units import count_of

SUFFIXES = (".conll", ".iob", ".bio", ".conllu")
"""Ends of names of files that are read as CoNLL where text without tags is expected."""
COLUMNS = {"lemma": 2, "upos": 3, "xpos": 4, "feats": 5}
"""Columns of CoNLL-U that hold tags, counted from 0."""
MAX_WORDS = 250
"""Words of a sentence above which there is a warning: the empty lines may be missing."""
MIN_COMPARED = 20
"""Rows from which the numbers of different words and tags are compared."""
_LETTER = re.compile(r"[^\W\d_]")
_ID = re.compile(r"([0-9]+)([-.][0-9]+)?")
_EXPECTED = "a word and its tag on each line, and an empty line after each sentence"


def read_sentences(sources: Sequence[str], rules: FileRules) -> Iterator[Sentence]:
    """Yield the sentences of sources; the target of the rules names the column of the tags.

    It is the number of a column, or a name of `COLUMNS` for CoNLL-U. If tags are not needed, each
    line of a file that does not look like CoNLL is a sentence of words between blanks, and files
    may lack tags. Raises CorpusError for a source without tags that are needed, and for rows that
    do not match.
    """
    return _Reader(rules).read(sources)


Numbered = Iterable[tuple[int, str]]


class _Row(NamedTuple):
    """A row of a file: the number of its line, the word, and its tag if there are tags."""

    number: int
    word: str
    tag: str | None


def _sentences(rows: Iterable[_Row | None], label: str) -> Iterator[Sentence]:
    """Join the rows of each sentence; None ends one."""
    own: list[_Row] = []
    for row in rows:
        if row is not None:
            own.append(row)
        elif own:
            tags = tuple(each.tag for each in own if each.tag is not None)
            words = tuple(each.word for each in own)
            yield Sentence(words, tags or None, f"{label}: line {own[0].number:,}")
            own = []


class _Reader(LineReader):
    """Reader of the sources of one split."""

    def read(self, names: Sequence[str]) -> Iterator[Sentence]:
        sources = self.find(names)
        with self.opened(sources):
            for source in sources:
                found = False
                own = self._table(source) if isinstance(source, Rows) else self._file(source)
                for sentence in own:
                    found = True
                    yield sentence
                if self.needed and not found:
                    raise CorpusError(
                        f"{source.label} has no sentences; expected {_EXPECTED}. Give another file"
                    )

    def _table(self, rows: Rows) -> Iterator[Sentence]:
        """Yield the sentences of a table."""
        return self._checked(table_sentences(rows, self), rows.label)

    def _file(self, source: TextFile | Spool) -> Iterator[Sentence]:
        numbered = enumerate(self.lines(source), 1)
        head = list(islice(numbered, MAX_LINES))
        rest = chain(head, numbered)
        lines = [line for _, line in head]
        name = unpacked_name(source.path) if isinstance(source, TextFile) else source.label
        name = name.lower()
        check_words_alone(lines, source.label)
        if not self.needed and not name.endswith(SUFFIXES):
            if not is_conll("\n".join(lines)) and not has_groups(lines):
                self.advise(lines, source.label)
                for number, line in rest:
                    words = tuple(word for word, _ in split_words(line))
                    yield Sentence(words, None, f"{source.label}: line {number:,}")
                return
            self._report(source.label, "looks like CoNLL; the first word of each line is read.")
        first = next(filter(is_row, lines), "")
        is_universal = _ID.fullmatch(first.split("\t")[0]) and first.count("\t") == 9
        if is_universal or name.endswith(".conllu"):
            rows = self._universal(rest, source.label)
        else:
            rows = self._plain(rest, head, source.label)
        sentences = self._divided(_sentences(rows, source.label), source.label)
        yield from self._checked(sentences, source.label)

    def _divided(self, sentences: Iterable[Sentence], label: str) -> Iterator[Sentence]:
        """Yield sentences; warn of a single one that is evidently several."""
        number = 0
        for number, sentence in enumerate(sentences, 1):  # noqa: B007
            yield sentence
        if number == 1 and (doubt := undivided(sentence.words)):
            self.warn(f"{label} {doubt}")

    def _report(self, label: str, sentence: str) -> None:
        """Warn of a fact about a file, unless it was reported of another one."""
        if self.rules.reported.setdefault(sentence, label) == label:
            self.warn(f"{label} {sentence}")

    def _checked(self, sentences: Iterable[Sentence], label: str) -> Iterator[Sentence]:
        """Yield sentences; warn of one that is too long to be one."""
        warned = False
        for sentence in sentences:
            if len(sentence.words) > MAX_WORDS and not warned:
                warned = True
                self.warn(
                    f"{sentence.place} begins a sentence of {len(sentence.words):,} words; "
                    f"expected an empty line after each sentence of {label}."
                )
            yield sentence

    # -------------------------------------------------------------- CoNLL-U

    def _universal(self, numbered: Numbered, label: str) -> Iterator[_Row | None]:
        """Yield the rows of a file; None ends a sentence."""
        own = self.columns.target if self.columns.target in COLUMNS else None
        name = (self.target or own or "upos").lower()
        if name not in COLUMNS:
            raise UsageError(
                f"{named('target')} is {self.target!r}; expected one of {', '.join(COLUMNS)} for "
                f"CoNLL-U files such as {label}"
            )
        tagged, without = False, 0
        for number, line in chain(numbered, [(0, "")]):
            if not line.strip(" \t"):
                yield None
                continue
            if line.startswith("#"):
                continue
            cells = line.split("\t")
            match = _ID.fullmatch(cells[0])
            if match is None or len(cells) != 10:
                wrong = count_of(len(cells), "column") if match else f"the ID {cells[0]!r:.40}"
                raise CorpusError(
                    f"{label}: line {number:,} has {wrong} ({line.strip()!r:.60}); expected the "
                    "10 columns of CoNLL-U with tabs between them, first an ID such as 7, 2-3 or "
                    "8.1. Correct that line"
                )
            if match[2]:  # a range of words that one token spells, or an empty node
                continue
            if not cells[1].strip():
                raise CorpusError(
                    f"{label}: line {number:,} has {_no_word(cells[1], 'FORM')}; expected a word. "
                    "Correct that line"
                )
            tag = cells[COLUMNS[name]].strip()
            if not tag and self.needed:
                raise CorpusError(
                    f"{label}: line {number:,} has an empty {name.upper()}; expected a tag, or _ "
                    "for none. Correct that line"
                )
            tagged |= tag != "_"
            without += tag == "_" and name != "feats"
            yield _Row(number, cells[1], tag)
        if self.needed and not tagged:
            raise CorpusError(
                f"{label} has no {name}: its column holds only _; expected tags. Choose another "
                f"column with {named('target')}, or another file"
            )
        if self.needed:
            self.columns.keep("", name)
            known = ", as in training" if own == name and self.columns.run else ""
            self._report(label, f"is read as CoNLL-U: words are FORM, tags {name.upper()}{known}.")
        if self.needed and without:
            self.warn(
                f"{label}: {count_of(without, 'word')} without {name.upper()} (_), learned as a "
                f"tag of that name."
            )

    # -------------------------------------------------------------- CoNLL

    def _plain(self, numbered: Numbered, head: Head, label: str) -> Iterator[_Row | None]:
        """Yield the rows of a file; None ends a sentence."""
        head = [(number, line) for number, line in head if is_row(line)]
        first_number, first = head[0] if head else (0, "")
        tabs = "\t" in first.strip()
        names = first_number if names_columns(first, tabs) else 0
        width = len(cells_of(first, tabs)) if first else 0
        column = self._column(width, label) if width else 0
        if names:
            self.warn(
                f"{label}: line {names:,} names the columns, and is left out ({first!r:.60})."
            )
        if width > 1:
            self._check_head([row for row in head if row[0] != names], tabs, width, column, label)
        elif not self.needed:
            self.advise([line for _, line in head], label)
        inside = False  # of a sentence
        known, doubtful = set[str](), dict[str, tuple[int, str]]()  # tags; those of rows with "#"
        for number, line in chain(numbered, [(0, "")]):
            cells = cells_of(line, tabs)
            comment = line.startswith("#") and not inside and len(cells) != width
            if comment or not line.strip(" \t") or cells[0] == DOCUMENT or number == names:
                inside = False
                yield None
                continue
            if len(cells) != width or not cells[0].strip() or (self.needed and not cells[column]):
                raise CorpusError(_row_problem(f"{label}: line {number:,}", cells, width))
            inside = True
            yield _Row(number, cells[0], cells[column] if width > 1 else None)
            if not line.startswith("#"):
                known.add(cells[column])
            elif cells[column] not in known:
                doubtful.setdefault(cells[column], (number, line))
        if width > 1:
            own = {tag: row for tag, row in doubtful.items() if tag not in known}
            self._check_comments(own, width, label)
        if self.needed and width:
            place = f"column {column + 1}"
            trained = self.columns.target if self.columns.run else None
            if trained == str(column + 1):
                place += ", as in training"
            elif trained:
                place += f" (run {shown(self.columns.run)} was trained on {shown(trained)})"
            self.columns.keep("", str(column + 1))
            self._report(label, f"is read as CoNLL: words in column 1, tags in {place}.")

    def _check_head(self, head: Head, tabs: bool, width: int, column: int, label: str) -> None:
        """Check that column 1 of the first rows holds words, by their cells and by their number."""
        check_words(head, tabs, width, label)
        rows = [cells for _, line in head if len(cells := cells_of(line, tabs)) == width]
        words, tags = ({row[at] for row in rows if _LETTER.search(row[at])} for at in (0, column))
        if len(rows) >= MIN_COMPARED and len(words) < len(tags):
            self.warn(
                f"{label}: column 1, read as words, has {len(words):,} different ones in the first "
                f"{len(rows):,} rows, and column {column + 1}, read as tags, {len(tags):,}. If it "
                "holds the words, put it before the others."
            )

    def _check_comments(self, rows: Mapping[str, tuple[int, str]], width: int, label: str) -> None:
        """Report the first of the rows that may be comments: no other row has their tag.

        Raises CorpusError if tags are needed.
        """
        for tag, (number, line) in rows.items():
            place = f"{label}: line {number:,} ({line!r:.60})"
            if not self.needed:
                self.warn(f"{place} is read as a word, {line.split()[0]}. Remove it if it is none.")
                return
            raise CorpusError(
                f"{place} is a comment or a word with the tag {tag!r:.40}, which no other row has; "
                f"expected another number of columns than {width} in a comment. Remove the line if "
                "it is one"
            )

    def _column(self, width: int, label: str) -> int:
        """Return the column of the tags, from 0. Raises an error if it is not there."""
        target = self.target
        if width == 1 and not self.needed:
            return 0
        if target is not None and not (target.isdecimal() and target.isascii()):
            raise UsageError(
                f"{named('target')} is {target!r}; expected the number of the column of the tags, "
                f"since {label} is not CoNLL-U"
            )
        if width > 1 and target is not None and not 2 <= int(target) <= width:
            advice = f"Give a number from 2 to {width}" if width > 2 else "Leave it out"
            raise CorpusError(
                f"{label} has {count_of(width, 'column')}; expected tags in column {target} by "
                f"{named('target')}, after the words in column 1. {advice}"
            )
        if width == 1:
            raise CorpusError(
                f"{label} has words without tags, one column; expected {_EXPECTED}. Add the tags, "
                "or give another file"
            )
        if target is None and (known := self._known_column(width, label)):
            return known - 1
        return int(target or width) - 1

    def _known_column(self, width: int, label: str) -> int:
        """Return the column of the run or of the first file, from 1; 0 if there is none to prefer.

        Raises CorpusError if a file with tags lacks the column of the run and has several others.
        """
        known = self.columns.target or ""
        number = int(known) if known.isdecimal() and known.isascii() else 0
        if 2 <= number <= width:
            return number
        if self.columns.run and number and self.needed and width > 2:
            raise CorpusError(
                f"{label} has {width} columns; expected tags in column {number}, on which run "
                f"{shown(self.columns.run)} was trained. Name their column with {named('target')}"
            )
        return 0


def _row_problem(place: str, cells: Sequence[str], width: int) -> str:
    """Return what is wrong with a row of a CoNLL file."""
    if len(cells) != width:
        row = " ".join(cells)
        return (
            f"{place} has {count_of(len(cells), 'column')} ({row!r:.60}); expected {width}, as in "
            "the first row: a word first, and its tag. Correct that line"
        )
    missing = "an empty tag" if cells[0].strip() else _no_word(cells[0], "word")
    return f"{place} has {missing}; expected one in each row. Correct that line"


def _no_word(cell: str, noun: str) -> str:
    """Return what is wrong with a word that is empty, or a blank such as U+00A0."""
    return f"the {noun} {cell!r:.40}, which is blank" if cell else f"an empty {noun}"
