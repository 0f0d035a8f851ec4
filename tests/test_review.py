"""Review of a run: the right sentence for each curve, and what was memorised."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers import encoded_documents, encoded_stream, engine, tiny_model, vocabulary_of

from charlm.errors import naming
from charlm.inference.generation import Piece
from charlm.text.boundaries import Boundaries
from charlm.text.dataset import Dataset
from charlm.training import review
from charlm.training.fit import Course, judged
from charlm.training.review import SAMPLE_TOKENS, language_fit, memory_of

TEXT = "abcde" * 200


@pytest.fixture(autouse=True)
def usual_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Generate as much text as users do."""
    monkeypatch.setattr(review, "SAMPLE_TOKENS", SAMPLE_TOKENS)


FALLING = [9.0, 7.0, 6.0, 5.9]


def diagnosis(
    train: float,
    valid: float | None,
    validations: list[float],
    passes: float,
    dropout: float,
    ngrams: float | None = None,
) -> list[str]:
    """Return the sentences about a language model; validations are equally far apart."""
    best = min(range(len(validations)), key=validations.__getitem__, default=0)
    course = Course(
        passes=passes, best_at=(best + 1) / max(len(validations), 1), validations=validations,
        dropout=dropout,
    )  # fmt: skip
    return judged(language_fit(train, valid, ngrams, course))


@pytest.mark.parametrize(
    ("train", "valid", "validations", "sentence", "advice"),
    [
        (1.0, 1.3, [9.0, 6.0, 5.0, 5.2, 5.5],
         "over-fitted: validation was best after 60 % of the run and got worse since (1.000",
         "more text, then more dropout (dropout 0.35); 1.8 of 3.0 passes were enough"),
        (1.0, 1.3, FALLING, "over-fitted: the network does much better on training text than on",
         "more text, then more dropout"),
        (1.4, 1.42, FALLING, "under-fitted: the network is hardly better on training text than",
         "less dropout, then more time"),
        (1.4, 1.55, FALLING, "well fitted (1.400 nats/token on training text, 1.550 on new",
         "more time (minutes), or more text"),
    ],
)  # fmt: skip
def test_each_learning_curve_has_its_diagnosis(train, valid, validations, sentence, advice) -> None:
    first, second = diagnosis(train, valid, validations, passes=3.0, dropout=0.2)
    assert sentence in first
    assert advice in second


def test_a_network_worse_than_its_n_grams_is_not_well_fitted() -> None:
    """The story: 5 passes over 300 characters gave 3.31 nats, 7-grams 1.64: "well fitted"."""
    first, second, third = diagnosis(3.115, 3.309, FALLING, passes=5.0, dropout=0.1, ngrams=1.638)
    assert first == "worse than its n-grams (1.638 nats/token, the network 3.309)"
    assert second.startswith("under-fitted (3.115") and "more time" in third
    first, _ = diagnosis(1.4, 1.55, FALLING, passes=5.0, dropout=0.1, ngrams=1.5)
    assert first.startswith("well fitted")


def test_a_text_that_is_predicted_without_error_is_learned() -> None:
    """The story: a file of one repeated letter, with a loss of 0.000, was "under-fitted"."""
    first, second = diagnosis(0.0, 0.0, [9.0, 0.0], passes=70.0, dropout=0.4, ngrams=0.0007)
    assert first.startswith("learned: ") and "more time" not in second
    first, _ = diagnosis(0.0, 1.3, FALLING, passes=3.0, dropout=0.2)
    assert "much better on training text" in first


def test_advice_names_settings_as_the_caller_does() -> None:
    """As flags on the command line, as settings in Python."""
    for names, expected in (({}, "(dropout 0.35)"), ({"dropout": "--dropout"}, "(--dropout 0.35)")):
        with naming(names):
            assert expected in diagnosis(1.0, 1.3, FALLING, passes=3.0, dropout=0.2)[1]


def test_less_than_a_pass_is_never_over_fitted() -> None:
    """The story: fewer passes were advised after 0.8 of one."""
    first, second = diagnosis(3.2, 3.3, [9.0, 6.0, 6.2], passes=0.8, dropout=0.0)
    assert first.startswith("under-fitted: the run has read 80 % of its training text")
    assert "more time" in second


