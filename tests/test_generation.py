"""Generation: the probabilities of the model, one text for one seed, exact stops."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch
from helpers import (
    CORPUS,
    chi_square_fits,
    engine,
    naive_nats,
    tiny_model,
    uniform_model,
    vocabulary_of,
)

from charlm.config.cells import CELLS
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import UsageError
from charlm.inference import generation
from charlm.inference.generation import Piece, generate, next_tokens, read_prompt
from charlm.inference.samplers import Sampling
from charlm.inference.scoring import Scorer
from charlm.nn.model import RecurrentLanguageModel
from charlm.text.boundaries import STREAM
from charlm.text.tokenizers.tokenizer_json import EOS, UNK

FORMS = {unit: {"unit": unit} for unit in TEXT_UNITS} | {
    "whitespace": {"unit": "word", "words": "whitespace"}
}
VOCABULARIES = {name: vocabulary_of(CORPUS, **form) for name, form in FORMS.items()}
MODELS = {
    name: tiny_model("lstm", len(vocabulary), scale=2.0)
    for name, vocabulary in VOCABULARIES.items()
}
MODEL, VOCABULARY = MODELS["char"], VOCABULARIES["char"]
every_form = pytest.mark.parametrize("name", FORMS)


def biased(name: str = "char", **logits: float) -> RecurrentLanguageModel:
    """Return the model of this unit with values added to the logits of `unk` and `eos`."""
    model = tiny_model("lstm", len(VOCABULARIES[name]), scale=2.0)
    with torch.no_grad():
        for token, value in logits.items():
            model.output.bias[{"unk": UNK, "eos": EOS}[token]] += value
    return model


def texts_of(pieces: Iterable[Piece], samples: int = 1) -> list[str]:
    texts = [""] * samples
    for piece in pieces:
        texts[piece.sample] += piece.text
    return texts


def sampled(
    name: str = "char", model: RecurrentLanguageModel | None = None, **options
) -> list[str]:
    options = {"length": 30} | options
    pieces = generate(engine(model or MODELS[name]), VOCABULARIES[name], **options)
    return texts_of(pieces, options.get("samples", 1))


# ------------------------------------------------------------------ seeds and samples


@every_form
def test_the_same_seed_gives_the_same_text(name: str) -> None:
    """Other seeds give other texts, and global generators are not used."""
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    texts = [sampled(name, seed=seed)[0] for seed in (0, 1, 2, 0)]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]


@every_form
def test_a_sample_does_not_depend_on_the_number_of_samples(name: str) -> None:
    """Even if other samples end earlier."""
    for options in ({}, {"until_eos": True, "model": biased(name, eos=1.5)}):
        five = sampled(name, samples=5, seed=3, **options)
        assert sampled(name, samples=2, seed=3, **options) == five[:2]
        assert len(set(five)) > 1


@every_form
@pytest.mark.parametrize("length", [0, 1, 30])
def test_a_sample_has_the_requested_number_of_tokens(name: str, length: int) -> None:
    """Each piece is one token; the last has held-back text and no token."""
    pieces = list(generate(engine(MODELS[name]), VOCABULARIES[name], length=length, samples=2))
    for sample in (0, 1):
        assert sum(piece.tokens for piece in pieces if piece.sample == sample) == length
    if name == "char":
        assert [len(text) for text in texts_of(pieces, 2)] == [length, length]
    if not length:
        assert texts_of(pieces, 2) == ["", ""]


def test_text_is_streamed() -> None:
    """The first of a billion tokens is available at once."""
    pieces = generate(engine(MODEL), VOCABULARY, length=10**9)
    assert isinstance(pieces, Iterator)
    assert next(pieces).tokens == 1


# ------------------------------------------------------------------ probabilities


@pytest.mark.parametrize("prompt", ["", "t", "the ", "zz"])
@pytest.mark.parametrize("allow_unk", [True, False])
def test_first_tokens_are_as_frequent_as_the_model_says(prompt: str, allow_unk: bool) -> None:
    """A chi-square test; without UNK its probability goes to the others."""
    samples = 2000
    chances = np.zeros(len(VOCABULARY))
    for token in next_tokens(engine(MODEL), VOCABULARY, prompt, len(VOCABULARY)):
        chances[token.id] = token.probability
    assert chances[UNK] > 0.001
    if not allow_unk:
        chances[UNK] = 0.0
        chances /= chances.sum()
    texts = sampled(
        prompt=prompt, length=1, samples=samples, allow_unk=allow_unk, unk_text="�", seed=1
    )
    shown = ["�", "\n", *VOCABULARY.tokens[2:]]
    counts = np.array([texts.count(text) for text in shown])
    chances[VOCABULARY.line_end] += chances[EOS]  # both show as a line end
    counts[EOS] = chances[EOS] = 0
    assert counts.sum() == samples
    usual = samples * chances >= 5
    assert not counts[chances == 0].any()
    observed, expected = counts[usual], samples * chances[usual]
    if rest := samples - expected.sum():
        observed = np.append(observed, samples - observed.sum())
        expected = np.append(expected, rest)
    assert chi_square_fits(observed, expected)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.5), Sampling(top_k=4)])
def test_pieces_have_the_nats_of_the_scorer(sampling: Sampling) -> None:
    """For any sampling rule."""
    model = biased(eos=-50.0)
    options = {"length": 25, "sampling": sampling, "prompt": "the", "samples": 2}
    pieces = list(generate(engine(model), VOCABULARY, **options))
    for sample, text in enumerate(texts_of(pieces, 2)):
        scorer = Scorer(engine(model), VOCABULARY, STREAM, carry=True)
        _, continuation = scorer.score(["the", text])
        assert continuation.tally.tokens == 25
        drawn = sum(piece.nats for piece in pieces if piece.sample == sample)
        assert drawn == pytest.approx(continuation.tally.nats, abs=1e-3)


@pytest.mark.parametrize("cell", CELLS)
def test_temperature_zero_is_the_greedy_loop(cell: str) -> None:
    model = tiny_model(cell, len(VOCABULARY), scale=2.0)
    ids, state, text = [EOS, *VOCABULARY.encode("the").tolist()], None, ""
    with torch.no_grad():
        for _ in range(20):
            logits, state = model(torch.tensor(ids)[:, None], state)
            logits[-1, 0, UNK] = -torch.inf
            ids = [int(logits[-1, 0].argmax())]
            text += VOCABULARY.decode(ids)
    for samples in (1, 3):
        greedy = sampled(
            model=model, prompt="the", length=20, samples=samples, sampling=Sampling(temperature=0)
        )
        assert greedy == [text] * samples


# ------------------------------------------------------------------ prompts


@pytest.mark.parametrize("at_once", [1, 3, 4096])
def test_a_prompt_is_read_once_in_any_pieces(at_once: int, monkeypatch) -> None:
    """For all samples, with the logits, state and text of a prompt read at once."""
    ids = VOCABULARY.encode("the cat sat").astype(np.int64)
    with torch.no_grad():
        whole, last = MODEL(torch.from_numpy(np.concatenate([[EOS], ids]))[:, None])
    text = sampled(prompt="the cat sat", samples=3)
    monkeypatch.setattr(generation, "READ_AT_ONCE", at_once)
    logits, state = read_prompt(engine(MODEL), ids)
    np.testing.assert_allclose(logits[0], whole[-1, 0].numpy(), atol=1e-5)
    for layer, other in zip(state, last, strict=True):
        for part, value in zip(layer, other, strict=True):
            np.testing.assert_allclose(part, value.numpy(), atol=1e-5, rtol=0)
    shapes = []
    handle = MODEL.layers[0].register_forward_pre_hook(
        lambda _, given: shapes.append(given[0].shape[:2])
    )
    assert sampled(prompt="the cat sat", samples=3) == text
    handle.remove()
    assert sum(length for length, rows in shapes if rows == 1) == 12


def test_a_prompt_continues_from_a_state() -> None:
    """A state without a token has no next token."""
    ids = VOCABULARY.encode("the cat").astype(np.int64)
    whole, _ = read_prompt(engine(MODEL), ids)
    _, state = read_prompt(engine(MODEL), ids[:4])
    parts, _ = read_prompt(engine(MODEL), ids[4:], state)
    np.testing.assert_allclose(parts, whole, atol=1e-5)
    with pytest.raises(UsageError, match="at least one token"):
        read_prompt(engine(MODEL), ids[:0], state)


@pytest.mark.parametrize("prompt", ["", "\x00\x01", "猫猫"])
@every_form
def test_any_prompt_can_be_continued(name: str, prompt: str) -> None:
    """Even an empty one or only unknown characters."""
    assert sampled(name, prompt=prompt)[0]


def test_words_begin_with_a_blank_if_the_prompt_needs_one() -> None:
    model = biased("whitespace", eos=-50.0)
    options = {"name": "whitespace", "model": model, "length": 2}
    assert sampled(**options, prompt="the")[0].startswith(" ")
    assert not sampled(**options, prompt="the\n")[0].startswith(" ")
    assert not sampled(**options)[0].startswith(" ")


# ------------------------------------------------------------------ where a text ends


@every_form
def test_a_sample_until_eos_ends_before_the_first_eos(name: str) -> None:
    model = biased(name, eos=1.5)
    pieces = list(generate(engine(model), VOCABULARIES[name], length=60, seed=4, samples=6))
    ended = list(
        generate(engine(model), VOCABULARIES[name], length=60, seed=4, samples=6, until_eos=True)
    )
    for sample in range(6):
        free, short = (
            [piece for piece in some if piece.sample == sample and piece.tokens]
            for some in (pieces, ended)
        )
        assert [piece.nats for piece in short] == pytest.approx(
            [piece.nats for piece in free[: len(short)]], abs=1e-5
        )
        assert "".join(piece.text for piece in free).startswith(
            "".join(piece.text for piece in short).removesuffix("\ufffd")
        )
    assert sum(len(text) for text in texts_of(ended, 6)) < sum(
        len(text) for text in texts_of(pieces, 6)
    )
    sure = biased(name, eos=500.0)
    assert sampled(name, model=sure, until_eos=True) == [""]
    assert sampled(name, model=sure, length=3) == ["\n\n\n"]


@every_form
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_a_stop_text_is_never_shown(name: str, width: int) -> None:
    """Text that may begin a stop of several tokens is held back until it is decided."""
    free = sampled(name, length=12, seed=5)[0]
    for start in range(0, len(free) - width, 3):
        stop = free[start : start + width]
        shown = sampled(name, length=12, seed=5, stop=stop)[0]
        assert shown == free[: free.find(stop)]
    almost = free[-width:] + "\x01"
    assert sampled(name, length=12, seed=5, stop=almost)[0] == free


@every_form
def test_of_several_stop_texts_the_first_that_appears_counts(name: str) -> None:
    """Of those that a token completes together, the one that begins first."""
    pieces = list(generate(engine(MODELS[name]), VOCABULARIES[name], length=12, seed=5))
    texts = ["".join(piece.text for piece in pieces[:count]) for count in range(1, 13)]
    free = "".join(piece.text for piece in pieces)
    for start in range(0, len(free) - 4, 2):
        stops = [free[start + 2 : start + 4], free[start : start + 4], free[:4] + "", ""]
        chosen = next(text for text in [*texts, free] if any(stop in text for stop in stops[:2]))
        place = min(chosen.find(stop) for stop in stops[:2] if stop in chosen)
        assert sampled(name, length=12, seed=5, stop=stops)[0] == free[:place]


def test_a_sample_that_stops_does_not_change_the_others() -> None:
    free = sampled(samples=4, seed=6)
    shown = sampled(samples=4, seed=6, stop=free[2][:2])
    assert shown[2] == ""
    for text, other in zip(free, shown, strict=True):
        assert text.startswith(other)


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_a_stop_text_is_found_in_held_back_bytes(name: str) -> None:
    vocabulary = VOCABULARIES[name]
    first = int(vocabulary.encode("猫")[0])
    model = tiny_model("rnn", len(vocabulary), num_layers=1)
    with torch.no_grad():
        model.output.weight.zero_()
        model.output.bias.fill_(-50.0)
        model.output.bias[[first, EOS]] = 0.0
    texts = set(sampled(name, model=model, samples=20, until_eos=True, stop="\ufffd"))
    assert texts == {""}


# ------------------------------------------------------------------ what is shown


@every_form
def test_unk_is_generated_only_if_allowed(name: str) -> None:
    """Then it is shown as the caller wishes."""
    model = biased(name, unk=500.0)
    decode = VOCABULARIES[name].decode
    assert "<?>" not in sampled(name, model=model, length=50, unk_text="<?>")[0]
    shown = sampled(name, model=model, length=3, allow_unk=True, unk_text="<?>")[0]
    assert shown == decode([UNK] * 3, unk_text="<?>")
    greedy = Sampling(temperature=0)
    assert "<?>" not in sampled(name, model=model, sampling=greedy, unk_text="<?>")[0]


def test_streamed_bytes_are_whole_characters() -> None:
    """A character is shown with its last byte."""
    vocabulary = VOCABULARIES["byte"]
    pieces = list(generate(engine(uniform_model(len(vocabulary))), vocabulary, length=200, seed=1))
    for piece in pieces:
        piece.text.encode("utf-8")
    assert any(piece.tokens and not piece.text for piece in pieces)


# ------------------------------------------------------------------ the next token


@every_form
@pytest.mark.parametrize("prompt", ["", "the "])
def test_next_tokens_are_sorted_and_sum_to_one(name: str, prompt: str) -> None:
    """They have the probabilities of the naive loop."""
    model, vocabulary = MODELS[name], VOCABULARIES[name]
    whole = next_tokens(engine(model), vocabulary, prompt, len(vocabulary))
    chances = [token.probability for token in whole]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) == pytest.approx(1.0, abs=1e-9)
    assert sorted(token.id for token in whole) == list(range(len(vocabulary)))
    assert next_tokens(engine(model), vocabulary, prompt, 3) == whole[:3]
    for token in whole[:3]:
        assert token.token == vocabulary.token_text(token.id)
        nats = naive_nats(model, [*vocabulary.encode(prompt).tolist(), token.id])[-1]
        assert token.probability == pytest.approx(np.exp(-nats), rel=1e-4)
