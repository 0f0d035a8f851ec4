"""Comparison: test whether one model is better than another on a text.

Losses are paired by line, since lines do not depend on the tokens of a model. The interval is from
a bootstrap over lines (Efron 1979; Koehn 2004 for paired differences), because the tokens of a line
depend on each other, and lines much less. If a text has few lines and the models read the same
tokens, blocks of tokens replace lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.errors import CorpusError, UsageError
from charlm.inference.bootstrap import DRAWS, MIN_PARTS, ratio_interval
from charlm.inference.figures import NOT_SHOWN
from charlm.inference.likelihood import tally, text_nats
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.units import Tally, bits

BLOCK = 100
"""Tokens of a block, in a text of few lines."""


@dataclass(frozen=True, kw_only=True)
class LineNats:
    """Losses of a model on a text: its tally, and the nats of each line, shape (n,).

    `tokens` are the nats of each token, shape (N,); `entries` is the vocabulary of the model. Both
    nats include `unk_penalty` for each unknown token; the tally does not.
    """

    name: str
    tally: Tally
    nats: NDArray[np.float64]
    tokens: NDArray[np.float64]
    entries: tuple[str, ...]
    unk_penalty: float = 0.0

    @property
    def penalized_bits_per_byte(self) -> float:
        """Bits per byte of the text, with the penalty for unknown tokens."""
        return bits(float(self.nats.sum()) / max(self.tally.bytes, 1))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Difference of the losses of two models, in bits per byte; negative if the second is better.

    `low` and `high` bound 95 % of the bootstrap samples. They are over `parts` parts of the text:
    lines, or blocks of `block` tokens; with too few parts they are None. `wins` is the fraction of
    the parts that are more probable under the second model. `nats_per_token` is the difference if
    both read the same tokens. Unknown tokens without a penalty cost very little; `unknown` is the
    change of the difference if each of them cost 8 bits for each byte of an average token.
    """

    bits_per_byte: float
    low: float | None
    high: float | None
    wins: float
    parts: int
    block: int | None = None
    nats_per_token: float | None = None
    unknown: float = 0.0

    @property
    def verdict(self) -> str:
        """`better`, `worse`, `no difference shown`, or the reason for no verdict."""
        if self.low is None or self.high is None:
            return "too few lines"
        verdict = _verdict(self.low, self.high)
        charged = _verdict(self.low + self.unknown, self.high + self.unknown)
        return verdict if verdict == charged else "depends on the unknown tokens"


def _verdict(low: float, high: float) -> str:
    if low <= 0.0 <= high:
        return NOT_SHOWN
    return "better" if high < 0.0 else "worse"


def line_nats(
    name: str,
    backend: Backend,
    text: EncodedText,
    vocabulary: Vocabulary,
    *,
    unk_penalty: float = 0.0,
) -> LineNats:
    """Read a text once and sum its losses by line; lines end after each line end and each EOS.

    An EOS directly after a line end is in the same line. Each unknown token costs `unk_penalty`
    additional nats. Raises CorpusError for an empty text.
    """
    if len(text.ids) == 0:
        raise CorpusError("the text is empty; expected at least one line to compare runs on")
    nats = text_nats(backend, text)
    penalized = nats + unk_penalty * (np.asarray(text.ids) == vocabulary.unk)
    return LineNats(
        name=name,
        tally=tally(text, nats),
        nats=np.add.reduceat(penalized, _line_begins(text, vocabulary)),
        tokens=penalized,
        entries=tuple(vocabulary.tokens),
        unk_penalty=unk_penalty,
    )


def _line_begins(text: EncodedText, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """Return the positions after each line end and each EOS, where lines begin."""
    ids = np.asarray(text.ids)
    line_end = vocabulary.line_end or EOS
    at_end = np.isin(ids, [EOS, line_end])
    if line_end != EOS:
        at_end[:-1] &= (ids[:-1] != line_end) | (ids[1:] != EOS)
    begins = np.flatnonzero(at_end) + 1
    return np.append(0, begins[begins < len(ids)])


def bytes_of_lines(text: EncodedText, vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Return the bytes of each line of an encoded text, shape (n,).

    Their sum is exact. The bytes of a line are exact if the vocabulary is lossless; otherwise an
    unknown token counts as its name, and the lines are scaled to the exact sum.
    """
    if vocabulary.spec.byte_level:  # each letter of an entry is a byte
        each = [len(token) for token in vocabulary.tokens]
        each[UNK] = each[EOS] = 1
    else:
        each = [len(vocabulary.token_text(i).encode("utf-8")) for i in range(len(vocabulary))]
    sizes = np.maximum(np.array(each, np.float64), 1.0)[np.asarray(text.ids)]
    lines = np.add.reduceat(sizes, _line_begins(text, vocabulary))
    return np.asarray(lines * (text.counts.bytes / lines.sum()))


def difference(
    first: LineNats,
    other: LineNats,
    line_bytes: Sequence[float],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Return the difference of `other` from `first` on lines with these numbers of bytes.

    Raises UsageError if the two models read different numbers of lines.
    """
    sizes = np.asarray(line_bytes, np.float64)
    if not len(first.nats) == len(other.nats) == len(sizes):
        raise UsageError(
            f"{first.name} reads {len(first.nats)} lines of {len(sizes)}, {other.name} "
            f"{len(other.nats)}; expected equal numbers. Leave out blank lines, or compare runs "
            "with the same --document"
        )
    same = first.entries == other.entries and first.tally.tokens == other.tally.tokens
    change, block = other.nats - first.nats, None
    if len(change) < MIN_PARTS and same:
        block = BLOCK
        cuts = np.arange(0, first.tally.tokens, block)
        change = np.add.reduceat(other.tokens - first.tokens, cuts)
        held = np.minimum(first.tally.tokens - cuts, block)
        sizes = held * (sizes.sum() / first.tally.tokens)
    low, high = ratio_interval(change, sizes, draws=draws, seed=seed)
    return Difference(
        bits_per_byte=bits(float(change.sum() / sizes.sum())),
        low=None if low is None else bits(low),
        high=None if high is None else bits(high),
        wins=float((change < 0.0).mean()),
        parts=len(change),
        block=block,
        nats_per_token=float(change.sum()) / first.tally.tokens if same else None,
        unknown=_uncharged(other) - _uncharged(first),
    )


def _uncharged(losses: LineNats) -> float:
    """Return the bits per byte that unknown tokens without a penalty would cost.

    Each would cost 8 bits for each byte of an average token.
    """
    return 0.0 if losses.unk_penalty else 8.0 * losses.tally.oov / max(losses.tally.tokens, 1)
