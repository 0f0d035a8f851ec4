"""Session of `charlm play`: a text that a person and a model write in turns.

A session has no terminal; `prompt` has the commands. Each change of the text leaves a `Turn`, so
that it can be undone.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from charlm.api.model import Model
from charlm.backends.interface import Ids, Nats, State
from charlm.backends.softmax import softmax
from charlm.errors import UsageError, check_count
from charlm.inference.generation import NextToken, Start, generate, named_tokens
from charlm.inference.likelihood import stream_nats, tally
from charlm.inference.samplers import Sampling, fresh_seed
from charlm.text.documents import END, check_text
from charlm.text.encoded import EncodedText, count_text
from charlm.text.tokenizers.spans import token_spans
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.units import Tally


@dataclass(frozen=True, kw_only=True)
class Token:
    """One token of the text: its slice of the text, and its -ln P before temperature.

    `value` is that of a unit after it, if one was chosen; 1 and -1 have full colour.
    """

    id: int
    text: str
    nats: float
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Place:
    """A text and the state of the model there.

    `hidden` is the state before the last token, None where a document begins. `seed` chooses the
    next tokens, of which it has already chosen `used`.
    """

    tokens: tuple[Token, ...] = ()
    hidden: State | None = None
    seed: int
    used: int = 0

    @property
    def start(self) -> Start:
        """Point from which a sample continues."""
        ids = [token.id for token in self.tokens]
        return Start(ids=ids, hidden=self.hidden, used=self.used)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A change of the text: the place after what was typed, and after what was generated."""

    typed: Place
    place: Place


