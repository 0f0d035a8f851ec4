"""Start the processes of a training, or join those that torchrun has started.

Process 0 plans, writes, validates and talks to the user. The others follow (`follower`): they open
its run, get its train state, and take the same steps.
"""

import contextlib
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch import distributed

from charlm import __version__
from charlm.backends.kernel_library import default_threads
from charlm.commands import resume_command
from charlm.errors import EnvironmentFailure, UsageError, check_count, named
from charlm.phases import phase
from charlm.runs.checkpoints import describe_newest
from charlm.training import network
from charlm.training.follower import FOLLOWER, POLL_SECONDS, raise_problems
from charlm.training.parallel import (
    ANOTHER,
    TIMEOUT,
    Parallel,
    ProcessLost,
    Unanswered,
    interruptible,
    watched,
)
from charlm.training.processes import ALONE, Processes
from charlm.training.session import Session

CONNECT_TIMEOUT = timedelta(minutes=10)
"""Longest wait until all processes have started and found each other."""
THREADS = "OMP_NUM_THREADS"
"""Environment variable that limits the threads of a process."""
ENDING_POLLS = 100
"""Number of polls until a process whose connection is closed has also ended."""


def processes_of(count: int | None) -> Processes:
    """Return those that torchrun has started, or `count` that will be; by default this one alone.

    Raises UsageError if both are given and differ, or if the variables of torchrun make no sense,
    EnvironmentFailure if torch was built for one process, and ProcessLost if not all answer.
    """
    try:
        rank, started = _number("RANK", 0), _number("WORLD_SIZE", 1)
        here = _number("LOCAL_WORLD_SIZE", started) if started > 1 else 1
        local = _number("LOCAL_RANK", rank) if started > 1 else 0
    except ValueError:
        raise _misplaced() from None
    if not (0 <= rank < started and local >= 0 and 0 < here <= started):
        raise _misplaced()
    if count is not None:
        check_count("processes", count, 1)
    if max(started, count or 1) > 1 and not distributed.is_available():
        raise EnvironmentFailure(
            "several processes need torch.distributed, which this build of torch lacks; expected a "
            "build that has it, such as the one on PyPI. Install that, or train with one process"
        )
    if started > 1:
        if count not in (None, started):
            raise UsageError(
                f"{named('processes')} {count} in one of {started} processes that another program "
                f"has started; expected one of both. Leave {named('processes')} out"
            )
        return _joined(Parallel(rank, started, here))
    if count in (None, 1):
        return ALONE
    os.environ[THREADS] = _threads(count)
    return Parallel(0, count)


def _number(variable: str, default: int) -> int:
    """Return the number in an environment variable. Raises ValueError."""
    return int(os.environ.get(variable, default))


@contextlib.contextmanager
def cores_divided(count: int) -> Iterator[None]:
    """Plan with the cores of one of `count` processes on this machine."""
    with _variable(THREADS, _threads(count)):
        yield


