"""Standard input: read it, and detect a text there that a command would ignore.

A command that takes a text and was given none has a default: the built-in text, the newest run's
held-out text, an empty prompt. If standard input has data at that moment, the default is not what
the user meant, so the command refuses (see `check_unread`). Anything that can not be seen without
waiting counts as no data: a terminal, /dev/null, a closed or empty stream, and a pipe whose writer
is silent. So nothing hangs under cron, in CI or below a program that leaves its pipe open.
"""

import contextlib
import os
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.cli.output import Verbosity, say
from charlm.cli.takes import Takes, Values
from charlm.errors import UsageError

if TYPE_CHECKING:
    from charlm.text.sources.rows import Record

READ_BYTES = 1 << 16


NOT_GIVEN: tuple[Any, ...] = (None, False, [], ())
"""Values of parameters that were not typed; an empty text was."""


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
            advice = f"{takes.purpose} with: {Verbosity.command} {shlex.join(takes.stdin)}"
        raise UsageError(
            f"stdin holds {size:,} bytes that charlm {verb} would not read; expected a text as an "
            f"argument, or nothing on stdin. {advice}, or ignore it with < {os.devnull}"
        )


def _words(values: Values) -> Iterator[str]:
    """Yield every value of every parameter, as text."""
    for value in values.values():
        yield from map(str, value) if isinstance(value, (list, tuple)) else (str(value),)


def _file_names_text(config: Path | None) -> bool:
    """Return whether a file of settings names the text; what is wrong with it is found later."""
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

    A file counts from the place where it stands, a pipe or socket by what its writer has written.
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


def _buffered(descriptor: int) -> int:
    """Return the number of bytes in the buffer of a pipe or socket."""
    with contextlib.suppress(ImportError, OSError):  # not on Windows
        import fcntl
        import termios

        answer = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
        return int.from_bytes(answer, sys.byteorder)
    return 0


def read_text() -> str:
    """Return the text on standard input without its last line end. Raises CorpusError."""
    from charlm.text.boundaries import strip_line_end

    return strip_line_end(read_file(Path("-")))


def read_file(path: Path) -> str:
    """Return the text of a file, or of standard input for `-`. Raises CorpusError."""
    from charlm.text.corpus import Corpus

    return "".join(Corpus([str(path)], document="stream").chunks())


def stdin_sentences(reading: Mapping[str, Any]) -> "Iterator[list[Record]]":
    """Yield the lines of standard input as they arrive, numbered from 1.

    Reports once if they look like a table, or end with a carriage return that is left out.
    """
    from charlm.config.corpus import ReadSettings
    from charlm.text.sources.decoding import codec_name

    rules = ReadSettings(**reading)
    lines = stdin_lines(codec_name(rules.encoding), rules.errors)
    batches = numbered(_advised(lines) if rules.input_format == "auto" else lines)
    return batches if rules.keep_cr else _without_cr(batches)


def _advised(batches: Iterator[list[str]]) -> Iterator[list[str]]:
    """Report if the first lines are more than plain text, such as a table."""
    from charlm.text.sources.kinds import advice_for

    for number, batch in enumerate(batches):
        if number == 0 and (advice := advice_for("\n".join([*batch, ""]))):
            say(f"standard input {advice}")
        yield batch


def numbered(batches: Iterable[list[str]]) -> "Iterator[list[Record]]":
    """Yield lines as records, numbered from 1."""
    from charlm.text.sources.rows import Record

    number = 0
    for batch in batches:
        yield [Record(number + at, number + at, text) for at, text in enumerate(batch, start=1)]
        number += len(batch)


def _without_cr(batches: "Iterator[list[Record]]") -> "Iterator[list[Record]]":
    """Remove the carriage return at the end of lines from Windows; report it once."""
    reported = False
    for batch in batches:
        if not reported and any(row.text and row.text.endswith("\r") for row in batch):
            reported = True
            say("lines end with a carriage return; it was left out. Keep it with --keep-cr")
        yield [row._replace(text=row.text and row.text.removesuffix("\r")) for row in batch]


def stdin_lines(encoding: str = "utf-8", errors: str = "strict") -> Iterator[list[str]]:
    """Yield lines of stdin as soon as they arrive, in batches. Raises CorpusError."""
    from charlm.text.sources.decoding import decode

    blocks = iter(lambda: os.read(sys.stdin.fileno(), READ_BYTES), b"")
    rest = ""
    for piece in decode(
        blocks, "standard input", say, encoding=encoding, errors=errors, sniff_bytes=1
    ):
        *lines, rest = (rest + piece).split("\n")
        if lines:
            yield lines
    if rest:
        yield [rest]
