"""Conditions: texts that begin with a value of a column, in training, likelihood and samples."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Call, encoded_documents, nested, tiny_settings, vocabulary_of
from task_sessions import trained

import charlm
from charlm.api.conditions import evaluate_conditions, posteriors, usual_condition
from charlm.api.sessions import Request, start_run
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import CharlmError, CorpusError, RunError, UsageError
from charlm.runs.conditions import documents_of
from charlm.runs.layout import CONFIG, read_config, read_record, write_record
from charlm.runs.model_files import write_logit_scale
from charlm.runs.parent import find_parent
from charlm.runs.run import load_run
from charlm.runs.tensors import tensors_from_file
from charlm.runs.verify import run_problems
from charlm.text.corpus import Corpus
from charlm.text.labels import UNSEEN
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.training.records import Review
from charlm.training.resume import resume
from charlm.training.session import Session
from charlm.training.start import start

JAZZ, ROCK = "jazz", "rock"
WORDS = ("a", "aa", "aaa", "aaaa"), ("b", "bb", "bbb", "bbbb")
EXAMPLES = [(WORDS[n % 2][n % 4], (JAZZ, ROCK)[n % 2]) for n in range(80)]
MIXED = [*EXAMPLES, *[("ab", ""), ("ba", "")] * 5]
TEXTS = ["aab", "b", "", "abba"]


@pytest.fixture(autouse=True)
def no_review(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the figures of training text, which take most of the time of a tiny run."""
    found = Review(train={}, advice=[])
    monkeypatch.setattr("charlm.training.language.review", lambda *_: found)


