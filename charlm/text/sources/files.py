"""Files and streams of bytes that can be read from the start several times.

Standard input and named pipes can be read only once, so they are copied to an unnamed temporary
file.
"""

import errno
import io
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from charlm.errors import CorpusError, EnvironmentFailure
from charlm.files.escapes import escape_unprintable
from charlm.text.sources.compressed import DAMAGED, PACKED
from charlm.text.sources.word_processors import CONVERTED, converted

BLOCK_BYTES = 1 << 20
"""Bytes read from a file at a time."""

STDIN_LABEL = "standard input"
"""Name of standard input in messages."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def shown(name: str | os.PathLike[str]) -> str:
    """Return a file name for a message, on one line, with unprintable characters escaped."""
    return escape_unprintable(os.fspath(name))


def blocks(source: "TextFile | Spool", size: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Yield the bytes of a source, `size` at a time. Raises CorpusError if it cannot be read."""
    with readable(source.label), source.open() as stream:
        while block := stream.read(size):
            yield block


@contextmanager
def readable(label: str) -> Iterator[None]:
    """Turn the errors of a file that cannot be read or unpacked into CorpusError with its name."""
    try:
        yield
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise CorpusError(f"{label} cannot be read: {error.strerror}.") from error
        reason = str(error).rstrip(".") or "damaged data"
        raise CorpusError(
            f"{label} cannot be unpacked as {Path(label).suffix}: {reason}. "
            f"It is damaged, cut short or misnamed; fetch it again or give the unpacked text."
        ) from error


@dataclass(frozen=True)
class TextFile:
    """Regular file, unpacked or converted if its suffix says so. `label` names it in messages."""

    label: str
    path: Path

    def open(self) -> IO[bytes]:
        """Open the unpacked bytes from the start; those of a word processor as text in UTF-8.

        Raises OSError if the file cannot be opened, CorpusError if it cannot be converted.
        """
        if self.is_converted:
            return io.BytesIO(converted(self.path))
        unpack = PACKED.get(self.path.suffix.lower())
        return unpack(self.path) if unpack else self.path.open("rb")

    @property
    def is_packed(self) -> bool:
        """True if the suffix is that of a compressed file."""
        return self.path.suffix.lower() in PACKED

    @property
    def is_converted(self) -> bool:
        """True if the suffix is that of a word processor or an e-book; the text is UTF-8."""
        return self.path.suffix.lower() in CONVERTED


@dataclass
class Spool:
    """Stream that can be read only once, copied to a temporary file when it is first read."""

    label: str
    source: Callable[[], AbstractContextManager[IO[bytes]]]
    _copy: IO[bytes] | None = field(default=None, repr=False)

    def open(self) -> IO[bytes]:
        """Open the bytes from the start. Several readers may be open at once."""
        if self._copy is None:
            self._copy = self._spool()
        return io.BufferedReader(_View(self._copy, self))

    def _spool(self) -> IO[bytes]:
        copy = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115
        weakref.finalize(self, copy.close)  # the copy lives as long as this object
        try:
            with self.source() as source:
                first = source.read(BLOCK_BYTES)
                if len(first) == BLOCK_BYTES and not first.strip(b"\0"):
                    raise CorpusError(
                        f"{self.label} begins with {len(first):,} NULs, expected text. Give "
                        "text in UTF-8."
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
    """Return standard input, which stays open. Raises CorpusError if the process has none."""
    if sys.stdin is None:
        raise CorpusError("There is no standard input to read. Give a file instead of -.")
    return nullcontext(sys.stdin.buffer)


class _View(io.RawIOBase):
    """Independent position in a shared file."""

    def __init__(self, file: IO[bytes], owner: object) -> None:
        self._file = file
        self._owner = owner  # closes the file when nothing refers to it
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move this position. Other readers keep theirs."""
        self._file.seek(self._position)
        self._position = self._file.seek(offset, whence)
        return self._position

    def tell(self) -> int:
        """Return this position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer from this position."""
        self._file.seek(self._position)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
