"""Scores: the log-probability of texts, and of each of their tokens with its rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, State
from charlm.errors import UsageError, named
from charlm.inference.likelihood import nats_and_ranks, stream_nats, tally
from charlm.listing import Listing, data_frame
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.documents import check_text
from charlm.text.encoded import EncodedText, count_text
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.units import Tally


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """One token of a scored text; the most probable token has rank 1."""

    token: str
    id: int
    nats: float
    rank: int
    oov: bool

    def __repr__(self) -> str:
        return f"TokenScore({self.token!r}, {self.nats:.3f} nats, rank {self.rank})"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A scored text: its tally, and its tokens if requested.

    `unk_penalty` is the cost of each unknown token in nats, in addition to -ln P(UNK).
    """

    text: str
    tally: Tally
    tokens: tuple[TokenScore, ...] = ()
    unk_penalty: float = 0.0

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return f"Score({text!r}, ln P {self.log_probability:.3f}, {self.tally.tokens} tokens)"

    @property
    def log_probability(self) -> float:
        """ln P(text) in nats, with the end of the text if the model has learned ends."""
        return -self.tally.nats

    @property
    def penalized_log_probability(self) -> float:
        """`log_probability` minus `unk_penalty` for each unknown token, to compare texts.

        UNK represents many types, so P(UNK) is more than the probability of any of them.
        """
        return self.log_probability - self.unk_penalty * self.tally.oov


class Scores(Listing[Score]):
    """List of scores in the order of their texts; notebooks show it as a table."""

    def __repr__(self) -> str:
        more = f", and {len(self) - MAX_SHOWN:,} more" if len(self) > MAX_SHOWN else ""
        return f"Scores([{', '.join(map(repr, self[:MAX_SHOWN]))}{more}])"

    def rows(self) -> list[dict[str, Any]]:
        """Return the text and the figures of each score; log-probabilities are in nats."""
        return [
            {
                "text": score.text,
                "log_probability": score.log_probability,
                "penalized_log_probability": score.penalized_log_probability,
                **{name: score.tally.summary()[name] for name in FIGURES},
            }
            for score in self
        ]

    def to_pandas(self, *, tokens: bool = False) -> Any:
        """Return a pandas.DataFrame with one row for each text, or for each token with `tokens`.

        In the rows of tokens, `sentence_id` numbers the texts from 1. Raises EnvironmentFailure if
        pandas is not installed, UsageError for scores without tokens.
        """
        if not tokens:
            return super().to_pandas()
        if any(score.tally.tokens and not score.tokens for score in self):
            raise UsageError(
                "these scores have no tokens; expected scores made with score(..., tokens=True)"
            )
        return data_frame(
            {
                "sentence_id": number,
                "token_id": place,
                "token": token.token,
                "surprisal": token.nats,
                "rank": token.rank,
                "oov": token.oov,
                "penalized_surprisal": token.nats + score.unk_penalty * token.oov,
            }
            for number, score in enumerate(self, start=1)
            for place, token in enumerate(score.tokens, start=1)
        )


MAX_SHOWN = 10
"""Number of scores in the repr of `Scores`."""
FIGURES = ("tokens", "words", "chars", "oov", "bits_per_char", "perplexity", "word_perplexity")
"""Figures of a tally that are columns of a table of scores."""


