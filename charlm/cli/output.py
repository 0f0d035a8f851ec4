"""Output of the command line: results to stdout, messages to stderr."""

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import typer

from charlm.errors import EnvironmentFailure
from charlm.files.escapes import escape_controls

if TYPE_CHECKING:
    from rich.table import Table

STDOUT, STDERR, READ_ESCAPES = -11, -12, 4
"""Numbers of Windows for the output streams, and for a console that reads escape sequences."""
MIN_TEXT = 10
"""Minimum width of a text column, even on a narrow terminal."""


class Verbosity:
    """State of the command line: verbosity, and the command that was typed."""

    level = 1
    """0 for --quiet, 1 by default, 2 for --verbose."""
    stop_reported = False
    """True if a command has reported its interruption."""
    debug = False
    words: ClassVar[list[str]] = []
    """Words of the command, without the name of the program."""
    command = "charlm"
    """The whole command, quoted for the shell."""


class Line:
    """Last line of a terminal, which shows progress; messages appear above it."""

    lock = threading.RLock()
    draw: Callable[[str], None] | None = None

    @classmethod
    def show(cls, draw: Callable[[str], None], text: str) -> None:
        """Replace the line by calling `draw`."""
        with cls.lock:
            cls.draw = draw
            draw(text)

    @classmethod
    def clear(cls) -> None:
        """Remove the line, if there is one."""
        with cls.lock:
            if cls.draw is not None:
                cls.draw("")
                cls.draw = None


def say(text: str, *, level: int = 1) -> None:
    """Write a message to stderr."""
    if Verbosity.level >= level:
        with Line.lock:
            Line.clear()
            try:
                print(text, file=sys.stderr, flush=True)  # noqa: T201
            except OSError:  # closed pipe or terminal, full disk
                _silence(2)


def say_all(messages: Iterable[str]) -> None:
    """Write messages to stderr, one on each line."""
    for message in messages:
        say(message)


def write(text: str, *, flush: bool = False) -> None:
    """Write a part of the result to stdout as it is. A closed pipe (`| head`) exits with 0.

    Raises EnvironmentFailure if writing fails, as on a full disk.
    """
    Line.clear()
    try:
        sys.stdout.write(text)
        if flush:
            sys.stdout.flush()
    except BrokenPipeError:
        _silence(1)
        raise typer.Exit(0) from None
    except OSError as error:
        raise _unwritten(error) from error


def write_text(text: str, *, flush: bool = False) -> None:
    """Write a part of the result that may hold any characters, as `write`.

    On a terminal, control characters are escaped, which could change it.
    """
    write(escape_controls(text) if on_terminal() else text, flush=flush)


def _unwritten(error: OSError) -> EnvironmentFailure:
    _silence(1)
    return EnvironmentFailure(
        f"cannot write to stdout: {error.strerror}; expected room for the result. Free some "
        "space, or write somewhere else"
    )


def save_text(path: Path, text: str) -> None:
    """Write a text to a file, and report the name of the file."""
    from charlm.files.atomic import write_file

    write_file(path, text.encode("utf-8"))
    say(f"wrote {path}")


def finish_output() -> None:
    """Flush stdout. A closed pipe is not an error.

    Raises EnvironmentFailure if writing fails.
    """
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        _silence(1)
    except OSError as error:
        raise _unwritten(error) from error


def write_json(content: Any) -> None:
    """Write a value as the result, in JSON."""
    write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_document(members: Mapping[str, Any]) -> None:
    """Write a JSON object as the result, with its schema version as the first member."""
    write_json({"schema_version": 1, **members})


def write_documents(members: Mapping[str, Mapping[str, Any]]) -> None:
    """Write named JSON objects as the result; a single one is written without its name."""
    if len(members) == 1:
        write_document(*members.values())
    else:
        write_json({name: {"schema_version": 1, **own} for name, own in members.items()})


def write_json_line(content: Any) -> None:
    """Write a line of JSON and flush."""
    write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", flush=True)


def render(renderable: Any) -> None:
    """Write a table or text for people as the result."""
    write(rendered(renderable))


def render_all(renderables: Iterable[Any]) -> None:
    """Write tables and texts for people as the result, separated by blank lines."""
    for number, renderable in enumerate(renderables):
        write("\n" if number else "")
        render(renderable)


def rendered(renderable: Any, *, stderr: bool = False) -> str:
    """Return a table or text as it is shown; colours only on a terminal without NO_COLOR.

    A table, or text that is not wrapped, may be wider than the terminal: numbers are never cut.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=stderr, soft_wrap=False, highlight=False, emoji=False, markup=False)
    if isinstance(renderable, Table):
        console.width = max(console.width, _least_width(renderable))
    if isinstance(renderable, Text) and renderable.no_wrap:
        console.width = max(console.width, *map(len, renderable.plain.split("\n")))
    try:
        with console.capture() as capture:
            console.print(renderable)
    except OSError as error:  # unbuffered, even an empty text may fail on a full disk
        raise _unwritten(error) from error
    return re.sub(" +$", "", capture.get(), flags=re.MULTILINE)


def _least_width(table: "Table") -> int:
    """Return the width that a table needs for its numbers and MIN_TEXT columns of text."""
    from rich.text import Text

    width = 0
    for column in table.columns:
        cells = [Text(str(cell)).cell_len for cell in (column.header, *column.cells)]
        width += 2 + (max(cells) if column.no_wrap else min(max(cells), MIN_TEXT))
    return width


def terminal_width() -> int:
    """Return the width of the terminal."""
    from rich.console import Console

    return Console().width


def on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def prepare_streams() -> None:
    """Set stdout and stderr to UTF-8 and LF line ends; replace closed streams by /dev/null."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: `charlm sample 2>&-`
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    if sys.platform == "win32":
        _read_escapes()


def _read_escapes() -> None:
    """Let the console of Windows 10 or later read colours and movements of the cursor.

    Newer terminals do so by themselves.
    """
    import ctypes

    with contextlib.suppress(AttributeError, OSError):
        kernel, mode = ctypes.windll.kernel32, ctypes.c_ulong()  # type: ignore[attr-defined]
        for number in (STDOUT, STDERR):
            handle = kernel.GetStdHandle(number)
            if kernel.GetConsoleMode(handle, ctypes.byref(mode)):
                kernel.SetConsoleMode(handle, mode.value | READ_ESCAPES)


def close_streams() -> None:
    """Flush stdout and stderr; failures can no longer be reported."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _silence(1 if stream is sys.stdout else 2)


def _silence(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


class Forgiving:
    """Stream for progress that ignores failures."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write if possible."""
        try:
            self.stream.write(text)
        except (OSError, ValueError):
            _silence(2)
        return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        self.write("")
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
