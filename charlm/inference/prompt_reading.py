"""Reading of prompts: parts of several prompts side by side, with the figures of their tokens."""

from collections.abc import Sequence

import numpy as np

from charlm.backends.interface import Backend, Ids, Logits
from charlm.inference.generation import Position
from charlm.inference.samplers import likeliest, log_probabilities
from charlm.text.tokenizers.tokenizer_json import EOS

Alternatives = tuple[tuple[int, float], ...]
"""Ids with their nats, the likeliest first."""


class PromptPart:
    """Part of a prompt that is read from the initial state and start symbol.

    `scored` keeps the nats of each token and its `top` alternatives in `figures`. After the `last`
    part comes a sample, so its last token is read too; `after` is the position there.
    """

    def __init__(self, ids: Ids, *, scored: bool, top: int, last: bool) -> None:
        inputs = np.concatenate([[EOS], ids])
        self.inputs: Ids = inputs if last else inputs[:-1]
        self.targets, self.scored, self.top = ids, scored, top
        self.read = 0
        self.after: Position | None = None
        self.figures: list[tuple[float, Alternatives]] = []

    @property
    def left(self) -> int:
        """Number of tokens that are still to read."""
        return len(self.inputs) - self.read

    @property
    def done(self) -> bool:
        """True if all tokens are read."""
        return self.left == 0


def read_parts(backend: Backend, parts: Sequence[PromptPart], budget: int) -> None:
    """Read at most `budget` tokens of parts, the first ones first."""
    for part in parts:
        if budget <= 0:
            return
        count = min(part.left, budget)
        _read_one(backend, part, count)
        budget -= count


def _read_one(backend: Backend, part: PromptPart, count: int) -> None:
    if not count:
        return
    begin, end = part.read, part.read + count
    state = part.after.state if part.after else backend.initial_state(1)
    inputs = part.inputs[begin:end, None]
    if part.scored:
        targets = part.targets[begin:end]
        rows, after = backend.distribution(inputs, state)
        logits = rows[:, 0].astype(np.float64)
        part.figures += likeliest_losses(logits[: len(targets)], targets, part.top)
        part.after = Position(logits=logits[-1:], state=after)
    else:
        logits, after = backend.logits(inputs, state)
        part.after = Position(logits=logits, state=after)
    part.read = end


def likeliest_losses(logits: Logits, own: Ids, top: int) -> list[tuple[float, Alternatives]]:
    """Return the nats of tokens (N,) by logits (N, V), with the `top` likeliest and their nats.

    The token itself is always among the alternatives.
    """
    losses = -log_probabilities(np.asarray(logits, np.float64))
    top = min(top, losses.shape[1])
    ids = likeliest(-losses, top)
    best = np.take_along_axis(losses, ids, axis=1)
    own_losses = losses[np.arange(len(own)), own]
    figures: list[tuple[float, Alternatives]] = []
    rows = zip(own.tolist(), own_losses.tolist(), ids.tolist(), best.tolist(), strict=True)
    for index, nats, others, values in rows:
        pairs = tuple(zip(others, values, strict=True))
        figures.append((nats, pairs if index in others else (*pairs, (index, nats))))
    return figures
