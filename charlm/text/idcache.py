"""The cache of ids: large texts are encoded once, into memory-mapped files in the user's folder.

The key of an entry depends on its text, vocabulary and unit of document, and a checksum protects
its content. Entries not read for a month are removed when another text is written.
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
from pathlib import Path

import numpy as np

from charlm.errors import CorpusError, EnvironmentFailure
from charlm.files.atomic import FULL, move
from charlm.text.encoded import EncodedText, encode_chunks, encode_text, read_encoded, write_index
from charlm.text.home import cache_home
from charlm.text.splits import Split
from charlm.text.tokenizers.vocabulary import Vocabulary

CACHED_FROM_BYTES = 64 << 20
"""Size above which a text is encoded into the cache on disk, not in memory."""
CACHE_FORMAT = 2
SUM, TRIES = "sum", 5
LEFTOVER = re.compile(r"\.damaged-.{8}|\.[0-9a-f]{32}\..{8}")
ENTRY = re.compile(r"[0-9a-f]{32}")
STALE_SECONDS = 86400.0
UNUSED_SECONDS = 30.0 * 86400.0
MAX_TOKEN_BYTES = 8
"""Maximum bytes of text per token, in the estimate of the disk space needed."""


def encode_split(
    split: Split, vocabulary: Vocabulary, document: str, cache: Path | None
) -> EncodedText:
    """Encode a split in memory if it is small, else through the cache in this folder.

    Raises EnvironmentFailure if the cache cannot be written.
    """
    if split.bytes <= CACHED_FROM_BYTES:
        return encode_text(split.watched, vocabulary, document)
    key = json.dumps([CACHE_FORMAT, split.key, document, vocabulary.to_json()], sort_keys=True)
    folder = (cache or cache_folder()) / hashlib.sha256(key.encode()).hexdigest()[:32]
    for _ in range(TRIES):  # other processes may write and remove the same entry
        existed = folder.exists()
        try:
            encoded = _read_cache(folder)
            with contextlib.suppress(OSError):
                os.utime(folder)  # it is in use
            return encoded
        except CorpusError:  # missing or damaged
            pass
        if existed:  # nothing maps its files any more, or Windows would not rename it
            _remove_damaged(folder)
        _write_cache(folder, split, vocabulary, document)
    return _read_cache(folder)


def cache_folder() -> Path:
    """Return the folder of the cache: `CHARLM_CACHE`, else the user's cache folder.

    Raises EnvironmentFailure if the user has no home folder.
    """
    if chosen := os.environ.get("CHARLM_CACHE"):
        return Path(chosen)
    return cache_home()


def _read_cache(folder: Path) -> EncodedText:
    """Read encoded text from the cache. Raises CorpusError unless it is exactly as written."""
    encoded = read_encoded(folder)
    try:
        recorded, actual = (folder / SUM).read_text(encoding="ascii"), _sum_of(folder)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{folder}: has no readable sum; delete it") from error
    if recorded != actual:
        raise CorpusError(f"{folder}: the encoded text is damaged (its SHA-256 differs); delete it")
    return encoded


def _sum_of(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("ids.bin", "ends.bin", "counts.json"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _remove_damaged(folder: Path) -> None:
    """Remove a damaged entry, renamed first, so that no process reads half of it."""
    with contextlib.suppress(OSError):
        aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
        move(folder, aside / "x")
        shutil.rmtree(aside, ignore_errors=True)


def _clear_old(cache: Path) -> None:
    """Remove leftovers of processes that died a day ago, and entries not read for a month."""
    for old in cache.glob("*"):
        with contextlib.suppress(OSError):
            age = 0.0 if old.is_symlink() else time.time() - old.stat().st_mtime
            left = LEFTOVER.fullmatch(old.name) and age > STALE_SECONDS
            unused = ENTRY.fullmatch(old.name) and (old / SUM).exists() and age > UNUSED_SECONDS
            if left or unused:
                shutil.rmtree(old, ignore_errors=True)


def _write_cache(folder: Path, split: Split, vocabulary: Vocabulary, document: str) -> None:
    """Encode into a folder with a temporary name, then rename it."""
    own: Path | None = None  # private; a folder renamed out of it has the usual permissions
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _clear_old(folder.parent)
        free = shutil.disk_usage(folder.parent).free
        if free < split.bytes * vocabulary.dtype.itemsize // MAX_TOKEN_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        own = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        building = own / "x"
        building.mkdir()
        with (building / "ids.bin").open("wb") as file:
            ends, counts = encode_chunks(
                split.watched,
                vocabulary,
                document,
                lambda ids: file.write(np.ascontiguousarray(ids, vocabulary.dtype).tobytes()),
            )
            file.flush()
            os.fsync(file.fileno())
        write_index(building, ends, counts, document == "stream", vocabulary.dtype)
        (building / SUM).write_text(_sum_of(building), encoding="ascii")
        split.check()
        move(building, folder)
    except OSError as error:
        if not (folder / SUM).exists():  # else another process was faster
            advice = "Free some space, or name" if error.errno in FULL else "Name"
            raise EnvironmentFailure(
                f"cannot write the id cache in {folder.parent}: {error.strerror}. {advice} "
                "another folder with CHARLM_CACHE"
            ) from error
    finally:
        if own:
            shutil.rmtree(own, ignore_errors=True)
