"""Scores: the log-probability of texts, and of each of their tokens or words, as results."""

from dataclasses import dataclass
from typing import Any

from charlm.errors import UsageError
from charlm.inference.words import WordRule, WordScore
from charlm.listing import WORDS, HeatText, Listing, Part, data_frame
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.units import Tally, bits

FIGURES = ("tokens", "words", "chars", "oov", "bits_per_char", "perplexity", "word_perplexity")
"""Figures of a tally that are columns of a table of scores."""


@dataclass(frozen=True, kw_only=True)
class TokenScore:
    """One token of a scored text; the most probable token has rank 1.

    `entropy` is that of the prediction before it was read, in nats, or None if not requested.
    """

    token: str
    id: int
    nats: float
    rank: int
    oov: bool
    entropy: float | None = None

    def __repr__(self) -> str:
        return f"TokenScore({self.token!r}, {self.nats:.3f} nats, rank {self.rank})"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A scored text: its tally, and its words (by `word_rule`) or its tokens if requested.

    `unk_penalty` is the cost of each unknown token in nats, in addition to -ln P(UNK). `first_word`
    is the place of the first word, which is above 1 if the text is a region of a longer one.
    """

    text: str
    tally: Tally
    tokens: tuple[TokenScore, ...] = ()
    words: tuple[WordScore, ...] = ()
    word_rule: WordRule | None = None
    unk_penalty: float = 0.0
    first_word: int = 1

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

    @property
    def word_parts(self) -> list[Part]:
        """Words as parts of the text, each with the blank before it.

        What follows the last word belongs to it.
        """
        parts, place = list[Part](), 0
        for word in self.words:
            end = len(self.text) if word is self.words[-1] else word.end
            parts.append(Part(self.text[place:end], bits(word.nats), word.oov))
            place = end
        return parts


class Scores(Listing[Score]):
    """List of scores in the order of their texts; notebooks show it as a table.

    Texts with scores of their tokens or words are coloured there. `vocab_size` is the number of
    entries of the model's vocabulary; `backward` is true if the tokens are in reverse order.
    """

    vocab_size: int = 0
    backward: bool = False

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

    def shown_rows(self) -> list[dict[str, Any]]:
        """See `Listing.shown_rows`."""
        rows = self.rows()
        for row, score in zip(rows, self, strict=True):
            if score.words:
                row["text"] = HeatText(score.word_parts, WORDS)
            elif score.tokens and self.vocab_size:
                row["text"] = HeatText(_token_parts(score, self.backward), self.vocab_size)
        return rows

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
                **_entropy(token),
                "rank": token.rank,
                "oov": token.oov,
                "penalized_surprisal": token.nats + score.unk_penalty * token.oov,
            }
            for number, score in enumerate(self, start=1)
            for place, token in enumerate(score.tokens, start=1)
        )


class Words(Listing[WordScore]):
    """List of the words of several texts, in their order; notebooks show it as a table.

    `scores` are the scores of the texts, of which the words are.
    """

    def __init__(self, scores: Scores) -> None:
        super().__init__(word for score in scores for word in score.words)
        self.scores = scores

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures of each word, in nats; `sentence_id` numbers the texts from 1."""
        return [
            {
                "sentence_id": number,
                "word_id": place,
                "word": word.word,
                "surprisal": word.nats,
                **_entropy(word),
                "gap": word.gap,
                "tokens": word.tokens,
                "oov": word.oov,
                "start": word.start,
                "end": word.end,
                "word_rule": str(score.word_rule),
            }
            for number, score in enumerate(self.scores, start=1)
            for place, word in enumerate(score.words, start=1)
        ]

    def shown_rows(self) -> list[dict[str, Any]]:
        """See `Listing.shown_rows`."""
        rows = self.rows()
        for row in rows:
            row["word"] = HeatText([Part(row["word"], bits(row["surprisal"]))], WORDS)
        return rows


def _entropy(part: TokenScore | WordScore) -> dict[str, float]:
    """Return the column with the entropy of a token or word, if it has one."""
    return {} if part.entropy is None else {"entropy": part.entropy}


def _token_parts(score: Score, backward: bool) -> list[Part]:
    """Return the tokens of a score as parts of its text, in the order of the text.

    The blanks before a token belong to it. A token that the text does not have, such as the end, is
    a part of its own.
    """
    parts, place, text = list[Part](), 0, score.text
    tokens = score.tokens
    if backward and tokens:  # the end of a document is read last, and stays last
        count = len(tokens) - (tokens[-1].id == EOS)
        tokens = tokens[:count][::-1] + tokens[count:]
    for token in tokens:
        start = text.find(token.token, place)
        if start >= 0 and not text[place:start].strip():
            end = start + len(token.token)
            parts.append(Part(text[place:end], bits(token.nats), token.oov))
            place = end
        else:
            parts.append(Part(token.token, bits(token.nats), token.oov))
    return parts
