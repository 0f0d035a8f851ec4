"""The units of text that `--unit` takes: one row for each, with every fact about it.

A new unit is a subclass of `charlm.text.tokenizers.vocabulary.Vocabulary` and its row here. Rows
name classes and functions by import path, so that this module imports neither numpy nor tokenizers.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class UnitSpec:
    """Facts about one unit."""

    vocabulary: str
    """Import path of its vocabulary class."""
    builder: str
    """Import path of the function that builds a vocabulary of a text (see `build_vocabulary`)."""
    summary: str
    """One line for help texts."""
    letter: str = ""
    """Name of the letter that each token is, in which bits are counted; empty for longer tokens."""
    byte_level: bool = False
    """True if tokens spell UTF-8 bytes, so that no text is unknown. Tokens of other units are types
    counted in the text, ordered by frequency; all other types are UNK."""
    whole_words: bool = False
    """True if tokens are whole words, so that a text may contain the word <unk>."""
    type_counter: str = ""
    """Import path of the function that counts the types of a text; empty for byte-level units."""
    settings: tuple[str, ...] = ()
    """Vocabulary settings that this unit reads and some other unit does not."""
    default_size: int = 2**31
    """Maximum number of entries if `max_size` is not given."""
    plural: str = "tokens"
    """Name of several tokens, in advice."""
    tokens_per_weight: float = 2.0
    """Training tokens for each weight of a model that learns most in a given time."""
    bptt: int = 64
    """Default window length, in tokens."""
    has_expectation: bool = False
    """True if plans were measured with it, so that a plan predicts the loss."""
    ngram_order: int = 5
    """Default length of n-grams."""
    preview_tokens: int = 200
    """Length of the sample after training."""
    numeric: bool = False
    """True if tokens are steps of a series of numbers, so that there is no text."""


OF_TEXT = (
    "lowercase", "normalize", "vectors", "freeze_vectors", "one_hot", "embedding_dropout",
    "label_smoothing",
)  # fmt: skip
"""Settings that all units but numbers read."""
UNITS: dict[str, UnitSpec] = {
    "char": UnitSpec(
        vocabulary="charlm.text.tokenizers.letters:CharVocabulary",
        builder="charlm.text.tokenizers.building:build_counted",
        summary="Unicode characters",
        letter="char",
        type_counter="charlm.text.tokenizers.building:count_chars",
        settings=(*OF_TEXT, "min_count", "max_size"),
        plural="characters",
        has_expectation=True,
        ngram_order=7,
    ),
    "byte": UnitSpec(
        vocabulary="charlm.text.tokenizers.letters:ByteVocabulary",
        builder="charlm.text.tokenizers.building:build_bytes",
        summary="UTF-8 bytes",
        letter="byte",
        byte_level=True,
        settings=OF_TEXT,
        plural="bytes",
        has_expectation=True,
        ngram_order=7,
    ),
    "word": UnitSpec(
        vocabulary="charlm.text.tokenizers.words:WordVocabulary",
        builder="charlm.text.tokenizers.building:build_counted",
        summary="words",
        whole_words=True,
        type_counter="charlm.text.tokenizers.building:count_words",
        settings=(*OF_TEXT, "words", "min_count", "max_size"),
        default_size=50_000,
        plural="words and blanks",
        tokens_per_weight=0.4,
        bptt=70,
        has_expectation=True,
        preview_tokens=40,
    ),
    "bpe": UnitSpec(
        vocabulary="charlm.text.tokenizers.words:BpeVocabulary",
        builder="charlm.text.tokenizers.building:build_bpe",
        summary="pieces of words (byte-pair encoding, Sennrich et al. 2016)",
        byte_level=True,
        settings=(*OF_TEXT, "min_count", "max_size"),
        default_size=4_096,
        tokens_per_weight=0.8,
        bptt=70,
        preview_tokens=60,
    ),
    "number": UnitSpec(
        vocabulary="charlm.text.tokenizers.numbers:NumberVocabulary",
        builder="charlm.text.tokenizers.numbers:build_numbers",
        type_counter="charlm.text.tokenizers.numbers:build_numbers",
        summary="numbers of a series, without a vocabulary",
        plural="numbers",
        numeric=True,
    ),
}
"""Every unit, by the name that `--unit` takes."""
TEXT_UNITS = tuple(name for name, spec in UNITS.items() if not spec.numeric)
"""Units that read a text."""
