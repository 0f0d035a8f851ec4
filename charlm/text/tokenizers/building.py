"""Build a vocabulary: count the tokens of a text and keep the frequent ones."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.config.class_path import resolve
from charlm.config.corpus import VocabularySettings
from charlm.config.text_units import UNITS
from charlm.errors import CorpusError, UsageError, named
from charlm.text.documents import END
from charlm.text.tokenizers import tokenizer_json
from charlm.text.tokenizers.cutting import cut_safely, safe_chunks
from charlm.text.tokenizers.tokenizer_json import EOS_TOKEN, LETTERS, LINE_END, UNK, UNK_TOKEN
from charlm.text.tokenizers.vocabulary import Vocabulary, code_points, vocabulary_class
from charlm.text.tokenizers.words import BpeVocabulary, WordVocabulary

SMALL_ALPHABET = 512
"""Number of distinct characters up to which all are kept; beyond, those that occur once are UNK."""
MAX_ALPHABET = 20_000
"""Maximum number of distinct characters of a text; more suggest a wrong encoding."""
FEW_WORDS = 10_000
"""Number of words in a text below which words that occur once are kept."""
Read = Callable[[], Iterable[str]]
"""Function that returns the chunks of a text from its beginning."""


@dataclass(frozen=True, kw_only=True)
class BuiltVocabulary:
    """A vocabulary with the counts of its text.

    `counts[i]` is the number of tokens with id i. `unk_types` is the estimated number of types that
    UNK represents (see `estimate_unk_types`), or None if types were not counted.
    """

    vocabulary: Vocabulary
    counts: NDArray[np.int64]
    unk_types: float | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def coverage(self) -> float:
        """Fraction of the tokens that are in the vocabulary."""
        total = int(self.counts.sum())
        return 1.0 - int(self.counts[UNK]) / total if total else 1.0


def build_vocabulary(
    read: Read, settings: VocabularySettings, *, count: bool = True
) -> BuiltVocabulary:
    """Build the vocabulary of a text; END marks do not count.

    `read` is called once or twice, so that the text need not be in memory. Without `count`, a pass
    that only counts is left out (bytes and bpe). Raises CorpusError for more distinct characters
    than any script has.
    """
    built: BuiltVocabulary = resolve(UNITS[settings.unit].builder)(read, settings, count=count)
    return built


def unseen_types(counts: Iterable[int]) -> float:
    """Estimate the number of types that a text does not contain from the counts of its types.

    It is the bias-corrected lower bound of Chao (1984), f1 (f1 - 1) / (2 (f2 + 1)), with f1 types
    that occur once and f2 types that occur twice.
    """
    occurrences = Counter(counts)
    once, twice = occurrences[1], occurrences[2]
    return once * (once - 1) / (2 * (twice + 1))


def estimate_unk_types(counts: Mapping[str, int], known: Iterable[str], literal: int = 0) -> float:
    """Estimate the number of types that UNK represents, at least 1.

    `counts` has every type of the training text, `known` are the entries of the vocabulary. UNK
    represents the types that are not entries and those that the text does not contain. How many
    types the `literal` UNK tokens of a text replace is not known: at most one for each token, and
    here no more than there are entries.
    """
    entries = set(known)
    cut = sum(token not in entries for token in counts)
    hidden = min(literal, len(entries))
    return max(1.0, float(hidden), cut + unseen_types(counts.values()))


def count_unk_types(read: Read, vocabulary: Vocabulary) -> float:
    """Estimate the number of types of a training text that UNK represents in a vocabulary."""
    if vocabulary.spec.byte_level:
        return 1.0
    counts, literal = _count_plain_types(read, vocabulary)
    return estimate_unk_types(counts, vocabulary.tokens[2:], literal)


def count_ids(chunks: Iterable[str], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Count each id in a text without its END marks, shape (vocabulary size,)."""
    counts = np.zeros(len(vocabulary), np.int64)
    for chunk in safe_chunks(chunks):
        ids, ends = vocabulary.encode_marked(chunk)
        counts += np.bincount(ids, minlength=len(vocabulary))
        counts[vocabulary.eos] -= len(ends)
    return counts


