"""Encoded text: ids, the ends of documents, and the size of the text; in memory and on disk."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError, RunError
from charlm.files.safe_read import file_size, read_json
from charlm.text.documents import END
from charlm.text.tokenizers.building import Read
from charlm.text.tokenizers.cutting import safe_chunks
from charlm.text.tokenizers.vocabulary import Vocabulary, code_points

DTYPES = ("uint8", "uint16", "uint32")


@dataclass(frozen=True, kw_only=True)
class TextCounts:
    """Size of a text, independent of its tokens; END counts as one character and one byte."""

    chars: int = 0
    bytes: int = 0
    words: int = 0

    def __add__(self, other: "TextCounts") -> "TextCounts":
        """Return the size of two texts together."""
        return TextCounts(
            chars=self.chars + other.chars,
            bytes=self.bytes + other.bytes,
            words=self.words + other.words,
        )

    def part(self, fraction: float) -> "TextCounts":
        """Return the size of this fraction of the text, as if all of it were alike."""
        return TextCounts(**{name: round(fraction * size) for name, size in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class EncodedText:
    """Ids of a text, shape (tokens,), with the position after the end of each document.

    The last document ends at the last token. Each document ends with EOS. A stream is one document
    without EOS at its end.
    """

    ids: NDArray[Any]
    ends: NDArray[np.int64]
    counts: TextCounts
    is_stream: bool
    firsts: NDArray[np.int64] | None = None
    """First input of each document, shape (documents,); None if it is EOS everywhere."""

    @classmethod
    def stream(cls, ids: NDArray[Any]) -> "EncodedText":
        """Return ids as a stream of unknown size."""
        ends = np.array([len(ids)], np.int64)
        return cls(ids=np.asarray(ids), ends=ends, counts=TextCounts(), is_stream=True)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.ends)

    def documents_at(self, rows: NDArray[np.int64]) -> "EncodedText":
        """Return these documents, in this order, as a text of unknown size."""
        begins = np.append(0, self.ends[:-1])
        pieces = [self.ids[begins[row] : self.ends[row]] for row in rows]
        return EncodedText(
            ids=np.concatenate([self.ids[:0], *pieces]),
            ends=np.cumsum([len(piece) for piece in pieces], dtype=np.int64),
            counts=TextCounts(),
            is_stream=False,
            firsts=None if self.firsts is None else self.firsts[rows],
        )

    def fits(self, size: int) -> bool:
        """Return True if all ids are in a vocabulary of this size."""
        return all(piece.max() < size for piece in _pieces(self.ids))


PIECE = 1 << 20


def _pieces(ids: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield an array in pieces, so that a mapped file is never in memory as a whole."""
    return (ids[begin : begin + PIECE] for begin in range(0, len(ids), PIECE))


