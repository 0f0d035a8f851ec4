"""Rows that are sampled side by side: the texts of samples, and groups of them."""

import itertools
from collections.abc import Collection, Sequence

import numpy as np

from charlm.backends.interface import Backend, Nats
from charlm.inference.generation import Position, sample_steps
from charlm.inference.prompt_reading import MAX_KEPT, Figures, Prompt, token_figures
from charlm.inference.sample_text import DECODED, SampleText
from charlm.inference.samplers import SamplingColumns
from charlm.inference.work import NewText, TokenFigures
from charlm.text.tokenizers.tokenizer_json import UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

ROUND_STEPS = 4
"""Cost of a round beside its steps, in steps."""


class Row:
    """One sample of a prompt.

    `start` is the position at which it joins a group, `rounds` the number of rounds since then;
    `left` is the number of tokens to sample, 0 after its end.
    """

    def __init__(self, prompt: Prompt, sample: int, vocabulary: Vocabulary, separator: str) -> None:
        self.job, self.work = prompt.job, prompt.job.work
        self.number = prompt.number * self.work.samples + sample
        self.start, self.left = prompt.position, self.work.max_tokens
        self.is_new, self.rounds = True, 0
        self.is_plain = self.work.sampling.is_plain and not self.work.bias
        self.generator = np.random.default_rng([self.work.seed % 2**64, sample])
        before = prompt.ids[-DECODED:].tolist()
        self.text = SampleText(vocabulary, before, self.work.stop, separator)
        self._uniform: Nats | None = None
        self._pending: list[TokenFigures] = []  # whose text is not certain yet

    def uniform(self, steps: int) -> Nats:
        """Return the numbers for the next steps; a second call before `take` repeats them."""
        if self._uniform is None:
            self._uniform = self.generator.random(steps)
        return self._uniform

    def take(self, ids: list[int], figures: list[Figures] | None) -> int:
        """Take sampled tokens and report their text; return the number of those needed."""
        self._uniform, self.is_new = None, False
        self.rounds += 1
        add, until_eos = self.text.add, self.work.until_eos
        pieces, count, goes_on = list[str](), 0, True
        for index in ids[: self.left]:
            if figures is not None:
                self._pending.append(TokenFigures(index, *figures[count], self.text.length))
            piece, goes_on = add(index, until_eos)
            pieces.append(piece)
            count += 1
            if not goes_on:
                break
        self.left -= count
        if not goes_on:
            self.end("stop", pieces, count)
        elif not self.left:
            pieces.append(self.text.finish())
            self.end("stop" if self.text.stopped_by else "length", pieces, count)
        else:
            self._tell(pieces, count, None)
        return count

    def end(self, reason: str, pieces: Sequence[str] = (), count: int = 0) -> None:
        """Report the last text."""
        self.left = 0
        self._tell(pieces, count, reason)
        self.job.rows_left -= 1
        self.job.finish_if_done()

    def _tell(self, pieces: Sequence[str], count: int, reason: str | None) -> None:
        """Report text and the tokens that begin in it; the end has all but those of a stop text."""
        certain, stop = self.text.certain, self.text.stopped_by
        tokens = self._pending
        if tokens and (reason is None or stop is not None):
            tokens = list(itertools.takewhile(lambda token: token.offset < certain, tokens))
        self._pending = self._pending[len(tokens) :]
        self.job.tell(NewText(self.number, "".join(pieces), tokens, count, reason, stop))


class Pace:
    """Seconds per token of the last calls of a backend."""

    def __init__(self) -> None:
        self._each = 0.0

    def limit(self, most: int, seconds: float, rows: int = 1) -> int:
        """Return the number of steps of rows that fit in a time, from 1 to `most`."""
        each = rows * self._each
        return most if most * each <= seconds else max(1, int(seconds / each))

    def record(self, count: int, seconds: float) -> None:
        """Record the duration of a call; a single slow one changes little."""
        each = seconds / max(count, 1)
        self._each = (self._each + min(each, 2 * self._each)) / 2 if self._each else each


