"""A dataset: the splits of a corpus as ids, with a vocabulary built from the training text only.

Small texts are encoded in memory, large ones into the cache on disk (`charlm.text.idcache`).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.errors import CorpusError
from charlm.phases import phase
from charlm.text.advice import coverage_advice, numbers_advice, prepared_advice, size_advice
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.corpus import Corpus
from charlm.text.encoded import EncodedText, id_counts
from charlm.text.idcache import encode_split
from charlm.text.sources.rows import Columns
from charlm.text.splits import Split, split_corpus
from charlm.text.task_text import Gold
from charlm.text.tokenizers.building import (
    BuiltVocabulary,
    build_vocabulary,
    count_unk_types,
    grow_vocabulary,
)
from charlm.text.tokenizers.vocabulary import Vocabulary

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Training text and optional validation and test text, with their vocabulary."""

    name: str
    vocabulary: Vocabulary
    train: EncodedText
    valid: EncodedText | None
    test: EncodedText | None
    fingerprint: str
    """Hash of the text of all splits."""
    boundaries: Boundaries = STREAM
    coverage: float = 1.0
    """Fraction of the training tokens that are in the vocabulary."""
    unk_types: float | None = None
    """Estimated number of types that UNK represents, or None if they were not counted."""
    warnings: list[str] = field(default_factory=list)
    labelled: Gold | None = None
    """Labels or the like that lie beside the documents; None for plain text."""
    columns: Columns = field(default_factory=Columns)
    """Columns of the tables that the text was read from."""

    def split(self, name: str) -> EncodedText | None:
        """Return the split of this name: train, valid or test."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]

    def with_texts(self, change: Callable[[str, EncodedText], EncodedText]) -> "Dataset":
        """Return the dataset with changed texts; `change` takes the name and text of a split."""
        texts = {name: text for name in SPLITS if (text := self.split(name)) is not None}
        changed: dict[str, Any] = {name: change(name, text) for name, text in texts.items()}
        return replace(self, **changed)


def load_dataset(
    settings: CorpusSettings,
    vocabulary_settings: VocabularySettings,
    *,
    corpus: Corpus | None = None,
    vocabulary: Vocabulary | None = None,
    cache: Path | None = None,
    count_types: bool = True,
    grow: bool = False,
) -> Dataset:
    """Read, split, build the vocabulary (unless one is given) and encode.

    A `corpus` replaces `settings.sources`; `cache` is the folder for large texts. Without
    `count_types`, a given vocabulary saves one pass over the text and `unk_types` is None. With
    `grow`, a given vocabulary gets entries for new types of the training text. Raises CorpusError
    for a text that is empty or cannot be read.
    """
    corpus = corpus or Corpus(settings.sources, document=settings.document, reading=settings)
    splits = split_corpus(corpus, settings)
    warnings = [*corpus.warnings, *corpus.notes]
    built = training_vocabulary(
        splits["train"], vocabulary_settings, vocabulary, count_types=count_types, grow=grow
    )
    encoded = _encode(corpus, splits, built.vocabulary, cache)
    train = encoded["train"]
    if vocabulary is not None:
        built = replace(built, counts=id_counts(train.ids, len(built.vocabulary)))
    unit = built.vocabulary.unit
    warnings += built.warnings
    if vocabulary is None:
        head = next(iter(splits["train"].read()), "")
        warnings += prepared_advice(head, unit, vocabulary_settings.words)
        warnings += numbers_advice(head)
    warnings += coverage_advice(built.coverage, unit, built=vocabulary is None)
    warnings += size_advice(len(train.ids), train.counts.chars, unit)
    return Dataset(
        name=corpus.name,
        vocabulary=built.vocabulary,
        train=train,
        valid=encoded.get("valid"),
        test=encoded.get("test"),
        fingerprint=_fingerprint(splits),
        boundaries=Boundaries.of_text(train, built.vocabulary, corpus.document, crlf=corpus.crlf),
        coverage=built.coverage,
        unk_types=built.unk_types,
        warnings=warnings,
        columns=corpus.columns,
    )


def training_vocabulary(
    train: Split,
    settings: VocabularySettings,
    given: Vocabulary | None,
    *,
    count_types: bool = True,
    grow: bool = False,
) -> BuiltVocabulary:
    """Build the vocabulary of a split, or return the given one, whose tokens are counted later."""
    if given is None or grow:
        with phase("building the vocabulary", total=train.chars):
            if given is not None:
                return grow_vocabulary(train.watched, given, settings)
            return build_vocabulary(train.watched, settings, count=False)
    unk_types = None
    if count_types:
        with phase("counting unknown types", total=train.chars):
            unk_types = count_unk_types(train.watched, given)
    return BuiltVocabulary(vocabulary=given, counts=np.empty(0, np.int64), unk_types=unk_types)


def _encode(
    corpus: Corpus, splits: Mapping[str, Split], vocabulary: Vocabulary, cache: Path | None
) -> dict[str, EncodedText]:
    """Encode the splits; leave out those without a token."""
    with phase("encoding the text", total=sum(split.chars for split in splits.values())):
        encoded = {
            name: encode_split(split, vocabulary, corpus.document, cache)
            for name, split in splits.items()
        }
    for split in splits.values():
        split.check()
    if len(encoded["train"].ids) == 0:
        raise CorpusError(f"{corpus.name} has no words; expected text between the blanks")
    return {name: text for name, text in encoded.items() if len(text.ids)}


def text_fingerprint(settings: CorpusSettings, document: str) -> str:
    """Read a text, split into these documents, and return the fingerprint of its dataset."""
    corpus = Corpus(settings.sources, document=document, reading=settings)
    return _fingerprint(split_corpus(corpus, settings))


def _fingerprint(splits: Mapping[str, Split]) -> str:
    keys = "".join(split.key for split in splits.values())
    return hashlib.sha256(keys.encode()).hexdigest()
