"""A corpus as ids: split first, vocabulary from the training part only, then everything encoded.

Small texts are encoded in memory, large ones into the cache on disk (`charlm.text.idcache`).
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.errors import CorpusError, UsageError, named
from charlm.phases import counted, phase
from charlm.text.advice import MAX_COMPARED_CHARS, list_advice, shared_advice, size_advice
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.corpus import Corpus, Stamps
from charlm.text.documents import TextStats, scan, select_documents, span, split_point
from charlm.text.encoded import EncodedText, id_counts
from charlm.text.idcache import Part, encode_part
from charlm.text.tokenizers.building import Read, build_vocabulary, count_unk_types
from charlm.text.tokenizers.tokenizer_json import UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

VALID_SHARE, VALID_CHARS = 0.1, 5_000_000
"""What is held out where nothing else is said: so much of the text, at most so many characters."""
HOLD_OUT_SEED = 0
"""One draw for every run, so that runs on a text can be compared."""
MIN_COVERAGE = 0.9
"""Share of the training tokens that are in the vocabulary below which it is told."""
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training text and, where there is any, validation and test text, with their vocabulary."""

    name: str
    vocabulary: Vocabulary
    train: EncodedText
    valid: EncodedText | None
    test: EncodedText | None
    fingerprint: str
    boundaries: Boundaries = STREAM
    coverage: float = 1.0
    unk_types: float | None = None
    """Estimated number of types that UNK stands for; None where it is not known."""
    notes: list[str] = field(default_factory=list)

    def split(self, name: str) -> EncodedText | None:
        """The part of this name: train, valid or test."""
        part: EncodedText | None = {"train": self.train, "valid": self.valid, "test": self.test}[
            name
        ]
        return part


def load_dataset(
    settings: CorpusSettings,
    vocabulary_settings: VocabularySettings,
    *,
    corpus: Corpus | None = None,
    vocabulary: Vocabulary | None = None,
    cache: Path | None = None,
    count_types: bool = True,
) -> Dataset:
    """Read, split, build the vocabulary (unless one is given) and encode.

    `corpus` stands for `settings.sources` where it is given; `cache` is the folder for large
    texts. Without `count_types`, the types that UNK stands for in a given vocabulary are not
    counted, which saves a pass. Raises CorpusError for text that is empty or cannot be read.
    """
    corpus = corpus or open_corpus(settings.sources, settings)
    parts = _split(corpus, settings)
    notes = list(corpus.notes)
    coverage, given = 1.0, vocabulary is not None
    unk_types: float | None = None
    if vocabulary is None:
        with phase("building the vocabulary", total=parts["train"].chars):
            built = build_vocabulary(parts["train"].watched, vocabulary_settings, count=False)
        vocabulary, coverage, unk_types = built.vocabulary, built.coverage, built.unk_types
        notes += built.notes
    elif count_types:
        with phase("counting what UNK stands for", total=parts["train"].chars):
            unk_types = count_unk_types(parts["train"].watched, vocabulary)
    with phase("encoding the text", total=sum(part.chars for part in parts.values())):
        encoded = {
            name: encode_part(part, vocabulary, corpus.document, cache)
            for name, part in parts.items()
        }
    for part in parts.values():
        part.check()
    if len(encoded["train"].ids) == 0:
        raise CorpusError(f"{corpus.name} holds no word; expected text between the blanks")
    encoded = {name: text for name, text in encoded.items() if len(text.ids)}
    if given:
        counts = id_counts(encoded["train"].ids, len(vocabulary))
        coverage = 1.0 - int(counts[UNK]) / int(counts.sum())
    if coverage < MIN_COVERAGE:
        hint = "" if given or not vocabulary.spec.whole_words else (
            ". For a script without blanks between its words use --unit char or bpe"
        )  # fmt: skip
        share = f"{100.0 * (1.0 - coverage):.0f} %"
        notes.append(f"{share} of the training tokens are not in the vocabulary (UNK){hint}")
    train = encoded["train"]
    notes += size_advice(len(train.ids), train.counts.chars, vocabulary.unit)
    return Dataset(
        name=corpus.name,
        vocabulary=vocabulary,
        train=train,
        valid=encoded.get("valid"),
        test=encoded.get("test"),
        fingerprint=_fingerprint(parts),
        boundaries=Boundaries.of_text(train, vocabulary, corpus.document, crlf=corpus.crlf),
        coverage=coverage,
        unk_types=unk_types,
        notes=notes,
    )


def text_fingerprint(settings: CorpusSettings, document: str) -> str:
    """Read a text that is cut in these documents, and return the fingerprint of its dataset."""
    return _fingerprint(_split(open_corpus(settings.sources, settings, document), settings))


def _fingerprint(parts: Mapping[str, Part]) -> str:
    keys = "".join(part.key for part in parts.values())
    return hashlib.sha256(keys.encode()).hexdigest()


