"""Exceptions: one class for each kind of failure that a user can act on.

    CharlmError                 exit code 1
    ├── UsageError              2   a flag, setting or argument makes no sense
    ├── CorpusError             3   the text cannot be read or is not usable
    ├── RunError                4   a run, model or checkpoint is damaged, missing or incompatible
    ├── EnvironmentFailure      5   disk, memory, device, lock, missing extra
    └── DivergenceError         6   training produced a number that is not finite

Every message has three parts: what was found, what was expected, what to do.
"""

import contextlib
import difflib
import operator
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, SupportsIndex


class CharlmError(Exception):
    """Base of every error raised on purpose; `exit_code` is the status of the command line."""

    exit_code = 1


class UsageError(CharlmError, ValueError):
    """Invalid flag, setting or argument, alone or in combination."""

    exit_code = 2


class CorpusError(CharlmError):
    """Text that cannot be found, read, decoded or used.

    `place` is the position of bytes that are invalid in the encoding, or empty. `columns` are those
    of a table that lacks the one to read, or empty.
    """

    exit_code = 3

    def __init__(self, message: str, place: str = "", columns: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.place, self.columns = place, tuple(columns)


class RunError(CharlmError):
    """Run, model or checkpoint that is missing, damaged or of another format."""

    exit_code = 4


class EnvironmentFailure(CharlmError):
    """Failure of the machine: disk, memory, device, lock, or a missing package."""

    exit_code = 5


class DivergenceError(CharlmError):
    """Loss or gradient that is not finite; it was not saved.

    `problem` is only the first part of the message, for callers that know what to do.
    """

    exit_code = 6

    def __init__(self, message: str, problem: str = "") -> None:
        super().__init__(message)
        self.problem = problem or message


_NAMES: ContextVar[Mapping[str, str]] = ContextVar("names", default=MappingProxyType({}))


@contextlib.contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Make messages name settings and options as the user did: {"top_p": "--top-p"}."""
    token = _NAMES.set(names)
    try:
        yield
    finally:
        _NAMES.reset(token)


def named(name: str) -> str:
    """Return a setting or option as the user wrote it: a flag, a keyword, or its own name."""
    return _NAMES.get().get(name, name)


def assigned(name: str, value: str) -> str:
    """Return a value of an option as the user writes it: `--engine torch` or `engine='torch'`."""
    word = named(name)
    return f"{word} {value}" if word.startswith("-") else f"{word}={value!r}"


def nearest(name: str, names: Collection[str]) -> str:
    """Return "did you mean 'lstm'?" for a misspelled name, or "" if no name is near."""
    near = near_name(name, names)
    return f"did you mean {near!r}?" if near else ""


SYNONYMS = {"gpu": "cuda", "remove": "rm", "delete": "rm"}
"""Names that are not spelled alike."""


def ended(text: object) -> str:
    """Return a message with the end of its last sentence, so that another sentence can follow."""
    return str(text) if str(text).endswith((".", "?")) else f"{text}."


def near_name(typed: str, names: Collection[str]) -> str:
    """Return the name that was probably meant, or "".

    First a name in other case, then one that begins so ("temp"), one with these initials ("lr"
    for "learning_rate"), and one that is spelled alike.
    """
    plain = {_plain(name): name for name in names}
    word = _plain(typed)
    if (meant := SYNONYMS.get(word)) in plain:
        return plain[meant]
    if not word:
        return ""
    beginning = sorted((name for name in plain if name.startswith(word)), key=len)
    initials = ["".join(part[:1] for part in name.split("-")) for name in plain]
    alike = [name for name, short in zip(plain, initials, strict=True) if short == word]
    alike += difflib.get_close_matches(word, plain, n=1)
    near = [*(beginning if len(word) > 2 else ()), *alike]
    return plain[near[0]] if near else ""


def _plain(name: str) -> str:
    """Return a name without case, leading dashes and underscores."""
    return name.casefold().lstrip("-").replace("_", "-")


def choice_problem(name: str, value: Any, choices: Collection[str]) -> str:
    """Return the problem of an option that must be one of the names, or ""."""
    if value in choices:
        return ""
    near = nearest(str(value), choices)
    hint = f" ({near})" if near else ""
    return f"{named(name)} is {value!r}; expected one of {', '.join(choices)}{hint}"


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Raise UsageError, with the nearest name, unless a value is one of the names."""
    if problem := choice_problem(name, value, choices):
        raise UsageError(problem)


def check_count(name: str, value: SupportsIndex, minimum: int) -> None:
    """Raise UsageError unless a value is a whole number of at least `minimum`."""
    try:
        fits = operator.index(value) >= minimum
    except TypeError:
        fits = False
    if not fits:
        raise UsageError(f"{named(name)} is {value!r}; expected a whole number, {minimum} or more")


MEMORY_FULL = re.compile(
    r"DefaultCPUAllocator: (can't allocate memory|not enough memory)|MPS backend out of memory|"
    r"CUDA (driver )?error: out of memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED"
)
"""Messages of a plain RuntimeError of torch: of its allocators for processors, on Windows or below
a limit, and for MPS; and of CUDA, which needs memory beside torch for a kernel or a library."""


def is_memory_full(error: BaseException) -> bool:
    """Return whether an error says that the memory of a processor or of a device is full."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # of torch
        return True
    return isinstance(error, RuntimeError) and bool(MEMORY_FULL.search(str(error)))
