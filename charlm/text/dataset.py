"""A corpus as ids: split first, vocabulary from the training part only, then everything encoded.

Small texts are encoded in memory. Large ones stream into a memory-mapped cache of the smallest
integer type in the user's cache folder, keyed by content, vocabulary and document rule.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config import CorpusSettings, VocabularySettings
from charlm.errors import CorpusError, EnvironmentFailure, RunError
from charlm.reading import file_size, read_json
from charlm.text.building import build_vocabulary, safe_chunks
from charlm.text.corpus import END, Corpus, Extent, Stamps, measure, span, split_point
from charlm.text.vocabulary import Vocabulary, code_points

CACHED_FROM_BYTES = 64 << 20
"""Texts larger than this are encoded into the cache on disk instead of memory."""
CACHE_FORMAT = 2
DTYPES = ("uint8", "uint16", "uint32")
SUM, TRIES = "sum", 5
LEFTOVER = re.compile(r"\.damaged-.{8}|\.[0-9a-f]{32}\..{8}")
STALE_SECONDS = 86400.0
FEWEST_TOKENS = 8
"""A token stands for at most about so many bytes of text, when it is judged whether ids fit."""
VALID_SHARE, VALID_CHARS = 0.1, 5_000_000
"""What is held out where nothing else is said: so much of the text, at most so many characters."""
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class TextCounts:
    """Size of a text, whatever its unit; END counts as one character and one byte."""

    chars: int = 0
    bytes: int = 0
    words: int = 0


@dataclass(frozen=True, kw_only=True)
class EncodedText:
    """A text as ids, shape (tokens,), with the positions in it just after each document.

    The last document always ends at the last token. `closed` tells whether documents end by EOS;
    a stream does not, and is one document.
    """

    ids: NDArray[Any]
    ends: NDArray[np.int64]
    counts: TextCounts
    closed: bool

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.ends)

    def fits(self, size: int) -> bool:
        """Whether all ids are of a vocabulary of this size."""
        return not len(self.ids) or max(int(part.max()) for part in pieces(self.ids)) < size


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training text and, where there is any, validation and test text, with their vocabulary."""

    name: str
    document: str
    vocabulary: Vocabulary
    train: EncodedText
    valid: EncodedText | None
    test: EncodedText | None
    fingerprint: str
    coverage: float = 1.0
    notes: list[str] = field(default_factory=list)

    def split(self, name: str) -> EncodedText | None:
        """The part of this name: train, valid or test."""
        part: EncodedText | None = {"train": self.train, "valid": self.valid, "test": self.test}[
            name
        ]
        return part


PIECE = 1 << 20


