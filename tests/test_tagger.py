"""The tagger: padding, letters of words, reading from both ends, shapes of its file."""

import numpy as np
import pytest
import torch
from helpers import STRUCTURES, seeded, vocabulary_of

from charlm.backends.tagger_weights import tagger_shapes
from charlm.backends.weights import runs_without_torch
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.nn.tagger import Tagger, TorchTagReader
from charlm.text.sentences import Sentences, encode_sentences
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.text.word_batches import word_batch

SENTENCES = [
    ["The", "cat", "sat"], [], ["a", "É🙂 x", "cat"], ["cat"],
    ["A", "dog", "and", "A", "cat", "sat", "there"],
]  # fmt: skip
TEXT = "\n".join(" ".join(words) for words in SENTENCES)
UNITS = {
    "word": {"words": "whitespace", "lowercase": True}, "char": {}, "byte": {},
    "bpe": {"max_size": 300},
}  # fmt: skip
LETTERS = vocabulary_of(TEXT, "char")
KINDS = [*CELLS, *(name for name in STRUCTURES if "mixture" not in name and "tied" not in name)]


def sentences_of(unit: str = "word") -> Sentences:
    return encode_sentences(SENTENCES, vocabulary_of(TEXT, unit, **UNITS[unit]))


def table(**changes) -> dict:
    """Return the table of config.json of a tagger."""
    base = {"name": "tag", "labels": ["B-x", "I-x", "O"], "spans": True, "both_ways": True}
    return base | {"output": "crf", "letter_width": 2, "letters": len(LETTERS)} | changes


def tagger(kind: str = "lstm", entries: int = 300, *, task: dict | None = None, **settings):
    """Return a random tagger with a table of config.json."""
    named = STRUCTURES.get(kind, {"cell": kind})
    if named.get("one_hot"):
        named = named | {"embedding_size": entries}
    values = {"num_layers": 2, "hidden_size": 3, "embedding_size": 4} | named | settings
    model = Tagger.of_task(ModelSettings(**values), entries, task or table())
    model.reset_parameters(seeded())
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim < 2:
                weight.normal_(generator=seeded(1))
    return model


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kind", ["lstm", "gru", "qrnn", "learnt state"])
def test_a_sentence_alone_is_read_as_in_a_batch(unit: str, kind: str) -> None:
    model, sentences = tagger(kind), sentences_of(unit)
    letters = LETTERS if unit == "word" else None
    if letters is None:
        model.characters = None
    together = TorchTagReader(model, letters).features(sentences)
    assert together.shape == (len(sentences.firsts), 6)
    for row in range(sentences.documents):
        batch = word_batch(sentences, np.array([row]), letters=letters)
        alone = model.features(batch).detach().numpy()
        assert alone == pytest.approx(together[sentences.numbers(np.array([row]))], abs=1e-6)


def test_a_split_batch_is_read_as_the_whole() -> None:
    model, sentences = tagger(), sentences_of()
    batch = word_batch(sentences, np.arange(5), letters=LETTERS)
    parts = torch.cat([model.features(part) for part in batch.split(3)])
    assert torch.allclose(parts, model.features(batch), atol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_a_word_is_read_off_after_its_last_token_and_its_first_one(unit: str) -> None:
    model, sentences = tagger(task=table(letter_width=0, letters=0)), sentences_of(unit)
    features = TorchTagReader(model).features(sentences)
    row = 2
    begin, end = sentences.text.ends[row - 1], sentences.text.ends[row]
    ids = torch.tensor([EOS, *sentences.text.ids[begin : end - 1].tolist()])
    forward, _ = super(Tagger, model).forward(ids[:, None])
    backward, _ = model.backward(torch.cat([ids[:1], ids[1:].flip(0)])[:, None])
    for number in sentences.numbers(np.array([row])):
        first, last = sentences.firsts[number] + 1, sentences.lasts[number] + 1
        expected = torch.cat([forward[last, 0], backward[len(ids) - first, 0]])
        assert features[number] == pytest.approx(expected.detach().numpy(), abs=1e-6)


def test_letters_tell_words_apart_that_the_vocabulary_does_not() -> None:
    vocabulary = vocabulary_of(TEXT, "word", **UNITS["word"])
    words = [["The", "a"], ["the", "a"], ["tas", "a"], ["rod", "a"]]
    sentences = encode_sentences(words, vocabulary)
    with_letters = TorchTagReader(tagger(), LETTERS).features(sentences)
    without = TorchTagReader(tagger(task=table(letter_width=0, letters=0))).features(sentences)
    for one, other in ((0, 2), (4, 6)):  # case; unknown words
        assert np.abs(with_letters[one] - with_letters[other]).max() > 1e-4
        assert without[one] == pytest.approx(without[other], abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_shapes_of_the_file_are_those_of_the_model(kind: str) -> None:
    for changes in ({}, {"both_ways": False, "output": "softmax", "letter_width": 0, "letters": 0}):
        odd = {"letter_width": 0, "letters": 0} if kind == "one-hot" else {}
        task = table(**changes | odd)
        model = tagger(kind, 5, task=task)
        if runs_without_torch(model.settings):
            shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
            assert tagger_shapes(model.settings, 5, task) == shapes
        inputs = word_batch(sentences_of(), np.arange(5), letters=LETTERS)
        inputs.inputs[:] = np.minimum(inputs.inputs, 4)
        assert model.features(inputs).isfinite().all()


def test_illegal_steps_are_not_saved_but_scored() -> None:
    model = tagger()
    assert "head.legal" not in model.state_dict()
    between, first, last = model.head.steps()
    assert between[2, 1] == first[1] == -1e4 and last.abs().max() < 100.0
    assert between[0, 1] == model.head.transitions[0, 1]