def _documents(chunks: Iterable[str], unit: str) -> Iterator[str]:
    """Yield text without END marks, in the pieces that the unit's vocabulary encodes."""
    for chunk in safe_chunks(chunks):
        for document in chunk.split(END):
            yield from cut_safely(document, vocabulary_class(unit).piece_chars)


def _empty(settings: VocabularySettings) -> Vocabulary:
    special = [UNK_TOKEN, tokenizer_json.eos_token(settings)]
    return vocabulary_class(settings.unit)(settings, special)


def count_chars(read: Read, settings: VocabularySettings) -> dict[str, int]:
    """Count the characters of a text."""
    empty, chunks = _empty(settings), read()
    if empty.normalizes:
        batches = _batches(_documents(chunks, settings.unit), 256)
        chunks = ("".join(map(empty.normalized, batch)) for batch in batches)
    counts = np.zeros(0x110000, np.int64)
    for chunk in chunks:
        chunk_counts = np.bincount(code_points(chunk))
        counts[: len(chunk_counts)] += chunk_counts
    counts[ord(END)] = 0
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}


def count_words(read: Read, settings: VocabularySettings) -> dict[str, int]:
    """Count the words of a text."""
    empty = _empty(settings)
    assert isinstance(empty, WordVocabulary), "asked for words"
    counts = Counter[str]()
    for document in _documents(read(), settings.unit):
        counts.update(empty.words(document))
    return dict(counts)


def _count_types(read: Read, settings: VocabularySettings) -> dict[str, int]:
    counts: dict[str, int] = resolve(UNITS[settings.unit].type_counter)(read, settings)
    return counts


def _count_plain_types(read: Read, vocabulary: Vocabulary) -> tuple[dict[str, int], int]:
    """Count the types of a text without UNK and EOS, and its literal UNK tokens."""
    counts = _count_types(read, vocabulary.settings)
    literal = counts.pop(UNK_TOKEN, 0) if vocabulary.spec.whole_words else 0
    if vocabulary.line_ends_are_eos:
        counts.pop(LINE_END, None)
    return counts, literal


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def build_counted(read: Read, settings: VocabularySettings, *, count: bool) -> BuiltVocabulary:  # noqa: ARG001
    """Build a vocabulary of the most frequent types, which are always counted."""
    spec, counts, warnings = UNITS[settings.unit], _count_types(read, settings), []
    eos = tokenizer_json.eos_token(settings)
    eos_count = counts.pop(eos, 0) if eos == LINE_END else 0
    literal_unk = counts.pop(UNK_TOKEN, 0) if spec.whole_words else 0
    if literal_unk:
        warnings.append(
            f"The text has {literal_unk:,} literal <unk>, which are read as the unknown token UNK."
        )
    least, frequent = _frequent(counts, settings, bool(literal_unk))
    kept = frequent[: _max_size(settings) - 2]
    vocabulary = vocabulary_class(settings.unit)(
        replace(settings, min_count=least, max_size=_max_size(settings)),
        [UNK_TOKEN, eos, *kept],
    )
    known = [counts[token] for token in kept]
    unknown = literal_unk + sum(counts.values()) - sum(known)
    return BuiltVocabulary(
        vocabulary=vocabulary,
        counts=np.array([unknown, eos_count, *known]),
        unk_types=estimate_unk_types(counts, kept, literal_unk),
        warnings=warnings,
    )