class Scorer:
    """A scorer of texts under one model.

    `boundaries` decide whether EOS is part of a score, and where a text is cut into documents that
    are read from the zero state. With `carry`, the texts are one stream instead: each is read from
    the state after the text before. With `carry` and `lines` each text is a line of the stream; if
    no EOS ends it, its line end is scored too. `unk_penalty` is passed to every score. Raises
    UsageError for `carry` with a model that reads backward.
    """

    def __init__(
        self,
        backend: Backend,
        vocabulary: Vocabulary,
        boundaries: Boundaries,
        *,
        carry: bool = False,
        lines: bool = False,
        unk_penalty: float = 0.0,
    ) -> None:
        if carry and isinstance(vocabulary, BackwardVocabulary):
            raise UsageError(
                f"one stream of texts with a model that reads backward; leave out {named('carry')}"
            )
        self.backend, self.vocabulary, self.carry = backend, vocabulary, carry
        self.boundaries, self.end = boundaries, boundaries.has_ends
        self.unk_penalty = unk_penalty
        line_end = lines and not self.end and not vocabulary.unknown("\n")
        self._suffix = "\n" if line_end else ""
        self._state: State | None = None
        self._last = EOS

    def score(self, texts: Sequence[str], *, tokens: bool = False) -> Scores:
        """Score texts in their order; with `tokens`, each of their tokens too."""
        encoded = [self._encode(text) for text in texts]
        if self.carry:
            pairs = zip(texts, encoded, strict=True)
            return Scores(self._carried(*pair, tokens) for pair in pairs)
        documents = [self._documents(item.ids) for item in encoded]
        results = iter(nats_and_ranks(self.backend, list(chain(*documents)), ranked=tokens))
        scores = Scores()
        for text, item, own in zip(texts, encoded, documents, strict=True):
            nats, ranks = map(np.concatenate, zip(*(next(results) for _ in own), strict=True))
            details = self._tokens(text, item, nats, ranks) if tokens else ()
            scores.append(self._score(text, item, nats, details))
        return scores

    def _documents(self, ids: Ids) -> list[Ids]:
        """Cut ids after each EOS where the state resets."""
        if not self.boundaries.resets:
            return [ids]
        cuts = np.flatnonzero(ids == EOS) + 1
        return np.split(ids, cuts[cuts < len(ids)])

    def _body(self, text: str) -> str:
        """Return the text whose tokens are scored, without EOS."""
        return text + self._suffix if self.carry else self.boundaries.scored_text(text)

    def _encode(self, text: str) -> EncodedText:
        text = self._body(text)
        check_text(text)
        by_line = self.boundaries.text_document == "line" and not self.carry
        marked = self.boundaries.mark(text) if by_line else text
        ids = self.vocabulary.encode_marked(marked)[0].astype(np.int64)
        if self.end:
            ids = np.append(ids, EOS)
        counts, _ = count_text(text + "\n" if self.end else text)
        ends = np.array([len(ids)], np.int64)
        return EncodedText(ids=ids, ends=ends, counts=counts, is_stream=not self.end)

    def _carried(self, text: str, encoded: EncodedText, tokens: bool) -> Score:
        nats, after = stream_nats(self.backend, encoded.ids, self._state, self._last)
        details: tuple[TokenScore, ...] = ()
        if tokens:
            ranks = token_ranks(self.backend, encoded.ids, self._state, self._last)
            details = self._tokens(text, encoded, nats, ranks)
        if len(encoded.ids):
            self._state, self._last = after, int(encoded.ids[-1])
        return self._score(text, encoded, nats, details)

    def _score(
        self, text: str, encoded: EncodedText, nats: Nats, tokens: tuple[TokenScore, ...]
    ) -> Score:
        return Score(
            text=text, tally=tally(encoded, nats), tokens=tokens, unk_penalty=self.unk_penalty
        )

    def _tokens(
        self, text: str, encoded: EncodedText, nats: Nats, ranks: Ids
    ) -> tuple[TokenScore, ...]:
        names = self.vocabulary.pieces(self._body(text)) + (["<eos>"] if self.end else [])
        unknown = encoded.ids == self.vocabulary.unk
        return tuple(
            TokenScore(
                token=names[at],
                id=int(encoded.ids[at]),
                nats=float(nats[at]),
                rank=int(ranks[at]),
                oov=bool(unknown[at]),
            )
            for at in range(len(names))
        )


def token_ranks(
    backend: Backend,
    ids: NDArray[Any],
    state: State | None = None,
    first_input: int = EOS,
    step: int = 256,
) -> Ids:
    """Return the rank of each token of a text (1: most probable)."""
    targets = np.asarray(ids, np.int64)[:, None]
    inputs = np.concatenate([[[first_input]], targets[:-1]])
    state = backend.initial_state(1) if state is None else state
    ranks = np.zeros(len(targets), np.int64)
    for start in range(0, len(targets), step):
        span = slice(start, start + step)
        _, span_ranks, state = backend.ranks(inputs[span], targets[span], state)
        ranks[span] = span_ranks[:, 0]
    return ranks
