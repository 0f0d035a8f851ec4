"""The bytes of one source, from the start, as often as needed.

Compressed files are unpacked as they are read. What can be read only once (standard input, a named
pipe) is copied to a temporary file without a name, so that a second pass sees the same text.
"""

import bz2
import errno
import gzip
import importlib
import io
import lzma
import os
import shutil
import sys
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from charlm.errors import CorpusError, EnvironmentFailure
from charlm.files.escapes import escape_unprintable

BLOCK_BYTES = 1 << 20
"""Bytes asked of a file at a time."""

_ZSTD_BYTES = 2048  # Fed at a time. Four packed bytes may become 128 KiB: at most 64 MiB here.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_zstd: Any = None
try:
    _zstd = importlib.import_module("compression.zstd")  # Python 3.14 and later
except ImportError:
    _DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
else:
    _DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, _zstd.ZstdError)


def shown(name: str | os.PathLike[str]) -> str:
    """A file name fit for a message: one line, with everything unprintable escaped."""
    return escape_unprintable(os.fspath(name))


def blocks(source: "TextFile | Spool", size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The bytes of a source, `size` at a time. CorpusError where they cannot be read."""
    with readable(source.label), source.open() as stream:
        while block := stream.read(size):
            yield block


@contextmanager
def readable(label: str) -> Iterator[None]:
    """Inside, a file that cannot be read or unpacked raises CorpusError with its name."""
    try:
        yield
    except _DAMAGED as error:
        raise _unreadable(label, error) from error


def _unreadable(label: str, error: Exception) -> CorpusError:
    if isinstance(error, OSError) and error.errno is not None:
        return CorpusError(f"{label} cannot be read: {error.strerror}.")
    reason = str(error).rstrip(".") or "damaged data"
    return CorpusError(
        f"{label} cannot be unpacked as {Path(label).suffix}: {reason}. "
        f"It is damaged, cut short or misnamed; fetch it again or give the unpacked text."
    )


@dataclass(frozen=True)
class TextFile:
    """A regular file, unpacked by its suffix; `label` names it in messages."""

    label: str
    path: Path

    def open(self) -> IO[bytes]:
        """The file's text as bytes, from the start. OSError where it cannot be opened."""
        unpack = self.unpacks
        return unpack(self.path) if unpack else self.path.open("rb")

    @property
    def unpacks(self) -> Callable[[Path], IO[bytes]] | None:
        """Function that unpacks the file; None if it is not compressed."""
        return PACKED.get(self.path.suffix.lower())


@dataclass
class Spool:
    """Something that can be read only once, kept in a temporary file from the first reading on."""

    label: str
    source: Callable[[], AbstractContextManager[IO[bytes]]]
    _copy: IO[bytes] | None = field(default=None, repr=False)

    def open(self) -> IO[bytes]:
        """The bytes from the start; several readers do not disturb one another."""
        if self._copy is None:
            self._copy = self._spool()
        return io.BufferedReader(_View(self._copy, self))

    def _spool(self) -> IO[bytes]:
        copy = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115
        weakref.finalize(self, copy.close)  # it lives as long as this object
        try:
            with self.source() as source:
                first = source.read(BLOCK_BYTES)
                if len(first) == BLOCK_BYTES and not first.strip(b"\0"):
                    raise CorpusError(
                        f"{self.label} begins with {len(first):,} NULs, which is no text. Give "
                        "one in UTF-8."
                    )
                copy.write(first)
                shutil.copyfileobj(source, copy, BLOCK_BYTES)
            copy.flush()
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise EnvironmentFailure(
                f"{self.label} does not fit into the temporary folder "
                f"{shown(tempfile.gettempdir())}. Free some space or set TMPDIR."
            ) from error
        return copy


def stdin() -> AbstractContextManager[IO[bytes]]:
    """Standard input, which stays open. CorpusError where the process has none."""
    if sys.stdin is None:
        raise CorpusError("There is no standard input to read. Give a file instead of -.")
    return nullcontext(sys.stdin.buffer)


class _View(io.RawIOBase):
    """A reading position of its own in a shared file."""

    def __init__(self, file: IO[bytes], owner: object) -> None:
        self._file = file
        self._owner = owner  # it closes the file when nothing refers to it
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move this position, not that of other readers."""
        self._file.seek(self._position)
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """Return this position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer from this position."""
        self._file.seek(self._position)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


# ------------------------------------------------------------------ compressed files


class _ZstdReader(io.RawIOBase):
    """Unpacks with `zstandard`, whose own reader takes a file cut short for a whole one."""

    def __init__(self, path: Path) -> None:
        try:
            self._library: Any = importlib.import_module("zstandard")
        except ImportError as error:
            raise EnvironmentFailure(
                f'{shown(path)} needs a package for .zst files: pip install "charlm[zstd]".'
            ) from error
        self._file = path.open("rb")
        self._frame: Any = None  # the unpacker of a frame that has begun and not ended
        self._rest = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Always."""
        return True

    def close(self) -> None:
        """Closes the file too."""
        if "_file" in self.__dict__:
            self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer with unpacked bytes. EOFError where the data is damaged or cut short."""
        while not self._ready:
            packed = self._rest or self._file.read(_ZSTD_BYTES)
            if not packed and self._frame is not None:
                raise EOFError("the file ends too early")
            if not packed:
                return 0
            self._ready = memoryview(self._unpack(packed))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unpack(self, packed: bytes) -> bytes:
        frame = self._frame or self._library.ZstdDecompressor().decompressobj()
        try:
            text = frame.decompress(packed)
        except self._library.ZstdError as error:
            raise EOFError(str(error)) from error
        self._rest = frame.unused_data if frame.eof else b""
        self._frame = None if frame.eof else frame
        return bytes(text)


def _open_zstd(path: Path) -> IO[bytes]:
    if _zstd is not None:
        return cast(IO[bytes], _zstd.ZstdFile(path))
    return io.BufferedReader(_ZstdReader(path), BLOCK_BYTES)


def _open_xz(path: Path) -> IO[bytes]:
    return cast(IO[bytes], lzma.LZMAFile(path))


PACKED: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": lambda path: cast(IO[bytes], gzip.GzipFile(path)),
    ".bz2": lambda path: cast(IO[bytes], bz2.BZ2File(path)),
    ".xz": _open_xz,
    ".zst": _open_zstd,
}
"""File suffix → what opens such a file for its unpacked bytes."""