def _threads(count: int) -> str:
    """Return the threads of one of `count` processes, as the environment has them or will."""
    return os.environ.get(THREADS) or str(max(1, default_threads() // count))


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable in this context; an empty value changes nothing."""
    before = os.environ.get(name)
    if value:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        else:
            os.environ.pop(name, None)


def check_unconnected() -> None:
    """Raise UsageError if this process is already connected with others, by charlm or a program."""
    if distributed.is_initialized():
        raise UsageError(
            "this process uses torch.distributed, or has begun another training with several "
            "processes; expected one at a time. Iterate over that training to its end, call its "
            f"close(), or give {named('processes')}=1"
        )


def _joined(processes: Parallel) -> Parallel:
    """Connect this process with the others that torchrun, or process 0, has started."""
    if FOLLOWER in os.environ:
        threading.Thread(target=_end_with_first, daemon=True).start()
    from torch.distributed.rendezvous import rendezvous

    with phase("waiting for the other processes"):
        try:
            meet = partial(next, rendezvous("env://", timeout=CONNECT_TIMEOUT))
            store = interruptible(meet)[0]
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
            here = FOLLOWER in os.environ
            find = partial(network.network_of, store)
            _join(processes, store, network.LOOPBACK if here else interruptible(find))
    return processes


def _end_with_first() -> None:
    """Kill this process when process 0 has ended in any way, which closes the pipe from it."""
    os.read(0, 1)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _misplaced() -> UsageError:
    """Return the error for variables of torchrun that make no sense."""
    names = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
    names += [name for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE") if name in os.environ]
    found = ", ".join(f"{name} {os.environ.get(name, 'unset')!r:.40}" for name in names)
    return UsageError(
        f"the environment has {found}; expected all as torchrun sets them, RANK below WORLD_SIZE. "
        "Unset them to train with one process"
    )


def _join(processes: Parallel, store: Any, interface: str) -> None:
    """Connect this process with the others, which have the same store, through an interface."""
    local = int(os.environ.get("LOCAL_RANK", processes.rank))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    store.set(f"ready/{processes.rank}", "")
    try:
        with _variable(network.VARIABLE, interface):
            processes.group = interruptible(partial(_connect, processes, store))
            processes.store = store
    except RuntimeError as error:
        raise ProcessLost(
            f"process {processes.rank} of {processes.count} on {platform.node()} cannot connect to "
            f"all others: {str(error).splitlines()[0]:.200}; expected that all machines can reach "
            f"each other at any port. Open the firewall between them, or name their network in "
            f"{network.VARIABLE} (now {os.environ.get(network.VARIABLE) or interface or 'unset'})"
        ) from error


def _connect(processes: Parallel, store: Any) -> "distributed.ProcessGroup":
    """Connect this process with all others, which have the same store."""
    hook = sys.excepthook
    distributed.init_process_group(
        "gloo", store=store, rank=processes.rank, world_size=processes.count,
        timeout=CONNECT_TIMEOUT,
    )  # fmt: skip
    sys.excepthook = hook  # torch's writes "[rank0]: " before all later errors of this program
    group: distributed.ProcessGroup = distributed.new_group(timeout=TIMEOUT, backend="gloo")
    return group


@contextlib.contextmanager
def followed(processes: Processes, session: Session) -> Iterator[None]:
    """Let the other processes train the run of a session with this one, number 0.

    Those that torchrun has not started are started, and killed with the context: they write
    nothing. Raises ProcessLost.
    """
    if processes.count == 1 or session.complete:
        yield
        return
    assert isinstance(processes, Parallel)
    started: list[subprocess.Popen[bytes]] = []
    if by_itself := processes.group is None:
        check_unconnected()
    try:
        if by_itself:
            _start_all(processes, started)
        offer = {"charlm": __version__, "path": str(session.path), "record": session.record}
        processes.from_first(lambda: offer)
        raise_problems(processes, None)
        yield
    except ProcessLost as error:
        raise _explained(session, started, error) from error
    finally:
        for process in started:  # first, since torch waits for a sum that has begun
            with process:
                process.kill()
        processes.close()


def _start_all(processes: Parallel, started: list[subprocess.Popen[bytes]]) -> None:
    """Start the other processes on this machine, which are added to a list, and connect them."""
    host, server = network.listening_socket()  # torch would listen on all networks
    with server:
        port = server.getsockname()[1]
        store = distributed.TCPStore(  # type: ignore[attr-defined]
            host, port, processes.count, is_master=True, timeout=TIMEOUT, wait_for_workers=False,
            master_listen_fd=server.detach(),
            use_libuv=False,  # in torch 2.6 it accepts no socket
        )  # fmt: skip
    with phase("starting the other processes"):
        _start_others(processes, host, port, store, started)
    _join(processes, store, network.LOOPBACK)


def _start_others(
    processes: Parallel, host: str, port: int, store: Any, started: list[subprocess.Popen[bytes]]
) -> None:
    """Start the other processes, which are added to a list, and wait until they run."""
    for rank in range(1, processes.count):
        try:
            started.append(_start(rank, processes.count, host, port))
        except OSError as error:
            raise EnvironmentFailure(
                f"process {rank} of {processes.count} cannot be started: {error.strerror}; "
                "expected room for all of them. Use fewer processes"
            ) from error
    ready = [f"ready/{rank}" for rank in range(1, processes.count)]
    while not store.check(ready):
        if _ended(started):
            raise ProcessLost
        time.sleep(POLL_SECONDS)


def _start(rank: int, count: int, host: str, port: int) -> subprocess.Popen[bytes]:
    """Start a follower on this machine, out of reach of the terminal's Ctrl-C.

    It finds the modules that this process finds, not others in the current folder.
    """
    place = {
        "RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": host, "MASTER_PORT": port, FOLLOWER: 1, THREADS: _threads(count),
        "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
        "USE_LIBUV": 0,  # which torch lacks on Windows; torch 2.6 would ask for it
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "charlm", "train"],
        env=os.environ | {name: str(value) for name, value in place.items()},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
    )


def _ended(started: list[subprocess.Popen[bytes]]) -> str:
    """Describe the first process that has ended, or return ""."""
    for rank, process in enumerate(started, start=1):
        if (status := process.poll()) is not None:
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            return f"process {rank} of {len(started) + 1} {how}"
    return ""


def _explained(
    session: Session, started: list[subprocess.Popen[bytes]], error: ProcessLost
) -> ProcessLost:
    """Return the error for a process that has ended, or does not answer."""
    unanswered = isinstance(error, Unanswered)
    for _ in range(ENDING_POLLS if started and not unanswered else 0):
        if _ended(started):
            break
        time.sleep(POLL_SECONDS)
    who = _ended(started) or (
        str(error) if unanswered else f"{ANOTHER} has ended, or did not answer"
    )
    resume = resume_command(run=session.path, processes=session.trainer.processes.count)
    return ProcessLost(
        f"{who}; expected all of them until training ends. The run is kept: "
        f"{describe_newest(session.path)}. Resume it with: {resume}"
    )
