"""Archives of a folder in one file: deterministic .zip and .tar.zst, read as untrusted data.

Equal folders give equal archives: names are sorted, times and owners are constant. Reading refuses
everything but plain files with plain names, names that occur twice, and more bytes than the packed
size explains (a zip bomb), before it writes anything that the caller has not accepted.
"""

import importlib
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from charlm.errors import EnvironmentFailure, RunError, UsageError
from charlm.files.atomic import explained, replaced

ZIP, TAR_ZST = ".zip", ".tar.zst"
MAX_FILES = 2_000
MAX_RATIO, FREE_BYTES = 200, 64 << 20
"""Unpacked bytes for each packed byte that are accepted, beyond the first FREE_BYTES. Weights and
ids shrink to a half at best; a bomb unpacks to a thousand times its size and more."""
HEADER_BYTES = 1 << 20
"""Limit for what precedes a file in a .tar, such as its name: tarfile reads it into memory."""
COPY_BYTES = 1 << 20
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold, used for every file."""
DAMAGED = (OSError, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError,
           zlib.error, zipfile.BadZipFile, tarfile.TarError)  # fmt: skip
"""Errors that reading a damaged archive raises; those of zstandard become ValueError."""


def write_archive(folder: Path, root: str, file: Path) -> None:
    """Write the files below `folder` into a .zip or .tar.zst file, below the name `root`.

    A root that is no plain name on every system becomes "run". The file appears once it is
    complete. Raises UsageError for another suffix, EnvironmentFailure.
    """
    root = root if _is_plain(root) else "run"
    files = {f"{root}/{name}": path for name, path in files_below(folder).items()}
    write = WRITERS[archive_kind(file)]
    with replaced(file) as target:
        write(files, target)


def files_below(folder: Path) -> dict[str, Path]:
    """Return the files below a folder by their path in it, with `/`; sorted, without folders."""
    paths = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).parts)
    return {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}


def archive_kind(file: Path, others: Sequence[str] = ()) -> str:
    """Return the suffix of an archive to write, or one of the others.

    Raises UsageError for one that is not known.
    """
    kinds = [*WRITERS, *others]
    for kind in kinds:
        if file.name.endswith(kind) and file.name != kind:
            return kind
    known = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
    raise UsageError(f"{file}: expected a file name that ends with {known}")


def _write_zip(files: dict[str, Path], target: IO[bytes]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system, info.external_attr = 3, 0o100644 << 16  # as on Unix, everywhere
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as packed:
                _copy(source, packed)


def _write_tar(files: dict[str, Path], target: IO[bytes]) -> None:
    packed = _zstd().ZstdCompressor(level=10).stream_writer(target, closefd=False)
    with packed, tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files.items():
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            with path.open("rb") as source:
                archive.addfile(info, source)


WRITERS: dict[str, Callable[[dict[str, Path], IO[bytes]], None]] = {
    ZIP: _write_zip,
    TAR_ZST: _write_tar,
}
"""File suffix → function that writes files by name into an open file."""


def _zstd() -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        raise EnvironmentFailure(
            f"{TAR_ZST} needs a package; install it with: pip install 'charlm[zstd]', or use {ZIP}"
        ) from error


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while block := source.read(COPY_BYTES):
        target.write(block)


def unpack(file: Path, folder: Path, accepted: Callable[[str], bool]) -> str:
    """Unpack an archive into an empty folder without its root, whose name is returned.

    `accepted` says of each name below the root whether the caller knows it. Raises RunError for an
    archive that is damaged or holds anything else, EnvironmentFailure.
    """
    roots: set[str] = set()
    seen: set[str] = set()
    room = file.stat().st_size * MAX_RATIO + FREE_BYTES if file.is_file() else 0
    try:
        for name, size, source in _members(file):
            root, _, inner = name.partition("/")
            roots.add(root)
            _check_name(file, name, seen)
            if len(roots) > 1 or not accepted(inner):
                raise RunError(f"{file}: holds {name[:80]!r}; expected only the files of one run")
            room -= size
            if room < 0:
                raise RunError(
                    f"{file}: unpacks to more than {MAX_RATIO} times its size; expected a run"
                )
            _write_member(file, name, size, source, folder / inner)
    except DAMAGED as error:
        raise RunError(f"{file}: damaged ({error}); expected a run that charlm exported") from error
    if not roots:
        raise RunError(f"{file}: holds no files; expected a run that charlm exported")
    return roots.pop()


def _check_name(file: Path, name: str, seen: set[str]) -> None:
    """Raise RunError for a name that leads elsewhere or occurs twice, on any system."""
    if not all(map(_is_plain, name.split("/"))):
        raise RunError(f"{file}: holds {name[:80]!r}; expected names inside one folder")
    if name.casefold() in seen:
        raise RunError(f"{file}: holds {name[:80]!r} twice; expected each file once")
    seen.add(name.casefold())
    if len(seen) > MAX_FILES:
        raise RunError(f"{file}: holds more than {MAX_FILES:,} files; expected a run")


def _is_plain(part: str) -> bool:
    """Return whether a name is that of a file in a folder, on any system."""
    return part not in ("", ".", "..") and part.isprintable() and not set(part) & set("/\\:")


def _write_member(file: Path, name: str, size: int, source: IO[bytes], path: Path) -> None:
    """Write one file of `size` bytes. Raises RunError if the archive has fewer or more."""
    left = size
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as target:
        while block := source.read(min(COPY_BYTES, left + 1)):
            left -= len(block)
            if left < 0:
                break
            target.write(block)
        if left:
            raise RunError(
                f"{file}: {name[:80]!r} is not as long as it says; expected a whole file"
            )


def _members(file: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield name, size and content of each file in an archive, which its first bytes recognise."""
    with _opened(file) as source:
        start = source.read(4)
        source.seek(0)
        if start[:2] == b"PK":
            yield from _zip_members(file, source)
        elif start == b"\x28\xb5\x2f\xfd":
            yield from _tar_members(file, source)
        else:
            raise RunError(f"{file}: neither {ZIP} nor {TAR_ZST}; expected an exported run")


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise RunError(f"{file} {what}; expected a run that charlm exported")
    with file.open("rb") as source:
        yield source