def test_a_slightly_better_early_validation_is_not_overfitting() -> None:
    """The last of a cosine is often within a thousandth of the best."""
    first, _ = diagnosis(1.0, 1.1, [9.0, 5.0, 5.001], passes=1.0, dropout=0.0)
    assert "well fitted" in first


def test_without_held_out_text_nothing_is_claimed() -> None:
    (only,) = diagnosis(1.0, None, [], passes=1.0, dropout=0.0)
    assert "nothing was held out" in only


def dataset(train: str, valid: str | None) -> Dataset:
    vocabulary = vocabulary_of(TEXT)
    parts = [None if text is None else encoded_stream(vocabulary.encode(text).tolist())
             for text in (train, valid)]  # fmt: skip
    assert parts[0] is not None
    return Dataset(
        name="x", vocabulary=vocabulary, train=parts[0], valid=parts[1],
        test=None, fingerprint="",
    )  # fmt: skip


def test_memorised_text_is_found() -> None:
    """A model that can only write abcde..., compared with a text of the same letters."""
    data = dataset(TEXT, "edcba" * 10)
    model = tiny_model("lstm", len(data.vocabulary), num_layers=1, embedding_size=7, hidden_size=7)
    cycle = data.vocabulary.encode("abcdea").tolist()
    with_torch_cycle(model, cycle)
    memory = memory_of(engine(model), data)
    assert memory is not None
    assert memory.overlap >= SAMPLE_TOKENS - 2
    assert memory.text[:10] in TEXT
    assert memory.novel == pytest.approx(0.0, abs=0.02)
    assert memory.novel_held_out == 1.0


def test_memorised_text_may_span_documents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lines abcd again and again: a sample of them is all from the training text."""
    vocabulary = vocabulary_of("abcd\n" * 30)
    line = [*vocabulary.encode("abcd").tolist(), vocabulary.eos]
    train = encoded_documents([line] * 100)
    data = replace(
        dataset(TEXT, None),
        vocabulary=vocabulary,
        train=train,
        boundaries=Boundaries(document="line"),
    )
    pieces = [Piece(sample=0, text=vocabulary.decode([index]), id=index) for index in line * 10]
    monkeypatch.setattr(review, "generate", lambda *_, **__: iter(pieces))
    memory = memory_of(engine(tiny_model("lstm", len(vocabulary))), data)
    assert memory.overlap == 50
    assert memory.novel == 0.0
    assert memory.text == "abcd\n" * 10


@pytest.mark.parametrize("lines", [1, 2])
def test_samples_reset_the_state_like_training(lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At line ends only if each line was a document."""
    vocabulary = vocabulary_of("a b\n" * 30, unit="word", words="whitespace")
    row = [*vocabulary.encode("a b").tolist(), vocabulary.eos] * lines
    train = encoded_documents([row] * 50)
    boundaries = Boundaries.of_text(train, vocabulary, "line", crlf=False)
    data = replace(dataset(TEXT, None), vocabulary=vocabulary, train=train, boundaries=boundaries)
    asked = []
    monkeypatch.setattr(
        review, "generate", lambda *_, boundaries, **__: asked.append(boundaries) or iter(())
    )
    memory_of(engine(tiny_model("lstm", len(vocabulary))), data)
    assert [boundaries.resets for boundaries in asked] == [lines == 1]


def with_torch_cycle(model, cycle: list[int]) -> None:
    """Weights by hand: the state shows the last token alone, the output names the one after it."""
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        size = model.vocab_size
        model.embedding.weight.copy_(torch.eye(size, 7) * 50.0)
        layer, h = model.layers[0].rnn, 7
        layer.weight_ih_l0[2 * h : 3 * h] = torch.eye(h)  # candidate: the token read
        layer.bias_ih_l0[:h], layer.bias_ih_l0[h : 2 * h], layer.bias_ih_l0[3 * h :] = 50, -50, 50
        for before, after in pairwise(cycle):
            model.output.weight[after, before] = 100.0
        model.output.weight[cycle[0], 1] = 100.0  # a document begins with a


def test_a_text_that_is_too_short_has_no_fractions() -> None:
    data = dataset("abc", None)
    model = tiny_model("gru", len(data.vocabulary))
    memory = memory_of(engine(model), data)
    assert memory is not None
    assert memory.novel_held_out is None
    assert np.isfinite(memory.overlap)
