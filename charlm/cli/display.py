"""Display of phases on stderr: one line that is redrawn on a terminal, plain lines in a log."""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from charlm.cli.output import Forgiving, Line, Verbosity, say
from charlm.files.escapes import escape_unprintable
from charlm.phases import Phase, listening

TICK = 0.25
"""Seconds between two updates."""
DRAWN_AFTER = 0.5
"""Seconds after which a terminal shows a phase."""
PLAIN_AFTER = 2.0
"""Seconds after which a log gets a line about a phase."""
PLAIN_GAP = 30.0
"""Seconds between two lines of a log about one phase."""
SPINNER = "|/-\\"
BAR = 20
"""Maximum width of a bar."""


def stderr_width() -> int:
    """Return the width of the terminal on stderr; stdout may be a pipe, as in $(charlm train)."""
    with contextlib.suppress(OSError, ValueError):
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        if columns and not os.environ.get("COLUMNS"):
            return columns
    return shutil.get_terminal_size().columns


class Display:
    """Listener that shows the innermost phase that has lasted a while.

    `draw` replaces the line of a terminal; without it `say` writes plain lines. `clock` returns
    seconds, `width` the columns of the terminal. With --quiet nothing is shown.
    """

    def __init__(
        self,
        draw: Callable[[str], None] | None = None,
        *,
        say: Callable[[str], None] = say,
        clock: Callable[[], float] = time.monotonic,
        width: Callable[[], int] = stderr_width,
    ) -> None:
        self.draw, self.say, self.clock, self.width = draw, say, clock, width
        self.shown: list[_Shown] = []
        self.on_begin: Callable[[], None] = lambda: None
        self._ticks = 0

    def begin(self, phase: Phase) -> None:
        """Add a phase."""
        self.shown.append(_Shown(phase, self.clock()))
        self.on_begin()

    def end(self, phase: Phase) -> None:
        """Remove a phase, and clear the line if no other is open."""
        self.shown = [one for one in self.shown if one.phase is not phase]
        if not self.shown:
            Line.clear()

    def tick(self) -> None:
        """Update the line of a terminal, or write a line to a log if it is time."""
        open_phases, now = self.shown, self.clock()
        if Verbosity.level == 0 or not open_phases:
            return
        self._ticks += 1
        if self.draw is None:
            self._report(open_phases[-1], now)
            return
        lasting = [one for one in open_phases if now - one.begun >= DRAWN_AFTER]
        if lasting:
            line = lasting[-1].line(now, self.width(), SPINNER[self._ticks % len(SPINNER)])
            Line.show(self.draw, line)

    def _report(self, one: "_Shown", now: float) -> None:
        due = one.begun + PLAIN_AFTER if one.reported_at is None else one.reported_at + PLAIN_GAP
        if now >= due:
            one.reported_at = now
            fraction, text = one.phase.fraction, one.phase.text
            if one.phase.line:
                text = one.phase.line
            elif fraction:
                text = f"{one.phase.name}: {100 * fraction:.0f} %"
            elif text == one.phase.name:
                text += " ..."
            self.say(escape_unprintable(text))


class _Shown:
    """Open phase, with the times of its start and of its last line in a log."""

    def __init__(self, phase: Phase, begun: float) -> None:
        self.phase, self.begun = phase, begun
        self.first: float | None = None  # at the first update
        self.reported_at: float | None = None

    def line(self, now: float, width: int, spinner: str) -> str:
        """Return a line about the phase that fits the terminal."""
        fraction, seconds = self.phase.fraction, now - self.begun
        text = self.phase.text
        if fraction is None:
            return fitted(f"{spinner} ", 0.0, text, clock_text(seconds), width, most=0)
        if self.first is None:
            self.first = fraction
        gained = fraction - self.first
        times = clock_text(seconds)
        if gained > 0.0:
            times += f", {clock_text(seconds * (1.0 - fraction) / gained)} left"
        return fitted(f"{100 * fraction:3.0f}% ", fraction, text, times, width)


def fitted(head: str, fraction: float, text: str, times: str, width: int, most: int = BAR) -> str:
    """Return a line of fewer than `width` columns; the bar shrinks first, then the text."""
    from tqdm.utils import disp_len, disp_trim  # of characters that take two columns

    text = escape_unprintable(text)
    room = width - 1 - len(head) - len(times) - 2
    bar = min(most, room - disp_len(text) - 3)
    if bar >= 4:
        filled = round(fraction * bar)
        head += f"|{'#' * filled}{' ' * (bar - filled)}| "
        room -= bar + 3
    if disp_len(text) > room:
        text = disp_trim(text, max(room - 1, 0)) + "…"
    return f"{head}{text}  {times}"


def clock_text(seconds: float) -> str:
    """Format seconds as `0:45`, `3:07` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextlib.contextmanager
def shown_phases() -> Iterator[None]:
    """Show phases on stderr."""
    display = Display(_line_writer() if sys.stderr.isatty() else None)
    ended = threading.Event()

    def update() -> None:
        """Update the display until the command has ended."""
        while not ended.wait(TICK):
            display.tick()

    watcher = threading.Thread(target=update, daemon=True)

    def watch() -> None:
        """Start the updates at the first phase; most commands have none."""
        if not watcher.is_alive() and not ended.is_set():
            watcher.start()

    display.on_begin = watch
    try:
        with listening(display):
            yield
    finally:
        ended.set()
        if watcher.is_alive():
            watcher.join()
        Line.clear()


def _line_writer() -> Callable[[str], None]:
    """Return a function that replaces the last line of stderr."""
    printer: Any = None
    stream = Forgiving(sys.stderr)

    def draw(line: str) -> None:
        """Replace the line; an empty one puts the cursor at its start."""
        nonlocal printer
        if printer is None:
            from tqdm import tqdm

            printer = tqdm.status_printer(stream)
        printer(line)
        if not line:
            stream.write("\r")
            stream.flush()

    return draw
