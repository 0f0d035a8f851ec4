"""Splits: the training, validation and test text, held out before anything is learned."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import CorpusSettings
from charlm.errors import CorpusError, UsageError, named
from charlm.phases import counted, phase
from charlm.text.advice import MAX_COMPARED_CHARS, copied_advice, list_advice, shared_advice
from charlm.text.corpus import Corpus, Stamps
from charlm.text.documents import TextStats, scan, select_documents, span, split_point
from charlm.text.tokenizers.building import Read

VALID_FRACTION, VALID_CHARS = 0.1, 5_000_000
"""Default of the held-out text: a fraction of the text, but at most this many characters."""
HOLD_OUT_SEED = 0
"""Seed of `--hold-out random`; equal for all runs, so that runs on a text can be compared."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A part of a corpus that can be read again."""

    read: Read
    key: str
    """Hash of the corpus, and the place of the split in it."""
    bytes: int
    """Upper bound of its bytes."""
    chars: int
    """Approximate number of its characters."""
    check: Callable[[], None]
    """Raises CorpusError if the files have changed since they were scanned."""

    def watched(self) -> Iterator[str]:
        """Read the split, and advance the open phase."""
        return counted(self.read())


def split_corpus(corpus: Corpus, settings: CorpusSettings) -> dict[str, Split]:
    """Return the splits by name; a fraction is held out for validation unless a file is given.

    Advice about the text is added to the corpus's warnings. Raises CorpusError for an empty text.
    """
    whole = _Scanned.read(corpus)
    columns = replace(corpus.columns)  # tables of other splits do not fill in those of training
    splits = _train_and_valid(whole, settings)
    for name, sources in (("valid", settings.valid), ("test", settings.test)):
        if sources:
            other = _Scanned.read(
                Corpus(sources, document=corpus.document, reading=settings, columns=columns)
            )
            known = corpus.warnings
            known += [warning for warning in other.corpus.warnings if warning not in known]
            if other.stats.sha256 == whole.stats.sha256:
                known.append(
                    f"The {name} text is the training text itself, so its figures do not show how "
                    "well the model knows new text."
                )
            if other.stats.chars:
                splits[name] = other.span(0, None)
            else:
                known.append(f"The {name} text is empty and was left out.")
    end_only = "valid" in splits and not settings.valid and settings.hold_out == "end"
    corpus.warnings += list_advice(whole.head, corpus.document, ends_held_out=end_only)
    if "valid" in splits and whole.stats.chars <= MAX_COMPARED_CHARS:
        with phase("looking for repeats in the held-out text"):
            train, held_out = splits["train"].read(), splits["valid"].read()
            corpus.warnings += (
                shared_advice(train, held_out, corpus.document)
                if whole.by_document
                else copied_advice(train, held_out)
            )
    return splits


def _train_and_valid(whole: "_Scanned", settings: CorpusSettings) -> dict[str, Split]:
    """Return the training split, and the validation split if it is held out of the same text."""
    stats, least, count = whole.stats, 1 if whole.by_document else 2, whole.length
    if count < least:
        size = "is empty" if count == 0 else "has one character"
        raise CorpusError(
            f"{', '.join(whole.corpus.sources)} {size}; expected at least two characters to learn "
            "from. Give another text"
        )
    if settings.hold_out == "random" and not whole.by_document:
        raise UsageError(
            f"{named('hold_out')} is 'random', but the text is one stream; expected documents to "
            f"choose from. Name their unit with {named('document')} line, paragraph or file"
        )
    cut, fraction = count, settings.valid_frac
    if fraction is None:
        fraction = min(VALID_FRACTION, VALID_CHARS / max(stats.chars, 1))
    if not settings.valid and fraction > 0:
        cut = max(split_point(stats, fraction, documents=whole.by_document), least)
    if cut == count:
        return {"train": whole.span(0, None)}
    if settings.hold_out == "random":
        return whole.random(cut)
    return {"train": whole.span(0, cut), "valid": whole.span(cut, None)}


@dataclass(frozen=True, kw_only=True)
class _Scanned:
    """A corpus that was read once, and the splits of it."""

    corpus: Corpus
    stats: TextStats
    head: str
    """First chunk of the text."""
    stamps: Stamps

    @classmethod
    def read(cls, corpus: Corpus) -> "_Scanned":
        """Read a corpus from the beginning to the end."""
        stamps = corpus.stamps()
        with phase(f"reading {corpus.name}", unit="characters"):
            chunks = corpus.chunks()
            head = next(chunks, "")
            stats = scan(counted(chain([head], chunks)))
        return cls(corpus=corpus, stats=stats, head=head, stamps=stamps)

    @property
    def by_document(self) -> bool:
        """True if the text has documents, which are never cut by a split."""
        return self.corpus.document != "stream"

    @property
    def length(self) -> int:
        """Number of documents, or of characters of a stream."""
        return self.stats.documents if self.by_document else self.stats.chars

    def span(self, start: int, stop: int | None) -> Split:
        """Return the documents, or characters of a stream, from `start` up to `stop`."""
        count = (self.length if stop is None else stop) - start
        return self._split(
            f"{start}:{stop}",
            lambda: span(self.corpus.chunks(), start, stop, documents=self.by_document),
            count / max(self.length, 1),
        )

    def random(self, number: int) -> dict[str, Split]:
        """Return `number` random documents for training and the others for validation."""
        order = np.random.default_rng(HOLD_OUT_SEED).permutation(self.stats.documents)
        training = np.zeros(self.stats.documents, np.bool_)
        training[order[:number]] = True
        return {
            "train": self._selection(f"random:train:{number}", training),
            "valid": self._selection(f"random:valid:{number}", ~training),
        }

    def _selection(self, place: str, selected: NDArray[np.bool_]) -> Split:
        return self._split(
            place,
            lambda: select_documents(self.corpus.chunks(), selected),
            float(selected.mean()),
        )

    def _split(self, place: str, read: Read, fraction: float) -> Split:
        """Return the split at a place, which is about this fraction of the text."""
        return Split(
            read=read,
            key=f"{self.stats.sha256}:{place}",
            bytes=self.stats.bytes,
            chars=round(fraction * self.stats.chars),
            check=self._check_unchanged,
        )

    def _check_unchanged(self) -> None:
        if self.corpus.stamps() != self.stamps:
            raise CorpusError(
                f"{self.corpus.name} changed while it was read; expected the same text in every "
                "pass. Run the command again"
            )
