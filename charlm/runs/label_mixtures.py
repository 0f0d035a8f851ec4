"""Mixtures of runs that give labels: a run whose probabilities are the mean of those of several."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from charlm.config.tasks import CLASSIFY, TASKS
from charlm.errors import UsageError
from charlm.inference.counts import LabelCounts
from charlm.inference.labelling import MeanReader, TextForEach
from charlm.runs.agreement import check_same_labels, check_same_text
from charlm.runs.label_run import LabelRun
from charlm.runs.layout import run_task
from charlm.runs.locate import find_run, run_name
from charlm.runs.mixtures import complete_weights, equal_weights, find_member, weighted_names
from charlm.runs.task_run import load_task_run
from charlm.text.encoded import EncodedText
from charlm.text.labels import Targets


@dataclass(frozen=True, kw_only=True)
class MixedLabelRun(LabelRun):
    """Several classifiers of the same labels as one: the first of them, with another `reader`.

    Each member encodes texts with its own vocabulary. Features and hidden vectors are those of the
    first one. `origin` says in words where the weights are from.
    """

    members: tuple[LabelRun, ...]
    weights: tuple[float, ...]
    origin: str

    def __str__(self) -> str:
        names = [run_name(run.path) for run in self.members]
        return f"mixture: {weighted_names(self.weights, names)} (weights {self.origin})"

    @property
    def name(self) -> str:
        """Names of the members."""
        return " + ".join(run.name for run in self.members)

    def encode(self, texts: Iterable[str]) -> TextForEach:
        """See `LabelRun.encode`."""
        every = list(texts)
        return TextForEach.of([run.encode(every) for run in self.members])

    def prefixes(self, text: str) -> tuple[list[tuple[int, int]], EncodedText]:
        """See `LabelRun.prefixes`; the tokens are those of the first run.

        The others read the text up to the end of each token, and all of it at the last one.
        """
        first, *others = self.members
        spans, encoded = first.prefixes(text)
        texts = [text[:end] for _, end in spans[:-1]] + [text] * bool(spans)
        return spans, TextForEach.of([encoded, *(run.encode(texts) for run in others)])

    def counts(self, logits: NDArray[np.float64], targets: Targets) -> LabelCounts:
        """See `LabelRun.counts`; each member is calibrated, and the mixture has no factor."""
        return LabelCounts.of(logits, targets)

    def kept(self, name: str) -> tuple[EncodedText, Targets] | None:
        """See `LabelRun.kept`; the training text is that of the first run.

        Raises UsageError for a held-out text that another run does not keep.
        """
        kept = self.members[0].kept(name)
        if kept is None or name == "train":
            return kept
        check_same_text([run.path for run in self.members])
        text, targets = kept
        texts = [text]
        for run in self.members[1:]:
            if (own := run.kept(name)) is None:
                raise UsageError(
                    f"{run_name(run.path)} keeps no {name} text, and {run_name(self.path)} does; "
                    "expected the same text in both. Use --file"
                )
            texts.append(own[0])
        return TextForEach.of(texts), targets


def mix_label_runs(
    first: LabelRun, with_: Sequence[str], folder: Path, **options: Any
) -> MixedLabelRun:
    """Return the mixture of a run with others: `RUN` or `RUN=WEIGHT`, looked up in `folder`.

    Weights that are not given are equal: fitted ones would follow the noise of a validation text
    of some hundred labels. `options` are as in `load_task_run`. Raises RunError if there is no such
    run, UsageError for wrong weights, other labels, and runs of another task.
    """
    found = [find_member(text, lambda name: find_run(name, folder)) for text in with_]
    given = [weight for _, weight in found]
    weights = complete_weights(given) or equal_weights(given)
    members = [first, *(_load_member(first, path, **options) for path, _ in found)]
    names = first.labels.names
    check_same_labels([run.path for run in members], [run.labels.names for run in members])
    reader = MeanReader(
        readers=tuple(run.reader for run in members),
        weights=weights,
        columns=tuple(tuple(map(run.labels.names.index, names)) for run in members),
    )
    return MixedLabelRun(
        path=first.path,
        config=first.config,
        vocabulary=first.vocabulary,
        labels=first.labels,
        reader=reader,
        members=tuple(members),
        weights=weights,
        origin=_origin(given),
    )


def _origin(given: Sequence[float | None]) -> str:
    """Say in words where the weights of a mixture are from."""
    if None not in given:
        return "given"
    return "equal" if set(given) == {None} else "equal unless given"


def _load_member(first: LabelRun, path: Path, **options: Any) -> LabelRun:
    """Load a run to mix with the first one. Raises UsageError for a run of another task."""
    if (task := run_task(path)) != CLASSIFY:
        raise UsageError(
            f"{run_name(path)} gives {TASKS[task].gives}, and {run_name(first.path)} gives "
            f"{TASKS[CLASSIFY].gives}; expected runs that give {TASKS[CLASSIFY].gives} to mix"
        )
    return cast(LabelRun, load_task_run(path, **options))
