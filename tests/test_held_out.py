"""Runs compared on their held-out text; the best trial of a search as the default run."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import Call, vocabulary_of
from waiting import Ticking

import charlm
from charlm.config.settings import settings_from
from charlm.errors import RunError
from charlm.inference.comparison import bytes_of_lines
from charlm.runs.locate import best_trial, find_run
from charlm.text.corpus import Corpus
from charlm.text.encoded import encode_text
from charlm.training.search import results, search

LINES = "the cat sat\n\nöö – a dog\nthe end"
SIZES = ["--layers", "1", "--hidden", "4", "--batch", "2", "--bptt", "8", "--steps", "8"]
SIZES += ["--seed", "1", "--threads", "1", "--precision", "fp32"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("the cat sat on the mat.\nthe dog sat.\n" * 40, encoding="utf-8")
    Path("v.txt").write_text("the dog sat on the cat.\nthe mat\n" * 12, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("unit", ["char", "byte", "word", "bpe"])
def test_the_bytes_of_lines_are_exact_without_unk(unit: str) -> None:
    sizes = {"max_size": 270} if unit == "bpe" else {}
    vocabulary = vocabulary_of(LINES * 9, unit, **sizes)
    encoded = encode_text(Corpus.from_text(LINES).chunks, vocabulary, "stream")
    expected = [len(line.encode("utf-8")) for line in LINES.splitlines(keepends=True)]
    assert bytes_of_lines(encoded, vocabulary) == pytest.approx(expected)


def test_the_bytes_of_lines_with_unk_sum_to_those_of_the_text() -> None:
    vocabulary = vocabulary_of("the cat\n" * 5, "char")
    encoded = encode_text(Corpus.from_text(LINES).chunks, vocabulary, "stream")
    sizes = bytes_of_lines(encoded, vocabulary)
    assert len(sizes) == 4 and np.all(sizes > 0)
    assert sizes.sum() == pytest.approx(len(LINES.encode("utf-8")))


def test_runs_are_compared_on_their_held_out_text_by_default(call: Call) -> None:
    """The figures are those of that text as a file, for any units."""
    for name, unit in (("a", "char"), ("b", "byte"), ("c", "word")):
        train = ["train", "a.txt", "--valid", "v.txt", "--name", name, "--unit", unit, *SIZES]
        assert call(*train)[0] == 0
    status, out, err = call("compare", "a", "b", "c", "--json")
    assert status == 0, err
    assert "compared on the validation text of these runs" in err
    expected = json.loads(call("compare", "a", "b", "c", "--file", "v.txt", "--json")[1])
    for one, other in zip(json.loads(out)["runs"], expected["runs"], strict=True):
        assert one["nats"] == pytest.approx(other["nats"], rel=1e-6)
        for key in ("bits_per_byte", "low", "high") if one["difference"] else ():
            assert one["difference"][key] == pytest.approx(other["difference"][key], rel=1e-6)


def test_runs_of_different_texts_or_splits_are_not_compared(call: Call) -> None:
    Path("b.txt").write_text("an other text, " * 60, encoding="utf-8")
    for name, source, fraction in (
        ("a", "a.txt", "0.1"),
        ("b", "b.txt", "0.1"),
        ("c", "a.txt", "0.2"),
    ):
        train = ["train", source, "--name", name, "--valid-frac", fraction, *SIZES]
        assert call(*train)[0] == 0
    for other in ("b", "c"):
        status, _, err = call("compare", "a", other)
        assert status == 2
        assert f"a and {other} were trained on different texts" in err and "--file" in err
    Path("checkpoints/c/run.json").unlink()
    status, _, err = call("compare", "a", "c")
    assert (status, err.count("\n")) == (2, 1)
    assert "c has no run.json" in err and err.endswith("Use --file\n")
    for name in ("d", "e"):
        assert call("train", "a.txt", "--name", name, "--valid-frac", "0", *SIZES)[0] == 0
    assert "keep no held-out text" in call("compare", "d", "e")[2]


def test_the_best_trial_of_a_search_is_the_default_run(call: Call) -> None:
    settings = settings_from({
        "corpus": {"sources": ["a.txt"]},
        "model": {"hidden_size": 4, "num_layers": 1},
        "training": {"seed": 1, "batch_size": 4, "bptt": 8, "precision": "fp32", "threads": 1},
    })  # fmt: skip
    folder = Path("checkpoints/search")
    trials = search(settings, folder, knobs=("dropout",), minutes=1.0, trial_minutes=0.004,
                    clock=Ticking(0.01))  # fmt: skip
    assert list(itertools.islice(trials, 3))
    trials.close()
    best = results(folder)[0]
    expected = folder / f"trial-{best['number']:03d}"
    assert best["state"] == "complete"
    for run in ([], ["--run", "search"], ["--run", "checkpoints/search"]):
        status, out, err = call("info", "--json", *run)
        assert (status, json.loads(out)["path"]) == (0, str(expected))
        assert f"run search/{expected.name} (the best trial of a search)" in err
    for name in (None, "search", "checkpoints/search"):
        assert charlm.load(name).path == expected
    assert call("train", "a.txt", "--name", "later", *SIZES)[0] == 0
    assert find_run(None, Path("checkpoints")).name == "later"


def test_a_damaged_record_of_the_best_trial_is_ignored() -> None:
    folder = Path("checkpoints/search")
    folder.mkdir(parents=True)
    for content in ("{", '{"trial": "../../x"}', '{"trial": 3}', "{}"):
        (folder / "best.json").write_text(content)
        assert best_trial(folder) is None
        with pytest.raises(RunError, match="no run 'search'"):
            find_run("search", Path("checkpoints"))