def started(
    folder: Path,
    examples: list[tuple[str, str]] = EXAMPLES,
    name: str = "songs",
    parent: str | None = None,
    **changes: Any,
) -> Session:
    """Start a run with conditions, or without if `condition` is None."""
    settings = tiny_settings(**{"condition": "genre", "ngram": None} | changes)
    if parent is None:
        return start(settings, folder, name=name, examples=examples)
    values = {"steps": 3, "precision": "fp32", "threads": 1, "seed": 1, "condition": "genre"}
    request = Request(
        flags=nested(**values | changes), name=name, checkpoints=folder, start_from=parent
    )
    return start_run(request, examples=examples)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that has learned that jazz is written with a, and rock with b."""
    with pytest.MonkeyPatch.context() as patch:
        no_review.__wrapped__(patch)  # type: ignore[attr-defined]
        return trained(
            started(
                tmp_path_factory.mktemp("songs"), steps=60, hidden_size=16, embedding_size=8,
                batch_size=40, bptt=8, learning_rate=0.05, tie_weights=False,
            )
        )  # fmt: skip


# ------------------------------------------------------------------ training


@pytest.mark.parametrize("unit", TEXT_UNITS)
def test_a_single_condition_is_trained_as_eos_is_without(unit: str, tmp_path: Path) -> None:
    """Weights are equal, but the condition has the row that EOS has in the plain model."""
    texts = [text for text, _ in EXAMPLES]
    sizes = {"steps": 5, "unit": unit, "valid_frac": 0.0, "hold_out": "end", "average": 0.0}
    one = started(tmp_path, [(text, "x") for text in texts], **sizes)
    corpus = Corpus.from_text("\n".join(texts) + "\n", "line")
    values = tiny_settings(**sizes, ngram=0, document="line")
    plain = start(values, tmp_path, name="plain", corpus=corpus)
    ours, theirs = (tensors_from_file(trained(each) / "model.safetensors") for each in (one, plain))
    row = ours.pop("conditions.weight")
    assert torch.allclose(row[0], theirs["embedding.weight"][EOS], atol=1e-5)
    assert not torch.allclose(row[0], ours["embedding.weight"][EOS], atol=1e-3)
    ours["embedding.weight"][EOS] = theirs["embedding.weight"][EOS]
    for name, tensor in theirs.items():
        assert torch.allclose(tensor, ours[name], atol=1e-5), name


STRUCTURES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_weights": True, "embedding_size": 3},
    "tied mixture": {"tie_weights": True, "mixture": 2},
    "adaptive": {"adaptive_softmax": True, "hidden_size": 16, "unit": "char"},
    "learned state": {"learned_state": True},
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_losses_of_training_are_those_of_the_loaded_conditions(
    name: str, tmp_path: Path
) -> None:
    """In every engine: the sum over conditions is what one pass over all texts gives."""
    examples = MIXED
    if name == "adaptive":
        examples = [(text + chr(192 + n), each) for n, (text, each) in enumerate(MIXED)]
    *_, finished = started(tmp_path, examples, **STRUCTURES[name]).records()
    path = tmp_path / "songs"
    for engine in ("auto", "torch") if name in ("untied", "tied") else ("torch",):
        tallies = evaluate_conditions(path, ["valid"], engine=engine)["valid"]
        assert list(tallies) == [None, JAZZ, ROCK, ""]
        assert tallies[None].nats == pytest.approx(finished.valid.nats, rel=1e-5)
        assert (tallies[None].tokens, tallies[None].chars) == (
            finished.valid.tokens,
            finished.valid.chars,
        )
    if name in ("untied", "tied"):
        run = load_run(path, condition=JAZZ, engine="numpy")
        assert evaluate_conditions(path, engine="numpy")["valid"][None].nats == pytest.approx(
            finished.valid.nats, rel=1e-5
        )
        assert run.load_scaled is not None
        assert run.load_scaled(2.0).logits_each == run.backend.logits_each


def test_a_stopped_run_resumes_to_the_same_end_without_its_text(tmp_path: Path) -> None:
    whole = trained(started(tmp_path / "a", MIXED, steps=6, evals=3))
    session = started(tmp_path / "b", MIXED, steps=6, evals=3)
    for record in session.records():
        if record.kind == "evaluation":
            session.trainer.stop("interrupted")
    assert session.trainer.counters.step < 6
    path = trained(resume(session.path))
    assert (path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert read_record(path)["results"]["valid"] == read_record(whole)["results"]["valid"]
    assert run_problems(path) == []


def test_a_run_of_another_column_is_not_resumed(tmp_path: Path) -> None:
    session = started(tmp_path)
    session.lock.release()
    record = read_record(session.path)
    record["settings"]["task"]["condition"] = "title"
    write_record(session.path, record)
    with pytest.raises(RunError, match="describes another model than"):
        resume(session.path)


def test_the_record_and_the_texts_name_the_conditions(tmp_path: Path) -> None:
    """The order of rows of the file has no effect on conditions or vocabulary."""
    path = trained(started(tmp_path, MIXED))
    again = trained(started(tmp_path, MIXED[::-1], name="again"))
    config, record = read_config(path), read_record(path)
    assert config["conditions"] == {
        "column": "genre", "labels": [JAZZ, ROCK], "documents": [36, 36], "without": 9,
    }  # fmt: skip
    assert read_config(again)["conditions"] == config["conditions"]
    assert record["format"] == config["format"] == 2
    assert record["corpus"]["labels"]["valid"] == {JAZZ: 4, ROCK: 4}
    assert (path / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()
    assert charlm.load(path).conditions == (JAZZ, ROCK)


def test_the_documents_of_uneven_conditions_are_counted_in_their_order(tmp_path: Path) -> None:
    """Some of each are held out at random; the most frequent one is the usual one."""
    session = started(tmp_path, [*EXAMPLES[:20], *[("bb", ROCK)] * 40])
    session.lock.release()
    config, record = read_config(session.path), read_record(session.path)
    assert config["conditions"]["documents"] == [9, 45]
    assert record["corpus"]["labels"]["valid"] == {JAZZ: 1, ROCK: 5}
    assert record["settings"]["corpus"]["hold_out"] == "random"
    assert usual_condition(session.path) == ROCK


def test_the_size_of_texts_is_known_if_their_ids_spell_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not with an unknown letter, nor of words whose blanks are not kept."""
    targets = np.array([0, 1, 0, UNSEEN])
    monkeypatch.setattr("charlm.runs.conditions.read_targets", lambda *_, **__: targets)
    letters = vocabulary_of("abc", "char")
    text = encoded_documents([[letters.tokens.index("a"), EOS], [UNK, EOS], [EOS], [UNK, EOS]])
    sizes = [documents_of(Path(), text, letters, 2, number).counts.chars for number in (0, 1, None)]
    assert sizes == [3, 0, 0]
    words = vocabulary_of("a b", "word", words="bare")
    text = encoded_documents([[words.tokens.index("a"), EOS]] * 4)
    assert documents_of(Path(), text, words, 2, 0).counts.chars == 0


