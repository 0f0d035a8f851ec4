"""Infilling: find the token for a gap from the text on its left and on its right.

By Bayes' rule, P(token | left, right) is proportional to the probability of the whole text with the
token in the gap. A forward and a backward model both give it; the tokens are ranked by the
geometric mean of the two.
"""

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, select_rows
from charlm.backends.softmax import log_softmax, softmax
from charlm.errors import UsageError, check_count
from charlm.inference.generation import NextToken, named_tokens, read_prompt
from charlm.inference.likelihood import window_length
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

GAP = "___"
SHORTLIST = 200
"""Minimum number of candidates for a gap that are scored with the whole text."""


def fill(
    forward: Backend, backward: Backend, vocabulary: Vocabulary, text: str, top: int, *, end: bool
) -> tuple[list[list[NextToken]], str]:
    """Return the `top` most probable tokens for each gap `___`, and the text with the best ones.

    Probabilities are relative to SHORTLIST candidates (or `top`, if that is more). Gaps are filled
    from left to right; later gaps are read as UNK. `end` is True if the models have learned where
    texts end. Raises UsageError for a text without gaps, and unless `top` is 1 or more.
    """
    check_count("top", top, 1)
    pieces = around_gaps(text)
    encoded = [vocabulary.encode(piece).astype(np.int64) for piece in pieces]
    answers, left, filled = [], encoded[0], pieces[0]
    for number in range(1, len(encoded)):
        right = encoded[number]
        for later in encoded[number + 1 :]:
            right = np.concatenate([right, [UNK], later])
        ids, scores = rank(forward, backward, left, right, max(SHORTLIST, top), end=end)
        probabilities = softmax(scores)
        answers.append(named_tokens(vocabulary, ids[:top], probabilities[:top]))
        left = np.concatenate([left, ids[:1], encoded[number]])
        filled += vocabulary.decode(ids[:1]) + pieces[number]
    return answers, filled


def around_gaps(text: str) -> list[str]:
    """Return the pieces of a text between its gaps. Raises UsageError if there is no gap."""
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
    """Return candidates for the gap between two texts, best first, and their scores in nats.

    These are the `shortlist` tokens with the greatest P(token | left) P(token | right).
    """
    ahead, behind = Reader(forward, left, end), Reader(backward, right[::-1], end)
    near = ahead.next + behind.next
    near[[UNK, EOS]] = -np.inf
    candidates = np.argsort(-near, kind="stable")[: min(shortlist, len(near) - 2)]
    scores = 0.5 * (ahead.whole(candidates, right) + behind.whole(candidates, left[::-1]))
    order = np.argsort(-scores, kind="stable")
    return candidates[order], scores[order]


class Reader:
    """One model, after the tokens before a gap; `next` is ln P(token | before), shape (V,)."""

    def __init__(self, backend: Backend, before: Ids, end: bool) -> None:
        self.backend, self.end = backend, end
        logits, self.state = read_prompt(backend, before)
        self.next: Nats = log_softmax(logits)[0]

    def whole(self, candidates: Ids, after: Ids) -> NDArray[np.float64]:
        """Return ln P(candidate and all tokens after it | before), shape (K,)."""
        scores = self.next[candidates]
        targets = np.append(after, EOS) if self.end else after
        if len(targets) == 0:
            return scores
        rows = len(candidates)
        repeated = np.repeat(targets[:, None], rows, axis=1)  # (T, K)
        inputs = np.concatenate([candidates[None], repeated[:-1]])
        state = select_rows(self.state, [0] * rows)
        step = window_length(self.backend, rows)
        for begin in range(0, len(repeated), step):
            span = slice(begin, begin + step)
            nats, state = self.backend.nats(inputs[span], repeated[span], state)
            scores = scores - nats.sum(axis=0)
        return scores
