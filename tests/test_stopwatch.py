"""The clock of training, with pauses of the process."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import Call

import charlm
from charlm.cli.progress import _signals
from charlm.training import search, stopwatch
from charlm.training.search import TrialRecord
from charlm.training.stopwatch import MIN_PAUSE_SECONDS, Stopwatch

NEEDS_SIGNAL = pytest.mark.skipif(
    not hasattr(signal, "SIGCONT"), reason="no signal ends a pause here"
)


class Process:
    """A process whose clock and processor time are set by hand."""

    def __init__(self) -> None:
        self.clock, self.work = 100.0, 3.0
        self.stopwatch = Stopwatch(lambda: self.clock, lambda: self.work)

    def works(self, seconds: float) -> None:
        """Work at full speed."""
        self.clock += seconds
        self.work += seconds

    def pauses(self, seconds: float) -> None:
        """Pause and continue."""
        self.clock += seconds
        self.stopwatch.leave_out_pause()


def test_a_pause_is_left_out() -> None:
    """Whether it begins right after the clock was read or in the middle of work."""
    process = Process()
    begin = process.stopwatch()
    process.works(2.0)
    process.pauses(60.0)
    process.works(1.0)
    assert process.stopwatch() - begin == 3.0
    process.pauses(3600.0)
    process.pauses(60.0)
    assert process.stopwatch() - begin == 3.0


@pytest.mark.parametrize("late", [True, False])
def test_a_pause_in_the_middle_of_a_reading_is_left_out(late: bool) -> None:
    """Its signal is handled right after the clock was read, or right before."""
    process = Process()
    begin = process.stopwatch()
    process.works(2.0)
    read = process.stopwatch._clock

    def paused() -> float:
        process.stopwatch._clock = read
        now = read()
        process.pauses(60.0)
        return now if late else read()

    process.stopwatch._clock = paused
    assert process.stopwatch() - begin == 2.0
    process.works(1.0)
    assert process.stopwatch() - begin == 3.0


def test_short_pauses_count() -> None:
    """So a process that is slowed down by pauses still ends when its minutes are over."""
    process = Process()
    begin = process.stopwatch()
    for _ in range(9):
        process.works(0.5)
        process.pauses(MIN_PAUSE_SECONDS - 0.5)
        process.stopwatch()
    assert process.stopwatch() - begin == 9 * MIN_PAUSE_SECONDS


def test_a_busy_machine_is_no_pause() -> None:
    """Time that another process takes counts unless this one was paused."""
    process = Process()
    begin = process.stopwatch()
    process.clock += 60.0
    assert process.stopwatch() - begin == 60.0


def test_several_threads_work_more_than_the_clock() -> None:
    """The time never goes back, and nothing is left out without a pause."""
    process = Process()
    begin = process.stopwatch()
    process.clock, process.work = process.clock + 10.0, process.work + 20.0
    process.stopwatch.leave_out_pause()
    assert process.stopwatch() - begin == 10.0


def test_a_pause_before_the_first_reading_is_ignored() -> None:
    process = Process()
    process.pauses(60.0)
    begin = process.stopwatch()
    process.works(1.0)
    assert process.stopwatch() - begin == 1.0


@NEEDS_SIGNAL
def test_the_signal_to_continue_ends_a_pause() -> None:
    """Only while a run is trained."""
    ended: list[bool] = []
    clock = SimpleNamespace(leave_out_pause=lambda: ended.append(True))
    with _signals(SimpleNamespace(trainer=SimpleNamespace(clock=clock))):
        os.kill(os.getpid(), signal.SIGCONT)
    os.kill(os.getpid(), signal.SIGCONT)
    assert ended == [True]


@NEEDS_SIGNAL
def test_a_search_leaves_out_pauses(
    here: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """Its minutes and those of its trials are time of training."""
    (here / "a.txt").write_text("a text\n", encoding="utf-8")
    seconds: list[float] = []

    def paused(*_: object, clock: Stopwatch, **__: object) -> Iterator[TrialRecord]:
        begin, process = clock(), Process()
        clock._clock = lambda: begin + process.clock
        clock()
        process.clock += 3600.0
        os.kill(os.getpid(), signal.SIGCONT)
        seconds.append(clock() - begin)
        yield from ()

    monkeypatch.setattr(search, "search", paused)
    monkeypatch.setattr(search, "results", lambda *_: [])
    code, _, err = call("search", "a.txt")
    assert code == 0, err
    assert seconds == [pytest.approx(100.0, abs=5.0)]
    assert signal.getsignal(signal.SIGCONT) == signal.SIG_DFL


@NEEDS_SIGNAL
def test_a_pause_whose_signal_comes_late_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may receive it, and run after this one has read the clock."""
    process = Process()
    monkeypatch.setattr(stopwatch.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGCONT))
    before = signal.signal(signal.SIGCONT, lambda *_: process.pauses(0.0))
    try:
        begin = process.stopwatch()
        process.works(1.0)
        process.clock += 60.0
        assert process.stopwatch() - begin == 1.0
    finally:
        signal.signal(signal.SIGCONT, before)


SHOW_DATES = {
    "cli/runs.py", "runs/folders.py", "runs/ngram_runs.py", "server/answers.py", "server/log.py",
    "server/service.py", "text/idcache.py", "training/start.py",
}  # fmt: skip
"""Modules that need the date: names, records and ages of files."""
DATE = re.compile(r"\btime\.time(_ns)?\(|\bimport time_ns\b|\b(now|today|utcnow)\(")


def test_no_length_of_time_is_measured_with_the_date() -> None:
    """The date may be set back or forward, as by NTP, while a model trains for some minutes."""
    package = Path(charlm.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if DATE.search(path.read_text(encoding="utf-8"))
    }
    assert found == SHOW_DATES