def test_conditions_of_kept_texts_that_are_no_rows_are_found(songs: Path, tmp_path: Path) -> None:
    """`charlm verify` reads what lies beside the texts, also without a manifest of them."""
    path = tmp_path / "songs"
    shutil.copytree(songs, path)
    targets = path / "data" / "valid" / "targets.bin"
    targets.write_bytes(b"\x09" + targets.read_bytes()[1:])
    problems = run_problems(path)
    assert len(problems) == 2 and "data/valid/targets.bin: the targets are damaged" in problems[1]


def test_held_out_texts_are_those_of_the_condition(songs: Path) -> None:
    for condition, letter in ((JAZZ, "a"), (ROCK, "b")):
        run = load_run(songs, condition=condition)
        for name, number in (("train", 36), ("valid", 4)):
            text = run.kept(name)
            assert text is not None and text.documents == number and text.firsts is None
            assert set(run.vocabulary.decode(text.ids)) == {letter, "\n"}
            assert text.counts.chars == len(text.ids)
    assert load_run(songs).kept("valid") is None


# ------------------------------------------------------------------ starting from a run


@pytest.mark.parametrize("tied", [False, True])
def test_a_run_that_starts_from_a_plain_one_begins_as_that_does(tied: bool, tmp_path: Path) -> None:
    """Its vocabulary grows; the calibration of the parent is folded in."""
    values = tiny_settings(tie_weights=tied, embedding_size=3, unit="word")
    corpus = Corpus.from_text("a b a a b\n" * 20, "line")
    plain = trained(start(values, tmp_path, name="plain", corpus=corpus))
    write_logit_scale(plain, 1.5)
    session = started(tmp_path, [("a b", JAZZ), ("b", ROCK), ("a", JAZZ)] * 9, parent="plain")
    session.lock.release()
    before = charlm.load(plain).score("a b b")[0].log_probability
    for condition in (JAZZ, ROCK):
        model = charlm.load(session.path, condition=condition)
        assert model.score("a b b")[0].log_probability == pytest.approx(before, abs=1e-5)


def test_a_run_that_starts_from_one_with_its_conditions_begins_as_that_does(
    tmp_path: Path,
) -> None:
    """The factor of a tied parent scales the rows of its conditions too."""
    parent = trained(started(tmp_path, tie_weights=True, embedding_size=3, name="parent"))
    write_logit_scale(parent, 1.5)
    session = started(tmp_path, MIXED, parent="parent")
    session.lock.release()
    for condition in (JAZZ, ROCK):
        (before,), (after,) = (
            charlm.load(path, condition=condition).score("aba") for path in (parent, session.path)
        )
        assert after.log_probability == pytest.approx(before.log_probability, abs=1e-5)


def test_conditions_begin_like_those_of_the_parent_with_the_same_name(
    songs: Path, tmp_path: Path
) -> None:
    """New ones begin like EOS, and a run without conditions has that only."""
    examples = [("ab", ROCK), ("ba", "blues")] * 10
    session = started(tmp_path, examples, parent=str(songs))
    session.lock.release()
    rows = tensors_from_file(session.path / "model.safetensors")["conditions.weight"]
    old = tensors_from_file(songs / "model.safetensors")
    scale = find_parent(str(songs), tmp_path).logit_scale
    assert scale == 1.0 or "output.weight" in old  # folded into the output layer only
    assert torch.equal(rows[0], old["embedding.weight"][EOS])  # blues
    assert torch.equal(rows[1], old["conditions.weight"][1])
    values = {"steps": 3, "precision": "fp32", "threads": 1, "seed": 1}
    request = Request(
        flags=nested(**values), name="plain", checkpoints=tmp_path, start_from=str(songs)
    )
    plain = start_run(request, corpus=Corpus.from_text("ab\nba\n" * 9, "line"))
    plain.lock.release()
    assert "conditions" not in read_config(plain.path)
    assert "conditions.weight" not in tensors_from_file(plain.path / "model.safetensors")


