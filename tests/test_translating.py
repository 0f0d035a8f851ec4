"""Translation by every engine: equal to torch, text by text; unknown words are copied."""

from functools import cache

import numpy as np
import pytest
import torch
from helpers import seeded, vocabulary_of

from charlm.backends.interface import Backend
from charlm.backends.kernel_library import chosen_variant
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.translator_weights import DECODER_LAYERS, decoder_settings
from charlm.backends.weights import encoder_weights
from charlm.config.model import ModelSettings
from charlm.inference.search import Found, Steps, forced_nats, search_texts
from charlm.inference.translating import ArraySteps, Languages, Text, filled, translations
from charlm.nn.translator import Translator
from charlm.nn.translator_steps import TorchSteps
from charlm.runs.engines import compiled_backend
from charlm.text.encoded import EncodedText
from charlm.text.groups import padded
from charlm.text.labelled import encode_texts
from charlm.text.tokenizers.tokenizer_json import EOS, UNK

ENGLISH, GERMAN = "the dog saw a red cat and ran", "der Hund sah eine rote Katze und lief"
TEXTS = ["the dog ran", "a cat", "the red dog and the red cat ran and ran and ran", "odd", "a cat"]
NATIVE = ["native"] if chosen_variant() else []
ENGINES = ["numpy", "torch", *NATIVE]
CASES = [("lstm", True, 2), ("gru", True, 1), ("rnn", False, 1), ("lstm", False, 1)]


@cache
def languages(unit: str = "word") -> Languages:
    """Vocabularies of a few words, or of their letters."""
    rules = {"words": "bare"} if unit == "word" else {}
    return Languages(
        source=vocabulary_of(ENGLISH, unit, **rules), target=vocabulary_of(GERMAN, unit, **rules)
    )


@cache
def model_of(cell: str = "lstm", both_ways: bool = True, layers: int = 1) -> Translator:
    """A translator with random weights, sure of itself."""
    settings = ModelSettings(
        cell=cell, num_layers=layers, hidden_size=5, embedding_size=4, tie_weights=False
    )
    sizes = len(languages().source), len(languages().target)
    model = Translator(settings, *sizes, both_ways).requires_grad_(False)
    model.reset_parameters(seeded(2))
    for tensor in model.parameters():
        tensor.mul_(3.0)
    model.head.bias.normal_(generator=seeded(1))
    return model


def steps_of(engine: str, model: Translator) -> Steps:
    """The steps of a model by one engine."""
    if engine == "torch":
        return TorchSteps(model)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    both_ways = model.backward is not None

    def layers(prefix: str) -> Backend:
        own = decoder_settings(model.settings, both_ways)
        plain = encoder_weights(own if prefix == DECODER_LAYERS else model.settings, arrays, prefix)
        if engine == "numpy":
            return NumpyBackend(plain)
        return compiled_backend(plain, "fp32", 1, lambda: plain, required=True)

    return ArraySteps.of(arrays, both_ways, layers)


def encoded(texts: list[str]) -> EncodedText:
    """Texts as sources."""
    return encode_texts(texts, languages().source, 1000, "start")


