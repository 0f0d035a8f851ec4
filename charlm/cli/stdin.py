"""Standard input: read it, and detect a text that a command would ignore.

A command that takes a text and was given none has a default: the built-in text, the newest run's
held-out text, an empty prompt. If standard input has data at that moment, the default is not what
the user meant, so the command refuses (see `check_unread`). Anything that cannot be seen without
waiting counts as no data: a terminal, /dev/null, a closed or empty stream, and a pipe whose writer
is silent. So nothing hangs under cron, in CI or below a program that leaves its pipe open.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charlm.cli import options
from charlm.cli.output import Verbosity, say_all
from charlm.commands import join_words
from charlm.errors import CorpusError, UsageError, ended

READ_BYTES = 1 << 16
STDIN = ["-"]
"""Texts or files of a command that mean standard input."""
NOT_GIVEN: tuple[Any, ...] = (None, False, [], ())
"""Values of parameters that were not typed. An empty text was typed."""
Values = Mapping[str, Any]
"""Values of a command's parameters by name."""


@dataclass(frozen=True, kw_only=True)
class Takes:
    """Decorator that declares where a command takes its text and its run from."""

    text: tuple[str, ...] = ()
    """Parameters that give a text. If none of them was given, the command uses a default, so a
    text that waits on standard input is an error."""
    stdin: tuple[str, ...] = ("-",)
    """Words that make the command read standard input; none if it cannot."""
    purpose: str = "Read it"
    """Advice on the text of `stdin`, as an imperative."""
    literal: str = ""
    """Parameter that is a text itself, for which `-` means standard input."""
    option: tuple[str, str] = ("", "")
    """Advice for a text that was given in place of a run, and the flag for it."""
    run_in: str = ""
    """Parameter with a list of texts, the first of which may be a run."""
    reads_run: Callable[[Values], bool] = bool
    """Function of the values that returns whether the call reads a run, so CHARLM_RUN applies."""

    def __call__(self, function: Callable[..., None]) -> Callable[..., None]:
        """Attach the declaration to a command."""
        function.__dict__["takes"] = self
        return function


NO_TEXT = Takes()
"""Declaration of a command that takes no text, or always needs one."""


def check_unread(verb: str, takes: Takes, values: Values) -> None:
    """Raise UsageError if a command was given no text while standard input has data."""
    if not takes.text or any(values.get(name) not in NOT_GIVEN for name in takes.text):
        return
    if "-" in _words(values) or _file_names_text(values.get("config")):
        return
    size = waiting_bytes()
    if size:
        advice = "Save it as a file and name the file, since each trial reads it"
        if takes.stdin:
            advice = f"{takes.purpose} with: {Verbosity.command} {join_words(takes.stdin)}"
        raise UsageError(
            f"stdin holds {size:,} bytes that charlm {verb} would not read; expected a text as an "
            f"argument, or nothing on stdin. {advice}, or ignore it with < {os.devnull}"
        )


def _words(values: Values) -> Iterator[str]:
    """Yield the values of all parameters as text."""
    for value in values.values():
        yield from map(str, value) if isinstance(value, (list, tuple)) else (str(value),)


def _file_names_text(config: Path | None) -> bool:
    """Return whether a settings file names the text; errors in it are reported later."""
    if config is None:
        return False
    import tomllib

    try:
        content = tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return True
    corpus = content.get("corpus")
    return isinstance(corpus, dict) and bool(corpus.get("sources"))


def waiting_bytes() -> int:
    """Return how many bytes can be read from standard input now, without waiting; 0 if unknown.

    A file counts from its current position, a pipe or socket by what was written to it.
    """
    try:
        descriptor = sys.stdin.fileno()
        kind = os.fstat(descriptor)
        if stat.S_ISREG(kind.st_mode):
            return max(0, kind.st_size - os.lseek(descriptor, 0, os.SEEK_CUR))
        if stat.S_ISFIFO(kind.st_mode) or stat.S_ISSOCK(kind.st_mode):
            return _buffered(descriptor)
    except (OSError, ValueError, AttributeError):  # closed, replaced, or no file at all
        return 0
    return 0


def is_file() -> bool:
    """Return whether standard input is a file, which is read to its end without waiting."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):  # closed, replaced, or no file at all
        return False


def _buffered(descriptor: int) -> int:
    """Return the number of bytes in the buffer of a pipe or socket."""
    with contextlib.suppress(ImportError, OSError):  # not on Windows
        import fcntl
        import termios

        answer = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
        return int.from_bytes(answer, sys.byteorder)
    return 0


def comes_from_stdin(
    noun: str, texts: Sequence[str], files: Sequence[str], reading: options.SettingFlags
) -> bool:
    """Return whether a command reads its texts from stdin: none was given, or `-` in their place.

    `noun` names the texts. Raises UsageError for two sources, and for flags for reading that texts
    given as arguments do not need.
    """
    if texts and files:
        raise UsageError(f"{noun} and --file were both given; expected one of them")
    from_stdin = (not texts and not files) or STDIN in (texts, files)
    if texts and not from_stdin:
        options.check_meant(options.reading_flags(reading), "--file or stdin")
    return from_stdin


def check_stdin(noun: str, reading: options.SettingFlags) -> None:
    """Raise UsageError for flags that only a table on stdin needs, or if no text was given."""
    if not options.reads_table(reading):
        options.check_meant(options.table_flags(reading), "--file or --input-format")
    if sys.stdin.isatty():
        raise UsageError(f"no {noun}; expected some as arguments, with --file, or on stdin")


def read_text(path: Path = Path("-"), run: Path | None = None) -> str:
    """Return the text of a file, or on standard input, without its last line end.

    `run` and errors are as in `read_file`.
    """
    from charlm.text.boundaries import strip_line_end

    return strip_line_end(read_file(path, run))


def read_file(path: Path, run: Path | None = None) -> str:
    """Return the text of a file, or of standard input for `-`, and report how a table is read.

    A table is read by the columns of `run`, if it has them. Raises CorpusError; commands that read
    one text have no options of tables and encodings, which its advice may name.
    """
    from charlm.runs.columns import run_columns
    from charlm.text.corpus import Corpus

    corpus = Corpus([str(path)], document="stream", columns=run_columns(run) if run else None)
    try:
        text = "".join(corpus.chunks())
    except CorpusError as error:
        if "--" not in str(error):
            raise
        raise CorpusError(
            f"{ended(error)} This command has no such option: save the text as a plain text file",
            error.place,
            error.columns,
        ) from error
    if corpus.has_tables:
        say_all(corpus.warnings)
    return text


def stdin_blocks() -> Iterator[bytes]:
    """Yield standard input as it arrives."""
    stream: Any = sys.stdin.buffer  # which has UTF-8 from a console of Windows, unlike os.read
    if sys.platform != "win32":  # else a pause would end the text
        os.set_blocking(stream.fileno(), True)
    return iter(lambda: stream.read1(READ_BYTES), b"")