def test_a_classifier_starts_from_a_run_with_conditions(songs: Path, tmp_path: Path) -> None:
    values = {"steps": 2, "precision": "fp32", "threads": 1, "seed": 1, "task": "classify"}
    request = Request(
        flags=nested(**values), name="labels", checkpoints=tmp_path, start_from=str(songs)
    )
    session = start_run(request, examples=EXAMPLES)
    session.lock.release()
    ours = session.trainer.model.state_dict()["embedding.weight"]
    assert torch.equal(ours, tensors_from_file(songs / "model.safetensors")["embedding.weight"])


# ------------------------------------------------------------------ samples and scores


def test_samples_have_the_letters_of_their_condition(songs: Path) -> None:
    for condition, letter in ((JAZZ, "a"), (ROCK, "b")):
        model = charlm.load(songs, condition=condition)
        text = "".join(model.samples(20, 20, seed=1, temperature=0.5))
        assert set(text) - {"\n"} == {letter}
        assert model.condition == condition


def test_a_condition_is_never_generated(songs: Path) -> None:
    """At any temperature: the output layer has no entry for it."""
    model = charlm.load(songs, condition=JAZZ)
    pieces = model.generate(2000, seed=1, temperature=1000.0, allow_unk=True, until_eos=False)
    assert {piece.id for piece in pieces} - {None} == set(range(len(model.vocabulary)))
    every = model.next("", top=99)
    assert sum(token.probability for token in every) == pytest.approx(1.0)


def test_posteriors_follow_bayes_rule(songs: Path) -> None:
    """With the fractions of the training texts as prior, here equal ones."""
    found = posteriors(songs, TEXTS)
    assert found.labels == (JAZZ, ROCK)
    for number, name in enumerate(found.labels):
        scores = charlm.load(songs, condition=name).score(TEXTS)
        expected = [score.log_probability for score in scores]
        np.testing.assert_allclose(found.log_p[:, number], expected)
    by_hand = np.exp(found.log_p) / np.exp(found.log_p).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, by_hand, atol=1e-9)
    right = posteriors(songs, ["aaa", "bb"]).probabilities
    assert right[0, 0] > 0.99 and right[1, 1] > 0.99


def test_the_prior_of_a_condition_is_its_fraction_of_the_training_texts(
    songs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "songs"
    shutil.copytree(songs, path)
    config = json.loads((path / CONFIG).read_text())
    config["conditions"]["documents"] = [30, 10]
    (path / CONFIG).write_text(json.dumps(config))
    found = posteriors(path, TEXTS)
    weighed = np.exp(found.log_p) * [0.75, 0.25]
    np.testing.assert_allclose(found.probabilities, weighed / weighed.sum(1, keepdims=True))


def test_a_pickled_model_keeps_its_condition(songs: Path) -> None:
    import pickle

    model = charlm.load(songs, condition=ROCK)
    again = pickle.loads(pickle.dumps(model))
    assert again.condition == ROCK and again.score("b")[0] == model.score("b")[0]


# ------------------------------------------------------------------ commands


@pytest.fixture
def at_songs(songs: Path, monkeypatch: pytest.MonkeyPatch, here: Path) -> Path:
    """Work beside the run, which is the newest one."""
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(songs.parent))
    return here


def test_commands_take_a_condition(call: Call, at_songs: Path) -> None:
    status, out, _ = call("sample", "--condition", ROCK, "--n", "3", "--seed", "1", "--top-k", "1")
    assert status == 0 and set(out) == {"b", "\n"}
    status, out, _ = call("next", "--condition", JAZZ, "--top", "1")
    assert status == 0 and out.split()[3] == "a"
    found = {
        name: call("score", "--condition", name, "--format", "scores", "aab")[1]
        for name in (JAZZ, ROCK)
    }
    status, out, _ = call("score", "--by", "condition", "aab", "b", "--format", "tsv")
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0][:4] == ["sentence_id", "condition", "log_probability_base_e", "probability"]
    assert [line[:2] for line in lines[1:]] == [[n, name] for n in "12" for name in (JAZZ, ROCK)]
    assert [float(line[2]) for line in lines[1:3]] == [float(found[name]) for name in (JAZZ, ROCK)]
    assert float(lines[1][3]) + float(lines[2][3]) == pytest.approx(1.0, abs=1e-5)


