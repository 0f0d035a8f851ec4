"""The interface of a task to its texts, and to what lies beside them: labels, tags, translations.

Rows of `charlm.config.tasks.TASKS` name objects of the protocol `TaskText`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from charlm.config.class_path import resolve
from charlm.config.corpus import CorpusSettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.config.tasks import TASKS
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.vocabulary import Vocabulary

if TYPE_CHECKING:
    from charlm.text.corpus import Corpus
    from charlm.text.dataset import Dataset

G = TypeVar("G")


class Gold(Protocol):
    """Labels or the like that lie beside the texts of a dataset, split by split."""

    def total(self, split: str) -> int:
        """Return the number of targets of a split."""

    def record(self) -> dict[str, Any]:
        """Return what the description of the corpus in run.json gets."""

    def write(self, folder: Path, split: str) -> None:
        """Write the files of a split into the folder of its encoded text, or beside that."""

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Return further vocabularies of the run, by the names of their files."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """Texts and vocabularies that replace those of the settings."""

    corpus: "Corpus | None" = None
    """Plain text in place of `corpus.sources`."""
    examples: Any = None
    """Pairs in place of `corpus.sources`: texts in memory, each with what lies beside it."""
    vocabulary: Vocabulary | None = None
    """Vocabulary to keep."""
    grow: bool = False
    """True if that vocabulary gets entries for the new types of the training text."""
    more: Mapping[str, Vocabulary] = field(default_factory=dict)
    """Further vocabularies to keep, by the names of their files."""
    open_settings: Collection[str] = ()
    """Settings ("vocabulary.unit") that only the defaults of the task decide."""


NOTHING = Given()


class TaskText(Protocol):
    """Texts of a task: how they are read, encoded, kept with a run and compared."""

    def load(self, settings: Settings, given: Given = NOTHING) -> "Dataset":
        """Read the texts, hold some out, build the vocabularies (unless given) and encode.

        Raises CorpusError.
        """

    def check_example(self, pair: Any) -> str:
        """Return what was expected of a pair that is given in Python, or "" for a good one.

        Anything but a pair is given as None.
        """

    def fingerprint(self, corpus: CorpusSettings, task: TaskSettings) -> str:
        """Read the texts and return the fingerprint of their dataset."""

    def read(
        self, path: Path, config: Mapping[str, Any], splits: Mapping[str, EncodedText]
    ) -> Gold:
        """Return what lies beside the kept texts of a run folder. Raises CorpusError for damage.

        `config` is the content of config.json, `splits` are the encoded texts in `data/`.
        """


def text_for(settings: Settings) -> TaskText | None:
    """Return the object of the task that the settings name; None for plain text.

    A language model with conditions has one too.
    """
    row = TASKS[settings.task.task]
    text = "charlm.text.conditioned:CONDITIONED" if settings.task.condition else row.text
    return cast(TaskText, resolve(text)) if text else None


def gold_of(dataset: "Dataset", kind: type[G]) -> G:
    """Return what lies beside the texts of a dataset, which is of this kind."""
    assert isinstance(dataset.labelled, kind), f"a dataset with {kind.__name__}"
    return dataset.labelled
