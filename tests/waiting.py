"""Time in tests: a clock that counts its readings, and waiting that tolerates slow machines.

No test asserts how long something takes; `test_no_wall_time.py` checks this.
"""

import contextlib
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import HealthCheck, settings

PATIENCE = 900
"""Seconds after which a process is considered to hang, far more than any test needs."""


def set_no_time_limits() -> None:
    """Remove the deadline of examples of hypothesis."""
    settings.register_profile(
        "any machine",
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    settings.load_profile("any machine")


class Ticking:
    """A clock that advances by `step` seconds with each reading."""

    def __init__(self, step: float = 1.0) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def set_clocks(monkeypatch: pytest.MonkeyPatch, reading: Callable[[], float]) -> None:
    """Replace all clocks for this thread. Others, such as a server in tests, keep the real ones."""
    here = threading.get_ident()

    def replaced(real: Callable[[], float]) -> Callable[[], float]:
        return lambda: reading() if threading.get_ident() == here else real()

    for name in ("perf_counter", "monotonic", "time", "process_time"):
        monkeypatch.setattr(time, name, replaced(getattr(time, name)))


def wait_until(ready: Callable[[], bool], process: subprocess.Popen | None = None) -> None:
    """Wait for a condition. Fails if a process ends first, or hangs."""
    limit = time.monotonic() + PATIENCE
    while not ready():
        if process and process.poll() is not None:
            said = process.communicate()[1] if process.stderr else b""
            raise AssertionError(f"the process ended with {process.returncode}: {said.decode()}")
        if time.monotonic() > limit:
            raise AssertionError("the process hangs")
        time.sleep(0.02)


def python_calls(function: Callable[[], object]) -> int:
    """Count the Python functions that a call of `function` enters: its work on any machine."""
    count = 0

    def entered(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(entered)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


class TooMuchWorkError(Exception):
    """Error of a call that hangs or uses more processor time than a refusal may use."""


ROOM = 2 << 30
"""Bytes of memory that a reader may use beyond what the process used before."""
WORK = 60.0
"""Seconds of processor time that a reader may use, about a hundred times what it needs."""
TIMERS = {
    signal.SIGPROF: (signal.ITIMER_PROF, WORK), signal.SIGALRM: (signal.ITIMER_REAL, PATIENCE),
}  # fmt: skip


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Limit work and memory under any load of the machine; a hang ends after PATIENCE."""

    def ring(*_: object) -> None:
        raise TooMuchWorkError

    before = {number: signal.signal(number, ring) for number in TIMERS}
    for timer, seconds in TIMERS.values():
        signal.setitimer(timer, seconds)
    try:
        with _limited_memory():
            yield
    finally:
        for number, (timer, _) in TIMERS.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """Limit the address space to ROOM more than now, if the system reports its size."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
