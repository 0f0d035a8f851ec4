"""Word vectors: read the formats of GloVe, word2vec and fastText, and write word2vec's.

Text files have a word and its numbers on each line; word2vec and fastText write the number and the
width of the vectors in the first line. word2vec's binary format has that line too, and then for
each word: the word, a blank, and its numbers as 32-bit floats.
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
from charlm.products import product
from charlm.text.sources.files import TextFile, readable, shown

Vector = NDArray[np.float32]
MAX_LINE = 1 << 20
MAX_WORD = 1 << 12
PEEKED = 1 << 16
"""Bytes examined to distinguish text from binary data."""
CONTROLS = bytes(set(range(32)) - set(b"\t\n\r")) + b"\x7f"
"""Control characters that are not in the text formats."""


@dataclass(frozen=True, kw_only=True)
class WordVectors:
    """Vectors of `width` numbers by word, and warnings about irregularities in their file."""

    width: int
    by_word: dict[str, Vector]
    warnings: tuple[str, ...] = ()


def read_vectors(path: Path, words: Collection[str]) -> WordVectors:
    """Read the vectors of these words from a file, which may be compressed (.gz .bz2 .xz .zst).

    Raises CorpusError with the number of the first line that is not a word and its numbers.
    """
    source = TextFile(shown(path), path)
    warnings: list[str] = []
    by_word: dict[str, Vector] = {}
    with readable(source.label):
        raw: Any = source.open()
        with io.BufferedReader(raw, PEEKED) as file:
            number, width, entries = _open(file, source.label, warnings)
            count = 0
            for word, vector in entries:
                count += 1
                if word in words:
                    by_word[word] = vector
    if number is not None and number != count:
        short = ". It may be cut short" if count < number else ""
        warnings.append(
            f"{source.label}: the first line says {number:,} vectors, the file has "
            f"{count:,}{short}; all of them are used"
        )
    for word, vector in by_word.items():
        if not np.isfinite(vector).all():
            raise CorpusError(
                f"{source.label}: the vector of {word!r} has a number that is not finite; expected "
                "finite numbers. Make the file again, or remove that word"
            )
    return WordVectors(width=width, by_word=by_word, warnings=tuple(warnings))


def _open(
    file: io.BufferedReader, name: str, warnings: list[str]
) -> tuple[int | None, int, Iterator[tuple[str, Vector]]]:
    """Read the first line; return the number and width of the vectors, and an iterator of them."""
    first = file.readline(MAX_LINE)
    if first.startswith(codecs.BOM_UTF8):
        warnings.append(f"{name} begins with a byte-order mark, which was removed")
        first = first.removeprefix(codecs.BOM_UTF8)
    counts = first.split()
    if len(counts) == 2 and all(count.isdigit() for count in counts):
        number, width = int(counts[0]), int(counts[1])
        if _is_binary(file.peek(PEEKED)[:PEEKED], width):
            return number, width, _binary_entries(file, number, width, name)
        return number, width, _text_entries(file, width, name, 2)
    width = len(counts) - 1
    if width < 1:
        raise CorpusError(
            f"{name}: line 1 is {_excerpt(first)}; expected a word and its numbers, or the two "
            "counts of word2vec's format"
        )
    return None, width, _text_entries(chain([first], file), width, name, 1)


def _is_binary(start: bytes, width: int) -> bool:
    """Return True if the data after the first line is in word2vec's binary format.

    Even a text with an error in its first row has numbers there and hardly any control characters,
    while one in ten bytes of 32-bit floats is a control character.
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
    """Yield words and vectors; numbers are counted from the right, since words may have blanks."""
    for number, line in enumerate(lines, start=first_line):
        if not line.strip():
            continue
        word, *numbers = line.rstrip().rsplit(b" ", width)
        try:
            vector = np.array(numbers, np.float32)
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
                f"{name}: ends in entry {entry + 1:,} of {number:,}; expected a complete file in "
                "word2vec's binary format"
            )
        yield word.decode("utf-8", "replace"), np.frombuffer(data, "<f4").astype(np.float32)
    if file.read(MAX_WORD).strip():
        raise CorpusError(
            f"{name}: has more data after the {number:,} entries of {width} numbers that its first "
            "line announces; expected its end there. Correct the counts, or make the file again"
        )


def _word(file: io.BufferedReader) -> bytes:
    """Read up to the next blank; some writers put a line end before each word."""
    word = bytearray()
    while len(word) < MAX_WORD and (byte := file.read(1)) not in (b"", b" "):
        word += byte
    return bytes(word).lstrip(b"\n")


def _excerpt(line: bytes) -> str:
    text = line[:40].decode("utf-8", "replace").strip()
    return repr(text + " ..." if len(line) > 40 else text)


def written_name(token: str) -> str:
    """Return a token as it is written in files of vectors, with white space escaped."""
    return "".join(
        c if not c.isspace() else c.encode("unicode_escape").decode().replace(" ", "\\x20")
        for c in token
    )


def vector_lines(tokens: Sequence[str], matrix: NDArray[np.float32]) -> Iterator[str]:
    """Yield the lines of word2vec's text format, each token as its `written_name`."""
    yield f"{len(tokens)} {matrix.shape[1]}\n"
    for token, vector in zip(tokens, matrix, strict=True):
        yield f"{written_name(token)} {' '.join(f'{value:.6g}' for value in vector)}\n"


def nearest(matrix: NDArray[np.float32], index: int, top: int) -> list[tuple[int, float]]:
    """Return the `top` other rows with the greatest cosine with a row, and the cosines.

    Raises UsageError unless `top` is 1 or more.
    """
    check_count("top", top, 1)
    lengths = np.linalg.norm(matrix, axis=1)
    cosines = product(matrix, matrix[index]) / np.maximum(lengths * lengths[index], 1e-30)
    cosines[index] = -np.inf
    order = np.argsort(-cosines, kind="stable")[: min(top, len(matrix) - 1)]
    return [(int(at), float(cosines[at])) for at in order]