def grow_vocabulary(
    read: Read, vocabulary: Vocabulary, settings: VocabularySettings
) -> BuiltVocabulary:
    """Return a vocabulary with further entries for the frequent new types of a text.

    Entries keep their ids; new ones follow, ordered by count. `counts` is empty. The unit must have
    a type counter.
    """
    types, literal = _count_plain_types(read, vocabulary)
    least, frequent = _frequent(types, settings, bool(literal))
    new = [token for token in frequent if token not in vocabulary.ids]
    new = new[: max(_max_size(settings) - len(vocabulary), 0)]
    grown = type(vocabulary)(
        replace(vocabulary.settings, min_count=least, max_size=_max_size(settings)),
        [*vocabulary.tokens, *new],
    )
    return BuiltVocabulary(
        vocabulary=grown,
        counts=np.empty(0, np.int64),
        unk_types=estimate_unk_types(types, grown.tokens[2:], literal),
    )


def _frequent(
    counts: dict[str, int], settings: VocabularySettings, has_unk: bool
) -> tuple[int, list[str]]:
    """Return the minimum count of an entry, and the types that reach it, ordered by count.

    Raises CorpusError for more distinct characters than any script has.
    """
    least = settings.min_count or _default_min_count(counts, settings, has_unk)
    if UNITS[settings.unit].letter:
        _check_alphabet(len(counts), settings)
    types = (token for token, count in counts.items() if count >= least)
    return least, sorted(types, key=lambda token: (-counts[token], token))


def _default_min_count(counts: dict[str, int], settings: VocabularySettings, has_unk: bool) -> int:
    """Return 1 to keep every type, or 2 if types that occur once are to train UNK.

    Their frequency is the best estimate of the frequency of unseen types (Good-Turing).
    """
    if UNITS[settings.unit].letter:
        return 1 if len(counts) <= SMALL_ALPHABET else 2
    return 1 if has_unk or sum(counts.values()) < FEW_WORDS else 2


def _max_size(settings: VocabularySettings) -> int:
    return settings.max_size or UNITS[settings.unit].default_size


def _check_alphabet(size: int, settings: VocabularySettings) -> None:
    if size > MAX_ALPHABET and settings.max_size is None:
        raise CorpusError(
            f"the text has {size:,} distinct characters, more than any script; expected text in "
            "the given encoding. Use --unit byte, or keep the most frequent with --max-size"
        )


def build_bytes(read: Read, settings: VocabularySettings, *, count: bool) -> BuiltVocabulary:
    """Build the vocabulary of all bytes."""
    vocabulary = vocabulary_class(settings.unit)(
        replace(settings, min_count=1, max_size=258), [UNK_TOKEN, EOS_TOKEN, *LETTERS]
    )
    counts = count_ids(read() if count else (), vocabulary)
    return BuiltVocabulary(vocabulary=vocabulary, counts=counts, unk_types=1.0)


def build_bpe(read: Read, settings: VocabularySettings, *, count: bool) -> BuiltVocabulary:
    """Train byte-pair encoding on a text."""
    from tokenizers.trainers import BpeTrainer

    size = _max_size(settings)
    if size < 258:
        raise UsageError(
            f"{named('max_size')} is {size}; bpe needs at least 258 entries (256 bytes, UNK, EOS)"
        )
    empty = BpeVocabulary(settings, [UNK_TOKEN, EOS_TOKEN, *LETTERS])
    trainer = BpeTrainer(
        vocab_size=size - 2,
        min_frequency=settings.min_count or 2,
        show_progress=False,
        initial_alphabet=LETTERS,
        special_tokens=[],
    )
    empty.tokenizer.train_from_iterator(_documents(read(), settings.unit), trainer)
    trained: dict[str, Any] = json.loads(empty.tokenizer.to_str())["model"]
    tokens = sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    merges = [(left, right) for left, right in trained["merges"]]
    vocabulary = BpeVocabulary(
        replace(settings, min_count=settings.min_count or 2, max_size=size),
        [UNK_TOKEN, EOS_TOKEN, *tokens],
        merges,
    )
    counts = count_ids(read() if count else (), vocabulary)
    return BuiltVocabulary(vocabulary=vocabulary, counts=counts, unk_types=1.0)
