"""Steps: the predicted words or tokens of a text and its end, as n-gram toolkits list them.

The steps of a text whose end is scored sum to -ln P of it. A step of a word includes the gap after
it, except that the last gap is the step of the end.
"""

from dataclasses import dataclass, replace

from charlm.inference.scores import Score
from charlm.inference.scoring import Scorer, read_tokens
from charlm.text.tokenizers.tokenizer_json import EOS

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
"""Names of the start, of the end, and of an unknown word."""
_BLANKS = {" ": "<space>", "\n": "<newline>", ")": "<rparen>"}
"""Names of characters of tokens that the readers of these formats take for separators."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One predicted word or token, or the end.

    `id` is the entry as KenLM counts: 0 for an unknown word, 1 for the start, 2 for the end; V + 1
    for a word of several tokens. `length` is the order of the n-gram that was found, 0 if the model
    has no n-grams.
    """

    name: str
    nats: float
    id: int
    oov: bool = False
    length: int = 0
    is_end: bool = False


class StepReader:
    """Reader of the steps of scores that one scorer made by "word" or "token" (`by`)."""

    def __init__(self, scorer: Scorer, by: str) -> None:
        self.scorer, self.by = scorer, by
        one_each = by == "token" or scorer.vocabulary.line_ends_are_eos
        self._lengths = getattr(scorer.backend, "lengths", None) if one_each else None

    def steps(self, score: Score) -> list[Step]:
        """Return the steps of a text."""
        steps = self._token_steps(score) if self.by == "token" else self._word_steps(score)
        if self._lengths is None:
            return steps
        found = self._found(score)
        return [replace(step, length=length) for step, length in zip(steps, found, strict=True)]

    def _token_steps(self, score: Score) -> list[Step]:
        ended = self.scorer.end
        return [
            _end(token.nats)
            if ended and place == len(score.tokens)
            else Step(
                name=token_name(token.token),
                nats=token.nats,
                id=token.id and token.id + 1,
                oov=token.oov,
            )
            for place, token in enumerate(score.tokens, start=1)
        ]

    def _word_steps(self, score: Score) -> list[Step]:
        vocabulary, words = self.scorer.vocabulary, score.words
        ids, size = vocabulary.ids, len(vocabulary)
        steps = [
            Step(
                name=word.word,
                nats=word.nats + word.gap * (place < len(words) or not self.scorer.end),
                id=0 if word.oov else ids.get(vocabulary.normalized(word.word), size) + 1,
                oov=word.oov,
            )
            for place, word in enumerate(words, start=1)
        ]
        if self.scorer.end:
            steps.append(_end(words[-1].gap if words else score.tally.nats))
        return steps

    def _found(self, score: Score) -> list[int]:
        """Return the order of the n-gram that was found at each step."""
        ids = self.scorer.ids(score.text)
        assert self._lengths is not None
        lengths = read_tokens(self.scorer.backend, ids, self._lengths)
        is_step = (ids != EOS) | (self.by == "token")
        is_step[-1:] = True
        return [int(length) for length in lengths[is_step]]


def _end(nats: float) -> Step:
    return Step(name=END, nats=nats, id=EOS + 1, is_end=True)


def token_name(token: str) -> str:
    """Return a token with names for the characters that separate fields, as `<space>`."""
    return "".join(
        _BLANKS.get(letter) or (f"<U+{ord(letter):04X}>" if letter.isspace() else letter)
        for letter in token
    )
