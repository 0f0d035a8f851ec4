"""Scores: the log-probability of texts, and of each of their tokens with its rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Backend, Ids, Nats, State
from charlm.errors import UsageError, check_choice, named
from charlm.inference.likelihood import Read, nats_alone, read_documents, stream_nats, tally
from charlm.inference.words import TokenNats, WordReader, WordRule, WordScore
from charlm.listing import Listing, data_frame
from charlm.text.boundaries import Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.documents import check_text
from charlm.text.encoded import EncodedText, count_text
from charlm.text.tokenizers.spans import token_spans
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
    """A scored text: its tally, and its words or tokens if requested.

    `unk_penalty` is the cost of each unknown token in nats, in addition to -ln P(UNK).
    """

    text: str
    tally: Tally
    tokens: tuple[TokenScore, ...] = ()
    words: tuple[WordScore, ...] = ()
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


PARTS = ("text", "word", "token")
"""Parts of a text that get a score of their own, beside the text."""
MAX_SHOWN = 10
"""Number of scores in the repr of `Scores`."""
FIGURES = ("tokens", "words", "chars", "oov", "bits_per_char", "perplexity", "word_perplexity")
"""Figures of a tally that are columns of a table of scores."""


class Scorer:
    """A scorer of texts under one model.

    `boundaries` decide whether EOS is part of a score, and where a text is cut into documents that
    are read from the zero state. With `carry`, the texts are one stream instead: each is read from
    the state after the text before. With `carry` and `lines` each text is a line of the stream; if
    no EOS ends it, its line end is scored too. `unk_penalty` is passed to every score.
    `word_rule` says how tokens become words. Raises UsageError for `carry` with a model that reads
    backward.
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
        word_rule: WordRule | None = None,
    ) -> None:
        if carry and isinstance(vocabulary, BackwardVocabulary):
            raise UsageError(
                f"one stream of texts with a model that reads backward; leave out {named('carry')}"
            )
        self.backend, self.vocabulary, self.carry = backend, vocabulary, carry
        self.boundaries, self.end = boundaries, boundaries.has_ends
        self.unk_penalty, self.word_rule = unk_penalty, word_rule or WordRule()
        line_end = lines and not self.end and not vocabulary.unknown("\n")
        self._suffix = "\n" if line_end else ""
        self._state: State | None = None
        self._last = EOS

    def score(self, texts: Sequence[str], *, by: str = "text") -> Scores:
        """Score texts in their order, by "text", or with a score for each "word" or "token" too.

        Raises UsageError for another part, or for words of a model that has none (see
        `WordReader`).
        """
        check_choice(named("by"), by, PARTS)
        encoded = [self._encode(text) for text in texts]
        if self.carry:
            return Scores(
                self._carried(text, item, by) for text, item in zip(texts, encoded, strict=True)
            )
        documents = [self._documents(self._read_ids(item.ids, by)) for item in encoded]
        results = iter(read_documents(self.backend, list(chain(*documents)), self._read(by)))
        scores = Scores()
        for text, item, own in zip(texts, encoded, documents, strict=True):
            nats, figures = map(np.concatenate, zip(*(next(results) for _ in own), strict=True))
            scores.append(self._score(text, item, nats[: len(item.ids)], figures, by))
        return scores

    @cached_property
    def _words(self) -> WordReader:
        return WordReader(self.vocabulary, self.word_rule, ends=self.end)

    def _read(self, by: str) -> Read:
        """Return the function that reads tokens, with the figures that the parts need."""
        if by == "token":
            return self.backend.ranks
        entries = self._words.entries if by == "word" else None
        if entries is None:
            return partial(nats_alone, self.backend)
        return lambda inputs, targets, state: self.backend.masses(inputs, targets, entries, state)

    def _read_ids(self, ids: Ids, by: str) -> Ids:
        """Return the ids to read; one more after a text without EOS, if its last word needs it."""
        after = by == "word" and not self.end and self._words.entries is not None
        return np.append(ids, EOS) if after else ids

    def _documents(self, ids: Ids) -> list[Ids]:
        """Cut ids after each EOS where the state resets."""
        if not self.boundaries.resets:
            return [ids]
        cuts = np.flatnonzero(ids == EOS) + 1
        return np.split(ids, cuts[cuts < len(ids)])

    def _body(self, text: str) -> str:
        """Return the text whose tokens are scored, without EOS."""
        return text + self._suffix if self.carry else self.boundaries.scored_text(text)

    def _marked(self, body: str) -> str:
        """Return a body with an END at each line end that ends a document."""
        by_line = self.boundaries.text_document == "line" and not self.carry
        return self.boundaries.mark(body) if by_line else body

    def _encode(self, text: str) -> EncodedText:
        text = self._body(text)
        check_text(text)
        ids = self.vocabulary.encode_marked(self._marked(text))[0].astype(np.int64)
        if self.end:
            ids = np.append(ids, EOS)
        counts, _ = count_text(text + "\n" if self.end else text)
        ends = np.array([len(ids)], np.int64)
        return EncodedText(ids=ids, ends=ends, counts=counts, is_stream=not self.end)

    def _carried(self, text: str, encoded: EncodedText, by: str) -> Score:
        ids = encoded.ids
        nats, after = stream_nats(self.backend, ids, self._state, self._last)
        figures: NDArray[Any] = np.empty(0)
        if by != "text":
            read_ids = self._read_ids(ids, by)
            figures = read_tokens(self.backend, read_ids, self._read(by), self._state, self._last)
        if len(ids):
            self._state, self._last = after, int(ids[-1])
        return self._score(text, encoded, nats, figures, by)

    def _score(
        self, text: str, encoded: EncodedText, nats: Nats, figures: NDArray[Any], by: str
    ) -> Score:
        return Score(
            text=text,
            tally=tally(encoded, nats),
            tokens=self._tokens(text, encoded, nats, figures) if by == "token" else (),
            words=self._word_scores(text, encoded, nats, figures) if by == "word" else (),
            unk_penalty=self.unk_penalty,
        )

    def _word_scores(
        self, text: str, encoded: EncodedText, nats: Nats, log_masses: Nats
    ) -> tuple[WordScore, ...]:
        body, ids = self._body(text), encoded.ids
        own = len(ids) - self.end
        starts, ends = token_spans(self.vocabulary, self._marked(body), ids[:own])
        if text.count("\r") > body.count("\r"):  # line ends are read without their CR
            kept = np.array([at for at in range(len(text)) if not _is_cr(text, at)], np.int64)
            starts, ends = kept[starts], kept[ends - 1] + 1
        if self.end:
            starts, ends = np.append(starts, len(text)), np.append(ends, len(text))
        tokens = TokenNats(ids=ids, nats=nats, starts=starts, ends=ends, log_masses=log_masses)
        return self._words.words(text, tokens)

    def _tokens(
        self, text: str, encoded: EncodedText, nats: Nats, ranks: NDArray[Any]
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


def _is_cr(text: str, at: int) -> bool:
    """Return True for the CR of a CR LF."""
    return text[at : at + 2] == "\r\n"


def read_tokens(
    backend: Backend,
    ids: NDArray[Any],
    read: Read,
    state: State | None = None,
    first_input: int = EOS,
    step: int = 256,
) -> NDArray[Any]:
    """Return the figure that `read` gives for each token of a text beside its nats."""
    targets = np.asarray(ids, np.int64)[:, None]
    inputs = np.concatenate([[[first_input]], targets[:-1]])
    state = backend.initial_state(1) if state is None else state
    figures = np.zeros(len(targets))
    for start in range(0, len(targets), step):
        span = slice(start, start + step)
        _, values, state = read(inputs[span], targets[span], state)
        figures[span] = values[:, 0]
    return figures
