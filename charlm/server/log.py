"""The log: a line for each request, and a line for each problem; never a text of a client."""

import contextlib
import logging
import os
import select
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from charlm.errors import EnvironmentFailure
from charlm.files.escapes import escape_unprintable

MAX_PATH = 200
"""Maximum length of a path in a line."""
MAX_LINE = getattr(select, "PIPE_BUF", 512)
"""Maximum bytes of a line: the number that is written to a pipe as a whole or not at all."""


class Log:
    """Lines in a file or on stderr; they are lost, and counted, if nobody reads them.

    So a pipe that nobody empties and a full disk do not stop the server.
    """

    def __init__(self, descriptor: int | None = None, *, debug: bool = False) -> None:
        self.descriptor, self.debug, self.lost = descriptor, debug, 0

    def request(self, method: str, path: bytes, status: int, seconds: float) -> None:
        """Write the line of a request; a status of 499 means that the client left."""
        shown = path.decode("latin-1")
        shown = shown if len(shown) <= MAX_PATH else f"{shown[:MAX_PATH]}..."
        self.write(f"{method} {shown} {status} {1000 * seconds:.1f} ms")

    def failure(self, error: BaseException) -> None:
        """Write where an unexpected exception was raised; its message only with `debug`."""
        frames = traceback.extract_tb(error.__traceback__)[-4:]
        places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
        self.write(f"error {type(error).__name__} at {' > '.join(places)}")
        if self.debug:
            for line in "".join(traceback.format_exception(error)).splitlines():
                self.write(line)

    def write(self, line: str) -> None:
        """Write a line with the time, if it can be written at once."""
        if self.descriptor is None:
            return
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        data = f"{now} {escape_unprintable(line)}\n".encode(errors="backslashreplace")
        with contextlib.suppress(OSError, ValueError):
            if _takes_more(self.descriptor):
                os.write(self.descriptor, data[:MAX_LINE])
                return
        self.lost += 1


def _takes_more(descriptor: int) -> bool:
    """Return whether a line can be written at once; on Windows, which cannot say it, always."""
    if sys.platform == "win32":
        return True
    return bool(select.select([], [descriptor], [], 0)[1])


class Problems(logging.Handler):
    """Handler that writes warnings and errors of libraries as lines of the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as one line, without the message of its exception."""
        self.log.write(f"{record.levelname.lower()} {record.getMessage().strip()}")
        if record.exc_info and record.exc_info[1]:
            self.log.failure(record.exc_info[1])


def open_log(path: Path | None) -> int | None:
    """Return a descriptor that appends to a file, by default that of stderr.

    Raises EnvironmentFailure if the file cannot be opened.
    """
    if path is None:
        with contextlib.suppress(OSError, ValueError):
            return sys.__stderr__.fileno() if sys.__stderr__ else None
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise EnvironmentFailure(
            f"cannot write the log {path}: {reason}; expected a file that can be appended to. "
            "Give another --log"
        ) from error
