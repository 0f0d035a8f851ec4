"""Generation: text drawn token by token, the state carried, several samples side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from charlm.errors import UsageError
from charlm.inference.samplers import (
    Sampling,
    draw,
    log_probabilities,
    next_distribution,
    probabilities,
)
from charlm.nn.model import RecurrentLanguageModel, State
from charlm.text.tokenizer_json import EOS, UNK
from charlm.text.vocabulary import UNKNOWN_TEXT, Vocabulary

READ_AT_ONCE = 4096
"""Tokens of a prompt read at once; bounds the memory, changes no result."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Newly drawn text of one sample; `nats` is -ln P of its tokens under the model itself."""

    sample: int
    text: str
    tokens: int = 0
    nats: float = 0.0


@dataclass(frozen=True, kw_only=True)
class NextToken:
    """One possible continuation and its probability."""

    id: int
    token: str
    probability: float


@torch.inference_mode()
def read_prompt(
    model: RecurrentLanguageModel, ids: NDArray[np.int64], state: State | None = None
) -> tuple[NDArray[np.float64], State]:
    """Logits of the token after a prompt, shape (1, V), and the state there.

    Without a state the prompt starts a document: zero state and start symbol. With one, the
    prompt must hold at least one token.
    """
    if state is None:
        ids = np.concatenate([[EOS], ids])
    elif len(ids) == 0:
        raise UsageError("a state was given without tokens; expected at least one token to read")
    device = model.output.weight.device
    for start in range(0, len(ids), READ_AT_ONCE):
        part = torch.from_numpy(np.asarray(ids[start : start + READ_AT_ONCE], np.int64))
        logits, state = model(part[:, None].to(device), state)
    assert state is not None
    return logits[-1].float().double().cpu().numpy(), state


def next_tokens(
    model: RecurrentLanguageModel, vocabulary: Vocabulary, prompt: str, top: int
) -> list[NextToken]:
    """The likeliest tokens after a prompt, with their probabilities, likeliest first."""
    logits, _ = read_prompt(model, vocabulary.encode(prompt).astype(np.int64))
    chances = probabilities(logits)[0]
    order = np.argsort(-chances, kind="stable")[:top]
    return [
        NextToken(
            id=int(index),
            token=vocabulary.token_text(int(index)),
            probability=float(chances[index]),
        )
        for index in order
    ]


@torch.inference_mode()
def generate(
    model: RecurrentLanguageModel,
    vocabulary: Vocabulary,
    *,
    length: int,
    prompt: str = "",
    sampling: Sampling | None = None,
    samples: int = 1,
    seed: int = 0,
    until_eos: bool = False,
    stop: str = "",
    allow_unk: bool = False,
    unk_text: str = UNKNOWN_TEXT,
    documents: bool = False,
) -> Iterator[Piece]:
    """Pieces of text as they are drawn, at most `length` tokens for each of `samples` samples.

    Sample i draws from a generator of its own, seeded by (seed, i), so its text does not depend
    on how many others there are. A sample ends early at EOS (`until_eos`) or just before the text
    `stop`; otherwise EOS shows as a line end, and with `documents` (the model was trained on
    documents, not on a stream) the next one begins from the zero state. UNK is drawn only with
    `allow_unk`.
    Raises UsageError for a negative length or no samples.
    """
    if length < 0 or samples < 1 or seed < 0:
        raise UsageError(
            f"length is {length}, samples {samples}, seed {seed}; expected 0 or more, 1 or more, "
            "and 0 or more"
        )
    sampling = sampling or Sampling()
    logits, state = read_prompt(model, vocabulary.encode(prompt).astype(np.int64))
    logits = np.repeat(logits, samples, axis=0)
    state = tuple(tuple(part.repeat(samples, 1) for part in layer) for layer in state)
    texts = [_Text(vocabulary, prompt, unk_text, stop) for _ in range(samples)]
    generators = [np.random.default_rng([seed, number]) for number in range(samples)]
    alive = list(range(samples))
    for _ in range(length):
        usable = logits if allow_unk else _without_unk(logits)
        uniform = np.array([generators[number].random() for number in alive])
        ids = draw(next_distribution(usable, sampling), uniform)
        nats = -log_probabilities(logits)[np.arange(len(ids)), ids]
        keep = []
        for row, number in enumerate(alive):
            text, going = texts[number].add(int(ids[row]), until_eos)
            yield Piece(sample=number, text=text, tokens=1, nats=float(nats[row]))
            if going:
                keep.append(row)
        if not keep:
            return
        alive = [alive[row] for row in keep]
        logits, state = _step(model, ids[keep], state, keep, documents)
    for number in alive:
        yield Piece(sample=number, text=texts[number].finish())


def _step(
    model: RecurrentLanguageModel,
    ids: NDArray[np.int64],
    state: State,
    rows: Sequence[int],
    documents: bool,
) -> tuple[NDArray[np.float64], State]:
    """Logits (n, V) after one more token of the rows that go on, and their state.

    With `documents`, a row that has drawn EOS begins anew from the zero state.
    """
    device = model.output.weight.device
    if len(rows) < state[0][0].shape[0]:
        chosen = torch.tensor(list(rows), device=device)
        state = tuple(tuple(part[chosen] for part in layer) for layer in state)
    tokens = torch.from_numpy(ids).to(device)
    if documents:
        going = (tokens != EOS)[:, None]
        state = tuple(tuple(part * going for part in layer) for layer in state)
    logits, state = model(tokens[None, :], state)
    return logits[0].float().double().cpu().numpy(), state


def _without_unk(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    masked = logits.copy()
    masked[:, UNK] = -np.inf
    return masked


class _Text:
    """The text of one sample: decodes ids, holds back what may be the beginning of `stop`."""

    def __init__(self, vocabulary: Vocabulary, prompt: str, unk_text: str, stop: str) -> None:
        self.decoder = vocabulary.decoder(unk_text)
        for index in vocabulary.encode(prompt):
            self.decoder.feed(int(index))
        self.stop, self.held = stop, ""

    def add(self, index: int, until_eos: bool) -> tuple[str, bool]:
        """Text that is sure now, and whether the sample goes on."""
        if index == EOS and until_eos:
            return self.finish(), False
        self.held += self.decoder.feed(index)
        if not self.stop:
            return self._release(len(self.held)), True
        found = self.held.find(self.stop)
        if found >= 0:
            return self._release(found), False
        return self._release(len(self.held) - self._partial()), True

    def finish(self) -> str:
        """What is left when the sample ends."""
        rest = self.held + self.decoder.finish()
        cut = rest.find(self.stop) if self.stop else -1
        return rest if cut < 0 else rest[:cut]

    def _release(self, count: int) -> str:
        text, self.held = self.held[:count], self.held[count:]
        return text

    def _partial(self) -> int:
        """Length of the longest end of the held text that could become `stop`."""
        longest = min(len(self.stop) - 1, len(self.held))
        return next((n for n in range(longest, 0, -1) if self.held.endswith(self.stop[:n])), 0)
