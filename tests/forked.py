"""Run code in a forked process, which needs no second or more to import torch."""

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from typing import IO

import torch


def forked(work: Callable[[], object]) -> tuple[int, str, str]:
    """Do the work in a child of this process and return its exit code, stdout and stderr.

    What the work replaces in modules stays as it was in this process.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        status = end_of(begin(work, {1: out.fileno(), 2: err.fileno()}))
        return status, _content(out), _content(err)


def begin(work: Callable[[], object], streams: Mapping[int, int] | None = None) -> int:
    """Do the work in a child, which may have other stdout (1) and stderr (2); return its number."""
    torch.set_num_threads(1)  # a forked process has no other threads
    child = os.fork()
    if not child:
        _exit_after(work, streams or {})
    return child


def end_of(child: int) -> int:
    """Wait for a child and return its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _exit_after(work: Callable[[], object], streams: Mapping[int, int]) -> None:
    """Do the work with other streams, and end the process as Python would."""
    status = 1
    try:
        for number, other in streams.items():
            os.dup2(other, number)
        with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
            status = _status(work)
    finally:
        os._exit(status)


def _status(work: Callable[[], object]) -> int:
    try:
        work()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
