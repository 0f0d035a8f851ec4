"""Word vectors in the formats of their makers: read those of GloVe, word2vec and fastText.

Text files hold a word and its numbers on each line, word2vec's and fastText's after a line with
both counts. word2vec's binary format has the same first line; then each word, a blank, and its
numbers as 32-bit floats. Only the words that are asked for are kept in memory.
"""

import codecs
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError, check_count
from charlm.text.sources.files import TextFile, readable, shown

Vector = NDArray[np.float32]
MAX_LINE = 1 << 20
MAX_WORD = 1 << 12
PEEKED = 1 << 16
"""Bytes that are looked at to tell text from binary."""
CONTROLS = bytes(set(range(32)) - set(b"\t\n\r")) + b"\x7f"
"""Control characters that a text of vectors does not hold."""


@dataclass(frozen=True, kw_only=True)
class WordVectors:
    """Vectors of `width` numbers by word, and sentences about what was odd in their file."""

    width: int
    by_word: dict[str, Vector]
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class _Layout:
    """Form of a file: its first line of text, the counts that its header gives, binary or text."""

    first: bytes
    number: int | None
    width: int
    binary: bool


def read_vectors(path: Path, wanted: Collection[str]) -> WordVectors:
    """Read the vectors of the wanted words from a file (`.gz .bz2 .xz .zst` as well).

    Raises CorpusError with the place of the first line that is not a word and its numbers.
    """
    source = TextFile(shown(path), path)
    notes: list[str] = []
    found: dict[str, Vector] = {}
    with readable(source.label):
        raw: Any = source.open()
        with io.BufferedReader(raw, PEEKED) as file:
            layout = _layout(file, source.label, notes)
            count = 0
            for word, vector in _entries(file, layout, source.label):
                count += 1
                if word in wanted:
                    found[word] = vector
    if layout.number not in (None, count):
        short = ". It may be cut short" if count < (layout.number or 0) else ""
        notes.append(
            f"{source.label}: the first line says {layout.number:,} vectors, the file holds "
            f"{count:,}{short}; all of them are used"
        )
    for word, vector in found.items():
        if not np.isfinite(vector).all():
            raise CorpusError(
                f"{source.label}: the vector of {word!r} holds a number that is not finite; "
                "expected finite ones. Make the file again, or leave that word out"
            )
    return WordVectors(width=layout.width, by_word=found, notes=tuple(notes))


def _layout(file: io.BufferedReader, name: str, notes: list[str]) -> _Layout:
    """Read the first line and decide what the rest of the file is."""
    first = file.readline(MAX_LINE)
    if first.startswith(codecs.BOM_UTF8):
        notes.append(f"{name} begins with a byte-order mark; it was dropped")
        first = first.removeprefix(codecs.BOM_UTF8)
    counts = first.split()
    if len(counts) == 2 and all(count.isdigit() for count in counts):
        number, width = int(counts[0]), int(counts[1])
        binary = _is_binary(file.peek(PEEKED)[:PEEKED], width)
        return _Layout(first=first, number=number, width=width, binary=binary)
    width = len(counts) - 1
    if width < 1:
        raise CorpusError(
            f"{name}: line 1 is {_excerpt(first)}; expected a word and its numbers, or the two "
            "counts of word2vec's format"
        )
    return _Layout(first=first, number=None, width=width, binary=False)


def _entries(file: io.BufferedReader, layout: _Layout, name: str) -> Iterator[tuple[str, Vector]]:
    if layout.binary:
        return _binary_entries(file, layout.number or 0, layout.width, name)
    if layout.number is not None:
        return _text_entries(file, layout.width, name, 2)
    return _text_entries(chain([layout.first], file), layout.width, name, 1)


def _is_binary(start: bytes, width: int) -> bool:
    """Whether what follows the counts is word2vec's binary format, not text.

    A text with a mistake in its first row is still a text: it has a number there, and no control
    characters, of which one byte in ten of 32-bit floats is one.
    """
    line, end, _ = start.partition(b"\n")
    numbers = line.rstrip().rsplit(b" ", width)[1:]
    if end and len(numbers) == width and all(map(_is_number, numbers)):
        return False
    controls = len(start) - len(start.translate(None, CONTROLS))
    return 100 * controls > len(start) or not any(map(_is_number, line.split()[1:]))


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_entries(
    lines: Iterable[bytes], width: int, name: str, first_line: int
) -> Iterator[tuple[str, Vector]]:
    """A word may hold blanks (some of GloVe's do): the numbers are counted from the right."""
    for number, line in enumerate(lines, start=first_line):
        if not line.strip():
            continue
        word, *parts = line.rstrip().rsplit(b" ", width)
        try:
            vector = np.array(parts, np.float32)
            last = word.rpartition(b" ")
            if len(vector) != width or (last[0] and _is_number(last[2])):
                raise ValueError
            yield word.decode("utf-8", "replace"), vector
        except ValueError as error:
            count = max(len(line.split()) - 1, 0)
            raise CorpusError(
                f"{name}: line {number} is {_excerpt(line)}, {count} fields after the word; "
                f"expected a word and {width} numbers. Correct that line, or the counts in line 1"
            ) from error


def _binary_entries(
    file: io.BufferedReader, number: int, width: int, name: str
) -> Iterator[tuple[str, Vector]]:
    for entry in range(number):
        word = _word(file)
        data = file.read(4 * width)
        if len(data) < 4 * width:
            raise CorpusError(
                f"{name}: ends in entry {entry + 1:,} of {number:,}; expected a whole file in "
                "word2vec's binary format"
            )
        yield word.decode("utf-8", "replace"), np.frombuffer(data, "<f4").astype(np.float32)
    if file.read(MAX_WORD).strip():
        raise CorpusError(
            f"{name}: goes on after {number:,} entries of {width} numbers, the counts in its first "
            "line; expected its end there. Correct the counts, or make the file again"
        )


def _word(file: io.BufferedReader) -> bytes:
    """What stands before the next blank; some writers end the entry before it with a line end."""
    found = bytearray()
    while len(found) < MAX_WORD and (byte := file.read(1)) not in (b"", b" "):
        found += byte
    return bytes(found).lstrip(b"\n")


def _excerpt(line: bytes) -> str:
    text = line[:40].decode("utf-8", "replace").strip()
    return repr(text + " ..." if len(line) > 40 else text)


def written_name(token: str) -> str:
    """A token as files of vectors can hold it: white space is written as in Python."""
    return "".join(
        c if not c.isspace() else c.encode("unicode_escape").decode().replace(" ", "\\x20")
        for c in token
    )


def vector_lines(tokens: Sequence[str], matrix: NDArray[np.float32]) -> Iterator[str]:
    """word2vec's text format, line by line, each token as its `written_name`."""
    yield f"{len(tokens)} {matrix.shape[1]}\n"
    for token, vector in zip(tokens, matrix, strict=True):
        yield f"{written_name(token)} {' '.join(f'{value:.6g}' for value in vector)}\n"


def nearest(matrix: NDArray[np.float32], index: int, top: int) -> list[tuple[int, float]]:
    """Return the `top` rows of the greatest cosine with a row, and that cosine; not itself.

    Raises UsageError unless `top` is 1 or more.
    """
    check_count("top", top, 1)
    lengths = np.linalg.norm(matrix, axis=1)
    cosines = matrix @ matrix[index] / np.maximum(lengths * lengths[index], 1e-30)
    cosines[index] = -np.inf
    order = np.argsort(-cosines, kind="stable")[: min(top, len(matrix) - 1)]
    return [(int(at), float(cosines[at])) for at in order]
