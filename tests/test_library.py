"""The library as documented: load, score, sample, next, state and step, evaluate, train."""

import itertools
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import charlm
from charlm.api.model import Model
from charlm.config.flags import by_section
from charlm.config.settings import settings_from
from charlm.errors import CorpusError, RunError, UsageError
from charlm.inference.scoring import token_ranks
from charlm.training import start as starting
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "keep_freed_memory", lambda: True)
        for name, settings in KINDS.items():
            list(charlm.train(text=TEXT, name=name, checkpoints=path, **{**TINY, **settings}))
    return path


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, folder: Path) -> Model:
    return charlm.load(request.param, checkpoints=folder)


@pytest.fixture
def stream(folder: Path) -> Model:
    return charlm.load("stream", checkpoints=folder)


def test_every_public_name_is_there() -> None:
    """What __all__ promises can be had; another name is an AttributeError like everywhere."""
    assert set(charlm.__all__) == set(dir(charlm))
    assert all(getattr(charlm, name) is not None for name in charlm.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = charlm.nothing


def test_load_by_name_path_and_newest(folder: Path) -> None:
    """The same run in three ways; a missing one names its neighbour."""
    newest = charlm.load(checkpoints=folder)
    assert newest.path.name == list(KINDS)[-1]
    assert charlm.load(folder / "lines").path == charlm.load("lines", checkpoints=folder).path
    with pytest.raises(RunError, match="Did you mean words"):
        charlm.load("wods", checkpoints=folder)
    assert "words" in repr(charlm.load(folder / "words"))


def test_step_by_step_is_the_score(model: Model) -> None:
    """Token after token, text after text: the sum is what score says of the whole."""
    text = "abc ab"
    state = model.state()
    total = 0.0
    for piece in ("abc", " ", "ab"):
        nats, state = model.step(state, piece)
        total += nats
    end = state.log_probabilities[model.vocabulary.eos] if model.run.boundaries.has_ends else 0.0
    assert total + end == pytest.approx(model.score(text)[0].log_probability, abs=1e-5)


def test_a_state_is_a_value(model: Model) -> None:
    """Stepping from it twice gives the same twice; it stays what it was; its sum is one."""
    state = model.state("ab")
    kept = state.log_probabilities.copy()
    first = model.step(state, "c")[0]
    model.step(state, " ab ")
    assert model.step(state, "c")[0] == first
    assert np.array_equal(state.log_probabilities, kept)
    assert math.fsum(np.exp(kept)) == pytest.approx(1.0, abs=1e-9)
    assert model.step(state, "")[0] == 0.0


def test_next_is_what_the_state_expects(model: Model) -> None:
    """Sorted, with the probabilities of the state after the same text."""
    found = model.next("ab", top=4)
    state = model.state("ab")
    assert len(found) == 4
    for token in found:
        assert token.probability == pytest.approx(math.exp(state.log_probabilities[token.id]))
    assert [t.probability for t in found] == sorted((t.probability for t in found), reverse=True)
    everything = model.next("", top=10**6)
    assert len(everything) == len(model.vocabulary)
    assert math.fsum(token.probability for token in everything) == pytest.approx(1.0, abs=1e-9)


def test_scores_do_not_depend_on_their_company(model: Model) -> None:
    """One text alone, among others, given as a string or as a list; the empty one too."""
    texts = ["abc", "", "ab ca abd abc", "b"]
    together = model.score(texts)
    assert [score.text for score in together] == texts
    for text, score in zip(texts, together, strict=True):
        (alone,) = model.score(text)
        assert alone.log_probability == pytest.approx(score.log_probability, abs=1e-5)
        assert alone.tally.tokens == score.tally.tokens
    assert model.score([]) == []
    assert together[1].tally.tokens == int(model.run.boundaries.has_ends)


def test_token_scores_sum_to_the_score(model: Model) -> None:
    """With ranks from 1 to V; without being asked for there are none."""
    (score,) = model.score("abc ab", tokens=True)
    total = math.fsum(token.nats for token in score.tokens)
    assert -total == pytest.approx(score.log_probability, abs=1e-6)
    assert all(1 <= token.rank <= len(model.vocabulary) for token in score.tokens)
    assert model.score("abc ab")[0].tokens == ()


def test_carried_texts_are_one_stream(stream: Model) -> None:
    """P(a) P(b | a) = P(ab)."""
    parts = stream.score(["abc", " ab", "d"], carry=True)
    (whole,) = stream.score("abc abd")
    total = math.fsum(part.log_probability for part in parts)
    assert total == pytest.approx(whole.log_probability, abs=1e-5)


def test_evaluate_is_the_score_of_a_text(stream: Model) -> None:
    """One full pass over a stream; with windows from the zero state it is another number."""
    tally = stream.evaluate(TEXT)
    assert -tally.nats == pytest.approx(stream.score(TEXT)[0].log_probability, abs=1e-3)
    assert (tally.chars, tally.documents) == (len(TEXT), 1)
    assert stream.evaluate(TEXT, reset_every=3).nats != pytest.approx(tally.nats, abs=1e-3)


def test_evaluate_cuts_documents_as_in_training(folder: Path) -> None:
    """A model of lines reads lines, each with its end."""
    tally = charlm.load("lines", checkpoints=folder).evaluate("abc\nab\n")
    assert (tally.documents, tally.eos, tally.tokens) == (2, 2, 7)


def test_a_sample_is_decided_by_its_seed(model: Model) -> None:
    """Twice the same, another seed another text; pieces are strings that come one by one."""
    texts = [model.sample(40, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
    some = list(itertools.islice(model.stream(10**9, seed=1), 5))
    assert texts[0].startswith("".join(some))
    assert model.sample(0, seed=1) == ""


def test_without_a_seed_samples_differ(stream: Model) -> None:
    """Drawn from the system, not from any global state that was seeded."""
    texts = set()
    for _ in range(3):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        texts.add(stream.sample(60))
    assert len(texts) > 1


def test_options_of_sampling_are_passed_on(stream: Model) -> None:
    """Greedy is the likeliest next token; values that make no sense are usage errors."""
    greedy = stream.sample(1, temperature=0.0, prompt="ab")
    best = next(t for t in stream.next("ab", top=2) if t.id != stream.vocabulary.unk)
    assert greedy == best.token
    for wrong in ({"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 1.5}, {"top_k": -1}):
        with pytest.raises(UsageError):
            stream.sample(1, seed=1, **wrong)
    with pytest.raises(UsageError, match="length"):
        stream.sample(-1, seed=1)
    pieces = list(stream.generate(3, samples=2, seed=1))
    assert {piece.sample for piece in pieces} == {0, 1}


def test_training_yields_records_and_makes_a_run(tmp_path: Path) -> None:
    """Settings by the names of their fields; where each came from is written down."""
    records = list(charlm.train(text=TEXT, name="r", checkpoints=tmp_path, **TINY))
    assert isinstance(records[-1], FinishedRecord)
    assert records[-1].valid is not None
    model = charlm.load(tmp_path / "r")
    assert model.config["model"]["hidden_size"] == 4
    from charlm.files.safe_read import read_json

    origins = read_json(tmp_path / "r" / "run.json")["origins"]
    assert origins["model.hidden_size"] == "argument"
    assert origins["training.warmup"] == "default"
    assert origins["model.input_dropout"].startswith("rule: ")


def test_training_from_files(tmp_path: Path) -> None:
    """Sources as on the command line."""
    (tmp_path / "a.txt").write_text(TEXT)
    source = str(tmp_path / "a.txt")
    records = charlm.train(source, checkpoints=tmp_path / "runs", **{**TINY, "steps": 2})
    assert list(records)[-1].kind == "finished"
    with pytest.raises(CorpusError, match=r"missing\.txt"):
        charlm.train(str(tmp_path / "missing.txt"), checkpoints=tmp_path / "runs")


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
    """With the nearest name of any section, before a folder is made."""
    with pytest.raises(UsageError, match=hint):
        charlm.train(text=TEXT, checkpoints=tmp_path / "runs", **wrong)
    assert not (tmp_path / "runs").exists()


def test_settings_by_their_names_alone_reach_their_sections() -> None:
    """A name belongs to one section only, so none has to be said."""
    settings = settings_from(
        by_section({"unit": "word", "cell": "gru", "epochs": 2, "valid_frac": 0.2})
    )
    found = settings.vocabulary.unit, settings.model.cell, settings.training.epochs
    assert found == ("word", "gru", 2.0)
    assert settings.corpus.valid_frac == 0.2


def test_nothing_is_printed_and_no_global_random_state_is_touched(
    tmp_path: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Training, loading, scoring, sampling: silent, and torch, numpy and random as before."""
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


def test_rows_of_several_lines_do_not_begin_anew_at_each(folder: Path, tmp_path: Path) -> None:
    """Of a table: a row is a document, its line ends are EOS too, and training went on there."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": "abc abd\nab ca"}) + "\n" for _ in range(20)))
    single = tmp_path / "single.jsonl"
    single.write_text("".join(json.dumps({"text": "abc abd"}) + "\n" for _ in range(20)))
    chosen = TINY | {"unit": "word", "words": "whitespace"}
    for file, anew in ((rows, False), (single, True)):
        name = f"{file.stem}-table"
        list(charlm.train(str(file), name=name, checkpoints=folder, **chosen))
        model = charlm.load(name, checkpoints=folder)
        assert model.run.boundaries.document == "line"
        assert model.run.boundaries.resets == anew
        starts = [model.state(text).log_probabilities for text in ("", "abc abd\n")]
        assert np.allclose(*starts, atol=1e-6) == anew


def test_paragraphs_are_parted_as_in_their_text(folder: Path) -> None:
    """By a blank line, so that samples can be cut again by the same rule."""
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


def test_sentences_with_line_ends_score_as_the_text_that_they_are(folder: Path) -> None:
    """The bug: `score` read on over an end where `eval` and training began anew."""
    chosen = TINY | {"unit": "word", "words": "whitespace", "document": "line"}
    text = "abc abd\nab ca\n" * 10
    list(charlm.train(text=text, name="ends", checkpoints=folder, **chosen))
    model = charlm.load("ends", checkpoints=folder)
    (score,) = model.score("abc abd\nab ca", tokens=True)
    whole = model.evaluate("abc abd\nab ca\n")
    assert -score.log_probability == pytest.approx(whole.nats, rel=1e-5)
    assert len(score.tokens) == whole.tokens == 6
    apart = model.score(["abc abd", "ab ca"], tokens=True)
    ranks = [token.rank for one in apart for token in one.tokens]
    assert [token.rank for token in score.tokens] == ranks
    carried = model.score("abc abd\nab ca", carry=True, tokens=True)[0]
    ids = np.array([token.id for token in carried.tokens])
    assert [token.rank for token in carried.tokens] == token_ranks(model.run.backend, ids).tolist()
    assert ranks != token_ranks(model.run.backend, ids).tolist()
    assert -carried.log_probability != pytest.approx(whole.nats, rel=1e-5)


@pytest.mark.parametrize(("document", "anew"), [("line", True), ("paragraph", False)])
def test_what_follows_an_end_begins_anew_where_training_did(
    document: str, anew: bool, folder: Path
) -> None:
    """Blank-separated words end lines with EOS, inside of longer documents too."""
    chosen = {"unit": "word", "words": "whitespace", "document": document}
    name = f"blank-{document}"
    text = "abc abd\nab ca\n\n" * 10
    list(charlm.train(text=text, name=name, checkpoints=folder, **{**TINY, **chosen}))
    model = charlm.load(name, checkpoints=folder)
    first = [token.probability for token in model.next()]
    after = [token.probability for token in model.next("abc abd\n")]
    assert (after == pytest.approx(first, abs=1e-6)) == anew
    starts = [model.state(text).log_probabilities for text in ("", "abc abd\n")]
    assert np.allclose(*starts, atol=1e-6) == anew
    log_probability, state = model.step(model.state("abc"), "abd\n")
    assert log_probability < 0.0
    probabilities = np.sort(np.exp(state.log_probabilities))[::-1]
    assert probabilities[: len(after)] == pytest.approx(after, abs=1e-6)
    pieces = list(model.generate(40, prompt="abc abd\n", seed=1))
    drawn = list(model.generate(40, seed=1))
    nats = [piece.nats for piece in drawn]
    assert ([piece.nats for piece in pieces] == pytest.approx(nats, abs=1e-9)) == anew
    ids = [piece.id for piece in drawn if piece.id is not None]
    state, total = model.state(), 0.0
    for index in ids:
        total -= float(state.log_probabilities[index])
        text = "\n" if index == 1 else model.vocabulary.token_text(index)
        _, state = model.step(state, text)
    assert sum(piece.nats for piece in drawn) == pytest.approx(total, abs=1e-4)


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
def test_a_wrong_argument_is_refused_by_its_name(
    use: Callable[[Model], object], problem: str
) -> None:
    """Not by an error of a function that the caller never saw."""
    with pytest.raises(UsageError, match=problem):
        use(charlm.load("tales"))
