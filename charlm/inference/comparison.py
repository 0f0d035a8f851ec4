"""Whether one model is better than another on a text, or the difference is chance.

Losses are paired line by line, since every model reads lines, whatever its tokens are. The interval
comes from a bootstrap over lines (Efron 1979; Koehn 2004 for such paired differences): tokens of a
line depend on each other, lines much less. A text of few lines is cut into blocks of tokens
instead, where the models read the same tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend
from charlm.errors import CorpusError, UsageError
from charlm.inference.likelihood import tally, text_nats
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.units import Tally, bits

DRAWS = 2000
"""Texts that the bootstrap draws."""
INTERVAL = 0.95
MIN_PARTS = 20
"""Lines or blocks below which an interval would say more than is known."""
BLOCK = 100
"""Tokens of a block of a text of few lines."""


@dataclass(frozen=True, kw_only=True)
class LineNats:
    """What a model says of a text: its tally, and the nats of each line, shape (n,).

    `tokens` are the nats of each token, shape (N,); `entries` is the model's vocabulary. Both nats
    include `unk_penalty` for each unknown token, the tally does not.
    """

    name: str
    tally: Tally
    nats: NDArray[np.float64]
    tokens: NDArray[np.float64]
    entries: tuple[str, ...]
    unk_penalty: float = 0.0

    @property
    def penalized_bits_per_byte(self) -> float:
        """Bits per byte of the text with the penalty for unknown tokens."""
        return bits(float(self.nats.sum()) / max(self.tally.bytes, 1))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much more a model needs than another, in bits a byte: below zero it is the better one.

    `low` and `high` bound 95 % of the bootstrap's draws, over so many `parts` of the text, which
    are lines, or blocks of `block` tokens; None where there are too few of them. `wins` is the
    share of parts that the model finds likelier. `nats_per_token` is the same difference where both
    read the same tokens. Unknown tokens without a penalty cost a model next to nothing; `unknown`
    is how much more it would need beside the first if each of those cost 8 bits for each byte of a
    usual token.
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
        """`better`, `worse`, `no difference shown`, or why there is none."""
        if self.low is None or self.high is None:
            return "too few lines"
        found = _verdict(self.low, self.high)
        charged = _verdict(self.low + self.unknown, self.high + self.unknown)
        return found if found == charged else "depends on the unknown tokens"


def _verdict(low: float, high: float) -> str:
    if low <= 0.0 <= high:
        return "no difference shown"
    return "better" if high < 0.0 else "worse"


def line_nats(
    name: str,
    engine: Backend,
    text: EncodedText,
    vocabulary: Vocabulary,
    *,
    unk_penalty: float = 0.0,
) -> LineNats:
    """Read a text once and cut its losses into lines: after each line end and each EOS.

    An EOS that comes right after a line end is of the same line. `unk_penalty` nats are added to
    each unknown token. Raises CorpusError when the text is empty.
    """
    if len(text.ids) == 0:
        raise CorpusError("the text is empty; expected at least one line to compare runs on")
    nats = text_nats(engine, text)
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
    """Return where lines begin: after each line end and each EOS."""
    ids = np.asarray(text.ids)
    line_end = vocabulary.line_end or EOS
    at_end = np.isin(ids, [EOS, line_end])
    if line_end != EOS:
        at_end[:-1] &= (ids[:-1] != line_end) | (ids[1:] != EOS)
    begins = np.flatnonzero(at_end) + 1
    return np.append(0, begins[begins < len(ids)])


def bytes_of_lines(text: EncodedText, vocabulary: Vocabulary) -> NDArray[np.float64]:
    """Return the bytes of each line of an encoded text, shape (n,).

    The bytes of the whole text are exact. Those of a line are exact where the vocabulary loses
    nothing; an unknown token counts as its name is long, and the lines share the rest.
    """
    if vocabulary.spec.byte_level:  # a letter of an entry stands for a byte
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
    """How `other` differs from `first` on lines of so many bytes each.

    Raises UsageError when the two models cut the text into different numbers of lines.
    """
    sizes = np.asarray(line_bytes, np.float64)
    if not len(first.nats) == len(other.nats) == len(sizes):
        raise UsageError(
            f"{first.name} reads {len(first.nats)} lines of {len(sizes)}, {other.name} "
            f"{len(other.nats)}; expected equal numbers. Leave out blank lines, or compare runs "
            "with one rule for documents"
        )
    same = first.entries == other.entries and first.tally.tokens == other.tally.tokens
    change, block = other.nats - first.nats, None
    if len(change) < MIN_PARTS and same:
        block = BLOCK
        cuts = np.arange(0, first.tally.tokens, block)
        change = np.add.reduceat(other.tokens - first.tokens, cuts)
        held = np.minimum(first.tally.tokens - cuts, block)
        sizes = held * (sizes.sum() / first.tally.tokens)
    low, high = _interval(change, sizes, draws, seed)
    return Difference(
        bits_per_byte=bits(float(change.sum() / sizes.sum())),
        low=low,
        high=high,
        wins=float((change < 0.0).mean()),
        parts=len(change),
        block=block,
        nats_per_token=float(change.sum()) / first.tally.tokens if same else None,
        unknown=_uncharged(other) - _uncharged(first),
    )


def _interval(
    change: NDArray[np.float64], sizes: NDArray[np.float64], draws: int, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """The middle of the bootstrap's draws, in bits a byte; nothing where there are few parts."""
    if len(change) < MIN_PARTS:
        return None, None
    random = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        chosen = random.integers(0, len(sizes), len(sizes))
        found[draw] = change[chosen].sum() / sizes[chosen].sum()
    tail = (1.0 - INTERVAL) / 2.0
    low, high = np.quantile(found, [tail, 1.0 - tail])
    return bits(float(low)), bits(float(high))


def _uncharged(found: LineNats) -> float:
    """Return the bits per byte of unknown tokens without a penalty.

    Each costs 8 bits for each byte of a usual token.
    """
    return 0.0 if found.unk_penalty else 8.0 * found.tally.oov / max(found.tally.tokens, 1)
