"""Translations of texts, computed by backends; no torch.

Letters as in `search`: B texts, K beams, T and T' steps of source and output, D memory, V' entries.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from charlm.backends.interface import Array, Backend, State
from charlm.backends.translator_weights import DECODER, DECODER_LAYERS
from charlm.backends.weights import BACKWARD, HEAD
from charlm.inference.labelling import hidden_vectors, reversed_within
from charlm.inference.search import BEAM, Found, Memory, Steps, search_texts
from charlm.products import product
from charlm.text.batches import Int64
from charlm.text.encoded import EncodedText
from charlm.text.groups import padded
from charlm.text.tokenizers.spans import token_spans
from charlm.text.tokenizers.tokenizer_json import EOS, EOS_TOKEN, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

_HOLE = "\0"


class Token(NamedTuple):
    """One token of an output, its probability, and the piece of the source that it looks at most.

    The last one is `<eos>`, unless the output was cut at its maximum length.
    """

    text: str
    probability: float
    source: str


class Text(NamedTuple):
    """The translation of a text.

    `attention` has a row for each token and a column for each piece of the source, of which the
    first is the start symbol; rows sum to one. `copied` counts unknown tokens that were replaced by
    the word of the source that they look at most. A text without words has no tokens.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    source: tuple[str, ...] = ()
    attention: Array = np.empty((0, 0), np.float32)
    copied: int = 0

    def __repr__(self) -> str:
        return f"Text({self.text!r}, probability {self.probability:.3f})"

    @property
    def probability(self) -> float:
        """Probability of a token: the geometric mean over all tokens; 1 without any."""
        logs = [np.log(max(token.probability, 1e-300)) for token in self.tokens]
        return float(np.exp(np.mean(logs))) if logs else 1.0


NOTHING = Text("")
"""Translation of a text without words."""


class Linear(NamedTuple):
    """Weights (outputs, inputs) and biases (outputs,) of a layer."""

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        """Return W x + b for x (..., inputs)."""
        rows = x.reshape(-1, x.shape[-1])  # one product, whatever the number of axes
        result = product(rows, self.weight.T)
        result += self.bias
        return result.reshape(*x.shape[:-1], len(self.bias))


@dataclass(frozen=True, kw_only=True)
class ArraySteps:
    """A translator computed by backends: the encoders of the source, and the decoder's layers.

    `bridge` maps the ends of the source to the first state, `combine` hidden vector and context to
    what `output` reads. Of the backends only hidden vectors are used.
    """

    halves: tuple[Backend, ...]
    decoder: Backend
    bridge: Linear
    combine: Linear
    output: Linear

    @classmethod
    def of(
        cls, arrays: Mapping[str, Array], both_ways: bool, layers: Callable[[str], Backend]
    ) -> "ArraySteps":
        """Return the steps of a translator with these tensors.

        `layers` gives the backend of the layers whose tensors have a prefix.
        """
        bridge, combine = (
            Linear(arrays[f"{name}.weight"], arrays[f"{name}.bias"])
            for name in (f"{DECODER}bridge", f"{HEAD}combine")
        )
        return cls(
            halves=tuple(map(layers, ("", BACKWARD)[: 1 + both_ways])),
            decoder=layers(DECODER_LAYERS),
            bridge=bridge,
            combine=combine,
            output=Linear(arrays[f"{DECODER_LAYERS}embedding.weight"], arrays[f"{HEAD}bias"]),
        )

    @property
    def name(self) -> str:
        """Name of the backends."""
        return self.decoder.name

    def begin(self, text: EncodedText, rows: Int64) -> Memory:
        """See `Steps.begin`; the forward half of the vectors comes first."""
        inputs, lengths = padded(text, rows)
        forward = hidden_vectors(self.halves[0], inputs)  # (T, B, H)
        sides = [forward]
        ends = [forward[lengths - 1, np.arange(len(rows))]]
        for half in self.halves[1:]:
            backward = hidden_vectors(half, reversed_within(inputs, lengths))
            ends.append(backward[lengths - 1, np.arange(len(rows))])
            sides.append(reversed_within(backward, lengths))
        vectors = np.concatenate(sides, axis=2).swapaxes(0, 1)  # (B, T, D)
        tensors = np.tanh(self.bridge(np.concatenate(ends, axis=1)))
        return np.ascontiguousarray(vectors), lengths, self._state(tensors)

    def _state(self, tensors: Array) -> State:
        """Cut vectors (B, layers x tensors x D) into the state of each layer."""
        like = self.decoder.initial_state(1)
        parts = iter(np.split(tensors, sum(map(len, like)), axis=1))
        return tuple(tuple(np.ascontiguousarray(next(parts)) for _ in layer) for layer in like)

    def step(
        self, ids: Int64, state: State, vectors: Array, steps: Int64
    ) -> tuple[Array, Array, State]:
        """See `Steps.step`."""
        signals, after = self.decoder.trace(ids.reshape(1, -1), state, ("h",))
        hidden = signals["h"][-1].reshape(*ids.shape, -1)  # (B, K, D)
        scores = product(hidden, vectors.swapaxes(1, 2))  # (B, K, T)
        inside = np.arange(vectors.shape[1]) < steps[:, np.newaxis, np.newaxis]
        scores = np.where(inside, scores, np.float32(-np.inf))
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        weights /= weights.sum(axis=2, keepdims=True)
        joined = np.concatenate([hidden, product(weights, vectors)], axis=2)
        logits = self.output(np.tanh(self.combine(joined)))  # (B, K, V')
        logits -= logits.max(axis=2, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=2, keepdims=True))
        return logits, weights, after


