"""Building a vocabulary: count the tokens of a text, order them, cut the rare ones to UNK."""

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
from charlm.text.tokenizers.tokenizer_json import (
    EOS_TOKEN,
    LETTERS,
    LINE_END,
    UNK,
    UNK_TOKEN,
    eos_token,
)
from charlm.text.tokenizers.vocabulary import (
    BpeVocabulary,
    Vocabulary,
    WordVocabulary,
    code_points,
    cut_safely,
    vocabulary_class,
)

SMALL_ALPHABET = 512
"""Up to here every character is kept; beyond, characters seen once become UNK."""
MAX_ALPHABET = 20_000
"""More distinct characters than any script has: most likely not text in this encoding."""
FEW_WORDS = 10_000
"""Below this many words in all, words seen once are kept."""
Read = Callable[[], Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class BuiltVocabulary:
    """A vocabulary with what was counted while it was built.

    `counts[i]` is how often id i stands in the text (UNK: everything below the cut). `unk_types`
    is the estimated number of types that UNK stands for (see `estimate_unk_types`), or None where
    the types were not counted.
    """

    vocabulary: Vocabulary
    counts: NDArray[np.int64]
    unk_types: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def coverage(self) -> float:
        """Share of the text's tokens that are in the vocabulary."""
        total = int(self.counts.sum())
        return 1.0 - int(self.counts[UNK]) / total if total else 1.0


def build_vocabulary(
    read: Read, settings: VocabularySettings, *, count: bool = True
) -> BuiltVocabulary:
    """The vocabulary of a text, END marks left out.

    `read()` gives the text from its beginning, in chunks (see `Corpus.chunks`); it is called
    once or twice, so that the text never has to be in memory. Without `count`, bytes and bpe,
    whose vocabularies do not follow from the counts, are left uncounted: a pass less.

    Raises CorpusError when the text has so many distinct characters that it cannot be text.
    """
    built: BuiltVocabulary = resolve(UNITS[settings.unit].builder)(read, settings, count=count)
    return built


def unseen_types(counts: Iterable[int]) -> float:
    """Estimate how many types a text does not contain, from how often its types occur.

    The lower bound of Chao (1984) in its bias-corrected form, f1 (f1 - 1) / (2 (f2 + 1)), where
    f1 types occur once and f2 types occur twice.
    """
    occurrences = Counter(counts)
    once, twice = occurrences[1], occurrences[2]
    return once * (once - 1) / (2 * (twice + 1))


def estimate_unk_types(counts: Mapping[str, int], known: Iterable[str], literal: int = 0) -> float:
    """Estimate how many types UNK stands for, at least 1.

    `counts` has every type of the training text, `known` are the entries of the vocabulary. UNK
    stands for the types that are not entries and for those that the text does not contain. A text
    with `literal` UNK tokens does not show their types; they count as many as there are entries,
    or as many as there are such tokens if that is less.
    """
    entries = set(known)
    cut = sum(token not in entries for token in counts)
    hidden = min(literal, len(entries))
    return max(1.0, float(hidden), cut + unseen_types(counts.values()))


def count_unk_types(read: Read, vocabulary: Vocabulary) -> float:
    """Estimate how many types of a training text UNK stands for in a given vocabulary."""
    settings = vocabulary.settings
    if vocabulary.spec.byte_level:
        return 1.0
    counts = _count_types(read, settings)
    literal = counts.pop(UNK_TOKEN, 0) if vocabulary.spec.whole_words else 0
    if vocabulary.line_ends_are_eos:
        counts.pop(LINE_END, None)
    return estimate_unk_types(counts, vocabulary.tokens[2:], literal)


def count_ids(chunks: Iterable[str], vocabulary: Vocabulary) -> NDArray[np.int64]:
    """How often each id stands in a text, END marks left out, shape (vocabulary size,)."""
    counts = np.zeros(len(vocabulary), np.int64)
    for chunk in safe_chunks(chunks):
        ids, ends = vocabulary.encode_marked(chunk)
        counts += np.bincount(ids, minlength=len(vocabulary))
        counts[vocabulary.eos] -= len(ends)
    return counts


def safe_chunks(chunks: Iterable[str], size: int = 1 << 20) -> Iterator[str]:
    """The same text in chunks whose borders no token of any unit crosses."""
    rest = ""
    for chunk in chunks:
        pieces = list(cut_safely(rest + chunk, size))
        rest = pieces.pop() if pieces else ""
        yield from pieces
        mark = rest.rfind(END) + 1 or rest.rfind(LINE_END) + 1
        if mark:
            yield rest[:mark]
            rest = rest[mark:]
    if rest:
        yield rest


def _documents(chunks: Iterable[str], unit: str) -> Iterator[str]:
    """Pieces of text without END marks, cut as the unit's vocabulary cuts them."""
    for chunk in safe_chunks(chunks):
        for document in chunk.split(END):
            yield from cut_safely(document, vocabulary_class(unit).piece_chars)


def _empty(settings: VocabularySettings) -> Vocabulary:
    return vocabulary_class(settings.unit)(settings, [UNK_TOKEN, eos_token(settings)])


def count_chars(read: Read, settings: VocabularySettings) -> dict[str, int]:
    """Count the characters of a text."""
    normalizer = _empty(settings).normalizer()
    chunks = read()
    if normalizer is not None:
        batches = _batches(_documents(chunks, settings.unit), 256)
        chunks = ("".join(map(normalizer.normalize_str, batch)) for batch in batches)
    counts = np.zeros(0x110000, np.int64)
    for chunk in chunks:
        found = np.bincount(code_points(chunk))
        counts[: len(found)] += found
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


def _batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def build_counted(read: Read, settings: VocabularySettings, *, count: bool) -> BuiltVocabulary:  # noqa: ARG001
    """Build a vocabulary of the most frequent types; they are counted in any case."""
    spec, counts, notes = UNITS[settings.unit], _count_types(read, settings), []
    special = eos_token(settings)
    eos_count = counts.pop(special, 0) if special == LINE_END else 0
    literal_unk = counts.pop(UNK_TOKEN, 0) if spec.whole_words else 0
    if literal_unk:
        notes.append(
            f"The text holds {literal_unk:,} literal <unk>; they are the unknown token UNK."
        )
    least = settings.min_count or _default_min_count(counts, settings, bool(literal_unk))
    if spec.letter:
        _check_alphabet(len(counts), settings)
    kept = sorted(
        (token for token, count in counts.items() if count >= least),
        key=lambda token: (-counts[token], token),
    )[: _most(settings) - 2]
    vocabulary = vocabulary_class(settings.unit)(
        replace(settings, min_count=least, max_size=_most(settings)), [UNK_TOKEN, special, *kept]
    )
    known = [counts[token] for token in kept]
    unknown = literal_unk + sum(counts.values()) - sum(known)
    return BuiltVocabulary(
        vocabulary=vocabulary,
        counts=np.array([unknown, eos_count, *known]),
        unk_types=estimate_unk_types(counts, kept, literal_unk),
        notes=notes,
    )


def _default_min_count(counts: dict[str, int], settings: VocabularySettings, has_unk: bool) -> int:
    """1 where everything is kept, 2 where UNK should be learnt from what was seen once.

    What was seen once is the best guess at how often the unseen turns up (Good-Turing).
    """
    if UNITS[settings.unit].letter:
        return 1 if len(counts) <= SMALL_ALPHABET else 2
    return 1 if has_unk or sum(counts.values()) < FEW_WORDS else 2


def _most(settings: VocabularySettings) -> int:
    return settings.max_size or UNITS[settings.unit].default_size


def _check_alphabet(size: int, settings: VocabularySettings) -> None:
    if size > MAX_ALPHABET and settings.max_size is None:
        raise CorpusError(
            f"the text has {size:,} distinct characters, more than any script; expected text in "
            "the named encoding. Use --unit byte, or keep the most frequent with --max-size"
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

    size = _most(settings)
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
