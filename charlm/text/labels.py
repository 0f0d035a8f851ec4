"""Labels: the names that training texts have, in a fixed order, and the label of each text."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError, RunError
from charlm.files.safe_read import file_size
from charlm.text.documents import check_text
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.units import first_few

UNSEEN = -1
"""Target of a text whose label does not occur in training."""
TARGETS = "targets.bin"
"""File of the targets of a split: int32, little endian, one for each document."""
MIN_REPEATED = 20
"""Number of texts from which labels must be repeated, on average at least once."""
MAX_LABELS = 500
"""Maximum number of labels. run.json holds a confusion of its square for each text, and is read up
to 16 MiB; with 3,000 labels it had 234 MB."""
FEW = 5
"""Names that a message lists."""

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
Targets = NDArray[np.int32]


def few_names(names: Sequence[str]) -> str:
    """Return the first names in quotes, at most FEW, and the number of others."""
    return first_few(map(repr, names), FEW)


@dataclass(frozen=True)
class Labels:
    """Names of the labels, in the order of the model's outputs; no two are equal."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, labels: Iterable[str]) -> "Labels":
        """Return the labels of training texts in natural order, numbers by their value.

        Raises CorpusError if all texts have one label, if almost all labels are different, if there
        are more than `MAX_LABELS`, or for a lone surrogate.
        """
        counts = Counter(labels)
        for name in counts:
            check_text(name, f"the label {name!r:.80}")
        texts = counts.total()
        if len(counts) < 2:
            only = f"the label {next(iter(counts))!r:.80}" if counts else "no label"
            raise CorpusError(
                f"all training texts have {only}; expected two or more labels to tell apart. "
                "Add texts with other labels"
            )
        different = len(counts) == texts > 2
        if different or (texts >= MIN_REPEATED and 2 * len(counts) > texts):
            raise CorpusError(
                f"{len(counts):,} of {texts:,} labels are different; expected few distinct values, "
                "not those of a column of names or numbers. Choose the column of the labels"
            )
        if len(counts) > MAX_LABELS:
            raise CorpusError(
                f"the training texts have {len(counts):,} labels; expected at most {MAX_LABELS}. "
                "Join rare labels into one, or choose another column of labels"
            )
        return cls(tuple(sorted(counts, key=natural_order)))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _ids(self) -> dict[str | None, int]:
        return {name: index for index, name in enumerate(self.names)}

    def ids(self, labels: Iterable[str | None]) -> Targets:
        """Return the id of each label, shape (labels,), UNSEEN for names that are not known."""
        return np.array([self._ids.get(label, UNSEEN) for label in labels], np.int32)

    def counts(self, targets: Targets) -> dict[str, int]:
        """Return how often each label occurs in targets, by name; UNSEEN is left out."""
        counts = np.bincount(targets[targets != UNSEEN], minlength=len(self))
        return dict(zip(self.names, counts.tolist(), strict=True))


def natural_order(name: str) -> tuple[bool, float, list[str | float], str]:
    """Return a sort key: numbers first, by their value; numbers inside names count by value too.

    It is the order of the outputs of every run, while run.json sorts its keys as text.
    """
    if _NUMBER.fullmatch(name):
        return False, float(name), [], name
    parts = re.split(r"([0-9]+)", name)
    return True, 0.0, [float(p) if i % 2 else p for i, p in enumerate(parts)], name


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Labels of a dataset, and the target of each document."""

    labels: Labels
    targets: Mapping[str, Targets]
    """Ids of the labels by split, each of shape (documents,); UNSEEN for labels that training
    lacks."""

    def counts(self, split: str) -> dict[str, int]:
        """Return the number of texts of each known label in a split."""
        return self.labels.counts(self.targets[split])

    def total(self, split: str) -> int:
        """Return the number of targets of a split: its texts."""
        return len(self.targets[split])

    def record(self) -> dict[str, Any]:
        """Return the number of texts of each label in each split."""
        return {"labels": {name: self.counts(name) for name in self.targets}}

    def write(self, folder: Path, split: str) -> None:
        """Write the targets of a split beside its encoded text."""
        write_targets(folder, self.targets[split])

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Return no further vocabularies."""
        return {}


def write_targets(folder: Path, targets: Targets) -> None:
    """Write the targets of a split beside its encoded text."""
    (folder / TARGETS).write_bytes(targets.astype("<i4").tobytes())


def read_targets(
    folder: Path, documents: int, labels: int, *, unseen: bool | None = None
) -> Targets:
    """Read the targets of a split. Raises CorpusError if they are damaged or missing.

    `unseen` is true if there may be targets UNSEEN; by default if it is no training text.
    """
    path = folder / TARGETS
    try:
        size = file_size(path)
        if size != 4 * documents:
            raise ValueError(f"{size} bytes for {documents} texts")
        targets = np.fromfile(path, dtype="<i4").astype(np.int32)
        may_be = folder.name != "train" if unseen is None else unseen
        least = UNSEEN if may_be else 0
        if documents and not least <= targets.min() <= targets.max() < labels:
            raise ValueError(f"targets from {targets.min()} to {targets.max()} of {labels} labels")
    except (OSError, ValueError, RunError) as error:
        raise CorpusError(f"{path}: the targets are damaged ({error}); delete {folder}") from error
    return targets
