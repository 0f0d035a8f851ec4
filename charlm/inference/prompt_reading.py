"""Reading of prompts: parts of several prompts side by side, with the figures of their tokens."""

import itertools
from collections import deque
from collections.abc import Sequence

import numpy as np

from charlm.backends.interface import Array, Backend, Ids, Logits, State, join_rows, select_rows
from charlm.inference.generation import Position
from charlm.inference.sample_text import SampleText
from charlm.inference.samplers import likeliest
from charlm.inference.work import Alternatives, Job, TokenFigures
from charlm.text.boundaries import Boundaries
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.tokenizers.vocabulary import Vocabulary

MAX_PARTS = 64
"""Maximum parts of prompts that are read side by side."""
MAX_KEPT = 1 << 22
"""Maximum logits of figures in memory."""

Figures = tuple[float | None, Alternatives]
"""Nats of a token, and the alternatives in its place."""


class Prompt:
    """A prompt of a job, in parts between resets of the state.

    `tokens` are the figures of its tokens as far as `collect` took them from the parts.
    """

    def __init__(
        self, job: Job, number: int, vocabulary: Vocabulary, boundaries: Boundaries
    ) -> None:
        self.job, self.number, self.work = job, number, (work := job.work)
        self.rows = work.samples if work.max_tokens else 1
        self.ids = np.asarray(work.prompts[number], np.int64)
        begins = len(self.ids) > 0 and int(self.ids[0]) == EOS
        ends = np.flatnonzero(self.ids == EOS)[int(begins) :] + 1
        self._cuts = [int(begins), *(ends.tolist() if boundaries.resets else ()), len(self.ids)]
        if not work.score_prompts:
            self._cuts = self._cuts[-2:]
        self._parts = deque[PromptPart]()  # the next ones; all at once could need much memory
        self._begun = 0  # parts
        self._last: PromptPart | None = None  # the last one that was collected
        self.tokens = [TokenFigures(EOS, None, (), 0)] * begins
        self._text = SampleText(vocabulary, [EOS] * begins, (), boundaries.separator)

    @property
    def complete(self) -> bool:
        """True if all parts are read and collected."""
        return not self._parts and self._begun == len(self._cuts) - 1

    @property
    def position(self) -> Position:
        """Position after the prompt, once it is complete."""
        assert self._last is not None
        assert self._last.after is not None
        return self._last.after

    @property
    def next_parts(self) -> list["PromptPart"]:
        """The next parts to read."""
        while len(self._parts) < MAX_PARTS and self._begun < len(self._cuts) - 1:
            first, end = self._cuts[self._begun : self._begun + 2]
            ids, last = self.ids[first:end], self._begun == len(self._cuts) - 2
            self._parts.append(
                PromptPart(ids, scored=self.work.score_prompts, top=self.work.top or 0, last=last)
            )
            self._begun += 1
        return [part for part in self._parts if part.left]

    def collect(self) -> None:
        """Take the figures of the parts that were read, in order."""
        while self._parts:
            part = self._parts[0]
            for nats, alternatives in part.figures:
                index = int(self.ids[len(self.tokens)])
                self.tokens.append(TokenFigures(index, nats, alternatives, self._text.length))
                self._text.add(index, until_eos=False)
            part.figures = []
            if part.left:
                return
            self._last = self._parts.popleft()


class PromptPart:
    """Part of a prompt that is read from the initial state and start symbol.

    `scored` keeps the nats of each token and its `top` alternatives in `figures`. After the `last`
    part comes a sample, so its last token is read too; `after` is the position there.
    """

    def __init__(self, ids: Ids, *, scored: bool, top: int, last: bool) -> None:
        self.inputs = np.concatenate([[EOS], ids if last else ids[:-1]])
        self.targets, self.scored, self.top = ids, scored, top
        self.read = 0
        self.state: State | None = None
        self.after: Position | None = None
        self.figures: list[Figures] = []

    @property
    def left(self) -> int:
        """Number of tokens that are still to read."""
        return len(self.inputs) - self.read


