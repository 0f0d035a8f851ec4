"""Generation: sample text token by token, several samples side by side."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import (
    Array,
    Backend,
    Ids,
    Logits,
    Nats,
    State,
    join_rows,
    select_rows,
)
from charlm.backends.softmax import log_softmax, softmax
from charlm.errors import UsageError, check_count, named
from charlm.inference import samplers
from charlm.inference.sample_text import SampleText
from charlm.inference.samplers import Sampling, SamplingColumns
from charlm.phases import advance, phase
from charlm.text.boundaries import STREAM, Boundaries
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.tokenizer_json import EOS, UNK, UNKNOWN_TEXT
from charlm.text.tokenizers.vocabulary import Vocabulary

READ_AT_ONCE = 4096
"""Tokens of a prompt read at a time; limits the memory, without an effect on results."""
MAX_STEPS = 64
"""Maximum tokens per call of the backend; the first calls sample fewer, so text appears soon."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """New text of one sample; `nats` is -ln P of its tokens, before temperature and other rules.

    `id` is the sampled token, or None for the rest of a text at its end.
    """

    sample: int
    text: str
    tokens: int = 0
    nats: float = 0.0
    id: int | None = None

    def __repr__(self) -> str:
        return f"Piece({self.text!r}, sample {self.sample}, {self.nats:.3f} nats)"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A complete sample: its text, tokens and nats, and the id of its last token."""

    text: str
    tokens: int
    nats: float
    last: int | None


def gathered(pieces: Iterable[Piece], samples: int) -> list[Sample]:
    """Join the pieces of samples that were generated side by side."""
    by_sample: list[list[Piece]] = [[] for _ in range(samples)]
    for piece in pieces:
        by_sample[piece.sample].append(piece)
    return [
        Sample(
            text="".join(piece.text for piece in own),
            tokens=sum(piece.tokens for piece in own),
            nats=sum(piece.nats for piece in own),
            last=next((piece.id for piece in reversed(own) if piece.id is not None), None),
        )
        for own in by_sample
    ]


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """One possible continuation and its probability."""

    id: int
    token: str
    probability: float

    def __repr__(self) -> str:
        return f"NextToken({self.token!r}, {self.probability:.4f})"


@dataclass(frozen=True, kw_only=True)
class Start:
    """Point in a text from which a sample continues.

    `ids` are the tokens so far. `hidden` is the state before the last of them, or None if the next
    token begins a document. `used` is the number of tokens that were sampled with the seed before,
    so that a sample in parts equals the whole.
    """

    ids: Sequence[int] = ()
    hidden: State | None = None
    used: int = 0

    def logits(self, backend: Backend) -> tuple[Logits, State]:
        """Return the logits of the next token, shape (1, V), and the state there."""
        last = self.ids[-1:] if self.hidden is not None else ()
        return read_prompt(backend, np.asarray(last, np.int64), self.hidden)


@runtime_checkable
class Sampler(Protocol):
    """A backend that samples many tokens in one call (see `NativeBackend.sample`)."""

    def sample(
        self,
        logits: Logits,
        state: State,
        uniform: Nats,
        *,
        temperature: float | Nats,
        barred: int = -1,
        restart: int = -1,
        kept: Array | None = None,
    ) -> tuple[Ids, Nats, Logits, State]:
        """Return ids and nats (T, B), and the logits and the state after them."""


def read_prompt(backend: Backend, ids: Ids, state: State | None = None) -> tuple[Logits, State]:
    """Return the logits of the token after a prompt, shape (1, V), and the state there.

    Without a state the prompt starts a document: zero state and start symbol. With a state, the
    prompt must have at least one token.
    """
    if state is None:
        ids, state = np.concatenate([[EOS], ids]), backend.initial_state(1)
    elif len(ids) == 0:
        raise UsageError("a state was given without tokens; expected at least one token to read")
    ids = np.asarray(ids, np.int64)[:, None]
    with phase("reading the prompt", total=len(ids)):
        for start in range(0, len(ids), READ_AT_ONCE):
            part = ids[start : start + READ_AT_ONCE]
            logits, state = backend.logits(part, state)
            advance(len(part))
    return logits, state


