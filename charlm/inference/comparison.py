"""Whether one model is better than another on a text, or the difference is chance.

Losses are paired line by line, since every model reads lines, whatever its tokens are. The interval
comes from a bootstrap over lines (Efron 1979; Koehn 2004 for such paired differences): tokens of a
line depend on each other, lines much less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from charlm.engine.interface import Engine
from charlm.errors import CorpusError, UsageError
from charlm.inference.likelihood import tally, text_nats
from charlm.text.encoded import EncodedText
from charlm.text.tokenizer_json import EOS
from charlm.text.vocabulary import Vocabulary
from charlm.units import Tally, bits

DRAWS = 2000
"""Texts that the bootstrap draws."""
INTERVAL = 0.95


@dataclass(frozen=True, kw_only=True)
class LineNats:
    """What a model says of a text: its tally, and the nats of each line, shape (n,).

    `entries` is the model's vocabulary.
    """

    name: str
    tally: Tally
    nats: NDArray[np.float64]
    entries: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much more a model needs than another, in bits a byte: below zero it is the better one.

    `low` and `high` bound 95 % of the bootstrap's draws; `wins` is the share of lines that the
    model finds likelier. `nats_per_token` is the same difference where both read the same tokens.
    """

    bits_per_byte: float
    low: float
    high: float
    wins: float
    nats_per_token: float | None

    @property
    def verdict(self) -> str:
        """`better`, `worse`, or `no difference shown`."""
        if self.low <= 0.0 <= self.high:
            return "no difference shown"
        return "better" if self.high < 0.0 else "worse"


def line_nats(name: str, engine: Engine, text: EncodedText, vocabulary: Vocabulary) -> LineNats:
    """Read a text once and cut its losses into lines: after each line end and each EOS.

    Raises CorpusError when it is empty.
    """
    ids = np.asarray(text.ids)
    if len(ids) == 0:
        raise CorpusError("the text is empty; expected at least one line to compare runs on")
    nats = text_nats(engine, text)
    ends = np.flatnonzero(np.isin(ids, [EOS, vocabulary.line_end or EOS])) + 1
    if len(ends) == 0 or ends[-1] != len(ids):
        ends = np.append(ends, len(ids))
    begins = np.append(0, ends[:-1])
    return LineNats(
        name=name,
        tally=tally(text, nats),
        nats=np.add.reduceat(nats, begins),
        entries=tuple(vocabulary.tokens),
    )


def difference(
    first: LineNats,
    other: LineNats,
    line_bytes: Sequence[int],
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
    change = other.nats - first.nats
    random = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        chosen = random.integers(0, len(sizes), len(sizes))
        found[draw] = change[chosen].sum() / sizes[chosen].sum()
    tail = (1.0 - INTERVAL) / 2.0
    low, high = np.quantile(found, [tail, 1.0 - tail])
    same = first.entries == other.entries and first.tally.tokens == other.tally.tokens
    return Difference(
        bits_per_byte=bits(float(change.sum() / sizes.sum())),
        low=bits(float(low)),
        high=bits(float(high)),
        wins=float((change < 0.0).mean()),
        nats_per_token=float(change.sum()) / first.tally.tokens if same else None,
    )
