"""The interface of a task to the library and the command line: its models, figures, comparisons.

Rows of `charlm.config.tasks.TASKS` name objects of the class `TaskApi`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from charlm.api.copies import load_again
from charlm.config.class_path import resolve
from charlm.config.corpus import ReadSettings
from charlm.config.tasks import TASKS
from charlm.errors import CorpusError, UsageError
from charlm.runs.columns import run_columns
from charlm.runs.layout import TASK, no_labels, run_task
from charlm.runs.run import run_stamp
from charlm.runs.task_run import TaskRun, load_task_run
from charlm.text.sources.rows import Columns
from charlm.text.sources.text_lines import FileRules

if TYPE_CHECKING:
    from charlm.api.results import History, Predictions
    from charlm.text.sources.rows import Warn

FROM_FILES = "text"
"""Name of the texts of files in the figures of an evaluation."""
GROUP = 256
"""Number of texts that are read before their answers are returned."""
T = TypeVar("T")


class TaskModel:
    """Base of the models of all tasks but language modelling.

    It can be pickled and copied like a `Model`. A subclass whose runs `charlm predict` uses has
    `predict_each` and `as_read`.
    """

    run: TaskRun[Any]
    """The run in memory."""
    name: str
    """Name of the run, or the names of those of a mixture: "a + b"."""
    predict_each: Callable[..., Iterator[Any]]
    """Function that yields the answer to each text, in order; texts may arrive one by one."""
    as_read: Callable[..., list[Any]]
    """Function that returns the steps to the answer to a text, token by token."""
    labels: tuple[str, ...]
    """Names that answers are chosen from; none if answers are texts."""
    mixture: Any = None
    """Mixture of runs that answers, or None for one run; its str has their weights."""
    max_request_chars = 500_000
    """Maximum number of characters of the texts of one request to a server."""

    def __init__(self, run: TaskRun[Any], **options: Any) -> None:
        self.run, self._options = run, options  # options of `load_task_run`
        self.path, self.vocabulary, self.config = run.path, run.vocabulary, run.config
        self.name = run.path.name
        self.labels = tuple(run.config[TASK].get("labels", ()))
        self.stamp = run_stamp(run.path)

    def __repr__(self) -> str:
        unit, names = self.vocabulary.unit, ", ".join(self.labels[:8])
        more = ", ..." if len(self.labels) > 8 else ""
        others = f", {self.mixture}" if self.mixture else ""
        gives = TASKS[self.config[TASK]["name"]].gives
        return (
            f"{type(self).__name__}({str(self.path)!r}, {len(self.labels)} {gives} "
            f"({names}{more}), {len(self.vocabulary):,} {unit} entries{others})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return load_again, (str(self.path.resolve()), [], self._options, self.stamp)

    @property
    def history(self) -> "History":
        """Records of the training; empty for a run without a log."""
        from charlm.api.results import History

        return History.of_run(self.path)

    def predict(self, texts: Any, **options: Any) -> "Predictions":
        """Return the answer to each text, or to one text alone, in a list.

        Notebooks show it as a table. `predict_each` takes the same arguments and yields the answers
        while texts arrive.
        """
        from charlm.api.results import Predictions

        return Predictions(self.predict_each(texts, **options))

    def kept_validation(self) -> Any:
        """Return the validation texts of the run with their labels, tags or translations.

        Raises CorpusError if the run keeps none.
        """
        if (part := self.run.kept("valid")) is None:
            raise CorpusError(
                f"run {self.name} keeps no validation text; expected one to evaluate. Give your own"
            )
        return part

    def unknown(self, text: Any) -> list[str]:
        """Return the pieces of a text that the vocabulary does not know."""
        return list(self.vocabulary.unknown(text))


class TaskApi:
    """Functions that differ from task to task."""

    model: type[TaskModel]
    """Class of its models."""
    evaluation_flags: frozenset[str] = frozenset()
    """Flags of `charlm eval` for this task, among --target, --worst, --beam, --with."""
    reads_lines = False
    """True if each line of plain text is a text by itself, so that it is read as it arrives."""
    evaluation, comparison = "", ""
    """Import paths of the functions that evaluate a run and compare several."""

    def open(self, path: Path, **options: Any) -> Any:
        """Load the model in a folder; options are as in `load_task_run`.

        A task that knows --with also has `with_`, runs to mix, and `checkpoints`, their folder.
        """
        return self.model(load_task_run(path, **options), **options)

    def evaluate(self, run: Any, files: Sequence[str] | None = None, **options: Any) -> Any:
        """Return the figures of files, or of the texts that the run held out, with `notes`.

        `target` and `reading` say how files are read. Further options are those of
        `evaluation_flags` that were given: `worst`, a number of texts to list, and `beam`.
        """
        return resolve(self.evaluation)(run, files, **options)

    def compare(
        self, runs: Sequence[Any], files: Sequence[str] | None = None, **options: Any
    ) -> Any:
        """Compare runs of the task on files, or on the texts that all held out, with `notes`.

        Options are `target` and `reading`, as in `evaluate`, and `seed`, of the bootstrap.
        """
        return resolve(self.comparison)(runs, files, **options)

    def inputs(
        self,
        run: Path,
        files: Sequence[str],
        reading: Mapping[str, Any],
        target: str | None,
        warn: "Warn",
    ) -> Iterator[list[Any]]:
        """Yield the texts of files in groups, as `predict` takes them, without their labels.

        `reading` has fields of `ReadSettings`. Tables are read by the columns of the `run` in that
        folder, if they have them. Raises CorpusError.
        """
        rules = file_rules(reading, target, warn, run_columns(run))
        yield from in_groups(self.texts(files, replace(rules, needed=False)))

    def texts(self, files: Sequence[str], rules: FileRules) -> Iterator[Any]:
        """Yield the texts of files, "" for rows without text; what lies beside them is left out."""
        raise NotImplementedError


def api_of(task: str) -> TaskApi:
    """Return the object of a task that is no language model."""
    return cast(TaskApi, resolve(TASKS[task].api))


def open_task(path: Path, **options: Any) -> TaskModel:
    """Load the model in a folder. Raises UsageError for a language model."""
    task = run_task(path)
    if not TASKS[task].api:
        raise no_labels(path)
    return cast(TaskModel, api_of(task).open(path, **options))


def held_out(run: TaskRun[Any], noun: str = "texts") -> dict[str, Any]:
    """Return the validation and test part that a run keeps, by name, as its `kept` returns them.

    Raises UsageError if it keeps none of these, which are called `noun`.
    """
    kept = {name: run.kept(name) for name in ("valid", "test")}
    parts = {name: part for name, part in kept.items() if part is not None}
    if not parts:
        raise UsageError(
            f"this run keeps no held-out {noun}; expected some to evaluate. Use --file"
        )
    return parts


def file_rules(
    reading: Mapping[str, Any] | None, target: str | None, warn: "Warn", columns: Columns
) -> FileRules:
    """Return the rules by which files are read for a run; `reading` has fields of `ReadSettings`.

    `columns` are those of the run, or of several, by which tables are read if they have them.
    """
    settings = ReadSettings(**(reading or {}))
    return FileRules(settings=settings, target=target, warn=warn, columns=columns)


def in_groups(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield values in lists of GROUP; the last one may be shorter."""
    waiting = iter(values)
    while group := list(islice(waiting, GROUP)):
        yield group


def checked_texts(texts: str | Iterable[str] | None, name: str = "texts") -> Iterator[str]:
    """Yield texts, or one text alone. Raises UsageError, with their name, for anything else."""
    for number, text in enumerate(several(texts, name)):
        if not isinstance(text, str):
            raise UsageError(f"{name}[{number}] is {text!r:.80}; expected a str")
        yield text


def several(values: Any, name: str, expected: str = "a str or several") -> Iterable[Any]:
    """Return values, or a text alone in a list. Raises UsageError if they are not several.

    Tables are refused, too, since the values of a dictionary or a DataFrame are its columns.
    """
    if isinstance(values, Mapping) or hasattr(values, "columns"):
        kind = type(values).__name__
        raise UsageError(f"{name} is a {kind}; expected {expected}. Give one column of it")
    if not isinstance(values, Iterable):
        raise UsageError(f"{name} is {values!r:.80}; expected {expected}")
    return [values] if isinstance(values, str) else values