def read_parts(backend: Backend, parts: Sequence[PromptPart], budget: int) -> int:
    """Read about `budget` tokens of parts, the first parts first; return the number of tokens.

    Parts of one kind, scored or not, are read side by side, and the kinds share the budget. A part
    that ends leaves, so that nothing is read in vain.
    """
    kinds = [[part for part in parts if part.scored is scored] for scored in (False, True)]
    kinds = [kind[:MAX_PARTS] for kind in kinds if kind]
    return sum(_read_side_by_side(backend, kind, budget // len(kinds)) for kind in kinds)


def _read_side_by_side(backend: Backend, parts: list[PromptPart], budget: int) -> int:
    """Read tokens of parts of one kind; return their number."""
    parts = sorted(parts, key=lambda part: part.left)
    first, spent = backend.initial_state(1), 0
    state = join_rows([part.state or first for part in parts])
    try:
        while parts and spent < budget:
            most = (budget - spent) // len(parts)
            if parts[0].scored:
                most = min(most, MAX_KEPT // (len(parts) * backend.logits_each))
            steps = min(parts[0].left, max(1, most))
            state = _read_steps(backend, parts, state, steps)
            spent += len(parts) * steps
            kept = [row for row, part in enumerate(parts) if part.left]
            parts, state = [parts[row] for row in kept], select_rows(state, kept)
    finally:  # after a failure too, so that each part can be read alone
        for row, part in enumerate(parts):
            part.state = select_rows(state, [row])
    return spent


def _read_steps(backend: Backend, parts: list[PromptPart], state: State, steps: int) -> State:
    """Read the next `steps` tokens of each part; return the state after them."""
    spans = [slice(part.read, part.read + steps) for part in parts]
    inputs = np.stack([part.inputs[span] for part, span in zip(parts, spans, strict=True)], axis=1)
    last: Array | Logits
    if parts[0].scored:
        logits, state = backend.distribution(inputs, state)
        _add_figures(backend, parts, spans, logits)
        last = logits[-1]
    else:
        last, state = backend.logits(inputs, state)
    for row, part in enumerate(parts):
        part.read += steps
        if not part.left:
            own = np.asarray(last[row : row + 1], np.float64)
            part.after = Position(logits=own, state=select_rows(state, [row]))
    return state


def _add_figures(
    backend: Backend, parts: list[PromptPart], spans: list[slice], logits: Array | Logits
) -> None:
    """Add the figures of the tokens after the inputs in these spans; logits are (T, B, V)."""
    own = np.full((logits.shape[1], logits.shape[0]), EOS, np.int64)
    for row, (part, span) in enumerate(zip(parts, spans, strict=True)):
        targets = part.targets[span]
        own[row, : len(targets)] = targets
    figures = token_figures(backend, logits.swapaxes(0, 1), own, [part.top for part in parts])
    for part, span, new in zip(parts, spans, figures, strict=True):
        part.figures += new[: len(part.targets[span])]


def token_figures(
    backend: Backend, logits: Array | Logits, own: Ids, tops: Sequence[int]
) -> list[list[Figures]]:
    """Return the figures of tokens (B, T) by the logits (B, T, V) in their places.

    `tops` has the number of alternatives of each row. The token itself is always among them.
    """
    size = logits.shape[-1]
    log_p = backend.log_probabilities(logits).reshape(-1, size)
    ids = likeliest(log_p, min(max(tops), size))
    others = -np.take_along_axis(log_p, ids, axis=1)
    losses = -log_p[np.arange(own.size), own.ravel()]
    each = zip(own.ravel().tolist(), losses.tolist(), ids.tolist(), others.tolist(), strict=True)
    steps = own.shape[1]
    return [[_figures(*token, top) for token in itertools.islice(each, steps)] for top in tops]


def _figures(index: int, nats: float, ids: list[int], others: list[float], top: int) -> Figures:
    """Return the figures of a token by the likeliest ids and their nats."""
    pairs = tuple(zip(ids[:top], others, strict=False))
    return nats, pairs if index in ids[:top] else (*pairs, (index, nats))
