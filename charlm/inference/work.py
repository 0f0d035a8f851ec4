"""Work for `Rows`: a request for samples or figures, its progress, and the events that answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from charlm.backends.interface import Ids
from charlm.errors import EnvironmentFailure, UsageError, check_count
from charlm.inference.samplers import Sampling
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary

Alternatives = tuple[tuple[int, float], ...]
"""Ids with their nats, the likeliest first."""


class QueueFull(EnvironmentFailure):
    """Work that was refused because too much is waiting."""


class Stopping(EnvironmentFailure):
    """Work that was refused or ended because the rows are being stopped."""

    def __init__(
        self, message: str = "this server is stopping; expected a running one. Try again later"
    ) -> None:
        super().__init__(message)


class TokenFigures(NamedTuple):
    """A token with its figures under the model, before temperature and sampling rules.

    `nats` is -ln P, or None for the EOS with which a prompt begins. `alternatives` are the
    likeliest tokens in its place, ids with nats, the likeliest first; the token itself is always
    among them. `offset` is the number of characters before it in the text of its prompt or row.
    """

    id: int
    nats: float | None
    alternatives: Alternatives
    offset: int


@dataclass(frozen=True, slots=True)
class PromptFigures:
    """Figures of all tokens of a prompt; an EOS with which it begins has no text."""

    prompt: int
    tokens: list[TokenFigures]


@dataclass(frozen=True, slots=True)
class NewText:
    """New text of a row, with the tokens that begin in it and the number of tokens sampled for it.

    The number of a row is `prompt * samples + sample`. `count` includes EOS and the tokens of a
    stop text; `tokens` (empty without `Work.top`) has the EOS, but no token that begins in the stop
    text. `reason` is "stop" or "length" in the last event of the row, else None.
    """

    row: int
    text: str
    tokens: list[TokenFigures]
    count: int
    reason: str | None
    stop_text: str | None


@dataclass(frozen=True, slots=True)
class Finished:
    """End of a work; its last event."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Failure of a work; its last event."""

    error: Exception


Event = PromptFigures | NewText | Finished | Failed
Listen = Callable[[Event], None]
"""Function that takes the events of a work, on the worker thread. It must not block."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Request for samples after prompts, or for the figures of prompts, or both.

    Prompts are token ids and may begin with an EOS or have some inside; the state resets after an
    EOS if the model was trained so. Sample i of each prompt has a generator seeded by (seed, i).
    `bias` is added to logits, by id. A row ends at EOS (`until_eos`) or before one of the texts
    `stop`. `top` is the number of alternatives that are kept per token; None keeps no figures.
    """

    prompts: tuple[Ids, ...]
    samples: int = 1
    max_tokens: int = 16
    sampling: Sampling = field(default_factory=Sampling)
    bias: Mapping[int, float] = field(default_factory=dict)
    seed: int = 0
    stop: tuple[str, ...] = ()
    until_eos: bool = True
    top: int | None = None
    score_prompts: bool = False

    def check(self, vocabulary: Vocabulary) -> None:
        """Raise UsageError for values that do not fit each other or the vocabulary."""
        check_count("samples", self.samples, 1)
        check_count("max_tokens", self.max_tokens, 0)
        check_count("top", self.top or 0, 0)
        if not np.isfinite(list(self.bias.values())).all():
            raise UsageError("bias has a value that is not finite; expected numbers")
        size = len(vocabulary)
        for ids in [*self.prompts, np.array(list(self.bias), np.int64)]:
            if len(ids) and (ids.min() < 0 or ids.max() >= size):
                raise UsageError(
                    f"token ids from {ids.min()} to {ids.max()}; expected 0 to {size - 1} "
                    "(token id out of vocabulary)"
                )
        if any(self.stop) and isinstance(vocabulary, BackwardVocabulary):
            raise UsageError("stop with a model that reads backward; leave it out")


class Job:
    """Submitted work and what is left of it.

    `ended` is set when it needs no more rounds, by any thread. A `paused` job has no rows in them.
    """

    def __init__(self, work: Work, listen: Listen) -> None:
        self.work, self.listen = work, listen
        self.ended = self.paused = False
        self.begun = 0  # prompts
        self.prompts_left = len(work.prompts)
        self.rows_left = len(work.prompts) * work.samples

    @property
    def rests(self) -> bool:
        """True if it takes no part in rounds."""
        return self.paused and not self.ended

    @property
    def held_rows(self) -> int:
        """Number of its rows that have begun and not ended."""
        samples = self.work.samples
        return self.rows_left - (len(self.work.prompts) - self.begun) * samples

    def tell(self, event: Event) -> None:
        """Report an event; a work whose listener raises ends."""
        if self.ended:
            return
        try:
            self.listen(event)
        except Exception:
            self.ended = True

    def fail(self, error: Exception) -> None:
        """Report a failure, the last event."""
        self.tell(Failed(error))
        self.ended = True

    def finish_if_done(self) -> None:
        """Report the end once everything is complete."""
        if self.prompts_left == 0 and self.rows_left == 0 and not self.ended:
            self.tell(Finished())
            self.ended = True