def torch_logs(model: Translator, text: str, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """ln P (T', V') at each token of an output, and the attention, by the model at once."""
    inputs, lengths = map(torch.from_numpy, padded(encoded([text]), np.array([0])))
    memory, state = model.memory(inputs, lengths)
    read, weights, _ = model.decode(torch.tensor([[EOS, *ids[:-1]]]).T, state, memory, lengths)
    return model.logits(read).log_softmax(-1)[:, 0].numpy(), weights[:, 0].numpy()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_outputs_have_the_likelihood_that_the_model_gives_them(
    case: tuple[str, bool, int], engine: str
) -> None:
    """Step by step with beams = teacher forcing in torch; attention too."""
    model = model_of(*case)
    steps = steps_of(engine, model)
    assert steps.name.startswith(engine)
    for row, found in search_texts(steps, encoded(TEXTS), 3):
        text = TEXTS[row]
        logs, weights = torch_logs(model, text, found.ids.tolist())
        own = logs[np.arange(len(found.ids)), found.ids]
        assert np.abs(found.log_p - own).max() < 1e-5
        assert np.abs(found.weights - weights).max() < 1e-5
        assert np.abs(found.weights.sum(axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("engine", ENGINES)
def test_forced_nats_are_those_of_the_model(engine: str) -> None:
    """The nats of given targets, whatever is beside them."""
    model = model_of("lstm", True, 2)
    goals = ["der Hund lief", "eine Katze", "rote Katze und Hund", "sah und sah", "eine Katze"]
    targets = encode_texts(goals, languages().target, 1000, "start")
    nats = forced_nats(steps_of(engine, model), encoded(TEXTS), targets)
    for row, (text, end) in enumerate(zip(TEXTS, targets.ends, strict=True)):
        begin = int(targets.ends[row - 1]) if row else 0
        ids = targets.ids[begin:end].tolist()
        logs = torch_logs(model, text, ids)[0]
        assert nats[row] == pytest.approx(-logs[np.arange(len(ids)), ids].sum(), abs=1e-4)


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_text_is_translated_alone_as_among_others(engine: str, beam: int) -> None:
    """Padding is not read, neither by the layers nor by the attention."""
    steps = steps_of(engine, model_of("lstm", True, 2))
    together = translations(steps, languages(), TEXTS, encoded(TEXTS), beam)
    for text, found in zip(TEXTS, together, strict=True):
        alone = translations(steps, languages(), [text], encoded([text]), beam)[0]
        assert found.text == alone.text and found.source == alone.source
        assert found.probability == pytest.approx(alone.probability, abs=1e-6)
        assert np.abs(found.attention - alone.attention).max() < 1e-5
        assert found.attention.shape == (len(found.tokens), len(found.source))


def read(unit: str, text: str, ids: list[int], looks: list[int]) -> Text:
    """The translation by an output with these ids, each of which looks at one step."""
    both = languages(unit)
    source = encode_texts([text], both.source, 1000, "start")
    weights = np.full((len(ids), len(source.ids)), 0.01, np.float32)
    weights[np.arange(len(ids)), looks] = 0.9
    logs = np.log(np.full(len(ids), 0.5))
    return both.read(text, source, 0, Found(np.array(ids), logs, weights))


def test_unknown_words_are_those_of_the_source() -> None:
    """UNK becomes the blank-separated word that it looks at, never the start symbol."""
    sah, und = (languages().target.ids[word] for word in ("sah", "und"))
    found = read("word", "Ann-Eve saw, Bob", [UNK, sah, UNK, und, UNK, EOS], [1, 4, 6, 0, 5, 0])
    assert languages().source.pieces("Ann-Eve saw, Bob") == ["Ann", "-", "Eve", "saw", ",", "Bob"]
    assert found.text == "Ann-Eve sah Bob und saw," and found.copied == 3
    assert [token.source for token in found.tokens[:3]] == ["Ann", "saw", "Bob"]
    assert found.tokens[0].text == "<unk>" and found.tokens[-1] == ("<eos>", 0.5, "<eos>")
    assert found.source[:3] == ("<eos>", "Ann", "-")
    assert found.probability == pytest.approx(0.5)
    at_start = read("word", "Bob saw", [UNK, EOS], [0, 0])
    assert at_start.text == "Bob" and at_start.tokens[0].source == "<eos>"


def test_unknown_characters_are_those_of_the_source() -> None:
    """By characters one character is copied, also where the output was cut without EOS."""
    und = [languages("char").target.ids[letter] for letter in "und "]
    found = read("char", "a7 x", [*und, UNK, UNK], [1, 1, 1, 1, 2, 4])
    assert found.text == "und 7x" and len(found.tokens) == 6
    assert filled("a\0b\0c", ["x"]) == "axbc"


def test_blanks_at_the_ends_of_outputs_are_cut() -> None:
    """Byte-pair tokens begin with a blank or not; an empty output is empty."""
    letters = languages("char").target.ids
    assert read("char", "a", [letters[" "], letters["u"], letters[" "], EOS], [1] * 4).text == "u"
    assert read("char", "a", [EOS], [1]).text == ""