class Group:
    """Rows that are sampled together: those with only a temperature, or the others."""

    def __init__(self, rows: Sequence[Row] = (), position: Position | None = None) -> None:
        self.rows, self._position, self.pace = list(rows), position, Pace()
        self._sampling: SamplingColumns | None = None  # of these rows, once it is needed
        self._bias: Nats | None = None  # likewise

    def join(self, rows: Sequence[Row]) -> None:
        """Add rows at the end; their turn begins."""
        for row in rows:
            row.rounds = 0
        if rows:
            before = [self._position] if self._position else []
            position = Position.joined([*before, *(row.start for row in rows)])
            self._change([*self.rows, *rows], position)

    def merge(self, other: "Group") -> None:
        """Add the rows of another group at the end."""
        positions = [group._position for group in (self, other) if group._position]
        if other.rows:
            self._change([*self.rows, *other.rows], Position.joined(positions))

    def leave(self, others: Collection[Row] = ()) -> list[Row]:
        """Remove the rows that have ended, those that pause, and others; return those with more."""
        kept = [
            place
            for place, row in enumerate(self.rows)
            if row.left and not row.job.ended and not row.job.rests and row not in others
        ]
        if len(kept) == len(self.rows):
            return []
        return self._split(kept)

    def _split(self, kept: list[int]) -> list[Row]:
        """Keep these rows; return the others that can go on, with their position."""
        position = self._position
        assert position is not None
        paused = []
        for place in sorted(set(range(len(self.rows))) - set(kept)):
            row = self.rows[place]
            if row.left and not row.job.ended:
                row.start = position.rows([place])
                paused.append(row)
        self._change([self.rows[place] for place in kept], position.rows(kept) if kept else None)
        return paused

    def _change(self, rows: list[Row], position: Position | None) -> None:
        self.rows, self._position, self._sampling = rows, position, None

    def steps(self, most: int, early: float) -> int:
        """Return the number of steps, at most `most`, that gives most tokens for the time.

        Rows that end in between are sampled in vain until the last step. `early` is the probability
        per token that a row ends before its last token.
        """
        left = np.array([row.left for row in self.rows])
        if any(row.work.top is not None for row in self.rows):
            most = min(most, max(1, MAX_KEPT // (len(self.rows) * self._vocab_size)))
        choices = np.unique(np.minimum(np.append(left, 2 ** np.arange(6)), most))
        needed = np.minimum(left[:, None], choices)
        if early > 0.0:
            needed = -np.expm1(needed * np.log1p(-early)) / early
        return int(choices[np.argmax(needed.sum(axis=0) / (choices + ROUND_STEPS))])

    @property
    def _vocab_size(self) -> int:
        assert self._position is not None
        return int(self._position.logits.shape[1])

    def sample(self, backend: Backend, steps: int, restart: int) -> int:
        """Sample tokens for every row and report them; return the number of those needed.

        If that fails, each row is sampled alone, and the works of those that fail again end.
        """
        try:
            ids, figures = self._sample(backend, steps, restart)
        except Exception as error:
            if len(self.rows) == 1:
                self.rows[0].job.fail(error)
                return 0
            assert self._position is not None
            alone = [Group([row], self._position.rows([n])) for n, row in enumerate(self.rows)]
            count = sum(group.sample(backend, steps, restart) for group in alone)
            positions = [group._position for group in alone if group._position]
            self._position = Position.joined(positions)
            return count
        count = 0
        for row, own, rest in zip(self.rows, ids, figures, strict=True):
            try:
                count += row.take(own, rest)
            except Exception as error:
                row.job.fail(error)
        return count

    def _sample(
        self, backend: Backend, steps: int, restart: int
    ) -> tuple[list[list[int]], list[list[Figures] | None]]:
        """Return ids and figures of each row."""
        rows, position = self.rows, self._position
        assert position is not None
        if self._sampling is None:
            self._sampling = SamplingColumns.of([row.work.sampling for row in rows])
            self._bias = _bias(rows, backend.vocab_size)
        taken = sample_steps(
            backend,
            position,
            np.stack([row.uniform(steps) for row in rows], axis=1),
            self._sampling,
            UNK,
            restart,
            bias=self._bias,
            keep=any(row.work.top is not None for row in rows),
        )
        ids = np.ascontiguousarray(taken.ids.T)
        figures: list[list[Figures] | None] = [None] * len(rows)
        if taken.logits is not None:
            places = [place for place, row in enumerate(rows) if row.work.top is not None]
            tops = [rows[place].work.top or 0 for place in places]
            logits = taken.logits[:, places].swapaxes(0, 1)
            for place, own in zip(
                places, token_figures(backend, logits, ids[places], tops), strict=True
            ):
                figures[place] = list(own)
        self._position = taken.after
        return ids.tolist(), figures


def _bias(rows: Sequence[Row], vocab_size: int) -> Nats | None:
    """Return what is added to the logits (B, V) of rows, or None."""
    if not any(row.work.bias for row in rows):
        return None
    bias = np.zeros((len(rows), vocab_size))
    for place, row in enumerate(rows):
        bias[place, list(row.work.bias)] = list(row.work.bias.values())
    return bias
