"""Compressed files, unpacked as they are read."""

import bz2
import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from charlm.errors import EnvironmentFailure
from charlm.files.escapes import escape_unprintable

BUFFER_BYTES = 1 << 20
ZSTD_BYTES = 2048
"""Packed bytes unpacked at a time: four may become 128 KiB, so these become at most 64 MiB."""

DAMAGED: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""Errors that reading a damaged file raises."""
_zstd: Any = None
try:
    _zstd = importlib.import_module("compression.zstd")  # Python 3.14 and later
except ImportError:
    pass
else:
    DAMAGED = (*DAMAGED, _zstd.ZstdError)


class _ZstdReader(io.RawIOBase):
    """Reader that uses `zstandard`, whose own reader accepts a file that is cut short."""

    def __init__(self, path: Path) -> None:
        try:
            self._library: Any = importlib.import_module("zstandard")
        except ImportError as error:
            raise EnvironmentFailure(
                f"{escape_unprintable(str(path))} needs a package for .zst files: "
                'pip install "charlm[zstd]".'
            ) from error
        self._file = path.open("rb")
        self._frame: Any = None  # unpacks the frame that has begun and not ended
        self._rest = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Close the file too."""
        if "_file" in self.__dict__:
            self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with unpacked bytes. Raises EOFError for damaged or incomplete data."""
        while not self._ready:
            packed = self._rest or self._file.read(ZSTD_BYTES)
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
            unpacked = frame.decompress(packed)
        except self._library.ZstdError as error:
            raise EOFError(str(error)) from error
        self._rest = frame.unused_data if frame.eof else b""
        self._frame = None if frame.eof else frame
        return bytes(unpacked)


def _open_zstd(path: Path) -> IO[bytes]:
    if _zstd is not None:
        return cast(IO[bytes], _zstd.ZstdFile(path))
    return io.BufferedReader(_ZstdReader(path), BUFFER_BYTES)


PACKED: dict[str, Callable[[Path], IO[bytes]]] = {
    ".gz": lambda path: cast(IO[bytes], gzip.GzipFile(path)),
    ".bz2": lambda path: cast(IO[bytes], bz2.BZ2File(path)),
    ".xz": lambda path: cast(IO[bytes], lzma.LZMAFile(path)),  # noqa: SIM115
    ".zst": _open_zstd,
}
"""File suffix → function that opens a file for its unpacked bytes."""


def unpacked_name(path: Path) -> str:
    """Return the name of a file without the suffix that says how it is compressed."""
    return path.stem if path.suffix.lower() in PACKED else path.name
