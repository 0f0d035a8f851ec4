"""The interface to a run of a task other than language models, in memory."""

from pathlib import Path
from typing import Any, Protocol, cast

from charlm.config.class_path import resolve
from charlm.config.tasks import LANGUAGE_MODEL, TASKS
from charlm.runs import layout
from charlm.text.tokenizers.vocabulary import Vocabulary


class TaskRun(Protocol):
    """A model with what is needed to use it, in memory.

    The field `run` of each row of `charlm.config.tasks.TASKS` names a function that loads one.
    """

    @property
    def path(self) -> Path:
        """Folder of the run."""

    @property
    def config(self) -> dict[str, Any]:
        """Content of config.json."""

    @property
    def vocabulary(self) -> Vocabulary:
        """Vocabulary of the texts that are read."""

    @property
    def engine(self) -> str:
        """Name of what computes, for people: `native avx512`, `numpy`, `torch cpu`."""

    def kept(self, name: str) -> Any:
        """Return a split of the run's text (train, valid, test) and what lies beside it, or None.

        Raises CorpusError if it is damaged or does not fit the run.
        """


def load_task_run(path: Path, *, engine: str = "auto", threads: int | None = None) -> TaskRun:
    """Load the run in a folder. Raises RunError if files are missing, damaged or do not match.

    `engine` is as in `runs.run.load_backend`. Raises UsageError for a language model.
    """
    task = layout.read_config(path).get(layout.TASK, {}).get("name", LANGUAGE_MODEL)
    if not TASKS[task].run:
        raise layout.no_labels(path)
    run = cast(TaskRun, resolve(TASKS[task].run)(path, engine=engine, threads=threads))
    from charlm.runs.data import check_unchanged

    check_unchanged(
        path, (layout.CONFIG, *layout.TOKENIZERS, layout.BAG)
    )  # other orders fit the weights too
    return run
