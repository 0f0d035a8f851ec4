"""Documents of a text: mark where they end, count them, and cut a text between them."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError, UsageError

END = "\udfff"
"""The mark at the end of a document: a lone surrogate, which no decoded text contains."""

CUT_BY_LINES = ("line", "paragraph")
"""Documents that end at line ends, so that CR LF is read as LF unless it is kept."""

_BLANK_LINES = re.compile("\n\n+")


def check_text(text: str, name: str = "The text", advice: str = "") -> None:
    """Raise CorpusError for a lone surrogate, which is not valid in a text.

    Raises UsageError for another type than a string.
    """
    if not isinstance(text, str):
        raise UsageError(f"{name} is {text!r:.80}; expected a str")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{name} has half of a surrogate pair, U+{ord(text[error.start]):04X}, which is not "
            f"valid in a text. {advice or f'Remove it at character {error.start}.'}"
        ) from error


def lines(pieces: Iterable[str]) -> Iterator[str]:
    r"""Yield the lines of a text without their "\n"; an empty rest is not a line."""
    rest: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        rest.append(first)
        if others:
            yield "".join(rest)
            yield from others[:-1]
            rest = others[-1:]
    if last := "".join(rest):
        yield last


# ------------------------------------------------------------------ marking


def mark_text(text: str, document: str) -> str:
    """Replace each line end, or blank line, that ends a document by END."""
    if document == "line":
        return text.replace("\n", END)
    return _BLANK_LINES.sub(END, text) if document == "paragraph" else text


def mark_file(pieces: Iterable[str], document: str) -> Iterator[str]:
    """Yield the text of one file with an END at the end of each document, the last one too.

    Blank lines at the beginning and the end of a file are not paragraphs. An empty file is not a
    document.
    """
    if document == "paragraph":
        yield from _marked_paragraphs(pieces)
        return
    piece = ""
    for piece in pieces:
        yield mark_text(piece, document)
    if piece and not (document == "line" and piece[-1] == "\n"):
        yield END


def _marked_paragraphs(pieces: Iterable[str]) -> Iterator[str]:
    begun, held = False, ""  # held: line ends that end a paragraph if text follows
    for piece in pieces:
        text = held + piece if begun else piece.lstrip("\n")
        body = text.rstrip("\n")
        held = text[len(body) :][:2]
        if body:
            begun = True
            yield mark_text(body, "paragraph")
    if begun:
        yield END


# ------------------------------------------------------------------ counting and cutting


@dataclass(frozen=True, kw_only=True)
class TextStats:
    """Size of a text with its marks, and a hash of its content."""

    chars: int
    """Characters (code points); each END counts as one."""
    documents: int
    """Number of ENDs; 0 for a stream."""
    bytes: int
    """Bytes in UTF-8; each END counts as one."""
    sha256: str
    """Hexadecimal SHA-256 of the text in UTF-8, with "surrogatepass" for the ENDs."""


def scan(chunks: Iterable[str]) -> TextStats:
    """Return the statistics of a text in one pass, independent of where the chunks end."""
    digest = hashlib.sha256()
    chars = documents = size = 0
    for chunk in chunks:
        data = chunk.encode("utf-8", "surrogatepass")
        digest.update(data)
        chars += len(chunk)
        documents += chunk.count(END)
        size += len(data)
    size -= documents * (len(END.encode("utf-8", "surrogatepass")) - 1)
    return TextStats(chars=chars, documents=documents, bytes=size, sha256=digest.hexdigest())


def span(chunks: Iterable[str], start: int, stop: int | None, *, documents: bool) -> Iterator[str]:
    """Yield a text from character `start` up to, not including, `stop`; None is the end.

    With `documents`, both are numbers of documents, from 0. A document includes its END; text after
    the last END is one more document.
    """
    place = _document_place if documents else _character_place
    passed = 0  # characters or documents in earlier chunks
    for chunk in chunks:
        if stop is not None and passed >= stop:
            return
        first = place(chunk, start - passed)
        last = len(chunk) if stop is None else place(chunk, stop - passed)
        if first < last:
            yield chunk[first:last]
        passed += chunk.count(END) if documents else len(chunk)


def select_documents(chunks: Iterable[str], selected: NDArray[np.bool_]) -> Iterator[str]:
    """Yield the documents, with their END, whose entry in `selected`, shape (documents,), is true.

    Text after the last END is one more document. Documents without an entry are left out.
    """
    passed = 0  # ENDs in earlier chunks
    for chunk in chunks:
        texts = chunk.split(END)
        flags = selected[passed : passed + len(texts)]
        pairs = zip(texts[:-1], flags, strict=False)
        kept = "".join([text + END for text, flag in pairs if flag])
        if len(flags) == len(texts) and flags[-1]:
            kept += texts[-1]
        if kept:
            yield kept
        passed += len(texts) - 1


def _character_place(chunk: str, number: int) -> int:
    return min(max(number, 0), len(chunk))


def _document_place(chunk: str, number: int) -> int:
    """Return the index of the character after the first `number` ENDs of a chunk."""
    if number <= 0:
        return 0
    texts = chunk.split(END, number)
    return len(chunk) - len(texts[-1]) if len(texts) > number else len(chunk)


def split_point(stats: TextStats, fraction: float, *, documents: bool) -> int:
    """Return the number of the character, or document, where the last `fraction` of a text begins.

    Each side has at least one of two or more documents; with fraction 0 nothing is split off.
    Raises UsageError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"A fraction of {fraction} of the text cannot be held out. Use 0 to 0.99.")
    total = stats.documents if documents else stats.chars
    point = int(total * (1 - fraction))
    if documents and fraction > 0 and total >= 2:
        point = min(max(point, 1), total - 1)
    return point
