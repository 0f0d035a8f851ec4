"""A corpus: text of any size, read in chunks and repeatedly, with END after documents."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charlm.config.corpus import DOCUMENT_NAMES, ReadSettings
from charlm.errors import CorpusError, check_choice
from charlm.text.documents import END, check_text, lines, mark_file
from charlm.text.sources import decoding
from charlm.text.sources.encodings import invalid, own_encoding
from charlm.text.sources.files import BLOCK_BYTES, Spool, TextFile, blocks
from charlm.text.sources.kinds import advice_for
from charlm.text.sources.line_ends import LineEnds
from charlm.text.sources.names import Source, find, safe_name, short_name
from charlm.text.sources.rows import Columns, Record, Rows, Warn

MAX_WARNINGS = 20
"""Warnings that are kept; of further ones only the number is reported."""
Stamps = tuple[tuple[int, ...], ...]
"""Size, modification time and inode of each file of a corpus."""

CHUNK_CHARS = 1 << 20
"""Minimum size of a chunk except the last, in characters; the maximum is just below twice that."""


@dataclass(frozen=True)
class _Memory:
    """A text in memory."""

    label: str
    text: str


class Corpus:
    """A text that can be read repeatedly, in chunks, with END after each document.

    `sources` are names as in `charlm.text.sources.names`. `document` is one of `DOCUMENT_NAMES`;
    "auto" is "line" if every source is a table, else "stream". The fields of `reading` can be given
    by name too, such as `encoding="cp1252"`. `columns` are those of a run, read where tables have
    them. Names are looked up at once; `chunks` reads the text.
    Raises UsageError for an invalid argument, CorpusError for a name without a text.
    """

    sources: tuple[str, ...]
    """Names as given."""
    document: str
    """Unit of the text: stream, line, paragraph or file. Rows of tables are lines."""
    name: str
    """Short name for a run of this text: letters, digits, dot, underscore and hyphen."""
    warnings: list[str]
    """Messages for the user, each once."""
    notes: list[str]
    """Sentences about columns of labels, which only training reports."""
    columns: Columns
    """Columns of its tables, filled in when the first one is read."""
    crlf: bool
    """True if lines of the text, once read to its end, end with CR LF."""

    def __init__(
        self,
        sources: Sequence[str],
        *,
        document: str = "auto",
        reading: ReadSettings | None = None,
        columns: Columns | None = None,
        **fields: Any,
    ) -> None:
        self._reading = decoding.with_codec(replace(reading or ReadSettings(), **fields))
        self._collect()
        sources = [sources] if isinstance(sources, str) else sources
        self.columns = columns or Columns()
        opened = find(sources, self._reading, self._warn, None, self.columns)
        self._set_up(tuple(sources), opened, document, short_name(sources[0], opened))

    @classmethod
    def from_text(
        cls, text: str, document: str = "stream", name: str = "text", *, keep_cr: bool = False
    ) -> "Corpus":
        """Make a corpus of a text in memory, which counts as one file.

        `keep_cr` is as in `ReadSettings`. Raises CorpusError for a lone surrogate.
        """
        check_text(text)
        corpus = cls.__new__(cls)
        corpus._reading, corpus.columns = ReadSettings(keep_cr=keep_cr), Columns()
        corpus._collect()
        corpus._set_up((name,), [_Memory(name, text)], document, safe_name(name))
        return corpus

    def with_document(self, document: str) -> "Corpus":
        """Return the corpus with another unit of document; standard input is not read again."""
        other = copy.copy(self)
        other._collect()
        other._set_up(self.sources, self._opened, document, self.name)
        return other

    def _set_up(
        self,
        sources: tuple[str, ...],
        opened: Sequence[Source | _Memory],
        document: str,
        name: str,
    ) -> None:
        check_choice("document", document, DOCUMENT_NAMES)
        if document == "auto":
            document = "line" if all(isinstance(source, Rows) for source in opened) else "stream"
        self.sources, self.document, self.name = sources, document, name
        self.crlf = False
        self._opened = opened
        self._encodings: dict[str, str] = {}
        self._block_bytes = BLOCK_BYTES
        self._chunk_chars = CHUNK_CHARS

    def _collect(self) -> None:
        self.warnings, self.notes = [], []
        self._advised: dict[str, dict[str, None]] = {}  # labels of files by the advice about them
        self._warn, self._note = collector(self.warnings), collector(self.notes)

    @property
    def has_tables(self) -> bool:
        """True if one of the sources is a table."""
        return any(isinstance(source, Rows) for source in self._opened)

    def stamps(self) -> Stamps:
        """Return the stamp of each file, by which a change can be detected later."""
        paths = [getattr(source, "path", None) for source in self._opened]
        return tuple(_stamp(path) for path in paths if isinstance(path, Path))

    def __repr__(self) -> str:
        return f"Corpus({list(self.sources)!r}, document={self.document!r})"

    def chunks(self) -> Iterator[str]:
        """Yield the whole text from the start in chunks that are not empty.

        Memory is bounded. Raises CorpusError if the text cannot be read or decoded.
        """
        return chunked(self._whole(), self._chunk_chars)

    def _whole(self) -> Iterator[str]:
        ends = LineEnds(self.document, keep=self._reading.keep_cr)
        try:
            yield from self._stream(ends) if self.document == "stream" else self._documents(ends)
        except CorpusError as error:
            if not error.place or self._reading.encoding == decoding.AUTO:
                raise
            raise invalid(self._opened, self._reading.encoding, error) from error
        ends.report(self._warn)
        for labels in self._advised.values():
            if len(labels) > 1:
                self._warn(f"{next(iter(labels))} is the first of {len(labels):,} such files.")
        self.crlf = ends.kept_cr

    def records(self) -> Iterator[Record]:
        """Yield each row of the tables and each line of the other texts, numbered from 1.

        A row without text has the text None. Raises the errors of `chunks`.
        """
        number = 0
        ends = LineEnds("line", keep=self._reading.keep_cr)
        for source in self._opened:
            if isinstance(source, Rows):
                rows: Iterable[Record] = source.records(self._warn)
            else:
                pieces = ends.read(self._pieces(source), source.label)
                rows = (Record(at, at, text) for at, text in enumerate(lines(pieces), start=1))
            for row in rows:
                number += 1
                yield row if row.number == number else row._replace(number=number)
        ends.report(self._warn)

    def _documents(self, ends: LineEnds) -> Iterator[str]:
        for source in self._opened:
            if isinstance(source, Rows):
                for text in source.texts(self._warn, self._note):
                    yield text
                    yield END
            else:
                pieces = ends.read(self._pieces(source), source.label)
                yield from mark_file(pieces, self.document)

    def _stream(self, ends: LineEnds) -> Iterator[str]:
        """Yield the sources in order; each source, and each row of a table, begins a new line."""
        last, in_rows = "\n", False
        before, open_ended = "", []  # label of the previous file; files without a final line end
        for source in self._opened:
            if isinstance(source, Rows):
                for piece in source.texts(self._warn, self._note):
                    if in_rows or last != "\n":
                        yield "\n"
                    yield piece
                    in_rows, last = True, piece[-1:] or last
                continue
            at_start = True
            for piece in ends.read(self._pieces(source), source.label):
                if at_start and (in_rows or (last not in "\r\n" and not self._reading.glue)):
                    yield "\n"
                    open_ended += [] if in_rows else [before]
                yield piece
                at_start, in_rows, last, before = False, False, piece[-1], source.label
        if open_ended:
            self._warn(_line_end_note(open_ended))

    def _pieces(self, source: TextFile | Spool | _Memory) -> Iterator[str]:
        if isinstance(source, _Memory):
            size, text = self._chunk_chars, source.text
            yield from (text[start : start + size] for start in range(0, len(text), size))
            return
        encoding = self._encoding_of(source)
        file, errors = blocks(source, self._block_bytes), self._reading.errors
        unseen = self._reading.input_format == "auto"  # no advice about an explicit "text"
        for piece in decoding.decode(
            file, source.label, self._warn, encoding=encoding, errors=errors
        ):
            if piece:
                if unseen and (advice := advice_for(piece, self.document)):
                    self._advise(advice, source.label)
                unseen = False
                yield piece

    def _advise(self, advice: str, label: str) -> None:
        """Warn about a file of another kind; of further files only their number is reported."""
        labels = self._advised.setdefault(advice, {})
        labels[label] = None
        self._warn(f"{next(iter(labels))} {advice}")

    def _encoding_of(self, source: TextFile | Spool) -> str:
        if isinstance(source, TextFile) and source.is_converted:
            return "utf-8"
        if self._reading.encoding != decoding.AUTO:
            return self._reading.encoding
        if source.label not in self._encodings:
            self._encodings[source.label] = own_encoding(source, self._warn)
        return self._encodings[source.label]


def collector(warnings: list[str]) -> Warn:
    """Return a function that adds a sentence to a list, each once; of many only their number."""
    further: set[str] = set()

    def warn(sentence: str) -> None:
        """Add a sentence."""
        if sentence in warnings:
            return
        if len(warnings) < MAX_WARNINGS:
            warnings.append(sentence)
        else:  # warnings about thousands of files
            further.add(sentence)
            warnings[MAX_WARNINGS:] = [f"And {len(further):,} more warnings like these."]

    return warn


def _line_end_note(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return f"{labels[0]} has no line end at its end; one was added before the next file."
    return (
        f"{len(labels):,} files (the first is {labels[0]}) have no line end at their end; one was "
        "added after each of them."
    )


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_size, status.st_mtime_ns, status.st_ino


def chunked(pieces: Iterable[str], size: int = CHUNK_CHARS) -> Iterator[str]:
    """Join and cut pieces into chunks of at least `size` and less than 2 `size` characters."""
    held: list[str] = []
    count = 0
    for piece in pieces:
        for start in range(0, len(piece), size):
            held.append(piece[start : start + size])
            count += len(held[-1])
            if count >= size:
                yield "".join(held)
                held, count = [], 0
    if count:
        yield "".join(held)