def prompt_ids(vocabulary: Vocabulary, prompt: str, boundaries: Boundaries) -> Ids:
    """Return the ids of a prompt that the model reads."""
    return boundaries.open_ids(vocabulary.encode(prompt).astype(np.int64))


def next_tokens(
    backend: Backend,
    vocabulary: Vocabulary,
    prompt: str,
    top: int,
    boundaries: Boundaries = STREAM,
) -> list[NextToken]:
    """Return the `top` most probable tokens after a prompt, most probable first.

    Raises UsageError unless `top` is 1 or more.
    """
    check_count("top", top, 1)
    logits, _ = read_prompt(backend, prompt_ids(vocabulary, prompt, boundaries))
    probabilities = softmax(logits)[0]
    ids = np.argsort(-probabilities, kind="stable")[:top]
    return named_tokens(vocabulary, ids, probabilities[ids])


def named_tokens(vocabulary: Vocabulary, ids: Ids, probabilities: Nats) -> list[NextToken]:
    """Return the tokens with these ids and probabilities."""
    return [
        NextToken(id=index, token=vocabulary.token_text(index), probability=probability)
        for index, probability in zip(ids.tolist(), probabilities.tolist(), strict=True)
    ]


def generate(
    backend: Backend,
    vocabulary: Vocabulary,
    *,
    length: int,
    prompt: str = "",
    sampling: Sampling | None = None,
    samples: int = 1,
    first: int = 0,
    seed: int = 0,
    until_eos: bool = False,
    stop: str | Sequence[str] = "",
    allow_unk: bool = False,
    unk_text: str = UNKNOWN_TEXT,
    boundaries: Boundaries = STREAM,
    start: Start | None = None,
) -> Iterator[Piece]:
    """Generate `samples` samples side by side, each of at most `length` tokens; yield their pieces.

    Sample i has its own generator, seeded by (seed, first + i), so its text does not depend on the
    number of samples. A sample ends early at EOS (`until_eos`) or before the text `stop`, one text
    or several. Otherwise an EOS appears as the separator of `boundaries`, which also decide whether
    the state resets there. UNK is generated only with `allow_unk`. With `start`, the samples
    continue there and `prompt` has no effect. Raises UsageError for a negative length, for no
    samples, and for `stop` with a model that reads backward, whose text is complete at the end.
    """
    check_count("length", length, 0)
    check_count("samples", samples, 1)
    check_count("first", first, 0)
    check_count("seed", seed, 0)
    if stop and isinstance(vocabulary, BackwardVocabulary):
        raise UsageError(f"{named('stop')} with a model that reads backward; leave it out")
    sampling = sampling or Sampling()
    if start is None:
        ids = prompt_ids(vocabulary, prompt, boundaries)
        start, (logits, state) = Start(ids=ids.tolist()), read_prompt(backend, ids)
    else:
        logits, state = start.logits(backend)
    position = Position(logits=logits, state=state).rows([0] * samples)
    barred, restart = -1 if allow_unk else UNK, EOS if boundaries.resets else -1
    stops = [stop] if isinstance(stop, str) else stop
    texts = [
        SampleText(vocabulary, start.ids, stops, boundaries.separator, unk_text)
        for _ in range(samples)
    ]
    generators = [np.random.default_rng([seed, first + number]) for number in range(samples)]
    for generator in generators:
        generator.random(start.used)
    yield from _pieces(
        backend, position, generators, texts, length, until_eos,
        sampling=sampling, barred=barred, restart=restart,
    )  # fmt: skip


