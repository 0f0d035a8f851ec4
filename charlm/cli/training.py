"""Following a training session at the terminal: plan, progress, signals, summary."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from charlm.cli.commands import command
from charlm.cli.output import Talk, drawn, say
from charlm.phases import phase

if TYPE_CHECKING:
    from charlm.training.records import FinishedRecord, Record
    from charlm.training.session import Session

PLAIN_STEP_GAP = 30.0
"""Seconds between two plain progress lines where stderr is not a terminal."""


def follow(session: "Session") -> None:
    """Run a session to its end, drawing progress on stderr. Exits 130 or 143 when interrupted."""
    from charlm.report.progress import describe_plan
    from charlm.training.records import FinishedRecord

    for note in session.notes:
        say(note)
    for line in describe_plan(session.record, session.path):
        say(line)
    finished: FinishedRecord | None = None
    told = len(session.notes)
    with _signals(session) as status, _progress(session) as show:
        try:
            for record in session.records():
                show(record)
                for note in session.notes[told:]:
                    show(note)
                told = len(session.notes)
                if isinstance(record, FinishedRecord):
                    finished = record
        except KeyboardInterrupt:
            if not status:
                raise
            say(
                "stopped at once; the last checkpoint is kept, resume from it with: "
                + command("train", "--resume", run=session.path)
            )
            raise typer.Exit(status[0]) from None
    assert finished is not None, "a session ends with a FinishedRecord"
    _summary(session, finished)
    if status:
        raise typer.Exit(status[0])


@contextlib.contextmanager
def _signals(session: "Session") -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP end after the step, saved; a second one ends at once.

    What is ignored stays ignored (nohup). SIGUSR1 saves and goes on.
    """
    status: list[int] = []

    def handle(number: int, frame: Any) -> None:
        """Ask for a stop the first time, stop at once the second."""
        del frame
        if status:
            raise KeyboardInterrupt
        status.append(128 + number)
        Talk.stop_told = True
        session.trainer.stop("interrupted" if number == signal.SIGINT else "terminated")
        say("\nstopping after this step and saving; once more to stop at once")

    def save(number: int, frame: Any) -> None:
        """Ask for a checkpoint with the next record."""
        del number, frame
        session.save_now = True

    handlers = dict.fromkeys(("SIGINT", "SIGTERM", "SIGHUP"), handle) | {"SIGUSR1": save}
    numbers = {getattr(signal, n): handler for n, handler in handlers.items() if hasattr(signal, n)}
    before = {
        number: signal.signal(number, handler)
        for number, handler in numbers.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _progress(session: "Session") -> "Iterator[Any]":
    """A function that shows a record or note: a bar on a terminal, lines now and then elsewhere."""
    from charlm.report.progress import evaluation_line, plain_step_line, step_line
    from charlm.training.records import EvaluationRecord, StepRecord, WarningRecord

    unit = session.record["settings"]["vocabulary"]["unit"]
    told_at = -PLAIN_STEP_GAP

    with phase("training") as training:
        training.reached = session.trainer.progress

        def show(record: "Record | str") -> None:
            """Move the bar, or write a line above it."""
            nonlocal told_at
            if isinstance(record, str):
                say(record)
            elif isinstance(record, EvaluationRecord):
                training.reached = record.progress
                say(evaluation_line(record, unit))
            elif isinstance(record, WarningRecord):
                say(record.text)
            elif isinstance(record, StepRecord):
                training.reached, training.detail = record.progress, step_line(record, unit)
                if not sys.stderr.isatty() and record.seconds - told_at >= PLAIN_STEP_GAP:
                    told_at = record.seconds
                    say(plain_step_line(record, unit))

        yield show


def _summary(session: "Session", finished: "FinishedRecord") -> None:
    """The closing table and the commands to try next, on stderr: training has no other result."""
    from charlm.report.progress import next_commands, summary_table

    if Talk.level == 0:
        return
    say(drawn(summary_table(session.record, finished), stderr=True).rstrip("\n"))
    for line in next_commands(session.path, finished):
        say(line)