def test_conditions_of_texts_are_written_in_every_format(call: Call, at_songs: Path) -> None:
    """Rows without text are left out; the others keep their numbers."""
    Path("lines.tsv").write_text("number\ttext\n1\tb\n2\t\n3\taa\n")
    source = ["score", "--by", "condition", "--file", "lines.tsv", "--log-base", "2", "--format"]
    status, out, err = call(*source, "jsonl")
    assert status == 0, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["sentence_id"], row["condition"]) for row in rows] == [(1, ROCK), (3, JAZZ)]
    assert rows[0]["log_base"] == "2"
    logs = [each["log_probability"] for each in rows[0]["conditions"]]
    found = posteriors(charlm.load("songs", condition=JAZZ).path, ["b"])
    np.testing.assert_allclose(logs, found.log_p[0] / np.log(2.0))
    _, out, _ = call(*source, "csv")
    assert out.splitlines()[0] == "sentence_id,condition,log_probability_base_2,probability,text"
    _, out, _ = call(*source, "table")
    assert out.split()[:5] == ["probability", "log2", "P", "condition", "text"]
    assert out.index(ROCK) < out.index(JAZZ)
    status, out, err = call("score", "--by", "condition", stdin=b"")
    assert (status, out) == (0, "") and "no text was found" in err


def test_a_run_is_evaluated_by_condition(call: Call, at_songs: Path, songs: Path) -> None:
    status, out, _ = call("eval", "--json")
    found = json.loads(out)
    assert status == 0 and set(found["conditions"]) == {JAZZ, ROCK}
    nats = [figures["nats"] for figures in found["conditions"].values()]
    assert found["nats"] == pytest.approx(sum(nats))
    recorded = read_record(songs)["results"]["valid"]
    assert found["nats"] == pytest.approx(recorded["nats"], rel=1e-5)
    assert found["chars"] == recorded["chars"]
    status, out, _ = call("eval")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [
        ["valid", "8"], ["valid,", JAZZ], ["valid,", ROCK],
    ]  # fmt: skip
    status, out, _ = call("eval", "--condition", JAZZ, "--json")
    assert json.loads(out)["nats"] == pytest.approx(found["conditions"][JAZZ]["nats"])
    Path("more.txt").write_text("aa\na\n")
    status, out, err = call("eval", "--condition", JAZZ, "--file", "more.txt", "--json")
    assert status == 0 and json.loads(out)["documents"] == 2 and "was not read" not in err


def test_eval_reports_a_column_of_conditions_that_it_does_not_read(
    call: Call, at_songs: Path
) -> None:
    """Rows of rock were evaluated as jazz, and nothing was reported."""
    Path("more.tsv").write_text(f"genre\ttext\n{ROCK}\tbb\n{JAZZ}\ta\n")
    status, _, err = call("eval", "--condition", JAZZ, "--file", "more.tsv")
    assert status == 0
    assert "column 'genre' was not read: every text was evaluated with the condition jazz" in err
    Path("other.tsv").write_text("singer\ttext\nAnna\tbb\n")
    assert "was not read" not in call("eval", "--condition", JAZZ, "--file", "other.tsv")[2]