def _pieces(
    backend: Backend,
    position: "Position",
    generators: Sequence[np.random.Generator],
    texts: Sequence[SampleText],
    length: int,
    until_eos: bool,
    **rules: Any,
) -> Iterator[Piece]:
    """Yield the pieces of samples side by side from a position on; `rules` as in `sample_steps`."""
    alive = list(range(len(texts)))
    done, at_once = 0, 1
    while done < length and alive:
        steps = min(at_once, length - done)
        uniform = np.stack([generators[number].random(steps) for number in alive], axis=1)
        steps_taken = sample_steps(backend, position, uniform, **rules)
        ids, nats, position = steps_taken.ids, steps_taken.nats, steps_taken.after
        ended: set[int] = set()
        for step, row in product(range(len(ids)), range(len(alive))):
            if row in ended:
                continue
            number, index = alive[row], int(ids[step, row])
            text, continues = texts[number].add(index, until_eos)
            yield Piece(sample=number, text=text, tokens=1, nats=float(nats[step, row]), id=index)
            if not continues:
                ended.add(row)
        done, at_once = done + len(ids), min(2 * at_once, MAX_STEPS)
        if ended:
            kept = [row for row in range(len(alive)) if row not in ended]
            alive, position = [alive[row] for row in kept], position.rows(kept)
    for number in alive:
        yield Piece(sample=number, text=texts[number].finish())


@dataclass(frozen=True, kw_only=True)
class Position:
    """Position of samples: the logits (B, V) of their next tokens, and their state."""

    logits: Logits
    state: State

    def rows(self, rows: list[int]) -> "Position":
        """Return the position of these rows."""
        return Position(logits=self.logits[rows], state=select_rows(self.state, rows))

    @staticmethod
    def joined(positions: Sequence["Position"]) -> "Position":
        """Return the position of all rows of several, in their order."""
        return Position(
            logits=np.concatenate([position.logits for position in positions]),
            state=join_rows([position.state for position in positions]),
        )


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Sampled tokens and their nats, both (T, B), and the position after them.

    `logits` (T, B, V) are those that each token was sampled from, before all rules, if kept.
    """

    ids: Ids
    nats: Nats
    after: Position
    logits: Logits | Array | None = None


def sample_steps(
    backend: Backend,
    position: Position,
    uniform: Nats,
    sampling: Sampling | SamplingColumns,
    barred: int,
    restart: int,
    *,
    bias: Logits | None = None,
    keep: bool = False,
) -> Steps:
    """Sample tokens with uniform numbers (T, B).

    The token `barred` is never sampled, and the state resets after the token `restart` (-1: none).
    `bias` (B, V) is added to the logits; with `keep` the steps have their logits, without it. A
    backend that can sample does plain temperature sampling itself.
    """
    if isinstance(backend, Sampler) and sampling.is_plain and bias is None:
        kept_logits = np.empty((*uniform.shape, backend.vocab_size), np.float32) if keep else None
        ids, nats, logits, state = backend.sample(
            position.logits,
            position.state,
            uniform,
            temperature=np.ravel(sampling.temperature),
            barred=barred,
            restart=restart,
            kept=kept_logits,
        )
        after = Position(logits=logits, state=state)
        return Steps(ids=ids, nats=nats, after=after, logits=kept_logits)
    ids, nats, kept = np.empty(uniform.shape, np.int64), np.empty(uniform.shape), []
    for step, numbers in enumerate(uniform):
        allowed = position.logits.copy() if bias is None else position.logits + bias
        if barred >= 0:
            allowed[:, barred] = -np.inf
        ids[step] = samplers.draw(samplers.next_distribution(allowed, sampling), numbers)
        losses = -log_softmax(position.logits)
        nats[step] = losses[np.arange(len(numbers)), ids[step]]
        kept.append(position.logits)
        state = position.state
        if restart >= 0:
            first = backend.initial_state(len(numbers))
            state = _reset(state, first, ids[step] == restart)
        logits, state = backend.logits(ids[step][None, :], state)
        position = Position(logits=logits, state=state)
    return Steps(ids=ids, nats=nats, after=position, logits=np.stack(kept) if keep else None)


def _reset(state: State, first: State, ended: NDArray[np.bool_]) -> State:
    """Return the state with the first state in the rows (B,) that have ended."""
    return tuple(
        tuple(np.where(ended[:, None], new, old) for new, old in zip(*layers, strict=True))
        for layers in zip(first, state, strict=True)
    )
