"""Filling gaps: which token stands between what is left of it and what is right of it.

A forward and a backward model each say it exactly, by Bayes' rule: P(token | left, right) is
proportional to the probability of the whole text with the token in the gap. The two answers are
combined as the geometric mean, which ranks by the sum of their logarithms.
"""

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, rows_of
from charlm.errors import UsageError, check_count
from charlm.inference.generation import NextToken, read_prompt
from charlm.inference.likelihood import window_length
from charlm.inference.samplers import log_probabilities
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

GAP = "___"
SHORTLIST = 200
"""Candidates of a gap that are scored with the whole text, at least."""


def fill(
    forward: Backend, backward: Backend, vocabulary: Vocabulary, text: str, top: int, *, end: bool
) -> tuple[list[list[NextToken]], str]:
    """The `top` likeliest tokens for each gap `___` of a text, and the text with the best ones.

    Probabilities are among the SHORTLIST candidates that were looked at (or `top`, if that is
    more). Gaps are filled from left to right: those before hold their best token, those after are
    read as UNK. Raises UsageError for a text without gaps, and unless `top` is 1 or more.
    """
    check_count("top", top, 1)
    pieces = around_gaps(text)
    parts = [vocabulary.encode(piece).astype(np.int64) for piece in pieces]
    found, done, filled = [], parts[0], pieces[0]
    for number in range(1, len(parts)):
        rest = parts[number]
        for later in parts[number + 1 :]:
            rest = np.concatenate([rest, [UNK], later])
        ids, scores = rank(forward, backward, done, rest, max(SHORTLIST, top), end=end)
        chances = np.exp(scores - np.logaddexp.reduce(scores))
        found.append(
            [
                NextToken(id=int(i), token=vocabulary.token_text(int(i)), probability=float(chance))
                for i, chance in zip(ids[:top], chances[:top], strict=True)
            ]
        )
        done = np.concatenate([done, ids[:1], parts[number]])
        filled += vocabulary.decode(ids[:1]) + pieces[number]
    return found, filled


def around_gaps(text: str) -> list[str]:
    """The pieces of a text between its gaps. Raises UsageError when there is no gap."""
    pieces = text.split(GAP)
    if len(pieces) < 2:
        raise UsageError(f"no gap in {text!r}; expected {GAP} where a token is missing")
    return pieces


def rank(
    forward: Backend,
    backward: Backend,
    left: Ids,
    right: Ids,
    shortlist: int = SHORTLIST,
    *,
    end: bool,
) -> tuple[Ids, NDArray[np.float64]]:
    """Candidates for the gap between two texts, best first, and ln of what each is worth.

    Only the `shortlist` with the greatest P(token | left) P(token | right) are looked at.
    """
    ahead, behind = Reader(forward, left, end), Reader(backward, right[::-1], end)
    near = ahead.next + behind.next
    near[[UNK, EOS]] = -np.inf
    candidates = np.argsort(-near, kind="stable")[: min(shortlist, len(near) - 2)]
    worth = 0.5 * (ahead.whole(candidates, right) + behind.whole(candidates, left[::-1]))
    order = np.argsort(-worth, kind="stable")
    return candidates[order], worth[order]


class Reader:
    """What one model says of a gap after the tokens before it, in its own direction.

    `next` is ln P(token | before), shape (V,).
    """

    def __init__(self, engine: Backend, before: Ids, end: bool) -> None:
        self.engine, self.end = engine, end
        logits, self.state = read_prompt(engine, before)
        self.next: Nats = log_probabilities(logits)[0]

    def whole(self, candidates: Ids, after: Ids) -> NDArray[np.float64]:
        """ln P(candidate and all that comes after it | before), shape (K,)."""
        worth = self.next[candidates]
        targets = np.append(after, EOS) if self.end else after
        if len(targets) == 0:
            return worth
        rows = len(candidates)
        wanted = np.repeat(targets[:, None], rows, axis=1)  # (T, K)
        inputs = np.concatenate([candidates[None], wanted[:-1]])
        state = rows_of(self.state, [0] * rows)
        step = window_length(self.engine, rows)
        for begin in range(0, len(wanted), step):
            span = slice(begin, begin + step)
            nats, state = self.engine.nats(inputs[span], wanted[span], state)
            worth = worth - nats.sum(axis=0)
        return worth
