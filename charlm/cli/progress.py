"""Training at the terminal: plan, progress, signals, summary."""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from charlm import api
from charlm.cli.display import stderr_width
from charlm.cli.output import Verbosity, rendered, say, write, write_document
from charlm.commands import resume_command
from charlm.files.escapes import escape_unprintable
from charlm.phases import phase
from charlm.units import flat_figures

if TYPE_CHECKING:
    from charlm.training.records import FinishedRecord, Record
    from charlm.training.session import Session
    from charlm.training.stopwatch import Stopwatch


def follow_all(session: "Session") -> int:
    """Train a run and its backward half, if any; return 130 or 143 if interrupted, else 0."""
    from charlm.report.progress import complete_line
    from charlm.training.resume import halves

    number = 0
    try:
        for number, half in enumerate(halves(session), start=1):
            if number == 2:
                say("the backward half")
            follow(half)
    except typer.Exit as ended:
        return ended.exit_code
    if number == 0:
        session.lock.release()
        say(complete_line(session))
    return 0


def write_result(session: "Session", *, as_json: bool) -> None:
    """Write the path of a finished run to stdout, or its final record."""
    record = session.record
    if record["status"] != "finished" or not record.get("whole", True):
        return
    if not as_json:
        write(f"{session.path}\n")
        return
    results = {key: value for key, value in record["results"].items() if key != "kind"}
    about = {"name": record["name"], "path": str(session.path), "status": record["status"]}
    write_document({**about, **flat_figures(results)})


def follow(session: "Session") -> None:
    """Train to the end with progress on stderr. Exits with 130 or 143 if interrupted."""
    from charlm.report.progress import describe_plan
    from charlm.training.parallel import Unanswered
    from charlm.training.records import FinishedRecord, SavedRecord

    for line in describe_plan(session.record, session.path):
        say(line)
    finished: FinishedRecord | None = None
    with _signals(session) as stop, _progress(session) as show:
        try:
            for record in session.records():
                show(record)
                stop.trained = isinstance(record, SavedRecord) and bool(session.trainer.completion)
                if isinstance(record, FinishedRecord):
                    finished = record
        except (KeyboardInterrupt, Unanswered) as error:
            if not stop.status:
                raise
            say(_stopped_line(session, stop, error))
            raise typer.Exit(stop.status) from None
    assert finished is not None, "a session ends with a FinishedRecord"
    _summary(session, finished)
    if stop.status:
        raise typer.Exit(stop.status)


def _stopped_line(session: "Session", stop: "_Stop", error: BaseException) -> str:
    """Say what is saved of a training that did not end as asked, and how to resume it."""
    from charlm.runs.checkpoints import describe_newest

    resume = resume_command(run=session.path, processes=session.trainer.processes.count)
    if stop.trained:
        return f"training is complete and saved; write its results with: {resume}"
    did = "stopped at once" if isinstance(error, KeyboardInterrupt) else f"stopped, since {error}"
    return f"{did}; {describe_newest(session.path)}. Resume the run with: {resume}"


REPEAT_SECONDS = 10.0
"""Time after the first SIGTERM or SIGHUP in which another one asks for nothing more: Slurm sends
one to every process of a job, and torchrun passes its own on."""


@dataclass
class _Stop:
    """A request to stop training: the exit status, and whether all steps are done and saved.

    `asked` is the time of the first signal, in seconds of the clock.
    """

    status: int = 0
    trained: bool = False
    asked: float = 0.0

    def repeats(self, number: int, now: float) -> bool:
        """Return whether a signal only repeats the first one, which a program has sent twice."""
        by_program = number != signal.SIGINT
        return bool(self.status) and by_program and now - self.asked < REPEAT_SECONDS


