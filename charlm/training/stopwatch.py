"""A clock that leaves out the time in which the process was paused, as by Ctrl-Z and `fg`."""

import signal
import time
from collections.abc import Callable

MIN_PAUSE_SECONDS = 5.0
"""Shortest pause that is left out: programs that slow a process down pause it many times a second,
and there the seconds of the clock are meant."""
SIGNAL_SECONDS = 0.2
"""Longest wait for the signal at the end of a pause, which another thread may receive."""


class Stopwatch:
    """Clock of training. `clock` and `work` return seconds: of any clock, and of the processor."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock, self._work = clock, work
        self._paused = self._seconds = self._worked = 0.0
        self._read = False

    def __call__(self) -> float:
        """Return the seconds of the clock without the pauses."""
        seconds, work = self._reading()
        if self._idle_seconds(seconds, work) >= MIN_PAUSE_SECONDS and _pauses_are_reported():
            time.sleep(SIGNAL_SECONDS)
            seconds, work = self._reading()
        self._read, self._seconds, self._worked = True, seconds, work
        return seconds

    def leave_out_pause(self) -> None:
        """Leave out a pause that has just ended.

        It began when this was last read, or later: the seconds since then are the pause, apart from
        those in which the processor worked for this process.
        """
        seconds, work = self._reading()
        pause = self._idle_seconds(seconds, work)
        if pause >= MIN_PAUSE_SECONDS:
            self._paused += pause
            self._seconds, self._worked = seconds - pause, work

    def _reading(self) -> tuple[float, float]:
        """Return the seconds without the pauses so far, and those of the processor.

        The signal at the end of a pause may arrive in between; then all is read again.
        """
        while True:
            paused = self._paused
            seconds, work = self._clock() - paused, self._work()
            if paused == self._paused:
                return seconds, work

    def _idle_seconds(self, seconds: float, work: float) -> float:
        """Return the seconds since the last reading in which the processor did other things."""
        if not self._read:
            return 0.0
        return seconds - self._seconds - max(0.0, work - self._worked)


def _pauses_are_reported() -> bool:
    """Return whether a signal at the end of a pause is handled."""
    number = getattr(signal, "SIGCONT", None)
    return number is not None and callable(signal.getsignal(number))