def pieces(ids: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """An array piece by piece, so that a mapped file is never in memory as a whole."""
    return (ids[begin : begin + PIECE] for begin in range(0, len(ids), PIECE))


def id_counts(ids: NDArray[Any], size: int) -> NDArray[np.int64]:
    """How often each of the ids below `size` stands in a text, shape (size,)."""
    counts = np.zeros(size, np.int64)
    for part in pieces(ids):
        counts += np.bincount(part, minlength=size)
    return counts


Read = Callable[[], Iterable[str]]


def load_dataset(
    settings: CorpusSettings,
    vocabulary_settings: VocabularySettings,
    *,
    corpus: Corpus | None = None,
    vocabulary: Vocabulary | None = None,
    cache: Path | None = None,
) -> Dataset:
    """Read, split, build the vocabulary (unless one is given) and encode.

    `corpus` stands for `settings.sources` where it is given; `cache` is the folder for large
    texts. Raises CorpusError for text that is empty or cannot be read.
    """
    corpus = corpus or open_corpus(settings.sources, settings)
    parts = _split(corpus, settings)
    notes = list(corpus.notes)
    coverage = 1.0
    if vocabulary is None:
        built = build_vocabulary(parts["train"].read, vocabulary_settings)
        vocabulary, coverage = built.vocabulary, built.coverage
        notes += built.notes
    encoded = {
        name: _encode_part(part, vocabulary, corpus.document, cache) for name, part in parts.items()
    }
    for part in parts.values():
        part.check()
    if len(encoded["train"].ids) == 0:
        raise CorpusError(f"{corpus.name} holds no word; expected text between the blanks")
    encoded = {name: text for name, text in encoded.items() if len(text.ids)}
    keys = "".join(part.key for part in parts.values())
    return Dataset(
        name=corpus.name,
        document=corpus.document,
        vocabulary=vocabulary,
        train=encoded["train"],
        valid=encoded.get("valid"),
        test=encoded.get("test"),
        fingerprint=hashlib.sha256(keys.encode()).hexdigest(),
        coverage=coverage,
        notes=notes,
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A part of a corpus: how to read it, what identifies its content, its bytes at most."""

    read: Read
    key: str
    bytes: int
    check: Callable[[], None]
    """Raises CorpusError when the files are no longer as they were when the part was measured."""


def open_corpus(
    sources: Iterable[str], settings: CorpusSettings, document: str | None = None
) -> Corpus:
    """The corpus of these sources under the decoding rules of the settings."""
    return Corpus(
        tuple(sources),
        document=document or settings.document,
        encoding=settings.encoding,
        errors=settings.errors,
        column=settings.column,
    )


def _split(corpus: Corpus, settings: CorpusSettings) -> dict[str, _Part]:
    """The parts by name; the tail is held out for validation unless a file is given for it."""
    before = corpus.stamps()
    whole = measure(corpus.chunks())
    by_document = corpus.document != "stream"
    least = 1 if by_document else 2
    count = whole.documents if by_document else whole.chars
    if count < least:
        found = "is empty" if count == 0 else "has one character"
        raise CorpusError(f"{corpus.name} {found}; expected at least two characters to learn from")
    cut, share = count, settings.valid_frac
    if share is None:
        share = min(VALID_SHARE, VALID_CHARS / max(whole.chars, 1))
    if not settings.valid and share > 0:
        cut = max(split_point(whole, share, documents=by_document), least)
    parts = {"train": _span_part(corpus, whole, 0, None if cut == count else cut, before)}
    if cut < count:
        parts["valid"] = _span_part(corpus, whole, cut, None, before)
    for name, sources in (("valid", settings.valid), ("test", settings.test)):
        if sources:
            other = open_corpus(sources, settings, corpus.document)
            before = other.stamps()
            extent = measure(other.chunks())
            corpus.notes += [note for note in other.notes if note not in corpus.notes]
            if extent.sha256 == whole.sha256:
                corpus.notes.append(
                    f"The {name} text is the training text itself; its figures tell nothing of "
                    "new text."
                )
            if extent.chars:
                parts[name] = _span_part(other, extent, 0, None, before)
            else:
                corpus.notes.append(f"The {name} text is empty; it was left out.")
    return parts


def _span_part(
    corpus: Corpus, extent: Extent, start: int, stop: int | None, before: Stamps
) -> _Part:
    by_document = corpus.document != "stream"

    def check() -> None:
        """Whether the files are as they were when they were measured."""
        if corpus.stamps() != before:
            raise CorpusError(
                f"{corpus.name} has changed while it was read; expected the same text from the "
                "first pass to the last. Run the command again"
            )

    return _Part(
        read=lambda: span(corpus.chunks(), start, stop, documents=by_document),
        key=f"{extent.sha256}:{start}:{stop}",
        bytes=extent.bytes,
        check=check,
    )


def encode_text(read: Read, vocabulary: Vocabulary, document: str) -> EncodedText:
    """A text as ids, in memory."""
    arrays, ends, counts, total = [], [], TextCounts(), 0
    for ids, marks, part in _encoded_chunks(read, vocabulary):
        arrays.append(ids)
        ends.append(marks + total)
        total += len(ids)
        counts = _add(counts, part)
    ids = np.concatenate(arrays) if arrays else np.empty(0, vocabulary.dtype)
    marks, closed = _ends(ends, total, document)
    return EncodedText(ids=ids, ends=marks, counts=counts, closed=closed)


def _ends(
    ends: list[NDArray[np.int64]], total: int, document: str
) -> tuple[NDArray[np.int64], bool]:
    """Where documents end in a text of so many tokens, and whether EOS ends them."""
    if document == "stream":
        return np.array([total] if total else [], np.int64), False
    return np.concatenate([*ends, np.empty(0, np.int64)]).astype(np.int64), True


def _encoded_chunks(
    read: Read, vocabulary: Vocabulary
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64], TextCounts]]:
    """Ids, document ends and counts of one chunk after the other."""
    settings = vocabulary.settings
    direct = settings.unit in ("char", "byte") and vocabulary.normalizer() is None
    after_blank = True
    for chunk in read() if direct else safe_chunks(read()):
        if not chunk:
            continue
        counts, after_blank = count_text(chunk, after_blank)
        ids, marks = vocabulary.encode_marked(chunk)
        yield ids, marks, counts


def count_text(text: str, after_blank: bool = True) -> tuple[TextCounts, bool]:
    """Characters, UTF-8 bytes and words (runs between blanks) of a piece of text.

    `after_blank` tells whether a blank stood before it, so that a word cut in two by pieces is
    counted once; the second result is the same for the text that follows.
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


def _add(left: TextCounts, right: TextCounts) -> TextCounts:
    return TextCounts(
        chars=left.chars + right.chars,
        bytes=left.bytes + right.bytes,
        words=left.words + right.words,
    )


def _encode_part(
    part: _Part, vocabulary: Vocabulary, document: str, cache: Path | None
) -> EncodedText:
    if part.bytes <= CACHED_FROM_BYTES:
        return encode_text(part.read, vocabulary, document)
    key = json.dumps([CACHE_FORMAT, part.key, document, vocabulary.to_json()], sort_keys=True)
    folder = (cache or cache_folder()) / hashlib.sha256(key.encode()).hexdigest()[:32]
    for _ in range(TRIES):  # others may build and clear away the same at the same time
        there = folder.exists()
        try:
            return _read_cache(folder)
        except CorpusError:  # not there yet, or damaged
            if there:
                _set_aside(folder)
        _write_cache(folder, part, vocabulary, document)
    return _read_cache(folder)


def _read_cache(folder: Path) -> EncodedText:
    """Encoded text from the cache. Raises CorpusError unless it is exactly what was written."""
    encoded = read_encoded(folder)
    try:
        known, found = (folder / SUM).read_text(encoding="ascii"), _sum_of(folder)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{folder}: has no readable sum; delete it") from error
    if known != found:
        raise CorpusError(f"{folder}: the encoded text is damaged (its SHA-256 differs); delete it")
    return encoded


def _sum_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("ids.bin", "ends.bin", "counts.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _set_aside(folder: Path) -> None:
    """Remove a damaged folder, if it is there, so that no one sees a part of it."""
    with contextlib.suppress(OSError):
        aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
        folder.rename(aside / "x")
        shutil.rmtree(aside, ignore_errors=True)


def _clear_leftovers(cache: Path) -> None:
    """Remove what builders left that died: folders of our own names, a day old."""
    for old in cache.glob(".*"):
        with contextlib.suppress(OSError):
            stale = time.time() - old.stat().st_mtime > STALE_SECONDS
            if LEFTOVER.fullmatch(old.name) and stale and not old.is_symlink():
                shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """Where encoded large texts are kept: `CHARLM_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("CHARLM_CACHE"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("charlm"))


def _write_cache(folder: Path, part: _Part, vocabulary: Vocabulary, document: str) -> None:
    """Encode into a folder of a temporary name, then rename it: it is there whole or not at all."""
    own: Path | None = None  # for nobody else; what is renamed out of it has the usual rights
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(folder.parent)
        free = shutil.disk_usage(folder.parent).free
        if free < part.bytes * vocabulary.dtype.itemsize // FEWEST_TOKENS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        own = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        building = own / "x"
        building.mkdir()
        counts = TextCounts()
        ends, total = [], 0
        with (building / "ids.bin").open("wb") as file:
            for ids, marks, size in _encoded_chunks(part.read, vocabulary):
                file.write(np.ascontiguousarray(ids, vocabulary.dtype).tobytes())
                ends.append(marks + total)
                total += len(ids)
                counts = _add(counts, size)
            file.flush()
            os.fsync(file.fileno())
        places, closed = _ends(ends, total, document)
        _write_index(building, places, counts, closed, vocabulary.dtype)
        (building / SUM).write_text(_sum_of(building), encoding="ascii")
        part.check()
        building.rename(folder)
    except OSError as error:
        if not (folder / SUM).exists():  # else somebody else was faster
            raise EnvironmentFailure(
                f"cannot write the id cache in {folder.parent}: {error.strerror}. Free some space, "
                "or name another folder with CHARLM_CACHE"
            ) from error
    finally:
        if own:
            shutil.rmtree(own, ignore_errors=True)


def write_encoded(folder: Path, encoded: EncodedText) -> None:
    """Save ids as plain binary (`ids.bin`, `ends.bin`) with their type and counts as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ids.bin").write_bytes(np.ascontiguousarray(encoded.ids).tobytes())
    _write_index(folder, encoded.ends, encoded.counts, encoded.closed, encoded.ids.dtype)


def _write_index(
    folder: Path, ends: NDArray[np.int64], counts: TextCounts, closed: bool, dtype: np.dtype[Any]
) -> None:
    (folder / "ends.bin").write_bytes(ends.astype("<i8").tobytes())
    content = asdict(counts) | {"closed": closed, "dtype": dtype.name}
    (folder / "counts.json").write_text(json.dumps(content, sort_keys=True), encoding="utf-8")


def read_encoded(folder: Path) -> EncodedText:
    """Ids saved by `write_encoded`, memory-mapped. Raises CorpusError when they are damaged."""
    try:
        content = read_json(folder / "counts.json")
        dtype, closed = content.pop("dtype"), content.pop("closed")
        if dtype not in DTYPES or not isinstance(closed, bool):
            raise ValueError(f"ids of type {dtype!r:.80}")
        if any(type(value) is not int or value < 0 for value in content.values()):
            raise ValueError("counts.json holds a count that is none")
        counts = TextCounts(**content)
        size, ends_size = file_size(folder / "ids.bin"), file_size(folder / "ends.bin")
        if ends_size % 8 or ends_size // 8 > size + 1:
            raise ValueError(f"{ends_size} bytes of ends for {size} bytes of ids")
        ends = np.fromfile(folder / "ends.bin", dtype="<i8")
        ids: NDArray[Any] = np.empty(0, dtype)
        if size:  # an empty file cannot be mapped
            ids = np.memmap(folder / "ids.bin", dtype=dtype, mode="r")
        if int(ends[-1] if len(ends) else 0) != len(ids) or np.any(np.diff(ends, prepend=0) < 0):
            raise ValueError(f"{len(ids)} ids do not fit the ends of its documents")
    except (OSError, ValueError, TypeError, KeyError, RunError) as error:
        raise CorpusError(f"{folder}: the encoded text is damaged ({error}); delete it") from error
    return EncodedText(ids=ids, ends=ends, counts=counts, closed=closed)
