"""Labels of texts: `charlm predict` and `LabelModel`."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from helpers import Call, started
from labelled_runs import LABELS, WORDS, label_run
from test_floors import imported_after

import charlm
from charlm.api.loading import load, load_model
from charlm.errors import CorpusError, UsageError
from charlm.inference.labelling import Label
from charlm.report.predictions import LINES

TEXTS = ["a good film", "", "bad : not good", "never seen words", WORDS]


@pytest.fixture
def run(here: Path) -> Path:
    return label_run(here / "checkpoints" / "movies")


@pytest.fixture
def model(run: Path) -> charlm.LabelModel:
    return load(run)


# ------------------------------------------------------------------ the library


def test_load_gives_the_model_of_labels(run: Path) -> None:
    model = charlm.load(run, engine="numpy")
    assert isinstance(model, charlm.LabelModel)
    assert (model.labels, model.run.reader.name) == (LABELS, "numpy")
    assert "3 labels (neg, pos, so so)" in repr(model)
    assert list(model.history) == []
    with pytest.raises(UsageError, match="weights int8 with run movies, which gives labels"):
        charlm.load(run, weights="int8")
    with pytest.raises(UsageError, match="tales gives text, and movies gives labels"):
        charlm.load(run, with_=["tales"])
    with pytest.raises(UsageError, match="gives labels, not text"):
        load_model(run)


def test_answers_are_softmaxes_of_the_logits(model: charlm.LabelModel) -> None:
    answers = model.predict(iter(TEXTS))
    logits = model.run.reader.logits(model.run.encode(TEXTS))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for answer, row in zip(answers, shares, strict=True):
        assert tuple(answer.probabilities) == LABELS
        assert list(answer.probabilities.values()) == pytest.approx(row.tolist())
        assert answer.probability == max(answer.probabilities.values())
        assert answer.top(3)[0] == (answer.label, answer.probability)
    assert model.predict("bad") == model.predict(["bad"])
    assert model.predict([]) == []
    with pytest.raises(UsageError, match=r"texts\[1\] is 5; expected a str"):
        model.predict(["a", 5])


def test_texts_may_arrive_one_by_one(model: charlm.LabelModel) -> None:
    """No more of them are taken than one group needs."""
    taken = []
    answers = model.predict_each(taken.append(number) or "good" for number in range(10_000))
    next(answers)
    assert len(taken) < 1_000


def test_a_long_text_is_cut(model: charlm.LabelModel) -> None:
    """It is answered as what the model keeps of it: six tokens at each end."""
    words = ["good"] * 6 + ["never seen"] * 50_000 + ["bad"] * 6
    assert model.predict(" ".join(words)) == model.predict("good " * 6 + "bad " * 6)


def test_the_answer_as_it_is_read_is_that_of_each_prefix(model: charlm.LabelModel) -> None:
    text = "Not  a GOOD, strange\tfilm."
    steps = model.as_read(text)
    pieces = ["Not", "a", "GOOD", ",", "strange", "film", "."]
    assert [piece for piece, _ in steps] == pieces
    for count, (_, answer) in enumerate(steps, start=1):
        (expected,) = model.predict(" ".join(pieces[:count]))
        assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert model.as_read("") == []
    assert len(model.as_read("film " * 100)) == 12  # the tokens that the model keeps


def test_counts_are_those_of_the_answers(model: charlm.LabelModel) -> None:
    answers = model.predict(TEXTS)
    gold = [answers[0].label, "so so", "pos", "unheard of", None]
    counts = model.evaluate(TEXTS, gold)
    right = sum(answer.label == label for answer, label in zip(answers, gold, strict=True))
    known = zip(answers[:3], gold[:3], strict=True)
    assert (counts.texts, counts.unseen) == (5, 2)
    assert counts.accuracy == pytest.approx(right / 5)
    assert counts.nats == pytest.approx(-sum(np.log(a.probabilities[g]) for a, g in known))
    with pytest.raises(UsageError, match="1 labels for 5 texts"):
        model.evaluate(TEXTS, ["pos"])
    with pytest.raises(UsageError, match=r"labels\[1\] is 1; expected a str or None"):
        model.evaluate(["a", "b"], ["pos", 1])  # "1" may be a label, 1 never is
    assert model.evaluate("a good film", "pos") == model.evaluate(["a good film"], ["pos"])


def test_nats_are_those_of_the_calibrated_model(here: Path) -> None:
    plain, scaled = (load(label_run(here / str(s), scale=s)) for s in (1.0, 2.0))
    first, second = (model.evaluate(TEXTS, [LABELS[0]] * 5) for model in (plain, scaled))
    assert second.raw_nats == pytest.approx(first.nats)
    assert second.scale == 2.0
    answers = scaled.predict(TEXTS)
    assert second.nats == pytest.approx(-sum(np.log(a.probabilities[LABELS[0]]) for a in answers))


@pytest.mark.parametrize("engine", ["auto", "numpy", "torch"])
def test_states_are_those_that_features_are_made_of(engine: str, here: Path) -> None:
    model = load(label_run(here / "x", pooling="max", both_ways=False), engine=engine)
    states, features = model.states(TEXTS), model.features(TEXTS)
    assert [state.shape for state in states][:3] == [(4, 3), (1, 3), (5, 3)]
    assert np.abs(np.stack([state.max(axis=0) for state in states]) - features).max() < 1e-6


def test_states_of_a_language_model_are_its_hidden_vectors(tmp_path: Path) -> None:
    session = started(tmp_path, text="ab cd\nab\n" * 20, document="line")
    for _ in session.records():
        pass
    model = load_model(session.path)
    (states,) = model.states("ab c")
    hidden = model.hidden("ab c")
    assert np.abs(states[1:] - hidden.signals["h"][-1]).max() < 1e-6
    assert np.array_equal(states[0], hidden.start.hidden[-1][0][0])


EXAMPLES = [("good film", "pos"), ("bad film", "neg")] * 12


def test_examples_in_memory_train_a_classifier(here: Path) -> None:
    """And the command reads the run: the newest one that gives labels."""
    model = charlm.fit(
        examples=EXAMPLES, task="classify", steps=30, seed=1, threads=1, precision="fp32",
        learning_rate=0.02, checkpoints=here / "checkpoints",
    )  # fmt: skip
    assert isinstance(model, charlm.LabelModel)
    assert model.labels == ("neg", "pos")
    assert [answer.label for answer in model.predict(["good film", "bad film"])] == ["pos", "neg"]
    assert model.history[-1]["kind"] == "finished"
    assert load(checkpoints=here / "checkpoints").path == model.path


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": EXAMPLES}, "examples have labels, which task language-model"),
        ({"examples": EXAMPLES, "text": "abc", "task": "classify"}, "both given"),
        ({"examples": [("a", "x"), "b"], "task": "classify"}, r"examples\[1\] is 'b'"),
        ({"examples": [("a", 1)], "task": "classify"}, r"examples\[0\] is \('a', 1\)"),
    ],
)
def test_examples_that_do_not_fit_are_refused(options, message: str, here: Path) -> None:
    with pytest.raises(UsageError, match=message):
        charlm.train(checkpoints=here / "checkpoints", **options)


def test_a_pickled_model_gives_the_same_answers(model: charlm.LabelModel) -> None:
    copy = pickle.loads(pickle.dumps(model))
    assert copy.predict(TEXTS) == model.predict(TEXTS)


# ------------------------------------------------------------------ the command


def test_arguments_get_a_table_for_programs(model: charlm.LabelModel, call: Call) -> None:
    status, out, err = call("predict", "a good film", "bad")
    head, *lines = out.splitlines()
    answers = model.predict(["a good film", "bad"])
    assert (status, head) == (0, "label\tprobability\ttext")
    expected = [f"{a.label}\t{a.probability:.4f}" for a in answers]
    assert [line.rpartition("\t")[0] for line in lines] == expected
    assert err == "run movies (the newest run)\n"


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("output", ["tsv", "labels", "fasttext", "jsonl"])
def test_a_line_depends_on_its_text_alone(output: str, call: Call) -> None:
    """Also for empty lines, carriage returns, and a last line without its end."""
    lines = ["good film", "", "bad", "  ", "a film : odd", *(f"good {n}" for n in range(300)), "x"]
    for end in ("\n", "\r\n"):
        _, out, _ = call("predict", "--format", output, stdin=end.join(lines).encode())
        found = out.splitlines()[output == "tsv" :]
        assert len(found) == len(lines)
        for number in (0, 1, 2, 3, 4, 100, len(lines) - 1):
            text = lines[number].encode() + b"\n"
            _, alone, _ = call("predict", "--format", output, stdin=text)
            assert alone.splitlines()[output == "tsv" :] == [found[number]]
    empty = [found[1], found[3]]
    if output == "jsonl":
        assert [json.loads(line)["label"] for line in empty] == [None, None]
    else:
        assert empty == ["", ""]


def test_formats_agree(model: charlm.LabelModel, call: Call) -> None:
    text = "tab\tline\nend \x1b[31m film"
    (answer,) = model.predict(text)
    shown = "tab\\tline\\nend \\x1b[31m film"
    name, p = answer.label, f"{answer.probability:.4f}"
    second, q = answer.top(2)[1]
    calls = {
        ("--format", "tsv"): f"label\tprobability\ttext\n{name}\t{p}\t{shown}\n",
        ("--format", "tsv", "--top", "2"): (
            "label\tprobability\tlabel_2\tprobability_2\ttext\n"
            f"{name}\t{p}\t{second}\t{q:.4f}\t{shown}\n"
        ),
        ("--format", "labels"): f"{name}\n",
        ("--format", "fasttext"): f"__label__{name.replace(' ', '-')} {p}\n",
    }
    for flags, expected in calls.items():
        assert call("predict", *flags, text)[:2] == (0, expected)
    all_labels = call("predict", "--format", "tsv", "--top", "3", text)
    assert call("predict", "--format", "tsv", "--top", "9", text) == all_labels
    line = json.loads(call("predict", "--format", "jsonl", text)[1])
    document = json.loads(call("predict", "--json", text)[1])
    assert document["predictions"] == [line]
    assert document["labels"] == list(LABELS)
    assert line["text"] == text
    assert line["probabilities"] == pytest.approx(answer.probabilities, abs=1e-6)
    table = call("predict", "--format", "table", text)[1]
    assert table.split("\n")[0].split() == ["label", "probability", "text"]
    assert f"{p}  tab" in table


def test_controls_in_a_label_are_escaped() -> None:
    """They would move the cursor, or end the line."""
    answer = Label("\x1b[31m a\x85", 0.75, {"\x1b[31m a\x85": 0.75, "b": 0.25})
    for name in ("tsv", "labels", "fasttext"):
        line = LINES[name]("text", answer, 1)
        assert "\\x1b[31m" in line and line.isascii() and line.splitlines() == [line[:-1]]


def test_the_answer_is_shown_as_it_is_read(model: charlm.LabelModel, call: Call) -> None:
    steps = model.as_read("good bad film")
    label = steps[-1][1].label
    expected = " | ".join(f"{a.probabilities[label]:.2f} {piece}" for piece, a in steps)
    status, out, _ = call("predict", "--tokens", "good bad film")
    assert (status, out) == (0, f"P({label})  {expected}\n")
    line = json.loads(call("predict", "--tokens", "--format", "jsonl", "good bad film")[1])
    assert [token["token"] for token in line["tokens"]] == ["good", "bad", "film"]
    assert line["label"] == label


@pytest.mark.usefixtures("run")
def test_files_are_read_as_in_training(call: Call) -> None:
    """Tables, fastText lines and plain lines; labels are ignored."""
    Path("t.tsv").write_text("text\tlabel\ngood film\tpos\nbad\tneg\n")
    Path("t.txt").write_text("good film\nbad\n")
    expected = call("predict", "--format", "labels", "good film", "bad")[1]
    Path("t.fast").write_text("__label__pos good film\n__label__neg bad\n")
    Path("t.jsonl").write_text('{"text": "good film"}\n{"text": "bad"}\n')
    for name in ("t.tsv", "t.txt", "t.fast", "t.jsonl"):
        assert call("predict", "--format", "labels", "--file", name)[:2] == (0, expected)
    both = call("predict", "--format", "labels", "--file", "t.txt", "--file", "t.tsv")[1]
    assert both == expected * 2
    lines = Path("t.fast").read_bytes()
    assert call("predict", "--format", "labels", "--file", "-", stdin=lines)[1] == expected


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--file", "nothing.txt"], 3, "nothing.txt does not exist"),
        (["--file", "b.bin"], 3, "b.bin"),
        (["--format", "xml", "a"], 2, "--format"),
        (["--tokens", "--format", "tsv", "a"], 2, "jsonl"),
        (["--json", "--format", "tsv", "a"], 2, "--json with --format tsv"),
        (["--top", "2", "--format", "labels", "a"], 2, "--top 2"),
        (["--top", "2", "--tokens", "a"], 2, "--top 2 with --tokens"),
        (["--column", "text", "a"], 2, "--file or stdin"),
        (["--column", "text"], 2, "--column has no effect without --file or --input-format"),
        (["--target", "label", "--file", "-"], 2, "--target has no effect without --file or"),
        (["a", "--file", "b.bin"], 2, "both given"),
        (
            ["--run", "tales", "a"],
            2,
            "gives text; .*labels, tags or translations. Use: charlm score --run tales\n",
        ),
        (["--run", "movie", "a"], 4, "Did you mean movies"),
        (["--engine", "cuda", "a"], 2, "engine"),
    ],
)
def test_misuse_is_answered_in_one_line(
    words: list[str], status: int, message: str, call: Call
) -> None:
    import re

    Path("b.bin").write_bytes(bytes(range(256)) * 4)
    got, out, err = call("predict", *words)
    assert (got, out) == (status, "")
    assert re.search(message, err)
    assert len(err.splitlines()) == 1 + ("newest run" in err)


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    "words",
    [
        ["sample"], ["score", "a"], ["next", "a"], ["inside", "a"], ["fill", "a ___"],
        ["gradients", "--lags", "4"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_other_commands_name_this_one(words: list[str], call: Call) -> None:
    status, _, err = call(*words, "--run", "movies")
    assert status == 2, err
    assert "charlm predict --run movies" in err


def test_without_a_run_of_labels_the_way_to_one_is_named(here: Path, call: Call) -> None:
    assert here.exists()
    status, _, err = call("predict", "a")
    assert status == 4
    assert "charlm train FILE --task classify" in err


@pytest.mark.usefixtures("run")
def test_slips_and_unknown_words_are_reported(call: Call) -> None:
    Path("t.txt").write_text("good\n")
    assert "charlm predict --file t.txt" in call("predict", "t.txt")[2]
    assert "put a sentence into quotes" in call("predict", "a", "good", "film")[2]
    assert "'zebra'" in call("predict", "a zebra")[2]
    assert "nothing was labelled" in call("predict", stdin=b"")[2]


def test_a_lone_surrogate_is_refused(model: charlm.LabelModel) -> None:
    with pytest.raises(CorpusError):
        model.predict(["a \ud800"])
    with pytest.raises(CorpusError):
        model.as_read("a \ud800")


def test_no_torch_is_imported(run: Path, tmp_path: Path) -> None:
    words = ["predict", "good film", "--run", str(run)]
    code = f"from charlm.cli import main; main({words!r})"
    assert "torch" not in imported_after(code, 0, tmp_path)


@pytest.mark.parametrize(
    ("words", "note"),
    [
        ([""], "1 text without words has no answer, and its place is empty (the first is text 1)"),
        (
            ["good film", " ", "bad", "\t"],
            "2 texts without words have no answer, and their places are empty",
        ),
        (["good film"], ""),
    ],
)
def test_texts_without_words_are_reported(
    model: charlm.LabelModel, words: list[str], note: str, call: Call
) -> None:
    """Their lines are empty, which looked like a fault."""
    for flags in ([], ["--json"], ["--tokens"]):
        status, _, err = call("predict", "--run", str(model.path), *flags, "--", *words)
        assert status == 0 and ("without words" in err) == bool(note) and note in err
    assert (
        note
        in call(
            "predict",
            "--run",
            str(model.path),
            stdin="".join(f"{each}\n" for each in words).encode(),
        )[2]
    )