def test_a_run_says_what_its_conditions_are(call: Call, here: Path) -> None:
    rows = "".join(f"{genre}\t{text}\n" for text, genre in MIXED)
    Path("songs.tsv").write_text(f"genre\ttext\n{rows}")
    words = ["--steps", "2", "--hidden", "3", "--layers", "1", "--seed", "1", "--threads", "1"]
    source = ["train", "songs.tsv", "--condition", "genre", *words]
    status, _, err = call(*source, "--name", "more", "--checkpoints", "runs")
    assert status == 0 and "with   genre: jazz 36, rock 36 (9 texts without)\n" in err
    assert "charlm sample --condition jazz --n 10 --run runs/more\n" in err
    assert "a sample, condition jazz:\n" in err
    assert "charlm score --by condition 'one line of yours'" in err
    _, out, _ = call("info", "--run", "runs/more")
    assert "genre: jazz 36, rock 36 (9 texts without)" in out
    assert "--condition genre" in out.split("To train it again")[1]
    card = Path("runs/more/README.md").read_text()
    assert "| conditions | jazz 50.0 %, rock 50.0 % |" in card
    assert "charlm sample --run more --condition jazz" in card


def test_the_call_that_a_message_advises_finds_the_run(songs: Path, at_songs: Path) -> None:
    """The story: it had the name of a run that is not in the folder of runs."""
    other = Path("elsewhere") / "songs"
    shutil.copytree(songs, other)
    with pytest.raises(UsageError, match="expected one, as in") as error:
        charlm.load("songs", checkpoints=other.parent)
    advised = str(error.value).split("(in Python: ")[1].removesuffix(")")
    assert eval(advised, {"charlm": charlm}).path.samefile(other)
    shutil.rmtree(other.parent)


def test_ngrams_of_the_text_of_a_run_know_no_conditions(call: Call, at_songs: Path) -> None:
    status, _, err = call("ngram", "--like", "songs", "--name", "counted")
    assert status == 0, err
    path = charlm.load("counted").path
    assert "conditions" not in read_config(path) and "labels" not in read_record(path)["corpus"]
    shutil.rmtree(path)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["sample"], "a condition (jazz, rock); expected one. Use --condition jazz\n"),
        (["inside", "a"], "expected one, as in: charlm sample --condition jazz --run "),
        (["next", "--condition", "roc"], "run songs has no condition 'roc'; did you mean 'rock'?"),
        (["score", "--by", "condition", "--condition", JAZZ, "a"], "--condition with --by "),
        (["score", "--by", "condition", "--rank", "a"], "--rank with --by condition"),
        (["score", "--by", "condition", "--format", "srilm", "a"], "--format is 'srilm'"),
        (["score", "--by", "condition", "--tokens", "a"], "--tokens with --by condition"),
        (["eval", "--cache", "9"], "--cache with all conditions of run songs; expected no such"),
        (["eval", "--file", "x.txt"], "begins each text with a condition (jazz, rock)"),
        (["gradients", "x.txt"], "begins each text with a condition (jazz, rock)"),
        (["serve"], "begins each text with a condition (jazz, rock)"),
        (["sample", "--condition", JAZZ, "--with", "tales"], "another vocabulary"),
        (["eval", "--condition", JAZZ, "--average"], "--average with a run that has conditions"),
        (["sample", "--condition", JAZZ, "--run", "tales"], "whose texts have no conditions"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_refused(
    words: list[str], problem: str, call: Call, at_songs: Path
) -> None:
    Path("x.txt").write_text("aa\n" * 40)
    status, out, err = call(*words)
    assert status == 2 and out == "" and problem in err, err


# ------------------------------------------------------------------ what is refused


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with a table of songs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(tmp_path))
    rows = "".join(f"{genre}\t{text}\n" for text, genre in EXAMPLES)
    Path("songs.tsv").write_text(f"genre\ttext\n{rows}")
    yield tmp_path


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"document": "stream"}, "condition genre with document stream; expected line, since each"),
        ({"direction": "backward"}, "condition genre with direction backward; expected forward"),
        ({"stateless": True}, "condition genre with stateless; expected it off, since only the"),
        ({"ngram": 3}, "condition genre with ngram 3; expected 0, since n-grams know no condit"),
        ({"cell": "esn"}, "condition genre with cell esn; expected another, since its input is"),
        (
            {"hold_out": "end"},
            "hold_out end has no effect with condition genre; expected one of th",
        ),
        ({"condition": "gener"}, 'has no column "gener".*Did you mean "genre"'),
        ({"condition": "text", "column": "text"}, "holds the texts; expected another for the cond"),
        ({"task": "classify"}, "condition genre has no effect with task classify; expected task"),
        ({"target": "genre"}, "target genre has no effect with task language-model"),
        ({"condition": ""}, "condition is empty; expected the name of a column"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    options: dict[str, Any], problem: str, table: Path
) -> None:
    with pytest.raises(CharlmError, match=problem):
        charlm.train("songs.tsv", **{"condition": "genre", "steps": 1} | options)


