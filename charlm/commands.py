"""Commands that charlm suggests, quoted for the shell.

The default folder of runs and its environment variable are defined here too, since a suggested
command needs `--checkpoints` for any other folder.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

CHECKPOINTS = Path("checkpoints")
"""Default folder of runs."""
CHECKPOINTS_VARIABLE = "CHARLM_CHECKPOINTS"
"""Environment variable for another folder of runs."""


def command(*words: object, run: Path | str | None = None, checkpoints: Path | None = None) -> str:
    """Return a charlm command that a user can paste into a shell.

    command("train", "my text.txt")                       charlm train 'my text.txt'
    command("info", run=Path("checkpoints/tales"))        charlm info --run tales
    command("info", run=Path("my runs/tales"))            charlm info --run 'my runs/tales'
    command("search", checkpoints=Path("my runs"))        charlm search --checkpoints 'my runs'

    A run is named by its path unless it is in the default folder, so it needs no `--checkpoints`.
    """
    parts = ["charlm", *(str(word) for word in words)]
    if run is not None:
        parts += ["--run", run_word(run)]
    if checkpoints is not None and not _is_default(checkpoints):
        parts += ["--checkpoints", str(checkpoints)]
    return join_words(parts)


def join_words(words: Iterable[str]) -> str:
    """Return words as a command line, each quoted as in `quote`."""
    return " ".join(map(quote, words))


def quote(word: str) -> str:
    """Return a word as it is typed in the shell of this system: in quotes, if it needs any.

    The shells of Windows have double quotes in common. Programs read a backslash before such a
    quote as one that escapes it.
    """
    if sys.platform != "win32":
        return shlex.quote(word)
    if re.fullmatch(r"[\w.:/\\+=@-]+", word):
        return word
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), word)
    return f'"{escaped}"'


def resume_command(*more: object, run: Path | str, processes: int = 1) -> str:
    """Return the command that resumes a run with this number of processes, and more options.

    resume_command(run=path)                  charlm train --resume --run tales
    resume_command(run=path, processes=2)     charlm train --resume --processes 2 --run tales

    In a process that torchrun has started on one machine, the command begins with torchrun. If
    another program has started it, the command is that of each process.
    """
    if processes == 1:
        return command("train", "--resume", *more, run=run)
    if os.environ.get("WORLD_SIZE") != str(processes):
        return command("train", "--resume", "--processes", processes, *more, run=run)
    each = command("train", "--resume", *more, run=run)
    by_torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    if by_torchrun and os.environ.get("LOCAL_WORLD_SIZE") == str(processes):
        return f"torchrun --nproc-per-node {processes} -m {each}"
    return f"{each} (in each of {processes} processes, as before)"


def run_word(run: Path | str) -> str:
    """Return the word for a run in a command: its name, or its path outside the default folder."""
    path = Path(run)
    return path.name if _is_default(path.parent) else str(run)


def _is_default(folder: Path) -> bool:
    """Return whether the next command finds this folder without `--checkpoints`.

    The variable may be set for one command only, so it does not count as a default.
    """
    return folder == CHECKPOINTS and not os.environ.get(CHECKPOINTS_VARIABLE)
