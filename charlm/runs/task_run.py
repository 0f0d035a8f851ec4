"""The interface to a run of a task other than language models, in memory."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from charlm.config.class_path import resolve
from charlm.config.tasks import TASKS
from charlm.runs import layout
from charlm.runs.run import kept_text
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.vocabulary import Vocabulary

Kept = TypeVar("Kept")
"""An encoded text with what lies beside it."""


@dataclass(frozen=True, kw_only=True)
class TaskRun(ABC, Generic[Kept]):
    """A model with what is needed to use it, in memory.

    The field `run` of each row of `charlm.config.tasks.TASKS` names a function that loads one.
    """

    path: Path
    """Folder of the run."""
    config: dict[str, Any]
    """Content of config.json."""
    vocabulary: Vocabulary
    """Vocabulary of the texts that are read."""
    reader: Any
    """Reader that computes with the weights."""

    @property
    def engine(self) -> str:
        """Name of what computes, for people: `native avx512`, `numpy`, `torch cpu`."""
        return str(self.reader.name)

    def kept(self, name: str) -> Kept | None:
        """Return a split of the run's text (train, valid, test) and what lies beside it, or None.

        Raises CorpusError if it is damaged or does not fit the run.
        """
        text = kept_text(self.path / "data" / name, self.vocabulary)
        return None if text is None else self.beside(name, text)

    @abstractmethod
    def beside(self, name: str, text: EncodedText) -> Kept:
        """Return the kept text of a split with what lies beside it, read from its folder."""


def load_task_run(path: Path, *, engine: str = "auto", threads: int | None = None) -> TaskRun[Any]:
    """Load the run in a folder. Raises RunError if files are missing, damaged or do not match.

    `engine` is as in `runs.networks.load_backend`. Raises UsageError for a language model.
    """
    task = layout.task_of(layout.read_config(path))
    if not TASKS[task].run:
        raise layout.no_labels(path)
    run = cast(TaskRun[Any], resolve(TASKS[task].run)(path, engine=engine, threads=threads))
    from charlm.runs.data import check_unchanged

    check_unchanged(
        path, (layout.CONFIG, *layout.TOKENIZERS, layout.BAG)
    )  # other orders fit the weights too
    return run
