"""A dataset: the splits of a corpus as ids, with a vocabulary built from the training text only.

Small texts are encoded in memory, large ones into the cache on disk (`charlm.text.idcache`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.errors import CorpusError
from charlm.phases import phase
from charlm.text.advice import coverage_advice, size_advice
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.corpus import Corpus
from charlm.text.encoded import EncodedText, id_counts
from charlm.text.idcache import encode_split
from charlm.text.splits import Split, open_corpus, split_corpus
from charlm.text.tokenizers.building import build_vocabulary, count_unk_types
from charlm.text.tokenizers.tokenizer_json import UNK
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

    def split(self, name: str) -> EncodedText | None:
        """Return the split of this name: train, valid or test."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


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

    A `corpus` replaces `settings.sources`; `cache` is the folder for large texts. Without
    `count_types`, a given vocabulary saves one pass over the text and `unk_types` is None. Raises
    CorpusError for a text that is empty or cannot be read.
    """
    corpus = corpus or open_corpus(settings.sources, settings)
    splits = split_corpus(corpus, settings)
    warnings, coverage, given = list(corpus.warnings), 1.0, vocabulary is not None
    unk_types: float | None = None
    if vocabulary is None:
        with phase("building the vocabulary", total=splits["train"].chars):
            built = build_vocabulary(splits["train"].watched, vocabulary_settings, count=False)
        vocabulary, coverage, unk_types = built.vocabulary, built.coverage, built.unk_types
        warnings += built.warnings
    elif count_types:
        with phase("counting unknown types", total=splits["train"].chars):
            unk_types = count_unk_types(splits["train"].watched, vocabulary)
    encoded = _encode(corpus, splits, vocabulary, cache)
    train = encoded["train"]
    if given:
        counts = id_counts(train.ids, len(vocabulary))
        coverage = 1.0 - int(counts[UNK]) / int(counts.sum())
    warnings += coverage_advice(coverage, vocabulary.unit, built=not given)
    warnings += size_advice(len(train.ids), train.counts.chars, vocabulary.unit)
    return Dataset(
        name=corpus.name,
        vocabulary=vocabulary,
        train=train,
        valid=encoded.get("valid"),
        test=encoded.get("test"),
        fingerprint=_fingerprint(splits),
        boundaries=Boundaries.of_text(train, vocabulary, corpus.document, crlf=corpus.crlf),
        coverage=coverage,
        unk_types=unk_types,
        warnings=warnings,
    )


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
    return _fingerprint(split_corpus(open_corpus(settings.sources, settings, document), settings))


def _fingerprint(splits: Mapping[str, Split]) -> str:
    keys = "".join(split.key for split in splits.values())
    return hashlib.sha256(keys.encode()).hexdigest()
