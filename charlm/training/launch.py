"""Start the processes of a training, or join those that torchrun has started.

Process 0 plans, writes, validates and talks to the user. The others follow: they open its run, get
its train state, and take the same steps.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from charlm.backends.kernel_library import default_threads
from charlm.commands import command
from charlm.config.settings import settings_from
from charlm.errors import CharlmError, DivergenceError, UsageError, check_count, named
from charlm.phases import phase
from charlm.runs import layout
from charlm.runs.data import read_data
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.parallel import Parallel, ProcessLost, watched
from charlm.training.processes import ALONE, Processes
from charlm.training.session import Session
from charlm.training.start import open_session
from charlm.training.trainer import Trainer

TIMEOUT = timedelta(hours=2)
"""Longest wait for another process: the others wait while process 0 plans and validates."""
CONNECT_TIMEOUT = timedelta(minutes=10)
"""Longest wait until all processes have started and found each other."""
FOLLOWER = "CHARLM_FOLLOWER"
"""Environment variable of a process that process 0 has started, and that must not outlive it."""
HOST = "127.0.0.1"
POLL_SECONDS = 0.02
ENDING_POLLS = 100
"""Number of polls until a process whose connection is closed has also ended."""


def processes_of(count: int | None) -> Processes:
    """Return those that torchrun has started, or `count` that will be; by default this one alone.

    Raises UsageError if both are given and differ, or if the variables of torchrun make no sense,
    and ProcessLost if not all of its processes answer.
    """
    try:
        rank, started = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    except ValueError:
        raise _misplaced() from None
    if not 0 <= rank < started:
        raise _misplaced()
    if count is not None:
        check_count("processes", count, 1)
    if started > 1:
        if count not in (None, started):
            raise UsageError(
                f"{named('processes')} {count} in one of {started} processes that another program "
                f"has started; expected one of both. Leave {named('processes')} out"
            )
        return _joined(Parallel(rank, started))
    if count in (None, 1):
        return ALONE
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, default_threads() // count)))
    return Parallel(0, count)


def _joined(processes: Processes) -> Processes:
    """Connect this process with the others that torchrun, or process 0, has started."""
    if FOLLOWER in os.environ:
        threading.Thread(target=_end_with_first, daemon=True).start()
    with phase("waiting for the other processes"):
        try:
            store = next(iter(rendezvous("env://", timeout=CONNECT_TIMEOUT)))[0]
        except ValueError:
            raise _misplaced() from None
        except RuntimeError as error:  # nobody answers, or the port is in use
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise ProcessLost(
                f"process {processes.rank} of {processes.count} cannot meet the others at {place}: "
                f"{str(error).splitlines()[0]:.200}; expected a free port of the first machine, "
                "and all processes. Check MASTER_ADDR and MASTER_PORT"
            ) from error
        store.set_timeout(TIMEOUT)
        with watched():
            _join(processes, store)
    return processes


def _end_with_first() -> None:
    """Kill this process when process 0 has ended in any way, which closes the pipe from it."""
    os.read(0, 1)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _misplaced() -> UsageError:
    """Return the error for variables of torchrun that make no sense."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    found = ", ".join(f"{name} {os.environ.get(name, 'unset')!r:.40}" for name in names)
    return UsageError(
        f"the environment has {found}; expected all four as torchrun sets them, RANK below "
        "WORLD_SIZE. Unset them to train with one process"
    )


def _join(processes: Processes, store: Any) -> None:
    """Connect this process with the others, which have the same store."""
    local = int(os.environ.get("LOCAL_RANK", processes.rank))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    store.set(f"ready/{processes.rank}", "")
    distributed.init_process_group(
        "gloo", store=store, rank=processes.rank, world_size=processes.count, timeout=TIMEOUT
    )


@contextlib.contextmanager
def followed(processes: Processes, session: Session) -> Iterator[None]:
    """Let the other processes train the run of a session with this one, number 0.

    Those that torchrun has not started are started, and killed with the context: they write
    nothing. Raises ProcessLost.
    """
    if processes.count == 1 or session.complete:
        yield
        return
    started: list[subprocess.Popen[bytes]] = []
    try:
        if not distributed.is_initialized():
            store = distributed.TCPStore(  # type: ignore[attr-defined]
                HOST, 0, processes.count, is_master=True, timeout=TIMEOUT, wait_for_workers=False
            )
            started += [
                _start(rank, processes.count, store.port) for rank in range(1, processes.count)
            ]
            ready = [f"ready/{rank}" for rank in range(1, processes.count)]
            while not store.check(ready):
                if _ended(started):
                    raise ProcessLost
                time.sleep(POLL_SECONDS)
            _join(processes, store)
        processes.from_first(lambda: str(session.path))
        yield
    except ProcessLost as error:
        raise _explained(session.path, started) from error
    finally:
        for process in started:  # first, since torch waits for a sum that has begun
            with process:
                process.kill()
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _start(rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    """Start a follower on this machine, out of reach of the terminal's Ctrl-C."""
    place = {
        "RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": HOST, "MASTER_PORT": port, FOLLOWER: 1,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "charlm", "train"],
        env=os.environ | {name: str(value) for name, value in place.items()},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _ended(started: list[subprocess.Popen[bytes]]) -> str:
    """Describe the first process that has ended, or return ""."""
    for rank, process in enumerate(started, start=1):
        if (status := process.poll()) is not None:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            return f"process {rank} of {len(started) + 1} {how}"
    return ""


def _explained(path: Path, started: list[subprocess.Popen[bytes]]) -> ProcessLost:
    """Return the error for a process that has ended."""
    for _ in range(ENDING_POLLS if started else 0):
        if _ended(started):
            break
        time.sleep(POLL_SECONDS)
    who = _ended(started) or "another process of this training has ended, or did not answer"
    more = ("--processes", len(started) + 1) if started else ()
    return ProcessLost(
        f"{who}; expected all of them until training ends. The run is kept up to its newest "
        f"checkpoint; resume it with: {command('train', '--resume', *more, run=path)}"
    )


def follow(processes: Processes) -> int:
    """Train with process 0 until it ends, and return the exit status.

    Process 0 reports what happens to all; only errors of this process alone are raised.
    """
    try:
        path = Path(processes.from_first(str))
    except ProcessLost:  # it has nothing to train
        return 0
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):  # process 0 decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        trainer = _opened(path)
        while True:
            try:
                for _ in trainer.run():
                    pass
                return 0
            except DivergenceError:
                if trainer.settings.on_nonfinite != "rewind":
                    raise
    except (ProcessLost, DivergenceError) as error:
        return error.exit_code
    except CharlmError as error:
        raise type(error)(f"process {processes.rank}: {error}") from error


def _opened(path: Path) -> Trainer:
    """Return the trainer of a run that process 0 has opened; nothing is written."""
    record = layout.read_record(path)
    settings = settings_from(record["settings"], str(path / layout.RECORD))
    vocabulary = load_vocabulary(path / layout.TOKENIZER)
    dataset = read_data(path, settings, vocabulary, record)
    trainer = open_session(path, settings, dataset, record, FileLock(path / ".lock")).trainer
    trainer.on_best = lambda _: None  # process 0 keeps the best weights
    return trainer
