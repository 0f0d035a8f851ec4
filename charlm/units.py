"""Units of likelihood: nats, bits, perplexity, and `Tally`, the sums that every figure comes from.

Sums are added and divided once at the end; averages are never averaged.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

NATS_PER_BIT = math.log(2.0)
LOG_BASES = {"e": 1.0, "2": math.log(2.0), "10": math.log(10.0)}
"""Nats in one unit of the logarithm to this base."""


def bits(nats: float) -> float:
    """The same quantity in bits: nats / ln 2."""
    return nats / NATS_PER_BIT


def perplexity(nats: float, count: float) -> float:
    """exp(nats / count): `inf` where that overflows, `nan` where nothing was counted."""
    if not count:
        return math.nan
    try:
        return math.exp(nats / count)
    except OverflowError:
        return math.inf


def _ratio(amount: float, count: float) -> float:
    return amount / count if count else math.nan


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Summed negative log-likelihood of a text, in nats, and what it was summed over.

    `tokens` counts every predicted token, end symbols (`eos`) and unknowns (`oov`) included.
    `words`, `chars` and `bytes` (UTF-8) count the original text, whatever the unit of the model;
    an end symbol counts as one character and one byte, the line end that it stands for.
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
        """The tally of both texts, field by field."""
        return Tally(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(Tally)}
        )

    @property
    def nats_per_token(self) -> float:
        """Mean negative log-likelihood of a token (cross entropy), in nats."""
        return _ratio(self.nats, self.tokens)

    @property
    def bits_per_token(self) -> float:
        """Mean negative log2-likelihood of a token."""
        return _ratio(bits(self.nats), self.tokens)

    @property
    def bits_per_char(self) -> float:
        """Bits for each character of the original text; comparable across units."""
        return _ratio(bits(self.nats), self.chars)

    @property
    def bits_per_byte(self) -> float:
        """Bits for each UTF-8 byte of the original text; comparable across units and scripts."""
        return _ratio(bits(self.nats), self.bytes)

    @property
    def perplexity(self) -> float:
        """exp(nats / tokens), end symbols and unknowns counted."""
        return perplexity(self.nats, self.tokens)

    @property
    def perplexity_without_oov(self) -> float:
        """Perplexity over the tokens that the vocabulary knows (KenLM: "excluding OOVs")."""
        return perplexity(self.nats - self.oov_nats, self.tokens - self.oov)

    @property
    def perplexity_without_eos(self) -> float:
        """Perplexity over all tokens but the end symbols."""
        return perplexity(self.nats - self.eos_nats, self.tokens - self.eos)

    @property
    def word_perplexity(self) -> float:
        """exp(nats / words), words being what blanks separate in the original text.

        The whole likelihood, blanks and end symbols included, is charged to the words, so a
        character model and a word model can be compared (as lm-evaluation-harness does).
        """
        return perplexity(self.nats, self.words)

    def summary(self) -> dict[str, float | int | None]:
        """Every figure by its field name; figures that are not finite become None (for JSON)."""
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
        """The raw sums, enough to rebuild the tally: `Tally(**tally.sums())`."""
        return asdict(self)


def flat_figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with the figures of each text at its top level: `valid_nats_per_token`, ...

    Records that older versions wrote hold them in tables: `tally` or `valid`, `test`,
    `valid_uncalibrated`. What is flat already stays as it is.
    """
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if key not in FIGURES:
            flat[key] = value
        elif isinstance(value, Mapping):
            flat |= {f"{FIGURES[key]}_{name}": figure for name, figure in value.items()}
    return flat


FIGURES = {key: key for key in ("valid", "test", "valid_uncalibrated")} | {"tally": "valid"}
"""Keys of tables of figures in records, and how the figures are named in flat ones."""


def finite(value: float | int) -> float | int | None:
    """The value, or None where it is infinite or not a number."""
    return value if math.isfinite(value) else None
