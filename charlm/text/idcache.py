"""The cache of ids: large texts are encoded once, into memory-mapped files in the user's folder.

What is in it is keyed by content, vocabulary and document rule, and summed, so that a damaged or
half-written entry is never read. What was not read for a month is removed when room is needed for
another text.
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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from charlm.errors import CorpusError, EnvironmentFailure
from charlm.phases import counted
from charlm.text.encoded import (
    EncodedText,
    TextCounts,
    encode_text,
    encoded_chunks,
    join_ends,
    read_encoded,
    write_index,
)
from charlm.text.tokenizers.building import Read
from charlm.text.tokenizers.vocabulary import Vocabulary

CACHED_FROM_BYTES = 64 << 20
"""Texts larger than this are encoded into the cache on disk instead of memory."""
CACHE_FORMAT = 2
SUM, TRIES = "sum", 5
LEFTOVER = re.compile(r"\.damaged-.{8}|\.[0-9a-f]{32}\..{8}")
ENTRY = re.compile(r"[0-9a-f]{32}")
STALE_SECONDS = 86400.0
UNUSED_SECONDS = 30.0 * 86400.0
MIN_TOKENS = 8
"""A token stands for at most about so many bytes of text, when it is judged whether ids fit."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a corpus: how to read it, what identifies its content, its bytes at most."""

    read: Read
    key: str
    bytes: int
    chars: int
    """How many characters it has, about."""
    check: Callable[[], None]
    """Raises CorpusError when the files are no longer as they were when the part was measured."""

    def watched(self) -> Iterator[str]:
        """Read the part, and advance the phase that is open."""
        return counted(self.read())


def encode_part(
    part: Part, vocabulary: Vocabulary, document: str, cache: Path | None
) -> EncodedText:
    """A part as ids: in memory where it is small, else from the cache, made where it must be.

    Raises EnvironmentFailure when the cache cannot be written.
    """
    if part.bytes <= CACHED_FROM_BYTES:
        return encode_text(part.watched, vocabulary, document)
    key = json.dumps([CACHE_FORMAT, part.key, document, vocabulary.to_json()], sort_keys=True)
    folder = (cache or cache_folder()) / hashlib.sha256(key.encode()).hexdigest()[:32]
    for _ in range(TRIES):  # others may build and clear away the same at the same time
        there = folder.exists()
        try:
            found = _read_cache(folder)
            with contextlib.suppress(OSError):
                os.utime(folder)  # it is in use
            return found
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


def _clear_old(cache: Path) -> None:
    """Remove what builders left that died, a day old, and entries that were not read for a month.

    Only folders of our own names; a process that has an entry open keeps what it has.
    """
    for old in cache.glob("*"):
        with contextlib.suppress(OSError):
            age = 0.0 if old.is_symlink() else time.time() - old.stat().st_mtime
            left = LEFTOVER.fullmatch(old.name) and age > STALE_SECONDS
            unused = ENTRY.fullmatch(old.name) and (old / SUM).exists() and age > UNUSED_SECONDS
            if left or unused:
                shutil.rmtree(old, ignore_errors=True)


def cache_folder() -> Path:
    """Where encoded large texts are kept: `CHARLM_CACHE`, else the user's cache folder."""
    if chosen := os.environ.get("CHARLM_CACHE"):
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("charlm"))


def _write_cache(folder: Path, part: Part, vocabulary: Vocabulary, document: str) -> None:
    """Encode into a folder of a temporary name, then rename it: it is there whole or not at all."""
    own: Path | None = None  # for nobody else; what is renamed out of it has the usual rights
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_old(folder.parent)
        free = shutil.disk_usage(folder.parent).free
        if free < part.bytes * vocabulary.dtype.itemsize // MIN_TOKENS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        own = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        building = own / "x"
        building.mkdir()
        counts = TextCounts()
        ends, total = [], 0
        with (building / "ids.bin").open("wb") as file:
            for ids, marks, size in encoded_chunks(part.watched, vocabulary):
                file.write(np.ascontiguousarray(ids, vocabulary.dtype).tobytes())
                ends.append(marks + total)
                total += len(ids)
                counts += size
            file.flush()
            os.fsync(file.fileno())
        is_stream = document == "stream"
        joined = join_ends(ends, total, is_stream)
        write_index(building, joined, counts, is_stream, vocabulary.dtype)
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
