"""A process that measures rows, and that is replaced if a row takes too long or breaks it.

After an illegal access of memory, a GPU computes nothing more for the process that made it, and a
program that waits for a GPU cannot be interrupted. So rows are measured in a process of their own:
it is ended if it does not answer in time, and the next row gets another one.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, cast

import torch

Row = dict[str, Any]
Find = Callable[[str, str], Callable[[], Row]]
"""Function that returns the measurement of a stage and a name; a process must be able to import it,
or what it is a `functools.partial` of."""

START_SECONDS = 120.0
"""Seconds in which a process must have started: it imports torch."""
END_SECONDS = 10.0
"""Seconds in which a process must have ended after it was told to."""


def measured(measure: Callable[[], Row]) -> Row:
    """Return a result, or its error: what follows is measured all the same."""
    try:
        return measure()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"}
    finally:
        if uses_gpu():
            with contextlib.suppress(RuntimeError):  # of a GPU that is lost to this process
                gc.collect()
                torch.cuda.empty_cache()


def uses_gpu() -> bool:
    """Report whether this process uses a GPU."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def is_usable() -> bool:
    """Report whether the GPU, if this process uses one, still computes for it."""
    try:
        if uses_gpu():
            torch.cuda.synchronize()
            torch.ones(8, device="cuda").sum().item()
    except RuntimeError:
        return False
    return True


def serve(connection: Connection, find: Find) -> None:
    """Measure the rows that arrive until None does, or until the GPU is lost.

    The process begins a group: the commands that it runs are ended with it.
    """
    os.setsid()
    connection.send("ready")
    while (names := connection.recv()) is not None:
        row, usable = measured(lambda names=names: find(*names)()), is_usable()  # type: ignore[misc]
        connection.send((row, usable))
        if not usable:
            break


class Worker:
    """Measures rows in another process, for a number of seconds each."""

    def __init__(self, find: Find) -> None:
        self.find = find
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None

    def measured(self, stage: str, name: str, seconds: float) -> Row:
        """Return a row, or the error that ended it: its own, too little time, or a lost process."""
        try:
            connection = self._started()
            connection.send((stage, name))
            if not connection.poll(seconds):
                self.close(at_once=True)
                return {"error": f"no result within {seconds:g} s"}
            row, usable = connection.recv()
        except (EOFError, OSError) as error:
            code = self.close(at_once=True)
            return {"error": f"the process was lost (exit {code}): {type(error).__name__}"}
        if not usable:
            self.close(at_once=True)
            row.setdefault("error", "the GPU was lost after it")
        return dict(row)

    def _started(self) -> Connection:
        """Return the connection to a process that is ready. Raises OSError if it does not start."""
        if self._connection is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs, self.find), daemon=True)
            self._process.start()
            theirs.close()
            if not self._connection.poll(START_SECONDS) or self._connection.recv() != "ready":
                raise OSError("not ready")
        return self._connection

    def close(self, *, at_once: bool = False) -> int | None:
        """End the process, if there is one, and the commands it runs; return its exit status."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if process is None or connection is None:
            return None
        if not at_once:
            with contextlib.suppress(OSError):
                connection.send(None)
        process.join(0.2 if at_once else END_SECONDS)  # a process that has crashed ends by itself
        lost = process.exitcode
        with contextlib.suppress(ProcessLookupError):  # of a group that is empty or not begun
            os.killpg(cast(int, process.pid), signal.SIGKILL)
        process.kill()
        process.join(END_SECONDS)
        connection.close()
        return lost
