"""Commands that charlm suggests: the one place that builds them, quoted for the shell.

The default folder of runs and its environment variable are named here too, because a suggested
command needs `--checkpoints` wherever that folder is another one.
"""

import os
import shlex
from pathlib import Path

CHECKPOINTS = Path("checkpoints")
"""Folder of runs where none is chosen."""
CHECKPOINTS_VARIABLE = "CHARLM_CHECKPOINTS"
"""Environment variable that chooses another folder of runs."""


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
        path = Path(run)
        parts += ["--run", path.name if _is_default(path.parent) else str(run)]
    if checkpoints is not None and not _is_default(checkpoints):
        parts += ["--checkpoints", str(checkpoints)]
    return shlex.join(parts)


def _is_default(folder: Path) -> bool:
    """Return whether the next command finds this folder without `--checkpoints`.

    A variable that is set may be set for one command only, so it does not count as a default.
    """
    return folder == CHECKPOINTS and not os.environ.get(CHECKPOINTS_VARIABLE)
