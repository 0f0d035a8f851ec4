"""The library: load, score, sample, next, state and step, evaluate, train."""

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

import charlm
from charlm.api.model import Model
from charlm.errors import CorpusError, UsageError
from charlm.runs.layout import read_record
from charlm.training.records import FinishedRecord

TEXT = "abc abd\nab ca\n" * 10
TINY = {
    "hidden_size": 4, "embedding_size": 3, "num_layers": 1, "dropout": 0.1, "steps": 12,
    "batch_size": 2, "bptt": 4, "seed": 1, "precision": "fp32", "device": "cpu", "threads": 1,
    "learning_rate": 0.05,
}  # fmt: skip
KINDS = {
    "stream": {},
    "lines": {"document": "line", "cell": "gru"},
    "words": {"document": "line", "unit": "word", "cell": "rnn"},
    "bytes": {"unit": "byte"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny runs of several kinds."""
    path = tmp_path_factory.mktemp("checkpoints")
    for name, settings in KINDS.items():
        list(charlm.train(text=TEXT, name=name, checkpoints=path, **{**TINY, **settings}))
    return path


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, folder: Path) -> Model:
    return charlm.load(request.param, checkpoints=folder)


@pytest.fixture
def stream(folder: Path) -> Model:
    return charlm.load("stream", checkpoints=folder)


def test_every_public_name_exists() -> None:
    assert set(charlm.__all__) == set(dir(charlm))
    assert all(getattr(charlm, name) is not None for name in charlm.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = charlm.nothing


def test_steps_sum_to_the_score(model: Model) -> None:
    text = "abc ab"
    state = model.state()
    total = 0.0
    for piece in ("abc", " ", "ab"):
        nats, state = model.step(state, piece)
        total += nats
    end = state.log_probabilities[model.vocabulary.eos] if model.run.boundaries.has_ends else 0.0
    assert total + end == pytest.approx(model.score(text)[0].log_probability, abs=1e-5)


def test_a_state_is_a_value(model: Model) -> None:
    """Two steps from one state are equal and do not change it."""
    state = model.state("ab")
    kept = state.log_probabilities.copy()
    first = model.step(state, "c")[0]
    model.step(state, " ab ")
    assert model.step(state, "c")[0] == first
    assert np.array_equal(state.log_probabilities, kept)
    assert math.fsum(np.exp(kept)) == pytest.approx(1.0, abs=1e-9)
    assert model.step(state, "")[0] == 0.0


def test_next_has_the_probabilities_of_the_state(model: Model) -> None:
    """More tokens than the vocabulary has are all of it."""
    tokens = model.next("ab", top=10**6)
    assert len(tokens) == len(model.vocabulary)
    log_probabilities = model.state("ab").log_probabilities
    for token in tokens:
        assert token.probability == pytest.approx(math.exp(log_probabilities[token.id]))
    assert model.next("ab", top=4) == tokens[:4]


def test_evaluate_is_the_score_of_a_text(stream: Model) -> None:
    """Windows from the zero state give another number."""
    tally = stream.evaluate(TEXT)
    assert -tally.nats == pytest.approx(stream.score(TEXT)[0].log_probability, abs=1e-3)
    assert (tally.chars, tally.documents) == (len(TEXT), 1)
    assert stream.evaluate(TEXT, reset_every=3).nats != pytest.approx(tally.nats, abs=1e-3)


def test_evaluate_without_a_text_has_the_loss_of_training(model: Model, tmp_path: Path) -> None:
    """As `charlm eval`: the validation text that the run keeps. A run without one says so."""
    assert model.evaluate().nats_per_token == pytest.approx(
        model.history[-1]["valid_nats_per_token"]
    )
    alone = charlm.fit(text=TEXT, checkpoints=tmp_path, valid_fraction=0, progress=False, **TINY)
    with pytest.raises(CorpusError, match="keeps no validation text; expected a text"):
        alone.evaluate()


def test_evaluate_cuts_documents_as_in_training(folder: Path) -> None:
    tally = charlm.load("lines", checkpoints=folder).evaluate("abc\nab\n")
    assert (tally.documents, tally.eos, tally.tokens) == (2, 2, 7)


def test_samples_without_a_seed_differ(stream: Model) -> None:
    """Even if the global generators are seeded."""
    texts = set()
    for _ in range(3):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        texts.add(stream.sample(60))
    assert len(texts) > 1


def test_sampling_options_reach_the_sampler(stream: Model) -> None:
    greedy = stream.sample(1, temperature=0.0, prompt="ab")
    best = next(t for t in stream.next("ab", top=2) if t.id != stream.vocabulary.unk)
    assert greedy == best.token
    with pytest.raises(UsageError, match="top_p is"):
        stream.sample(1, seed=1, top_p=1.5)


def test_training_yields_records_and_stores_the_origins_of_settings(tmp_path: Path) -> None:
    records = list(charlm.train(text=TEXT, name="r", checkpoints=tmp_path, **TINY))
    assert isinstance(records[-1], FinishedRecord)
    assert records[-1].valid is not None
    model = charlm.load(tmp_path / "r")
    assert model.config["model"]["hidden_size"] == 4
    origins = read_record(tmp_path / "r")["origins"]
    assert origins["model.hidden_size"] == "argument"
    assert origins["training.warmup"] == "default"
    assert origins["model.input_dropout"].startswith("rule: ")


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"hiden_size": 3}, "did you mean 'hidden_size'"),
        ({"learn_rate": 3}, "did you mean 'learning_rate'"),
        ({"unitt": "word"}, "did you mean 'unit'"),
        ({"xyzzy": 3}, "'xyzzy' is not known"),
        ({"unit": "wrod"}, "unit is 'wrod'"),
        ({"hidden_size": "3"}, "hidden_size is '3'"),
        ({"steps": 1, "epochs": 2.0}, "one length"),
    ],
)
def test_unknown_and_wrong_settings_are_named(wrong, hint: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=hint):
        charlm.train(text=TEXT, checkpoints=tmp_path / "runs", **wrong)
    assert not (tmp_path / "runs").exists()


def test_the_library_prints_nothing_and_uses_no_global_random_state(
    tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    settings = {**TINY, "seed": None, "epochs": None, "steps": 3}
    list(charlm.train(text=TEXT, checkpoints=tmp_path, **settings))
    model = charlm.load("stream", checkpoints=folder)
    model.score("abc", tokens=True)
    model.sample(5)
    model.next("a")
    model.evaluate("abc")
    model.step(model.state("a"), "b")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()
    assert before[2] == random.getstate()
    assert capfd.readouterr() == ("", "")


def test_generated_paragraphs_are_separated_by_blank_lines(folder: Path) -> None:
    """So `stop` can end a sample there."""
    text = "ab\nba\n\nba\n\n" * 20
    chosen = {**TINY, "document": "paragraph", "steps": 40, "learning_rate": 0.05}
    list(charlm.train(text=text, name="verse", checkpoints=folder, **chosen))
    model = charlm.load("verse", checkpoints=folder)
    pieces = list(model.generate(200, seed=1))
    ends = [piece.text for piece in pieces if piece.id == 1]
    assert ends
    assert {end[-2:] for end in ends} == {"\n\n"}
    whole = "".join(piece.text for piece in pieces)
    stopped = model.sample(200, seed=1, stop="\n\n")
    assert stopped == whole.split("\n\n")[0]
    alone = model.sample(200, seed=1, until_eos=True, stop="\nz")
    assert alone == model.sample(200, seed=1, until_eos=True) == stopped


@pytest.mark.parametrize(("document", "resets"), [("line", True), ("paragraph", False)])
def test_the_state_resets_where_training_did(document: str, resets: bool, folder: Path) -> None:
    """Blank-separated words end each line with EOS, also inside of longer documents."""
    chosen = {"unit": "word", "words": "whitespace", "document": document}
    text = "abc abd\nab ca\n\n" * 10
    name = f"blank-{document}"
    list(charlm.train(text=text, name=name, checkpoints=folder, **{**TINY, **chosen}))
    model = charlm.load(name, checkpoints=folder)
    starts = [model.state(text).log_probabilities for text in ("", "abc abd\n")]
    assert np.allclose(*starts, atol=1e-6) == resets
    following = [token.probability for token in model.next("abc abd\n")]
    _, state = model.step(model.state("abc"), "abd\n")
    probabilities = np.sort(np.exp(state.log_probabilities))[::-1]
    assert probabilities[: len(following)] == pytest.approx(following, abs=1e-6)
    samples = [list(model.generate(40, prompt=prompt, seed=1)) for prompt in ("", "abc abd\n")]
    nats, after_an_end = ([piece.nats for piece in pieces] for pieces in samples)
    assert (after_an_end == pytest.approx(nats, abs=1e-9)) == resets


@pytest.mark.parametrize(
    ("use", "problem"),
    [
        (lambda model: model.sample(5, temp=1.0), r"option 'temp' is not known; did you mean 'te"),
        (lambda model: model.samples(2, 5, lenght=1), r"'lenght' is not known; did you mean 'leng"),
        (lambda model: model.sample(5, zzz=1), r"'zzz' is not known; expected one of allow_unk, "),
        (lambda model: model.items(2, temp=1.0), r"option 'temp' is not known"),
        (
            lambda model: model.sample(5, n=3),
            r"n is 3; sample returns one text. Use model.samples\(3\)",
        ),
        (lambda model: model.score(["a", 1]), r"texts\[1\] is 1; expected a str"),
        (lambda model: model.score([float("nan")]), r"texts\[0\] is nan; expected a str"),
    ],
)
def test_a_wrong_argument_is_named(use: Callable[[Model], object], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        use(charlm.load("tales"))


CALLS: dict[str, tuple[Callable[[Model, Any], Any], int]] = {
    "next top": (lambda model, value: model.next("a", top=value), 1),
    "nearest top": (lambda model, value: model.nearest("a", top=value), 1),
    "length": (lambda model, value: list(model.generate(value, seed=1)), 0),
    "seed": (lambda model, value: list(model.generate(2, seed=value)), 0),
    "samples": (lambda model, value: list(model.generate(2, seed=1, samples=value)), 1),
    "first": (lambda model, value: list(model.generate(2, seed=1, first=value)), 0),
    "reset_every": (lambda model, value: model.evaluate("abc abc", reset_every=value), 1),
    "threads": (lambda model, value: charlm.load(model.path, threads=value), 1),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_invalid_count_is_refused(name: str, stream: Model) -> None:
    """`next(top=-1)` once returned all tokens but the last."""
    call, minimum = CALLS[name]
    call(stream, minimum)
    call(stream, np.int64(minimum))
    for value in (minimum - 1, -7, 1.5, "2"):
        with pytest.raises(UsageError, match=f"{name.split()[-1]} is .*{minimum} or more"):
            call(stream, value)


def test_type_checkers_take_a_loaded_model_for_a_language_model() -> None:
    """The story: mypy refused the example of the README, since a classifier cannot sample."""
    for function in (charlm.load, charlm.fit):
        assert set(get_args(get_type_hints(function)["return"])) == {charlm.Model, Any}
