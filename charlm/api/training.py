"""Training from Python: `fit` returns the model, `train` an iterator of records."""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charlm.api.loading import load
from charlm.api.model import Model
from charlm.api.sessions import Request, start_run
from charlm.config.corpus import CorpusSettings, ReadSettings
from charlm.config.flags import by_section, names_given
from charlm.config.settings import settings_from
from charlm.errors import UsageError, check_count, naming
from charlm.phases import Phase, listening
from charlm.report.text import shortened
from charlm.runs.conditions import usual_condition
from charlm.runs.layout import read_config
from charlm.text.corpus import Corpus
from charlm.text.task_text import text_for

if TYPE_CHECKING:
    from charlm.training.processes import Processes
    from charlm.training.records import Record
    from charlm.training.session import Session


class Training(Iterator["Record"]):
    """Iterator that trains a new run in `path` and yields its records.

    Training starts with the first `next`. A `Training` that is deleted before that warns.
    """

    def __init__(self, session: "Session", processes: "Processes | None" = None) -> None:
        self.path, self._sessions, self._started = session.path, [session], False
        self.unit = str(session.record["settings"]["vocabulary"]["unit"])
        self._records = _records(self._sessions, processes)

    def __repr__(self) -> str:
        state = "started" if self._started else "not started; iterate over it, or call charlm.fit"
        return f"Training({str(self.path)!r}, {state})"

    def __next__(self) -> "Record":
        self._started = True
        return next(self._records)

    @property
    def unsaved(self) -> str:
        """Reason why the end of training cannot be saved yet, or "" if it can be."""
        session = self._sessions[-1]
        return session.warnings[-1] if session.waiting else ""

    def stop(self) -> None:
        """Stop and save after the current step; iterate on until then."""
        self._sessions[-1].trainer.stop("interrupted")

    def close(self) -> None:
        """Stop training at once; `charlm train --resume` continues from the last checkpoint."""
        self._started = True
        self._records.close()
        self._sessions[0].lock.release()

    def __del__(self) -> None:
        if getattr(self, "_started", True):
            return
        warnings.warn(
            f"the training of {self.path} was never started: charlm.train returns an iterator of "
            "records. Iterate over it, or call charlm.fit, which trains at once",
            RuntimeWarning,
            stacklevel=2,
        )
        self.close()


def _records(
    sessions: "list[Session]", processes: "Processes | None"
) -> "Generator[Record, None, None]":
    """Train the first session, then its backward half if it has one, which is added to the list.

    This is not a method, since a generator that refers to its `Training` would keep it alive.
    """
    from charlm.training.resume import halves

    with contextlib.ExitStack() as together:
        together.callback(sessions[0].lock.release)
        if processes is not None:
            from charlm.training.launch import followed

            together.enter_context(followed(processes, sessions[0]))
        for number, half in enumerate(halves(sessions[0])):
            sessions[number:] = [half]
            yield from half.records()


def train(
    *sources: str | Path, text: str | None = None, processes: int | None = None, **options: Any
) -> Training:
    """Return an iterator that trains a new run and yields records; the last is a FinishedRecord.

    Options are as in `fit`. Raises a subclass of CharlmError.
    """
    if processes is not None:
        check_count("processes", processes, 1)
    if processes != 1:
        _check_alone()
    if processes in (None, 1):
        return Training(_session(sources, text, **options))
    from charlm.training.launch import check_unconnected, cores_divided
    from charlm.training.parallel import Parallel
    from charlm.training.processes import training_together

    check_unconnected()
    together = Parallel(0, processes)
    with cores_divided(processes), training_together(together):
        return Training(_session(sources, text, **options), together)