class Session:
    """A text that grows in turns. Raises UsageError for a model that reads backward.

    `length` is the number of tokens of a turn; `sampling` may be replaced between turns. A seed
    gives the text of `Model.sample`, also if the text is generated in several turns.
    """

    def __init__(
        self,
        model: Model,
        *,
        length: int = 200,
        temperature: float = 1.0,
        seed: int | None = None,
    ) -> None:
        if model.run.backward:
            raise UsageError(
                "this model reads backward, so its text grows at the beginning; expected a model "
                "that reads forward. Use charlm.Model.sample, whose prompt is the end of the text"
            )
        first = Place(seed=fresh_seed() if seed is None else seed)
        check_count("length", length, 0)
        check_count("seed", first.seed, 0)
        self.model, self.length = model, length
        self.sampling = Sampling(temperature=temperature)
        self.turns = [Turn(typed=first, place=first)]

    @property
    def place(self) -> Place:
        """Place at the end of the text."""
        return self.turns[-1].place

    @property
    def text(self) -> str:
        """The whole text, typed and generated."""
        return "".join(token.text for token in self.place.tokens)

    @property
    def tally(self) -> Tally:
        """Likelihood of the text, before temperature and other rules."""
        tokens = self.place.tokens
        encoded = EncodedText(
            ids=np.array([token.id for token in tokens], np.int64),
            ends=np.array([len(tokens)]),
            counts=count_text(self.text)[0],
            is_stream=True,
        )
        return tally(encoded, np.array([token.nats for token in tokens], np.float64))

    def typed(self, text: str) -> Place:
        """Return the place after a text that is appended.

        Raises CorpusError for a lone surrogate.
        """
        check_text(text)
        vocabulary, rules = self.model.vocabulary, self.model.run.boundaries
        marked = rules.mark(text.strip(" \t") if vocabulary.line_ends_are_eos else text)
        ids = vocabulary.encode_marked(marked)[0].astype(np.int64)
        if not len(ids):
            return self.place
        starts, ends = token_spans(vocabulary, marked, ids)
        cuts = [0, *np.minimum(ends[:-1], starts[1:]).tolist(), len(marked)]
        texts = [marked[begin:end].replace(END, rules.separator) for begin, end in pairwise(cuts)]
        if self._decoded(int(ids[0])).startswith(" ") and not texts[0][:1].isspace():
            texts[0] = " " + texts[0]  # between words
        return self._appended(ids, texts)

    def picked(self, index: int) -> Place:
        """Return the place after a token that is appended."""
        text = self.model.run.boundaries.separator if index == EOS else self._decoded(index)
        return self._appended(np.array([index]), [text])

    def continued(self, place: Place) -> Generator[Token, None, None]:
        """Generate after a place and yield the tokens; then, or when it is closed, keep the turn.

        A model of lines stops at the end of a line.
        """
        new: list[Token] = []
        try:
            for token in self._generated(place):
                new.append(token)
                yield token
        finally:
            hidden = self._read(place, np.array([token.id for token in new], np.int64))[1]
            tokens, used = place.tokens + tuple(new), place.used + len(new)
            after = replace(place, tokens=tokens, hidden=hidden, used=used)
            self._keep(Turn(typed=place, place=after))

    def again(self, seed: int | None = None) -> Generator[Token, None, None]:
        """Generate the last turn again with another seed, by default a fresh one."""
        place = self.turns[-1].typed
        return self.continued(replace(place, seed=fresh_seed() if seed is None else seed, used=0))

    def undo(self) -> None:
        """Take back the last change of the text. Raises UsageError if there is none."""
        if len(self.turns) == 1:
            raise UsageError("there is nothing to undo; the text is as at the beginning")
        self.turns.pop()

    def back(self, count: int) -> None:
        """Remove the last tokens of the text, all of them if it has fewer."""
        check_count("count", count, 1)
        kept = self.place.tokens[:-count]
        ids = np.array([token.id for token in kept], np.int64)
        hidden = self._read(self.turns[0].place, ids)[1]
        place = replace(self.place, tokens=kept, hidden=hidden)
        self._keep(Turn(typed=place, place=place))

    def reseed(self, seed: int) -> None:
        """Set the seed of the tokens that follow."""
        check_count("seed", seed, 0)
        place = replace(self.place, seed=seed, used=0)
        self.turns[-1] = replace(self.turns[-1], place=place)

    def next(self, top: int) -> list[NextToken]:
        """Return the likeliest tokens here that can be generated, the likeliest first."""
        check_count("top", top, 1)
        logits, _ = self.place.start.logits(self.model.run.backend)
        row = softmax(logits)[0]
        order = np.argsort(-row, kind="stable")
        ids = order[order != UNK][:top]
        return named_tokens(self.model.vocabulary, ids, row[ids])

    def _generated(self, place: Place) -> Iterator[Token]:
        """Yield the tokens of a turn; a model of lines stops at the end of a line."""
        rules = self.model.run.boundaries
        pieces = generate(
            self.model.run.backend,
            self.model.vocabulary,
            length=self.length,
            sampling=self.sampling,
            seed=place.seed,
            boundaries=rules,
            start=place.start,
        )
        for piece in pieces:
            if piece.id is None:  # half of a character, which the next turn completes
                return
            yield Token(id=piece.id, text=piece.text, nats=piece.nats)
            if piece.id == EOS and rules.document == "line":
                return

    def _keep(self, turn: Turn) -> None:
        """Add a turn that has changed the text."""
        if turn.place.tokens != self.place.tokens:
            self.turns.append(turn)

    def _decoded(self, index: int) -> str:
        """Return the text that a token adds."""
        decoder = self.model.vocabulary.decoder()
        for token in self.place.tokens:
            decoder.feed(token.id)
        return decoder.feed(index)

    def _appended(self, ids: Ids, texts: Sequence[str]) -> Place:
        """Return the place after tokens."""
        place = self.place
        nats, hidden = self._read(place, ids)
        tokens = tuple(
            Token(id=index, text=text, nats=own)
            for index, text, own in zip(ids.tolist(), texts, nats.tolist(), strict=True)
        )
        return replace(place, tokens=place.tokens + tokens, hidden=hidden)

    def _read(self, place: Place, ids: Ids) -> tuple[Nats, State | None]:
        """Return the nats of tokens after a place, and the state before the last of them."""
        hidden, nats = place.hidden, [np.empty(0)]
        last = place.tokens[-1].id if hidden is not None else EOS
        resets = self.model.run.boundaries.resets
        cuts = np.flatnonzero((ids == EOS) & resets) + 1
        for part in np.split(ids, cuts):
            if len(part):
                own, hidden = stream_nats(self.model.run.backend, part, hidden, last)
                nats.append(own)
                last = int(part[-1])
                if resets and last == EOS:
                    hidden = None
        return np.concatenate(nats), hidden
