"""`charlm eval`, `compare`, `verify`, `info` and `runs` on a run that gives labels."""

import json
import random
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import Call

import charlm
from charlm.api.label_evaluation import evaluate_labels
from charlm.cli import main
from charlm.config.settings import settings_from
from charlm.files.atomic import json_bytes
from charlm.report.repeating import repeat_command
from charlm.runs.data import read_data
from charlm.runs.label_run import load_label_run
from charlm.runs.layout import CONFIG, read_record, write_record
from charlm.runs.model_files import replace_file
from charlm.runs.verify import run_problems
from charlm.text.tokenizers.vocabulary import load_vocabulary

TINY = ("--hidden", "8", "--embedding", "8", "--batch", "8", "--threads", "1", "--seed", "1")


def rows(texts: int, seed: int) -> str:
    """A table: a text is good or bad by one of its words; one in three is bad."""
    draw = random.Random(seed)
    lines = ["label\ttext"]
    for number in range(texts):
        label, word = ("neg", "bad") if number % 3 == 0 else ("pos", "good")
        words = [*draw.choices(("film", "plot", "actor", "the"), k=4), word]
        lines.append(f"{label}\t{' '.join(draw.sample(words, 5))}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: `good` has learned, `poor` has not."""
    folder = tmp_path_factory.mktemp("labels")
    for name, texts, seed in (("train", 90, 1), ("valid", 30, 2), ("test", 60, 3)):
        (folder / f"{name}.tsv").write_text(rows(texts, seed), encoding="utf-8")
    for name, more in (
        ("good", ["--steps", "60", "--learning-rate", "0.02"]),
        ("poor", ["--steps", "1", "--set", "lowercase=false", "--set", "bag_of_words=false"]),
    ):
        words = ["train", str(folder / "train.tsv"), "--task", "classify", *TINY, *more, "-q"]
        for split in ("valid", "test"):
            words += [f"--{split}", str(folder / f"{split}.tsv")]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--name", name, "--checkpoints", str(folder)])
        assert not ended.value.code
    return folder


def test_the_kept_texts_and_their_file_have_the_same_figures(runs: Path, call: Call) -> None:
    """As in run.json, up to the engine; with floors, intervals and a row for each label."""
    _, out, _ = call("eval", "--run", str(runs / "good"), "--json", "--worst", "3")
    kept = json.loads(out)["test"]
    _, out, _ = call(
        "eval", "--run", str(runs / "good"), "--file", str(runs / "test.tsv"), "--json",
        "--worst", "99",
    )  # fmt: skip
    read, recorded = json.loads(out), read_record(runs / "good")["results"]["test"]
    for key in ("accuracy", "macro_f1", "confusion", "texts"):
        assert kept[key] == read[key] == recorded[key]
    assert kept["nats_per_text"] == pytest.approx(recorded["nats_per_text"], abs=1e-3)
    assert read["floors"]["majority"] == pytest.approx(2 / 3)
    assert read["floors"]["bag_of_words"] > 0.9
    low, high = read["intervals"]["accuracy"]
    assert low <= read["accuracy"] <= high
    assert len(kept["worst"]) == 3 and len(read["worst"]) == 60
    chances = [row["gold_probability"] for row in read["worst"]]
    assert chances == sorted(chances)
    assert [row["text"] for row in read["worst"][:3]] == [row["text"] for row in kept["worst"]]


def test_tables_of_an_evaluation(runs: Path, call: Call) -> None:
    """Figures, labels, confusion and the worst texts, for people."""
    status, out, _ = call("eval", "--run", str(runs / "good"), "--worst", "1")
    assert status == 0
    for words in ("95 % interval", "macro-recall", "test: labels", "test: confusion",
                  "valid: least probable gold labels"):  # fmt: skip
        assert words in out


def test_labels_that_training_lacks_are_errors(runs: Path, tmp_path: Path, call: Call) -> None:
    """They are reported, and never a crash; a file of such labels alone is refused."""
    file = tmp_path / "new.tsv"
    file.write_text("label\ttext\npos\tgood film\nso so\tan odd plot\n", encoding="utf-8")
    status, out, err = call("eval", "--run", str(runs / "good"), "--file", str(file), "--json")
    figures = json.loads(out)
    assert status == 0 and (figures["unseen"], figures["texts"]) == (1, 2)
    assert figures["accuracy"] <= 0.5 and "'so so'" in err
    file.write_text("label\ttext\nso so\tan odd plot\n", encoding="utf-8")
    status, _, err = call("eval", "--run", str(runs / "good"), "--file", str(file))
    assert status == 3 and "none of its labels ('so so') is one of run good" in err


def test_a_file_without_labels_is_refused(runs: Path, tmp_path: Path, call: Call) -> None:
    """With the command that needs none."""
    file = tmp_path / "plain.txt"
    file.write_text("good film\nbad film\n", encoding="utf-8")
    status, _, err = call("eval", "--run", str(runs / "good"), "--file", str(file))
    assert status == 3 and "no text has a label" in err and "charlm predict --file" in err
    table = tmp_path / "other.tsv"
    table.write_text("verdict\ttext\npos\tgood film\n", encoding="utf-8")
    status, _, err = call("eval", "--run", str(runs / "good"), "--file", str(table))
    assert status == 3 and "Its columns: verdict, text. Name the column of the labels with" in err
    words = ("--file", str(runs / "test.tsv"), "--target", "lable")
    status, _, err = call("eval", "--run", str(runs / "good"), *words)
    assert status == 3 and 'no column "lable"' in err and 'Did you mean "label"?' in err
    file = tmp_path / "blank.tsv"
    file.write_text("stars\ttext\n\tgood film\n", encoding="utf-8")
    words = ("--file", str(file), "--target", "stars")
    status, _, err = call("eval", "--run", str(runs / "good"), *words)
    assert status == 3 and "--target 'stars' finds none" in err


@pytest.mark.parametrize(
    "words",
    [["--cache", "9"], ["--dynamic"], ["--reset"], ["--ngram", "3"], ["--weights", "int8"],
     ["--document", "line"]],
)  # fmt: skip
def test_flags_of_the_other_kind_are_refused(runs: Path, call: Call, words: list[str]) -> None:
    status, _, err = call("eval", "--run", str(runs / "good"), *words)
    assert status == 2 and f"{words[0]} is for runs that give text, and run good gives" in err
    status, _, err = call("eval", "--run", "tales", "--worst", "3")
    assert status == 2 and "--worst is for runs that give labels" in err


def test_runs_are_compared_text_by_text(runs: Path, call: Call) -> None:
    """The better one is called better, the same run no different; kinds are never mixed."""
    good, poor = str(runs / "good"), str(runs / "poor")
    status, out, err = call("compare", poor, good, poor, "--json")
    first, better, same = json.loads(out)["runs"]
    assert status == 0 and "60 test texts" in err and first["difference"] is None
    assert better["difference"]["verdict"] == "better"
    assert better["difference"]["accuracy"] == pytest.approx(1 - first["accuracy"])
    assert better["difference"]["low"] > 0 and better["difference"]["p"] < 0.01
    assert same["difference"]["verdict"] == "no difference shown" and same["difference"]["p"] == 1
    status, out, _ = call("compare", poor, good, "--file", str(runs / "valid.tsv"))
    assert status == 0 and "better" in out
    lines = b"__label__pos good film\n__label__neg bad film\n"  # standard input is read only once
    status, out, _ = call("compare", poor, good, "--file", "-", "--json", stdin=lines)
    assert status == 0 and [row["texts"] for row in json.loads(out)["runs"]] == [2, 2]
    for words, reason in (
        (["--target", "label"], "--file"),
        (["--unk-penalty", "0"], "--unk-penalty is for runs that give text"),
    ):
        status, _, err = call("compare", poor, good, *words)
        assert status == 2 and reason in err
    status, _, err = call("compare", good, "tales")
    assert status == 2 and "run good gives labels, and run tales gives text" in err


def test_each_run_is_compared_by_its_own_labels(runs: Path, tmp_path: Path, call: Call) -> None:
    """Labels are matched by name: a copy with exchanged names is wrong where the run is right."""
    good, other = str(runs / "good"), tmp_path / "other"
    shutil.copytree(good, other)
    config = json.loads((other / CONFIG).read_text(encoding="utf-8"))
    config["task"]["labels"].reverse()
    replace_file(other, CONFIG, json_bytes(config))
    _, out, _ = call("compare", good, str(other), "--file", str(runs / "test.tsv"), "--json")
    first, second = json.loads(out)["runs"]
    assert first["accuracy"] == 1 and second["accuracy"] == 0
    config["task"]["labels"] = ["neg", "so so"]
    replace_file(other, CONFIG, json_bytes(config))
    status, _, err = call("compare", good, str(other))
    assert status == 2 and "expected runs of the same labels" in err


def test_runs_of_other_texts_need_a_file(runs: Path, tmp_path: Path, call: Call) -> None:
    """What they held out may be training text of the other."""
    shutil.copytree(runs / "good", tmp_path / "other")
    record = read_record(runs / "good")
    record["corpus"]["fingerprint"] = "0" * 64
    write_record(tmp_path / "other", record)
    status, _, err = call("compare", str(runs / "good"), str(tmp_path / "other"))
    assert status == 2 and "trained on different texts" in err and "--file" in err


def test_runs_are_evaluated_together(runs: Path, call: Call) -> None:
    """Kept texts and their file have the same figures, though the runs read other vocabularies."""
    good, poor, file = str(runs / "good"), str(runs / "poor"), str(runs / "test.tsv")
    status, out, err = call("eval", "--run", good, "--with", poor, "--json", "--worst", "2")
    kept, floors = json.loads(out)["test"], read_record(runs / "good")["floors"]
    assert status == 0 and "mixture: 0.500 good + 0.500 poor (weights equal)" in err
    _, out, _ = call("eval", "--run", poor, "--with", good, "--file", file, "--json")
    read = json.loads(out)
    assert (kept["run"], read["run"]) == ("good + poor", "poor + good")
    for key in ("accuracy", "confusion", "texts"):
        assert kept[key] == read[key]
    assert kept["nats_per_text"] == pytest.approx(read["nats_per_text"], abs=1e-5)
    assert kept["floors"]["majority"] == floors["majority"]["test"]
    pairs = [line.split("\t")[::-1] for line in Path(file).read_text().splitlines()[1:]]
    answers = [charlm.load(each).predict(text for text, _ in pairs) for each in (good, poor)]
    chances = [
        0.5 * (one.probabilities[label] + other.probabilities[label])
        for (_, label), one, other in zip(pairs, *answers, strict=True)
    ]
    assert read["nats_per_text"] == pytest.approx(-np.log(chances).mean(), abs=1e-6)
    alone = json.loads(call("eval", "--run", good, "--json")[1])["test"]
    assert kept["nats_per_text"] > alone["nats_per_text"]  # the other run has learned nothing


def test_runs_of_other_texts_are_evaluated_together_on_files(
    runs: Path, tmp_path: Path, call: Call
) -> None:
    """The held-out texts of one may be training texts of the other; bare runs keep none."""
    good, other, bare = str(runs / "good"), tmp_path / "other", tmp_path / "bare"
    shutil.copytree(runs / "good", other)
    record = read_record(runs / "good")
    record["corpus"]["fingerprint"] = "0" * 64
    write_record(other, record)
    shutil.copytree(runs / "good", bare, ignore=shutil.ignore_patterns("data"))
    weights = tmp_path / "weights"
    shutil.copytree(bare, weights, ignore=shutil.ignore_patterns("run.json"))
    for path, reason in (
        (other, "trained on different texts"),
        (bare, "bare keeps no valid text"),
        (weights, "weights has no run.json, which says what text"),
    ):
        status, _, err = call("eval", "--run", good, "--with", str(path))
        assert status == 2 and reason in err and err.splitlines()[-1].endswith("Use --file")
        words = ("--run", good, "--with", str(path), "--file", str(runs / "test.tsv"), "--json")
        status, out, _ = call("eval", *words)
        assert status == 0 and json.loads(out)["accuracy"] == 1.0


def test_a_run_that_learned_nothing_says_so(runs: Path, call: Call) -> None:
    """`info` repeats what the end of the training said."""
    assert (
        "not shown to be better than the most frequent label"
        in call("info", "--run", str(runs / "poor"))[1]
    )
    shown = call("info", "--run", str(runs / "poor"))[1]
    assert "review  " in shown and "what helps most: " in shown
    shown = call("info", "--run", str(runs / "good"))[1]
    assert "than the most frequent" not in shown and "neg 33.3 %, pos 66.7 %" in shown


def test_the_list_of_runs_has_the_accuracy(runs: Path, call: Call) -> None:
    status, out, _ = call("runs", "--checkpoints", str(runs))
    assert status == 0 and "acc 1.000" in out
    _, out, _ = call("runs", "--checkpoints", str(runs), "--json")
    listed = {row["name"]: row for row in json.loads(out)["runs"]}
    assert listed["good"]["accuracy"] == 1.0 and listed["good"]["nats_per_token"] is None
    assert "accuracy" not in listed["tales"]


def test_damage_to_the_targets_is_found(runs: Path, tmp_path: Path) -> None:
    """A missing, a shortened and a wrong file of targets."""
    assert run_problems(runs / "good") == []
    for number, damage in enumerate((None, b"\0\0\0\0", b"\7\0\0\0" * 60)):
        run = tmp_path / str(number)
        shutil.copytree(runs / "good", run)
        targets = run / "data" / "test" / "targets.bin"
        targets.unlink() if damage is None else targets.write_bytes(damage)
        assert any("targets" in problem for problem in run_problems(run))


def test_the_command_that_repeats_a_run_has_its_settings(runs: Path, call: Call) -> None:
    """Also where the user chose what is the default of other tasks."""
    for name in ("good", "poor"):
        record = read_record(runs / name)
        line = repeat_command(runs / name, record)
        assert line and ("lowercase" in line) == (name == "poor")
        again = runs / f"{name}-again"
        words = shlex.split(line)[1:]
        status, _, err = call(*words, "--name", again.name, "--checkpoints", str(runs), "-q")
        assert status == 0, err
        plain = [settings_from(each["settings"]) for each in (record, read_record(again))]
        of_machine = {"device": None, "precision": None, "engine": None, "threads": None}
        settings, other = (
            replace(each, training=replace(each.training, **of_machine)) for each in plain
        )
        assert settings == other
        weights = [(runs / each / "model.safetensors").read_bytes() for each in (name, again.name)]
        assert weights[0] == weights[1]
        shutil.rmtree(again)


def test_a_run_without_kept_texts_needs_a_file(runs: Path, tmp_path: Path, call: Call) -> None:
    shutil.copytree(runs / "good", tmp_path / "bare", ignore=shutil.ignore_patterns("data"))
    status, _, err = call("eval", "--run", str(tmp_path / "bare"))
    assert status == 2 and "keeps no held-out texts" in err
    result = evaluate_labels(load_label_run(tmp_path / "bare"), [str(runs / "test.tsv")])
    assert result.counts["text"].texts == 60 and result.floors["text"] == {}


def test_copies_renames_and_cards_of_a_labelled_run(runs: Path, tmp_path: Path, call: Call) -> None:
    """Verbs that touch a run without loading its model: export, import, rename, diff."""
    shutil.copytree(runs / "good", tmp_path / "runs" / "good")
    there = ("--checkpoints", str(tmp_path / "runs"))
    assert call("runs", "rename", "good", "movies", *there)[0] == 0
    assert "# movies" in (tmp_path / "runs" / "movies" / "README.md").read_text(encoding="utf-8")
    assert call("runs", "export", "movies", str(tmp_path / "m.zip"), *there)[0] == 0
    assert call("diff", str(runs / "poor"), str(tmp_path / "runs" / "movies"))[0] == 0
    assert call("plot", "movies", *there)[0] == 0


def test_texts_of_a_run_can_be_read_again(runs: Path) -> None:
    """The targets of a resumed run are those of training."""
    record = read_record(runs / "good")
    vocabulary = load_vocabulary(runs / "good" / "tokenizer.json")
    dataset = read_data(runs / "good", settings_from(record["settings"]), vocabulary, record)
    assert dataset.labelled and dataset.labelled.labels.names == ("neg", "pos")
    targets = dataset.labelled.targets["test"].tolist()
    assert targets == [int(number % 3 != 0) for number in range(60)]