@contextlib.contextmanager
def _signals(session: "Session") -> Iterator[_Stop]:
    """Handle signals: yield what gets the exit status.

    The first Ctrl-C, SIGTERM or SIGHUP stops after the step and saves; the second stops at once, as
    does the first after the last step, or while the end cannot be saved. A second SIGTERM or SIGHUP
    within `REPEAT_SECONDS` does nothing. SIGUSR1 saves. SIGCONT ends a pause, which is no time of
    training. Ctrl-Break of Windows is as SIGTERM. Ignored signals stay ignored (nohup).
    """
    stop = _Stop()

    def handle(number: int, frame: Any) -> None:
        """Stop after the step the first time, at once the second time."""
        del frame
        now = time.monotonic()
        if stop.repeats(number, now):
            return
        at_once = stop.trained or session.waiting or bool(stop.status)
        stop.status, stop.asked = stop.status or 128 + number, stop.asked or now
        Verbosity.stop_reported = True
        if at_once:
            raise KeyboardInterrupt
        session.trainer.stop("interrupted" if number == signal.SIGINT else "terminated")
        wait = "" if number == signal.SIGINT else f" after {REPEAT_SECONDS:g} seconds"
        say(f"\nstopping after this step and saving; repeat{wait} to stop at once")

    def save(number: int, frame: Any) -> None:
        """Save with the next record."""
        del number, frame
        session.save_now = True

    def resume(number: int, frame: Any) -> None:
        """Leave out the time in which the process was paused."""
        del number, frame
        session.trainer.clock.leave_out_pause()

    handlers = dict.fromkeys(("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"), handle)
    handlers |= {"SIGUSR1": save, "SIGCONT": resume}
    numbers = {getattr(signal, n): handler for n, handler in handlers.items() if hasattr(signal, n)}
    before = {
        number: signal.signal(number, handler)
        for number, handler in numbers.items()
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def without_pauses(watch: "Stopwatch") -> Iterator[None]:
    """Leave the time in which the process is paused, as by Ctrl-Z, out of a clock."""
    number = getattr(signal, "SIGCONT", None)
    if number is None or signal.getsignal(number) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(number, lambda *_: watch.leave_out_pause())
    try:
        yield
    finally:
        signal.signal(number, before)


ENDING = "completing the run"
"""Work after the last validation: calibrating, n-grams, what was memorised."""


@contextlib.contextmanager
def _progress(session: "Session") -> "Iterator[Any]":
    """Yield a function that shows records as they arrive."""
    from charlm.report.progress import evaluation_line, plain_step_line, step_line
    from charlm.report.task_reports import report_of
    from charlm.training.records import EvaluationRecord, StepRecord, WarningRecord

    settings = session.record["settings"]
    unit, report = settings["vocabulary"]["unit"], report_of(settings)

    with phase("training") as training:
        training.reached = session.trainer.progress

        def show(record: "Record") -> None:
            """Update the phase, or write a line."""
            if isinstance(record, EvaluationRecord):
                training.reached = record.progress
                training.line = ""  # a step before the validation would be shown after it
                if record.progress >= 1.0:
                    training.detail, training.line = ENDING, f"{ENDING} ..."
                say(evaluation_line(record, unit, report))
            elif isinstance(record, WarningRecord):
                say(record.text)
            elif isinstance(record, StepRecord):
                training.reached = record.progress
                validations = session.trainer.counters.validation_nats
                training.detail = step_line(record, unit) + validation_trend(
                    validations, stderr_width()
                )
                training.line = plain_step_line(record, unit)

        yield show


WIDE = 100
"""Columns of a terminal that shows the trend of the validations."""


def validation_trend(nats: Sequence[float], columns: int) -> str:
    """Return the validations so far as bars, to put behind a step; "" on a narrow terminal."""
    from charlm.report.text import sparkline

    if len(nats) < 2 or columns < WIDE:
        return ""
    return f"  validation {sparkline(nats)}"


def _summary(session: "Session", finished: "FinishedRecord") -> None:
    """Show the summary, a sample and commands to try next on stderr."""
    from charlm.report.progress import next_commands, summary_table

    if Verbosity.level == 0:
        return
    say(rendered(summary_table(session.record, finished), stderr=True).rstrip("\n"))
    condition, text = _sample(session) if finished.complete else (None, "")
    if text:
        say(f"a sample{f', condition {escape_unprintable(condition)}' if condition else ''}:")
        for line in text.splitlines():
            say(f"  {escape_unprintable(line)}".rstrip())
    for line in next_commands(session.path, session.record, finished):
        say(line)


SAMPLE_TRIES = 8


def _sample(session: "Session") -> tuple[str | None, str]:
    """Return a sample of a finished run, one item for a list, after its condition, if any.

    It is "" for a backward half, and for a run that gives no text.
    """
    from charlm.config.tasks import is_labelled
    from charlm.runs.conditions import usual_condition
    from charlm.runs.layout import read_config
    from charlm.runs.pair import is_backward_half

    if is_backward_half(session.path) or is_labelled(session.record["settings"]):
        return None, ""
    condition = usual_condition(read_config(session.path))
    with phase("sampling"):
        model = api.loading.load_model(session.path, condition=condition)
        items = model.run.boundaries.resets
        length = model.vocabulary.spec.preview_tokens * (2 if items else 1)
        tries = SAMPLE_TRIES if items else 1  # an item may be empty
        texts = model.samples(tries, length, seed=1, until_eos=items)
    return condition, next((text for text in texts if text.strip()), "")