@dataclass(frozen=True, kw_only=True)
class Languages:
    """The vocabularies of a translator, between texts and ids."""

    source: Vocabulary
    target: Vocabulary

    def read(self, text: str, encoded: EncodedText, row: int, found: Found) -> Text:
        """Return the translation of a text, the document `row`, from its output."""
        begin = int(encoded.ends[row - 1]) if row else 0
        ids = encoded.ids[begin : int(encoded.ends[row]) - 1]
        starts, ends = token_spans(self.source, text, ids)
        pieces = (EOS_TOKEN, *(text[a:b] for a, b in zip(starts, ends, strict=True)))
        seen = found.weights.argmax(axis=1).tolist()
        tokens = tuple(
            Token(self.target.token_text(index), float(np.exp(log_p)), pieces[at])
            for index, log_p, at in zip(found.ids.tolist(), found.log_p, seen, strict=True)
        )
        written = found.ids[found.ids != EOS] if found.ids[-1:].tolist() == [EOS] else found.ids
        unknown = np.flatnonzero(written == UNK)
        words = self._words(text, starts, found.weights[unknown])
        return Text(
            text=filled(self.target.decode(written, unk_text=_HOLE), words).strip(),
            tokens=tokens,
            source=pieces,
            attention=found.weights,
            copied=len(unknown),
        )

    def _words(self, text: str, starts: Int64, weights: Array) -> list[str]:
        """Return what each row of attention looks at most: a word, or a character of such a unit.

        Words are separated by blanks. The start symbol is left out.
        """
        if not len(starts):
            return [""] * len(weights)
        places = starts[weights[:, 1:].argmax(axis=1)].tolist()
        if self.target.spec.letter:
            return [text[at] for at in places]
        spans = [match.span() for match in re.finditer(r"\S+", text)]
        return [next((text[a:b] for a, b in spans if at < b), "") for at in places]


def filled(text: str, pieces: Sequence[str]) -> str:
    """Return a decoded text with its holes filled by these pieces, in their order."""
    rest = iter(pieces)
    return re.sub(_HOLE, lambda _: next(rest, ""), text)


def translations(
    steps: Steps,
    languages: Languages,
    texts: Sequence[str],
    encoded: EncodedText,
    beam: int = BEAM,
    *,
    with_attention: bool = True,
) -> list[Text]:
    """Return the translation of each text, a document of `encoded`.

    `with_attention` keeps the attention of all texts in memory.
    """
    answers = {}
    for row, found in search_texts(steps, encoded, beam):
        answer = languages.read(texts[row], encoded, row, found)
        answers[row] = answer if with_attention else answer._replace(attention=NOTHING.attention)
    return [answers[row] for row in range(len(texts))]