def _zip_members(file: Path, source: IO[bytes]) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            kind = info.external_attr >> 16 & 0o170000
            packing = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            plain = packing and kind in (0, 0o100000) and not info.flag_bits & 1
            if info.is_dir() or not plain:
                raise RunError(
                    f"{file}: {info.filename[:80]!r} is not a plain file, deflated or stored; "
                    "expected one"
                )
            with archive.open(info) as content:
                yield info.filename, info.file_size, content


def _tar_members(file: Path, source: IO[bytes]) -> Iterator[tuple[str, int, IO[bytes]]]:
    unpacked = _Unpacked(source)
    with tarfile.open(fileobj=cast(IO[bytes], unpacked), mode="r|") as archive:
        while info := archive.next():
            unpacked.left = info.size + HEADER_BYTES
            content = archive.extractfile(info) if info.isreg() else None
            if content is None or info.issparse():
                raise RunError(f"{file}: {info.name[:80]!r} is not a plain file; expected one")
            yield info.name, info.size, content
            unpacked.left = HEADER_BYTES


class _Unpacked:
    """Content of an open .zst file, of which at most `left` more bytes are read."""

    def __init__(self, source: IO[bytes]) -> None:
        self.library, self.left = _zstd(), HEADER_BYTES
        self.reader = self.library.ZstdDecompressor(max_window_size=1 << 27).stream_reader(source)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes. Raises ValueError for damaged or too much data."""
        try:
            data: bytes = self.reader.read(size)
        except self.library.ZstdError as error:
            raise ValueError(str(error)) from error
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("a name of a file is too long")
        return data
