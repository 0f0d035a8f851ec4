"""Units: nats, bits, perplexity, `Tally`, from which all figures are computed; and counts.

Sums are added and divided once at the end; averages are never averaged.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

NATS_PER_BIT = math.log(2.0)
LOG_BASES = {"e": 1.0, "2": math.log(2.0), "10": math.log(10.0)}
"""Nats in one unit of the logarithm to this base."""
LOG_NAMES = {base: "ln P" if base == "e" else f"log{base} P" for base in LOG_BASES}
"""Heading of a column of log-probabilities to this base."""


def bits(nats: float) -> float:
    """Convert nats to bits: nats / ln 2."""
    return nats / NATS_PER_BIT


def perplexity(nats: float, count: float) -> float:
    """Return exp(nats / count); `inf` if that overflows, `nan` for a count of 0."""
    if not count:
        return math.nan
    try:
        return math.exp(nats / count)
    except OverflowError:
        return math.inf


def ratio(amount: float, count: float) -> float:
    """Return amount / count, `nan` for a count of 0."""
    return amount / count if count else math.nan


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sum of the negative log-likelihood of a text in nats, with the counts behind it.

    `tokens` counts every predicted token, including end symbols (`eos`) and unknowns (`oov`).
    `words`, `chars` and `bytes` (UTF-8) count the original text, whatever the unit of the model;
    an end symbol counts as one character and one byte, for the line end.
    """

    nats: float = 0.0
    tokens: int = 0
    words: int = 0
    chars: int = 0
    bytes: int = 0
    oov: int = 0
    oov_nats: float = 0.0
    eos: int = 0
    eos_nats: float = 0.0
    documents: int = 0

    def __repr__(self) -> str:
        return (
            f"Tally({self.bits_per_char:.4f} bits/char, perplexity {self.perplexity:.2f}, "
            f"{self.tokens:,} tokens)"
        )

    def __add__(self, other: "Tally") -> "Tally":
        """Add the tallies of two texts, field by field."""
        return Tally(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)}
        )

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood of a token (cross entropy), in nats."""
        return ratio(self.nats, self.tokens)

    @property
    def bits_per_token(self) -> float:
        """Mean negative log2-likelihood of a token."""
        return ratio(bits(self.nats), self.tokens)

    @property
    def bits_per_char(self) -> float:
        """Bits per character of the original text; comparable across units."""
        return ratio(bits(self.nats), self.chars)

    @property
    def bits_per_byte(self) -> float:
        """Bits per UTF-8 byte of the original text; comparable across units and scripts."""
        return ratio(bits(self.nats), self.bytes)

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens), including end symbols and unknowns."""
        return perplexity(self.nats, self.tokens)

    @property
    def perplexity_without_oov(self) -> float:
        """Perplexity over the tokens that the vocabulary knows (KenLM: "excluding OOVs")."""
        return perplexity(self.nats - self.oov_nats, self.tokens - self.oov)

    @property
    def perplexity_without_eos(self) -> float:
        """Perplexity over all tokens except end symbols."""
        return perplexity(self.nats - self.eos_nats, self.tokens - self.eos)

    @property
    def word_perplexity(self) -> float:
        """exp(nats / words), with the words of the original text as separated by blanks.

        The nats include blanks and end symbols, so a character model and a word model can be
        compared (as lm-evaluation-harness does).
        """
        return perplexity(self.nats, self.words)

    def summary(self) -> dict[str, float | int | None]:
        """Return every figure by its field name; None for those that are not finite (for JSON)."""
        counts = ("tokens", "words", "chars", "bytes", "oov", "documents", "nats")
        figures = (
            "nats_per_token",
            "bits_per_token",
            "bits_per_char",
            "bits_per_byte",
            "perplexity",
            "perplexity_without_oov",
            "perplexity_without_eos",
            "word_perplexity",
        )
        values = {name: getattr(self, name) for name in counts + figures}
        return {name: finite(value) for name, value in values.items()}

    def sums(self) -> dict[str, float | int]:
        """Return the raw sums, from which `Tally(**tally.sums())` rebuilds the tally."""
        return asdict(self)


def flat_figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the figures of each text at the top level: `valid_nats_per_token`, ...

    Records of older versions have them in tables: `tally` or `valid`, `test`,
    `valid_uncalibrated`.
    """
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if key not in FIGURES:
            flat[key] = value
        elif isinstance(value, Mapping):
            flat |= {f"{FIGURES[key]}_{name}": figure for name, figure in value.items()}
    return flat


FIGURES = {key: key for key in ("valid", "test", "valid_uncalibrated", "old_valid")} | {
    "tally": "valid"
}
"""Keys of tables of figures in records, and the prefix of these figures in flat records."""


def loss_of(record: Mapping[str, Any], prefix: str = "") -> float | None:
    """Return the loss in a record, if any, whatever one target is called.

    It is `nats_per_token`, or `nats_per_text` of labelled texts. The prefix is "", or `valid_` and
    so on in a flat record.
    """
    keys = (key for key in record if key.startswith(f"{prefix}nats_per_"))
    return next((record[key] for key in keys), None)


def finite(value: float | int) -> float | int | None:
    """Return the value, or None if it is infinite or NaN."""
    return value if math.isfinite(value) else None


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun: "1 row", "2,000 rows"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_few(texts: Iterable[str], most: int) -> str:
    """Return at most this number of texts for a message, and the number of others."""
    every = list(texts)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