def open_corpus(
    sources: Iterable[str], settings: CorpusSettings, document: str | None = None
) -> Corpus:
    """Open these sources as a corpus, read by the rules of the settings."""
    return Corpus(tuple(sources), document=document or settings.document, reading=settings)


def _split(corpus: Corpus, settings: CorpusSettings) -> dict[str, Part]:
    """The parts by name; a share is held out for validation unless a file is given for it."""
    before = corpus.stamps()
    whole, head = _measured(corpus)
    by_document = corpus.document != "stream"
    least = 1 if by_document else 2
    count = whole.documents if by_document else whole.chars
    if count < least:
        found = "is empty" if count == 0 else "has one character"
        raise CorpusError(f"{corpus.name} {found}; expected at least two characters to learn from")
    if settings.hold_out == "random" and not by_document:
        raise UsageError(
            f"{named('hold_out')} is 'random', and the text is one stream; expected documents to "
            "draw from. "
            "Say what they are with --document line, paragraph or file"
        )
    cut, share = count, settings.valid_frac
    if share is None:
        share = min(VALID_SHARE, VALID_CHARS / max(whole.chars, 1))
    if not settings.valid and share > 0:
        cut = max(split_point(whole, share, documents=by_document), least)
    if cut == count:
        parts = {"train": _part_of(corpus, whole, "0:None", corpus.chunks, before)}
    elif settings.hold_out == "random":
        parts = _drawn_parts(corpus, whole, cut, before)
    else:
        parts = {
            "train": _span_part(corpus, whole, 0, cut, before),
            "valid": _span_part(corpus, whole, cut, None, before),
        }
    for name, sources in (("valid", settings.valid), ("test", settings.test)):
        if sources:
            other = open_corpus(sources, settings, corpus.document)
            before = other.stamps()
            extent, _ = _measured(other)
            corpus.notes += [note for note in other.notes if note not in corpus.notes]
            if extent.sha256 == whole.sha256:
                corpus.notes.append(
                    f"The {name} text is the training text itself; its figures tell nothing of "
                    "new text."
                )
            if extent.chars:
                parts[name] = _part_of(other, extent, "0:None", other.chunks, before)
            else:
                corpus.notes.append(f"The {name} text is empty; it was left out.")
    end_only = "valid" in parts and not settings.valid and settings.hold_out == "end"
    corpus.notes += list_advice(head, corpus.document, ends_held_out=end_only)
    if by_document and "valid" in parts and whole.chars <= MAX_COMPARED_CHARS:
        with phase("looking for repeats in the held-out part"):
            train, held_out = parts["train"].read(), parts["valid"].read()
            corpus.notes += shared_advice(train, held_out, corpus.document)
    return parts


def _measured(corpus: Corpus) -> tuple[TextStats, str]:
    """Read a corpus from its beginning to its end; return its extent and its first chunk."""
    with phase(f"reading {corpus.name}", unit="characters"):
        chunks = corpus.chunks()
        head = next(chunks, "")
        return scan(counted(chain([head], chunks))), head


def _span_part(
    corpus: Corpus, extent: TextStats, start: int, stop: int | None, before: Stamps
) -> Part:
    documents = corpus.document != "stream"
    count = extent.documents if documents else extent.chars
    return _part_of(
        corpus, extent, f"{start}:{stop}",
        lambda: span(corpus.chunks(), start, stop, documents=documents), before,
        ((count if stop is None else stop) - start) / max(count, 1),
    )  # fmt: skip


def _drawn_parts(corpus: Corpus, extent: TextStats, number: int, before: Stamps) -> dict[str, Part]:
    """So many documents for training and the others for validation: the same draw each time."""
    order = np.random.default_rng(HOLD_OUT_SEED).permutation(extent.documents)
    training = np.zeros(extent.documents, np.bool_)
    training[order[:number]] = True
    return {
        name: _part_of(
            corpus, extent, f"random:{name}:{number}",
            partial(_chosen, corpus, wanted), before, float(wanted.mean()),
        )
        for name, wanted in (("train", training), ("valid", ~training))
    }  # fmt: skip


def _chosen(corpus: Corpus, wanted: NDArray[np.bool_]) -> Iterator[str]:
    return select_documents(corpus.chunks(), wanted)


def _part_of(
    corpus: Corpus,
    extent: TextStats,
    place: str,
    read: Read,
    before: Stamps,
    fraction: float = 1.0,
) -> Part:
    """A part that `read` reads, at a place of the whole text that a few words name.

    It is about this fraction of the whole text.
    """

    def check() -> None:
        """Whether the files are as they were when they were measured."""
        if corpus.stamps() != before:
            raise CorpusError(
                f"{corpus.name} has changed while it was read; expected the same text from the "
                "first pass to the last. Run the command again"
            )

    return Part(
        read=read,
        key=f"{extent.sha256}:{place}",
        bytes=extent.bytes,
        chars=round(fraction * extent.chars),
        check=check,
    )
