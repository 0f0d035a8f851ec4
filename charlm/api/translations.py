"""The translator of a run: translations of texts. Nothing is printed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from charlm.api.task_api import TaskApi, TaskModel, checked_texts
from charlm.config.corpus import ReadSettings
from charlm.errors import UsageError, named
from charlm.inference.search import BEAM, MAX_BEAM
from charlm.inference.translating import Text
from charlm.inference.translation_counts import TranslationCounts
from charlm.runs.columns import run_columns
from charlm.runs.task_run import load_task_run
from charlm.runs.translate_run import TranslateRun

if TYPE_CHECKING:
    from charlm.inference.translation_results import TranslationComparison, TranslationEvaluation
    from charlm.text.sources.rows import Warn

GROUP = 256
"""Number of texts that are read before their translations are returned."""


class TranslateModel(TaskModel):
    """Trained translator, made by `charlm.load`.

    The translation of a text does not depend on other texts.
    """

    run: TranslateRun
    max_request_chars = 10_000  # the search and the attention take longer than one reading

    def __repr__(self) -> str:
        source, target = self.run.languages.source, self.run.languages.target
        return (
            f"TranslateModel({str(self.path)!r}, {len(source):,} {source.unit} entries to "
            f"{len(target):,})"
        )

    def predict_each(self, texts: str | Iterable[str], *, beam: int = BEAM) -> Iterator[Text]:
        """Yield the translation of each text, in order; texts may arrive one by one.

        `beam` is the width of the search, 1 for the likeliest token each time. The translation of a
        text without words is empty. Raises UsageError for anything but texts.
        """
        check_beam(beam)
        waiting = iter(checked_texts(texts))
        while group := list(islice(waiting, GROUP)):
            yield from self.run.translate(group, beam)

    def evaluate(
        self,
        texts: str | Iterable[str] | None = None,
        references: str | Iterable[str] | None = None,
        *,
        beam: int = BEAM,
    ) -> TranslationCounts:
        """Return the figures of outputs for texts with these references.

        Without arguments, the validation texts of the run are evaluated. Raises UsageError unless
        there is one reference for each text, and for texts without words, and CorpusError if the
        run keeps no validation texts.
        """
        check_beam(beam)
        if texts is None and references is None:
            return self.run.evaluate(self.kept_validation(), beam)[0]
        sources, targets = list(checked_texts(texts)), list(checked_texts(references, "references"))
        if len(sources) != len(targets) or not sources:
            raise UsageError(
                f"{len(targets)} references for {len(sources)} texts; expected one for each text"
            )
        pairs = list(zip(sources, targets, strict=True))
        for number, pair in enumerate(pairs):
            for name, text in zip(("texts", "references"), pair, strict=True):
                if not text.strip():
                    raise UsageError(f"{name}[{number}] is {text!r:.80}; expected some words")
        return self.run.evaluate(self.run.encoded(pairs), beam)[0]

    def as_read(self, text: str, *, beam: int = BEAM) -> list[Text]:
        """Return the translation of a text in a list, which is empty for a text without words."""
        return [answer for answer in self.predict([text], beam=beam) if answer.tokens]


def check_beam(beam: int) -> None:
    """Raise UsageError unless a beam is a whole number from 1 to MAX_BEAM."""
    if isinstance(beam, bool) or not isinstance(beam, int) or not 1 <= beam <= MAX_BEAM:
        raise UsageError(f"{named('beam')} is {beam!r:.80}; expected a number from 1 to {MAX_BEAM}")


class TranslateApi:
    """Functions for runs that give translations; see `TaskApi`."""

    evaluation_flags = frozenset({"--target", "--worst", "--beam"})
    reads_lines = True

    def open(self, path: Path, **options: Any) -> TranslateModel:
        """Load the translator in a folder; options are as in `load_task_run`."""
        return TranslateModel(cast(TranslateRun, load_task_run(path, **options)), **options)

    def evaluate(
        self, run: TranslateRun, files: Sequence[str] | None = None, **options: Any
    ) -> "TranslationEvaluation":
        """See `translation_evaluation.evaluate_translations`."""
        from charlm.api.translation_evaluation import evaluate_translations

        check_beam(options.get("beam", BEAM))
        return evaluate_translations(run, files, **options)

    def compare(
        self, runs: Sequence[TranslateRun], files: Sequence[str] | None = None, **options: Any
    ) -> "TranslationComparison":
        """See `translation_evaluation.compare_translations`."""
        from charlm.api.translation_evaluation import compare_translations

        return compare_translations(runs, files, **options)

    def inputs(
        self,
        run: Path,
        files: Sequence[str],
        reading: Mapping[str, Any],
        target: str | None,
        warn: "Warn",
    ) -> Iterator[list[str]]:
        """Yield the texts of files in groups, "" for rows without one; translations are left out.

        `reading` has fields of `ReadSettings`, `target` names the column of translations, if there
        is one. Raises CorpusError.
        """
        from charlm.text.parallel_files import read_pairs

        rules, columns = ReadSettings(**reading), run_columns(run)
        pairs = read_pairs(files, rules, target, warn, needs_targets=False, columns=columns)
        texts = (pair.source or "" for pair in pairs)
        while group := list(islice(texts, GROUP)):
            yield group


TRANSLATE_API: TaskApi = TranslateApi()
"""Functions of the task `translate`."""
