"""Where the command line writes: results to stdout, talk to stderr, both through here."""

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from charlm.errors import EnvironmentFailure

if TYPE_CHECKING:
    from rich.table import Table

MIN_TEXT = 10
"""Columns that a text column of a table keeps, however narrow the terminal is."""


class Verbosity:
    """How much is said on stderr (0 --quiet, 1 normally, 2 --verbose), and what was called.

    `stop_told` is true when a command has already said that it was interrupted.
    """

    level = 1
    stop_told = False
    debug = False
    command = "charlm"


class Line:
    """The last line of a terminal, redrawn to show progress; what is said appears above it."""

    lock = threading.RLock()
    draw: Callable[[str], None] | None = None

    @classmethod
    def show(cls, draw: Callable[[str], None], text: str) -> None:
        """Replace the line with a function that does that."""
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
    """A sentence for the person at the terminal, on stderr."""
    if Verbosity.level >= level:
        with Line.lock:
            Line.clear()
            try:
                print(text, file=sys.stderr, flush=True)  # noqa: T201
            except OSError:  # a reader that has gone, a terminal that was closed, a full disk
                _silence(2)


def say_notes(notes: Sequence[str], said: int = 0) -> int:
    """Report the notes after the first `said`; return how many there are now."""
    for note in notes[said:]:
        say(note)
    return len(notes)


def write(text: str, *, flush: bool = False) -> None:
    """Part of the result, exactly, on stdout. A closed pipe (`| head`) ends quietly with 0.

    Raises EnvironmentFailure where it cannot be written, as on a full disk.
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


def _unwritten(error: OSError) -> EnvironmentFailure:
    _silence(1)
    return EnvironmentFailure(
        f"cannot write to stdout: {error.strerror}; expected room for the result. Free some "
        "space, or write somewhere else"
    )


def finish_output() -> None:
    """Write what is left of the result. A reader that has gone is not an error.

    Raises EnvironmentFailure where it cannot be written.
    """
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        _silence(1)
    except OSError as error:
        raise _unwritten(error) from error


def write_json(content: Any) -> None:
    """One JSON document as the result."""
    write(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_line(content: Any) -> None:
    """One line of JSON, flushed."""
    write(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", flush=True)


def render(renderable: Any) -> None:
    """A table or text for people as the result."""
    write(drawn(renderable))


def drawn(renderable: Any, *, stderr: bool = False) -> str:
    """What people see of a table or text; colour only on a terminal (NO_COLOR is kept).

    A table is wider than a terminal that is too narrow for its numbers: none of them is cut.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=stderr, soft_wrap=False, highlight=False, emoji=False, markup=False)
    if isinstance(renderable, Table):
        console.width = max(console.width, _least_width(renderable))
    with console.capture() as capture:
        console.print(renderable)
    return re.sub(" +$", "", capture.get(), flags=re.MULTILINE)


def _least_width(table: "Table") -> int:
    """Columns that a table needs for what may not be broken, such as numbers, and a little text."""
    from rich.text import Text

    width = 0
    for column in table.columns:
        cells = [Text(str(cell)).cell_len for cell in (column.header, *column.cells)]
        width += 2 + (max(cells) if column.no_wrap else min(max(cells), MIN_TEXT))
    return width


def terminal_width() -> int:
    """Return the columns of the terminal, as rich counts them."""
    from rich.console import Console

    return Console().width


def on_terminal() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def prepare_streams() -> None:
    """UTF-8 with plain line ends on stdout, whatever the locale; closed streams lead nowhere."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: `charlm sample 2>&-`
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")


def close_streams() -> None:
    """Flush what is left; nobody can be told any more of what fails."""
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
    """A stream for progress: what cannot be written is not missed."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write, or not."""
        try:
            self.stream.write(text)
        except (OSError, ValueError):
            _silence(2)
        return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        self.write("")
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