def _check_alone() -> None:
    """Raise UsageError if another program has started this process as one of several.

    Each of them would train the whole model. With processes=1, that is meant.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if "RANK" in os.environ and count.isdecimal() and int(count) > 1:
        raise UsageError(
            f"this process is one of {count} that another program has started; expected a process "
            "that is alone. Start the script with python and give processes=N, or give processes=1 "
            "if each process is to train a model of its own. On several machines, use: torchrun -m "
            "charlm train"
        )


def fit(
    *sources: str | Path, text: str | None = None, progress: bool | None = None, **options: Any
) -> Model | Any:
    """Train a new model on files, or on a `text` in memory, and return it.

    Settings are named like the flags of `charlm train` or as in `charlm info`:
    `fit("a.txt", unit="word", hidden=128, epochs=3)`. Other options: `name` and `checkpoints` (the
    folder of the run), `overwrite` (replace a run of that name), `preset`, `config` (a TOML file)
    and `vocab` (a tokenizer.json). `start_from` names a run whose weights and vocabulary training
    starts with; `vocabulary="grow"` adds entries for new words or characters of the text, and
    `"keep"` does not.

    With `task="classify"` texts have labels: those of files, or of `examples`, pairs of a text and
    its label. The result is a `LabelModel` then. Examples of `task="tag"` are pairs of words and
    their tags, those of `task="translate"` pairs of a text and its translation. With `condition`,
    the name of a column, texts begin with its values; the result is the model of the most frequent
    one.

    With `processes=N`, N processes on this machine train the model, as with `charlm train
    --processes N`; the result is the same apart from rounding.

    A bar shows the progress in a notebook and on a terminal; `progress` switches it on or off. An
    interrupt (Ctrl-C, or the stop button of a notebook) saves before it raises KeyboardInterrupt.
    Raises a subclass of CharlmError.
    """
    with _progress_bar(progress) as bar, listening(bar):
        training = train(*sources, text=text, **options)
        with contextlib.closing(training), _saving_on_interrupt(training):
            for record in training:
                bar.show(record, training.unit)
                if training.unsaved:
                    warnings.warn(training.unsaved, RuntimeWarning, stacklevel=2)
    return load(training.path, condition=usual_condition(read_config(training.path)))


@contextlib.contextmanager
def _saving_on_interrupt(training: Training) -> Iterator[None]:
    """Make the first interrupt stop training after the step, the second one at once.

    While the end of training cannot be saved, the first one stops at once. Raises KeyboardInterrupt
    at the end if there was an interrupt. Other threads, and programs with a handler of their own,
    are left alone.
    """
    interrupts: list[int] = []

    def handle(number: int, frame: Any) -> None:
        """Stop after the current step; at once the second time, or if that cannot be saved."""
        if interrupts or training.unsaved:
            signal.default_int_handler(number, frame)
        interrupts.append(number)
        training.stop()

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupts:
        raise KeyboardInterrupt(
            f"training was stopped and saved; load it with charlm.load({str(training.path)!r})"
        )


def _session(
    sources: tuple[str | Path, ...],
    text: str | None,
    *,
    name: str | None = None,
    checkpoints: str | Path | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    vocab: str | Path | None = None,
    overwrite: bool = False,
    start_from: str | Path | None = None,
    vocabulary: str | None = None,
    examples: Iterable[tuple[Any, Any]] | None = None,
    **settings: Any,
) -> "Session":
    given = by_section({"sources": checked_sources(sources), **settings})
    if name is not None and not isinstance(name, str):
        raise UsageError(f"name is {name!r}; expected a string such as 'my-run'")
    request = Request(
        flags=given,
        config=Path(config) if config else None,
        preset=preset,
        vocab=Path(vocab) if vocab else None,
        name=name,
        checkpoints=Path(checkpoints) if checkpoints else None,
        source="argument",
        start_from=None if start_from is None else str(start_from),
        vocabulary=vocabulary,
    )
    corpus = None
    with naming(names_given(settings)):
        if text is not None:
            corpus = text_in_memory(text, settings_from(request.combined()[0]).corpus)
        pairs = None
        if examples is not None:
            pairs = _checked_examples(examples, request, with_text=text is not None)
        return start_run(request, corpus=corpus, examples=pairs, overwrite=overwrite)


def _checked_examples(
    examples: Iterable[tuple[Any, Any]], request: Request, *, with_text: bool
) -> list[tuple[Any, Any]]:
    """Return examples as pairs: a text or its words, and a label, tags, or a translation.

    Raises UsageError for anything else, or if there is another text.
    """
    settings = settings_from(request.combined()[0])
    if with_text or settings.corpus.sources:
        raise UsageError("examples and another text were both given; give one of them")
    beside = text_for(settings)
    if beside is None:
        raise UsageError(
            f"examples have labels, which task {settings.task.task} does not read; expected "
            "another task, or a condition. Add task='classify'"
        )
    pairs: list[tuple[Any, Any]] = []
    for number, pair in enumerate(examples):
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if expected := beside.check_example(pair if is_pair else None):
            raise UsageError(f"examples[{number}] is {pair!r:.80}; {expected}")
        pairs.append((pair[0], pair[1]))
    return pairs


def checked_sources(sources: tuple[Any, ...]) -> tuple[str, ...]:
    """Return sources as strings. Raises UsageError for one that is a list, or a text."""
    for source in sources:
        if not isinstance(source, str | Path):
            kind = type(source).__name__
            raise UsageError(
                f"a source is a {kind}; expected the paths of files one by one: fit(*files)"
            )
        if "\n" in str(source):
            raise UsageError(
                f"the source {shortened(repr(source), 40)} has a line end; expected the path of a "
                "file. Give a text as text=..."
            )
    return tuple(map(str, sources))


FILE_SETTINGS = {f.name for f in fields(ReadSettings)} - {"keep_cr"}
"""Settings that apply to files only."""


def text_in_memory(text: str, settings: CorpusSettings) -> Corpus:
    """Return a text in memory as a corpus. Raises UsageError for settings of files."""
    if not isinstance(text, str):
        raise UsageError(f"text is a {type(text).__name__}; expected a string. Decode or join it")
    if settings.sources:
        raise UsageError("text and files were both given; give one of them")
    defaults = CorpusSettings()
    for name in sorted(FILE_SETTINGS):
        value = getattr(settings, name)
        if value != getattr(defaults, name):
            raise UsageError(
                f"{name} {value} has no effect with a text in memory; expected files. Leave out "
                f"{name}"
            )
    document = "stream" if settings.document == "auto" else settings.document
    return Corpus.from_text(text, document, keep_cr=settings.keep_cr)


class _Bar:
    """Listener that shows phases and records on a bar of tqdm, if there is one."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar

    def begin(self, phase: Phase) -> None:
        """Show the name of a phase."""
        if self._bar is not None:
            self._bar.set_description_str(phase.name)

    def end(self, phase: Phase) -> None:
        """Keep the name; the next phase or record replaces it."""

    def show(self, record: "Record", unit: str) -> None:
        """Move the bar to a record."""
        from charlm.report.progress import step_line
        from charlm.training.records import FinishedRecord, StepRecord

        if self._bar is None:
            return
        if isinstance(record, StepRecord):
            self._bar.n = round(self._bar.total * record.progress)
            self._bar.set_description_str(step_line(record, unit))
        elif isinstance(record, FinishedRecord):
            self._bar.n = self._bar.total if record.complete else self._bar.n
            self._bar.set_description_str(record.reason)


@contextlib.contextmanager
def _progress_bar(progress: bool | None) -> Iterator[_Bar]:
    """Show a bar, by default only in a notebook or on a terminal."""
    if progress is False or sys.stderr is None:  # none in a program without a console
        yield _Bar()
        return
    with warnings.catch_warnings():  # tqdm warns if ipywidgets is missing; the bar is text then
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    with tqdm(
        total=1000,
        disable=False if progress or in_notebook() else None,  # None: only on a terminal
        dynamic_ncols=True,
        bar_format="{percentage:3.0f}% |{bar}| {desc} [{elapsed}<{remaining}]",
    ) as bar:
        yield _Bar(bar)


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and "IPKernelApp" in shell.config