def id_counts(ids: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Count each id below `size`, shape (size,)."""
    counts = np.zeros(size, np.int64)
    for piece in _pieces(ids):
        counts += np.bincount(piece, minlength=size)
    return counts


def encode_text(read: Read, vocabulary: Vocabulary, document: str) -> EncodedText:
    """Encode a text in memory."""
    arrays = [np.empty(0, vocabulary.dtype)]
    ends, counts = encode_chunks(read, vocabulary, document, arrays.append)
    ids = np.concatenate(arrays)
    return EncodedText(ids=ids, ends=ends, counts=counts, is_stream=document == "stream")


def encode_chunks(
    read: Read, vocabulary: Vocabulary, document: str, write: Callable[[NDArray[Any]], object]
) -> tuple[NDArray[np.int64], TextCounts]:
    """Pass the ids of each chunk of a text to `write`; return its document ends and counts."""
    direct = vocabulary.spec.letter and not vocabulary.normalizes
    ends, counts, total, after_blank = [np.empty(0, np.int64)], TextCounts(), 0, True
    for chunk in read() if direct else safe_chunks(read()):
        if not chunk:
            continue
        chunk_counts, after_blank = count_text(chunk, after_blank)
        ids, chunk_ends = vocabulary.encode_marked(chunk)
        write(ids)
        ends.append(chunk_ends + total)
        total += len(ids)
        counts += chunk_counts
    if document == "stream":
        return np.array([total] if total else [], np.int64), counts
    return np.concatenate(ends), counts


def count_text(text: str, after_blank: bool = True) -> tuple[TextCounts, bool]:
    """Count the characters, UTF-8 bytes and words (runs between blanks) of a piece of text.

    Unless `after_blank`, the first word continues one that is already counted. The second result is
    the value of `after_blank` for the next piece.
    """
    if not text:
        return TextCounts(), after_blank
    if text.isascii():
        size = len(text)
        blank = np.frombuffer(text.encode("ascii").translate(ASCII_BLANKS), np.bool_)
    else:
        codes = code_points(text)
        marks = codes == ord(END)
        blank = np.take(BLANK_TABLE, codes, mode="clip") | marks
        size = sum(int(np.count_nonzero(codes >= step)) for step in (0, 0x80, 0x800, 0x10000))
        size -= 2 * int(np.count_nonzero(marks))
    starts = int(np.count_nonzero(blank[:-1] > blank[1:])) + int(after_blank and not blank[0])
    return TextCounts(chars=len(blank), bytes=size, words=starts), bool(blank[-1])


LAST_BLANK = 0x3000
BLANK_TABLE = np.array([chr(code).isspace() for code in range(LAST_BLANK + 1)] + [False])
ASCII_BLANKS = BLANK_TABLE[:256].tobytes()


def write_encoded(folder: Path, encoded: EncodedText) -> None:
    """Write ids as plain binary (`ids.bin`, `ends.bin`), with their type and counts as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ids.bin").write_bytes(np.ascontiguousarray(encoded.ids).tobytes())
    write_index(folder, encoded.ends, encoded.counts, encoded.is_stream, encoded.ids.dtype)


def write_index(
    folder: Path,
    ends: NDArray[np.int64],
    counts: TextCounts,
    is_stream: bool,
    dtype: np.dtype[Any],
) -> None:
    """Write the files that `read_encoded` needs beside the ids."""
    (folder / "ends.bin").write_bytes(ends.astype("<i8").tobytes())
    content = asdict(counts) | {"closed": not is_stream, "dtype": dtype.name}
    (folder / "counts.json").write_text(json.dumps(content, sort_keys=True), encoding="utf-8")


def read_encoded(folder: Path) -> EncodedText:
    """Read the files of `write_encoded`, memory-mapped. Raises CorpusError if they are damaged."""
    try:
        content = read_json(folder / "counts.json")
        dtype, closed = content.pop("dtype"), content.pop("closed")
        if dtype not in DTYPES or not isinstance(closed, bool):
            raise ValueError(f"ids of type {dtype!r:.80}")
        if any(type(value) is not int or value < 0 for value in content.values()):
            raise ValueError("counts.json has an invalid count")
        counts = TextCounts(**content)
        size, ends_size = file_size(folder / "ids.bin"), file_size(folder / "ends.bin")
        if ends_size % 8 or ends_size // 8 > size + 1:
            raise ValueError(f"{ends_size} bytes of ends for {size} bytes of ids")
        ends = np.fromfile(folder / "ends.bin", dtype="<i8")
        ids: NDArray[Any] = np.empty(0, dtype)
        if size:  # an empty file cannot be mapped
            ids = np.memmap(folder / "ids.bin", dtype=dtype, mode="r")
        if int(ends[-1] if len(ends) else 0) != len(ids) or np.any(np.diff(ends, prepend=0) < 0):
            raise ValueError(f"{len(ids)} ids do not match the ends of the documents")
    except (OSError, ValueError, TypeError, KeyError, RunError) as error:
        raise CorpusError(f"{folder}: the encoded text is damaged ({error}); delete it") from error
    return EncodedText(ids=ids, ends=ends, counts=counts, is_stream=not closed)
