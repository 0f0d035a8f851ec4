"""Run a charlm command quietly, and write the seconds of its start and of each phase.

    python scripts/time_phases.py FILE train corpus.txt ...

FILE becomes a JSON object: `total`, `before` the first phase, and each phase by its name, without
the phases inside it. The work between two phases belongs to no phase.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from charlm import phases
from charlm.phases import Phase


class Times:
    """A listener that adds up the seconds of each phase, without the phases inside it."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock, self.begin_of_all = clock, clock()
        self.seconds: dict[str, float] = {}
        self._open: list[tuple[str, float]] = []
        """Name of each open phase, and the time up to which its seconds are counted."""

    def begin(self, phase: Phase) -> None:
        """See `Listener`."""
        now = self.clock()
        self.seconds.setdefault("before", now - self.begin_of_all)
        self._count(now)
        self._open.append((phase.name, now))

    def end(self, phase: Phase) -> None:
        """See `Listener`."""
        now = self.clock()
        self._count(now)
        self._open.pop()
        if self._open:
            self._open[-1] = self._open[-1][0], now

    def _count(self, now: float) -> None:
        """Add the time since the last event to the innermost open phase."""
        if self._open:
            name, since = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - since


def main() -> None:
    """Run the command of the arguments; exit as it does."""
    target, *arguments = sys.argv[1:]
    times = Times()
    from charlm import cli  # whose import is a part of the command
    from charlm.cli import display

    vars(display)["listening"] = lambda _: phases.listening(times)
    try:
        cli.main(["-q", *arguments])
    finally:
        seconds = {"total": times.clock() - times.begin_of_all} | times.seconds
        Path(target).write_text(json.dumps(seconds, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
