"""The classifier of a run: labels of texts. Nothing is printed."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from charlm.api.task_api import TaskApi, TaskModel, checked_texts, in_groups, several
from charlm.backends.interface import Array
from charlm.backends.softmax import softmax
from charlm.errors import UsageError
from charlm.inference.counts import LabelCounts
from charlm.inference.labelling import Label
from charlm.runs.label_mixtures import MixedLabelRun, mix_label_runs
from charlm.runs.label_run import LabelRun
from charlm.runs.locate import checkpoints_folder
from charlm.runs.task_run import load_task_run
from charlm.text.documents import check_text
from charlm.text.encoded import EncodedText
from charlm.text.groups import padded
from charlm.text.sources.text_lines import FileRules


class LabelModel(TaskModel):
    """Trained classifier, made by `charlm.load`.

    The label of a text does not depend on other texts. With a `mixture`, labels are those of
    several runs together; features and states are those of the first one.
    """

    run: LabelRun
    mixture: MixedLabelRun | None

    def __init__(self, run: LabelRun, **options: Any) -> None:
        super().__init__(run, **options)
        self.name, self.mixture = run.name, run if isinstance(run, MixedLabelRun) else None

    def __reduce__(self) -> tuple[Any, ...]:
        load, (path, others, *more) = super().__reduce__()
        if self.mixture is not None:
            pairs = zip(self.mixture.members[1:], self.mixture.weights[1:], strict=True)
            others = [f"{run.path.resolve()}={weight!r}" for run, weight in pairs]
        return load, (path, others, *more)

    def predict_each(self, texts: str | Iterable[str]) -> Iterator[Label]:
        """Yield the label of each text, in order; texts may arrive one by one.

        An empty text has a label too. Raises UsageError for anything but texts.
        """
        for group in in_groups(checked_texts(texts)):
            yield from self._labels(self.run.encode(group))

    def evaluate(
        self,
        texts: str | Iterable[str] | None = None,
        labels: str | Iterable[str | None] | None = None,
    ) -> LabelCounts:
        """Return the counts of right and wrong answers for texts with these gold labels.

        Without arguments, the validation texts of the run are evaluated. Labels that the model does
        not have are counted as `unseen`. Raises UsageError unless there is one label for each text,
        a str or None, and CorpusError if the run keeps no validation texts.
        """
        if texts is None and labels is None:
            encoded, targets = self.kept_validation()
            return self.run.counts(self.run.reader.logits(encoded), targets)
        chosen, gold = list(checked_texts(texts)), list(several(labels, "labels"))
        for number, label in enumerate(gold):
            if not isinstance(label, str | None):  # 1 is not "1": it would be unseen, in silence
                raise UsageError(f"labels[{number}] is {label!r:.80}; expected a str or None")
        if len(chosen) != len(gold):
            raise UsageError(
                f"{len(gold)} labels for {len(chosen)} texts; expected one for each text"
            )
        logits = self.run.reader.logits(self.run.encode(chosen))
        return self.run.counts(logits, self.run.labels.ids(gold))

    def features(self, texts: str | Iterable[str]) -> Array:
        """Return the features that labels are read from, shape (N, P)."""
        return self.run.reader.features(self.run.encode(checked_texts(texts)))

    def states(self, texts: str | Iterable[str]) -> list[Array]:
        """Return the hidden vectors of each text, shape (T, H), as it is read forward.

        The first vector is that after the start symbol, before any token.
        """
        text = self.run.encode(checked_texts(texts))
        inputs = (padded(text, np.array([row]))[0] for row in range(text.documents))
        return [self.run.reader.hidden(each)[:, 0] for each in inputs]

    def as_read(self, text: str) -> list[tuple[str, Label]]:
        """Return each token that is read, with the label of the text up to it.

        Of a text that is longer than the model reads, the tokens are those that it keeps.
        """
        check_text(text)
        spans, encoded = self.run.prefixes(text)
        pieces = [text[begin:end] for begin, end in spans]
        return list(zip(pieces, self._labels(encoded), strict=True))

    def _labels(self, text: EncodedText) -> Iterator[Label]:
        """Yield the label of each encoded text."""
        for row in softmax(self.run.reader.logits(text)):
            best = int(row.argmax())
            shares = dict(zip(self.labels, row.tolist(), strict=True))
            yield Label(self.labels[best], float(row[best]), shares)


class LabelApi(TaskApi):
    """Functions for runs that give labels; see `TaskApi`."""

    model = LabelModel
    evaluation_flags = frozenset({"--target", "--worst", "--with"})
    reads_lines = True
    evaluation = "charlm.api.label_evaluation:evaluate_labels"
    comparison = "charlm.api.label_evaluation:compare_labels"

    def open(
        self,
        path: Path,
        *,
        with_: Sequence[str] = (),
        checkpoints: str | Path | None = None,
        **options: Any,
    ) -> LabelModel:
        """Load the classifier in a folder; options are as in `load_task_run`.

        `with_` names runs of the folder `checkpoints` to mix with it, as in `mix_label_runs`.
        """
        run = cast(LabelRun, load_task_run(path, **options))
        if with_:
            run = mix_label_runs(run, with_, checkpoints_folder(checkpoints), **options)
        return LabelModel(run, **options)

    def texts(self, files: Sequence[str], rules: FileRules) -> Iterator[str]:
        """See `TaskApi.texts`."""
        from charlm.text.examples import read_examples

        return (each.text or "" for each in read_examples(files, rules))


LABEL_API = LabelApi()
