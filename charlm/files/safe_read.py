"""Safe reading of files that may be damaged or hostile.

A named pipe, a device or a file of many gigabytes in place of a small file must not make a command
wait or fill the memory.
"""

import functools
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

from charlm.errors import RunError

JSON_BYTES = 16 << 20
"""Limit for the JSON files of a run, except the vocabulary."""


def file_size(path: Path) -> int:
    """Return the size of a regular file in bytes. Raises RunError for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    _check_regular(path, status.st_mode)
    return status.st_size


def read_bytes(path: Path, most: int = JSON_BYTES) -> bytes:
    """Read a regular file of at most `most` bytes. Raises RunError."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            _check_regular(path, status.st_mode)
            if status.st_size > most:
                raise RunError(
                    f"{path}: {status.st_size:,} bytes; expected at most {most:,}. Restore it "
                    "from a copy"
                )
            return file.read(most)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_json(path: Path, most: int = JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object. Raises RunError if the file is missing, damaged or not an object."""
    return parse_object(read_bytes(path, most), path)


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object as in `parse_json`. Raises RunError for anything else."""
    content = parse_json(data, path)
    if not isinstance(content, dict):
        raise RunError(f"{path}: holds {type(content).__name__}; expected a JSON object")
    return content


def parse_json(data: bytes, path: Path) -> Any:
    """Parse JSON in UTF-8. Raises RunError that names the file.

    NaN, numbers out of range and duplicate names are refused.
    """
    try:
        return decode_json(data)
    except ValueError as error:
        raise RunError(f"{path} is not valid JSON ({error}); expected a file by charlm") from error


def decode_json(data: bytes, digits: int = 20) -> Any:
    """Parse JSON in UTF-8; whole numbers may have this number of digits.

    Raises ValueError, also for NaN, numbers out of range, double names and deep nesting.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=functools.partial(_short, digits),
            object_pairs_hook=_each_once,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise RunError(f"{path}: is {kind}; expected a file written by charlm")


def _unreadable(path: Path, error: Exception) -> RunError:
    if isinstance(error, FileNotFoundError):
        return RunError(f"{path} does not exist; expected a file written by charlm")
    reason = getattr(error, "strerror", None) or str(error)
    return RunError(f"{path}: {reason}. Expected a file written by charlm")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is out of range")
    return value


def _short(digits: int, text: str) -> int:
    if len(text) > digits:
        raise ValueError(f"{text[:20]}... is out of range")
    return int(text)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return content
