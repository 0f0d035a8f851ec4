"""A text as a model reads it: each token with its surprisal, rank and alternatives.

The parts of a view join to the text that was read, so it can be coloured part by part. Two views of
one text compare even if their vocabularies differ, by the parts that both cut out.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from charlm.backends.interface import Array, Ids, Nats
from charlm.errors import UsageError
from charlm.inference.scoring import Scorer
from charlm.inspect.hidden import Hidden, likeliest_chances, logits_after
from charlm.inspect.text_tokens import scored_tokens
from charlm.listing import Part
from charlm.runs.locate import run_name
from charlm.runs.run import Run
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.units import Tally, bits

Alternatives = tuple[tuple[str, float], ...]
"""Tokens with their probabilities, the likeliest first."""


class TokenView(NamedTuple):
    """Token of a text. `text` is what it covers, with the blanks before it that no token covers.

    A token that spells the rest of a character has no text of its own, nor has the EOS at the end.
    `alternatives` are the likeliest tokens in its place.
    """

    text: str
    token: str
    id: int
    bits: float
    rank: int
    oov: bool
    alternatives: Alternatives = ()


@dataclass(frozen=True, kw_only=True)
class TextView:
    """Text as a model reads it, in the order of the text."""

    run: str
    """Name of the run."""
    unit: str
    vocab_size: int
    tokens: tuple[TokenView, ...]
    tally: Tally

    @property
    def text(self) -> str:
        """Text that was read."""
        return "".join(token.text for token in self.tokens)

    @property
    def parts(self) -> list[Part]:
        """Tokens as parts; those without text of their own belong to the part before them."""
        parts: list[Part] = []
        for token in self.tokens:
            if parts and not token.text and token.id != EOS:
                last = parts[-1]
                parts[-1] = Part(last.text, last.bits + token.bits, last.oov or token.oov)
            else:
                parts.append(Part(token.text, token.bits, token.oov))
        return parts


def view_text(run: Run, scorer: Scorer, text: str, *, top: int = 0) -> TextView:
    """Return a view of a text, with `top` alternatives for each token.

    Raises CorpusError for a lone surrogate.
    """
    alternatives: list[Alternatives]
    if top:
        nats, ranks, alternatives = _read(run, scorer.ids(text), top)
        score = scorer.score_read(text, nats, ranks)
    else:
        (score,) = scorer.score([text], by="token")
        alternatives = [()] * len(score.tokens)
    figures = list(zip(score.tokens, alternatives, strict=True))
    if run.backward:  # EOS is read last, and stays at the end
        ends = len(figures) - run.boundaries.has_ends
        figures = [*figures[:ends][::-1], *figures[ends:]]
    return TextView(
        run=run_name(run.path),
        unit=run.vocabulary.unit,
        vocab_size=len(run.vocabulary),
        tokens=tuple(
            TokenView(own, token.token, token.id, bits(token.nats), token.rank, token.oov, others)
            for own, (token, others) in zip(scored_tokens(run, text).pieces, figures, strict=True)
        ),
        tally=score.tally,
    )


def _read(run: Run, ids: Ids, top: int) -> tuple[Nats, Ids, list[Alternatives]]:
    """Return the nats, the rank and the `top` likeliest alternatives of each token.

    The tokens are in reading order.
    """
    name, count = cache(run.vocabulary.token_text), min(top, run.backend.vocab_size)
    nats, ranks = np.empty(len(ids)), np.empty(len(ids), np.int64)
    alternatives: list[Alternatives] = []
    before = np.append(EOS, ids)[:-1]  # the first token is predicted from an EOS
    for logits in logits_after(run, before, run.backend.initial_state(1)):
        rows = run.backend.log_probabilities(logits)
        span = slice(len(alternatives), len(alternatives) + len(rows))
        own = np.take_along_axis(rows, ids[span, None], axis=1)
        nats[span], ranks[span] = -own[:, 0], (rows > own).sum(axis=1) + 1
        best, chances = likeliest_chances(rows, count)
        names = [name(index) for index in best.ravel().tolist()]
        pairs = zip(names, chances.ravel().tolist(), strict=True)
        alternatives += zip(*[pairs] * count, strict=True)
    return nats, ranks, alternatives


def token_places(view: TextView, hidden: Hidden) -> list[int]:
    """Return the place in `hidden`, which is of `view.text`, of each token of a view.

    It is -1 for the EOS at the end. A token that `hidden` does not have, since it joins the line
    ends between paragraphs, has the place of the last one before it.
    """
    ids, count = [token.id for token in view.tokens], len(hidden.tokens)
    if ids[:count] == hidden.tokens.tolist() and len(ids) <= count + 1:
        return [*range(count), -1][: len(ids)]
    ends = list(accumulate(len(token.text) for token in view.tokens))
    places = (np.searchsorted(hidden.cuts[1:], ends, "right") - 1).tolist()
    return [*places[:-1], -1] if view.tokens[-1].text == "" else places


def token_values(view: TextView, hidden: Hidden, values: Array) -> Array:
    """Return values of units (..., N) on `hidden` for each token of a view, (..., tokens).

    The EOS at the end has NaN.
    """
    ending = np.full((*values.shape[:-1], 1), np.nan, np.float32)
    return np.concatenate([values, ending], axis=-1)[..., token_places(view, hidden)]


class Difference(NamedTuple):
    """Part of a text with its bits under two models."""

    text: str
    bits: float
    other_bits: float

    @property
    def difference(self) -> float:
        """Bits under the first model minus those under the other; below 0 the first is better."""
        return self.bits - self.other_bits


def differences(parts: Sequence[Part], others: Sequence[Part]) -> list[Difference]:
    """Return the smallest parts that both models cut out, with the bits of each.

    The end of the text counts for a part if both models score it. Raises UsageError if the models
    read different texts.
    """
    texts = ["".join(part.text for part in each) for each in (parts, others)]
    if texts[0] != texts[1]:
        raise UsageError(
            "the two runs read this text differently, such as its line ends; expected runs that "
            "read one text alike. Leave out --with, or score them one by one"
        )
    if bool(parts and not parts[-1].text) != bool(others and not others[-1].text):
        parts, others = ([part for part in each if part.text] for each in (parts, others))
    places = set(_ends(parts)) & set(_ends(others))
    pairs = zip(_merged(parts, places), _merged(others, places), strict=True)
    return [Difference(one.text, one.bits, other.bits) for one, other in pairs]


def _ends(parts: Sequence[Part]) -> Iterator[int]:
    """Yield the number of characters up to the end of each part."""
    return accumulate(len(part.text) for part in parts)


def _merged(parts: Sequence[Part], places: Set[int]) -> list[Part]:
    """Join the parts between two of these places; parts that end at one place are one, too."""
    merged: list[Part] = []
    texts: list[str] = []
    total, ended = 0.0, False
    for part, end in zip(parts, _ends(parts), strict=True):
        if ended and part.text:
            merged.append(Part("".join(texts), total))
            texts, total = [], 0.0
        texts.append(part.text)
        total += part.bits
        ended = end in places
    return [*merged, Part("".join(texts), total)] if parts else merged


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Text with all that was asked about it."""

    view: TextView
    words: Sequence[Part] = ()
    """Words, if they were asked for."""
    differences: Sequence[Difference] = ()
    """Parts with their bits under this model and the other one."""
    other: str = ""
    """Name of the other run."""
    units: Mapping[tuple[str, str], Sequence[float]] = field(default_factory=dict)
    """Values after each token, by unit such as 2:8 and signal such as c."""
