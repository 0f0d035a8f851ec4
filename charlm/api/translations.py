"""The translator of a run: translations of texts. Nothing is printed."""

from collections.abc import Iterable, Iterator, Sequence

from charlm.api.task_api import TaskApi, TaskModel, checked_texts, in_groups
from charlm.errors import UsageError, named
from charlm.inference.search import BEAM, MAX_BEAM
from charlm.inference.translating import Text
from charlm.inference.translation_counts import TranslationCounts
from charlm.runs.translate_run import TranslateRun
from charlm.text.sources.text_lines import FileRules


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
        for group in in_groups(checked_texts(texts)):
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


class TranslateApi(TaskApi):
    """Functions for runs that give translations; see `TaskApi`."""

    model = TranslateModel
    evaluation_flags = frozenset({"--target", "--worst", "--beam"})
    reads_lines = True
    evaluation = "charlm.api.translation_evaluation:evaluate_translations"
    comparison = "charlm.api.translation_evaluation:compare_translations"

    def texts(self, files: Sequence[str], rules: FileRules) -> Iterator[str]:
        """See `TaskApi.texts`."""
        from charlm.text.parallel_files import read_pairs

        return (pair.source or "" for pair in read_pairs(files, rules))


TRANSLATE_API = TranslateApi()
"""Functions of the task `translate`."""