def test_a_column_of_names_is_no_condition(table: Path) -> None:
    rows = "".join(f"{number}\ta\n" for number in range(1001))
    Path("names.tsv").write_text(f"id\ttext\n{rows}")
    with pytest.raises(CorpusError, match=r'"id" has 1,001 different values; expected from 1 to'):
        charlm.train("names.tsv", condition="id", steps=1)
    Path("empty.tsv").write_text("id\ttext\n\ta\n\tb\n")
    with pytest.raises(CorpusError, match='"id" has no value in any training row'):
        charlm.train("empty.tsv", condition="id", steps=1)


def test_a_list_is_no_condition(table: Path) -> None:
    Path("lists.jsonl").write_text('{"text": "Blue.", "genre": ["jazz", "rock"]}\n')
    with pytest.raises(CorpusError, match=r"rock.*expected one condition\. .* with condition$"):
        charlm.train("lists.jsonl", condition="genre", steps=1)


def test_text_without_columns_is_refused(table: Path) -> None:
    Path("plain.txt").write_text("a\nb\n")
    for options in ({"text": "ab\n"}, {}):
        with pytest.raises(UsageError, match="with a text that has no columns; expected a table"):
            charlm.train(**options, condition="genre", steps=1)
    with pytest.raises(UsageError, match="condition was given, but no source is a table"):
        charlm.train("plain.txt", condition="genre", steps=1)


def test_lines_of_fasttext_have_the_condition_label(table: Path) -> None:
    lines = "".join(f"__label__{genre} {text}\n" for text, genre in EXAMPLES)
    Path("songs.txt").write_text(lines)
    training = charlm.train("songs.txt", condition="label", steps=1, name="lines", seed=1)
    training.close()
    assert read_config(training.path)["conditions"]["labels"] == [JAZZ, ROCK]


def test_texts_with_line_ends_need_words_without_eos(tmp_path: Path) -> None:
    examples = [("a b\nb a", JAZZ), ("b", ROCK)] * 9
    with pytest.raises(UsageError, match="words whitespace, where each line of a text ends with"):
        started(tmp_path, examples, unit="word", words="whitespace")
    path = trained(started(tmp_path, examples, unit="word", words="text"))
    assert charlm.load(path, condition=JAZZ).run.boundaries.line_ends_inside


def test_a_condition_must_be_named_and_known(songs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"with a condition \(jazz, rock\); expected one"):
        charlm.load(songs)
    with pytest.raises(UsageError, match="no condition 'jaz'; did you mean 'jazz'"):
        charlm.load(songs, condition="jaz")
    with pytest.raises(UsageError, match="expected one of jazz, rock"):
        charlm.load(songs, condition="opera")
    with pytest.raises(UsageError, match="texts have no conditions; expected a run trained with"):
        charlm.load("tales", condition=JAZZ)
    with pytest.raises(UsageError, match="run tales has no conditions to compare"):
        posteriors(charlm.load("tales").path, TEXTS)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"labels": [JAZZ, JAZZ]}, "2 conditions, 1 of them different"),
        ({"labels": [JAZZ]}, "1 conditions, 1 of them different, with the numbers of documents"),
        ({"documents": [36, -36]}, r"numbers of documents \[36, -36\]; expected one above 0 for"),
        ({"labels": "x"}, "conditions.labels is str 'x'; expected a list"),
    ],
)
def test_a_damaged_table_of_conditions_is_refused(
    change: dict[str, Any], problem: str, songs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "songs"
    shutil.copytree(songs, path)
    config = json.loads((path / CONFIG).read_text())
    config["conditions"] |= change
    (path / CONFIG).write_text(json.dumps(config))
    with pytest.raises(RunError, match=problem):
        read_config(path)
