"""Runs that give labels, mixed: `--with`, `load(with_=...)`, labels by name, what is refused."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from helpers import Call
from labelled_runs import LABELS, WORDS, label_run
from tagged_runs import tag_run

import charlm
from charlm.cli import serve
from charlm.errors import RunError, UsageError

TEXTS = ["a good film", "", "bad : not good", "never seen words", WORDS, "an odd plot, not good"]


@pytest.fixture(autouse=True)
def folder(here: Path) -> Path:
    """Runs `a` and `b`; `c` has the labels in another order, another vocabulary and shape."""
    path = here / "checkpoints"
    label_run(path / "c", seed=7, labels=LABELS[::-1], words="odd plot never good", scale=0.5,
              pooling="mean", both_ways=False)  # fmt: skip
    label_run(path / "b", seed=5, scale=2.0)
    label_run(path / "a")
    label_run(path / "two", labels=LABELS[:2])
    tag_run(path / "tagger")
    return path


def shares(model: charlm.LabelModel) -> list[dict[str, float]]:
    """Return the probabilities of the texts by label."""
    return [answer.probabilities for answer in model.predict(TEXTS)]


def close(one: list[dict[str, float]], other: list[dict[str, float]]) -> None:
    for left, right in zip(one, other, strict=True):
        assert left == pytest.approx(right, abs=1e-12)


def test_a_run_mixed_with_itself_gives_its_own_probabilities() -> None:
    own = charlm.load("a")
    close(shares(charlm.load("a", with_="a")), shares(own))
    close(shares(charlm.load("a", with_=["a=0.9", "a"])), shares(own))
    gold = ["pos", "neg", "so so", "pos", "neg", "unheard of"]
    both, alone = (
        model.evaluate(TEXTS, gold) for model in (charlm.load("c", with_="c"), charlm.load("c"))
    )
    assert both.confusion == alone.confusion and both.unseen == 1
    assert both.nats == pytest.approx(alone.nats)
    assert both.raw_nats == both.nats  # there is no factor that could be left out


def test_probabilities_are_the_weighted_means_by_name() -> None:
    """Each run reads the texts with its own vocabulary and has its labels in its own order."""
    a, b, c = (shares(charlm.load(name)) for name in "abc")
    for with_, weights in (
        (["c"], (0.5, 0.0, 0.5)), (["b", "c"], (1 / 3, 1 / 3, 1 / 3)),
        (["b=0.2", "c=0.7"], (0.1, 0.2, 0.7)), (["b=0.2", "c"], (0.4, 0.2, 0.4)),
    ):  # fmt: skip
        model = charlm.load("a", with_=with_)
        assert model.labels == LABELS
        expected = [
            {name: sum(w * p[name] for w, p in zip(weights, row, strict=True)) for name in LABELS}
            for row in zip(a, b, c, strict=True)
        ]
        close(shares(model), expected)


def test_equal_weights_are_symmetric() -> None:
    close(shares(charlm.load("a", with_=["b", "c"])), shares(charlm.load("c", with_=["a", "b"])))


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_engines_agree(engine: str) -> None:
    model = charlm.load("a", with_="c", engine=engine)
    assert model.run.engine.count(engine) == 2
    for one, other in zip(shares(model), shares(charlm.load("a", with_="c")), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


@pytest.mark.parametrize("text", ["Not  a GOOD, strange\tfilm. ", "odd plot " * 20])
def test_the_answer_as_it_is_read_ends_as_that_of_the_text(text: str) -> None:
    """The tokens are those of the first run."""
    model = charlm.load("a", with_="c")
    steps = model.as_read(text)
    assert [piece for piece, _ in steps] == [piece for piece, _ in charlm.load("a").as_read(text)]
    (answer,) = model.predict(text)
    assert steps[-1][1].probabilities == pytest.approx(answer.probabilities, abs=1e-6)
    first = steps[0][0]
    (answer,) = model.predict(first)
    assert steps[0][1].probabilities == pytest.approx(answer.probabilities, abs=1e-6)
    assert model.as_read("") == []


def test_features_and_states_are_those_of_the_first_run() -> None:
    model, own = charlm.load("a", with_="c"), charlm.load("a")
    assert (model.features(TEXTS) == own.features(TEXTS)).all()
    pairs = zip(model.states(TEXTS), own.states(TEXTS), strict=True)
    assert all((one == other).all() for one, other in pairs)


def test_a_copy_has_the_same_mixture() -> None:
    model = charlm.load("a", with_=["b=0.2", "c"], engine="numpy")
    copy = pickle.loads(pickle.dumps(model))
    close(shares(copy), shares(model))
    assert str(model.mixture) == "mixture: 0.400 a + 0.200 b + 0.400 c (weights equal unless given)"
    assert copy.mixture.weights == pytest.approx(model.mixture.weights)
    assert charlm.load("a").mixture is None


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("two", "a and two have different labels (only a: 'so so'); expected runs of the same"),
        ("tales", "tales gives text, and a gives labels; expected runs that give labels"),
        ("tagger", "tagger gives tags, and a gives labels; expected runs that give labels"),
        ("b=1.5", " b=1.5: the weight is 1.5; expected a number above 0 and below 1"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(other: str, message: str, call: Call) -> None:
    with pytest.raises(UsageError) as raised:
        charlm.load("a", with_=other)
    assert message in str(raised.value)
    for words in (["predict", "a film"], ["eval"]):
        status, out, err = call(*words, "--run", "a", "--with", other)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_other_refusals(call: Call) -> None:
    """Unknown runs, too much weight, the other way round, runs and formats without mixtures."""
    with pytest.raises(RunError, match="no run 'd'"):
        charlm.load("a", with_="d")
    with pytest.raises(UsageError, match=r"sum to 1; expected less than 1"):
        charlm.load("a", with_=["b=0.5", "c=0.5"])
    with pytest.raises(UsageError, match="gives labels, not text"):
        charlm.load("tales", with_="a")
    with pytest.raises(UsageError, match="gives tags; expected a language model or a classifier"):
        charlm.load("tagger", with_="a")
    with pytest.raises(UsageError, match="weights int8 with run a"):
        charlm.load("a", with_="b", weights="int8")
    for words, kinds in ((["predict", "a film"], "labels"), (["eval"], "text or labels")):
        status, out, err = call(*words, "--run", "tagger", "--with", "a")
        assert (status, out) == (2, "")
        assert f"--with is for runs that give {kinds}, and run tagger gives tags" in err


@pytest.mark.parametrize("first", ["a", "tales", "tagger"])
def test_values_that_are_not_runs_are_refused(first: str) -> None:
    """The weights of a dict must not be lost without a word."""
    for value in ({"b": 0.9}, [("b", 0.9)], ["b", None], None, 5):
        with pytest.raises(UsageError, match=r"^with_ is .*; expected a run or a list of runs"):
            charlm.load(first, with_=value)


def test_runs_may_be_paths_or_come_one_by_one(folder: Path) -> None:
    expected = shares(charlm.load("a", with_=["b"]))
    for with_ in (folder / "b", [folder / "b"], iter(["b"])):
        close(shares(charlm.load("a", with_=with_)), expected)


def test_a_run_may_have_a_name_that_ends_like_a_weight(folder: Path, call: Call) -> None:
    shutil.copytree(folder / "b", folder / "rate=0.5")
    close(shares(charlm.load("a", with_="rate=0.5")), shares(charlm.load("a", with_="b")))
    _, _, err = call("predict", "--run", "a", "--with", "rate=0.5=0.25", "a film")
    assert "mixture: 0.750 a + 0.250 rate=0.5 (weights given)" in err


def test_the_text_of_a_model_has_its_mixture() -> None:
    assert "mixture: 0.500 a + 0.500 b (weights equal)" in repr(charlm.load("a", with_="b"))
    assert "mixture" not in repr(charlm.load("a"))


def test_few_of_many_other_labels_are_named(folder: Path) -> None:
    label_run(folder / "many", labels=[f"kind {number}" for number in range(40)])
    with pytest.raises(UsageError) as raised:
        charlm.load("a", with_="many")
    assert "only many: 'kind 0', 'kind 1', 'kind 2', 'kind 3', 'kind 4' and 35 more)" in str(
        raised.value
    )


def test_predict_answers_with_the_mixture(call: Call) -> None:
    words = ("predict", "--run", "a", "--with", "c=0.25", "--json", *TEXTS)
    status, out, err = call(*words)
    found = json.loads(out)
    assert status == 0 and "mixture: 0.750 a + 0.250 c (weights given)" in err
    assert (found["run"], found["labels"]) == ("a + c", list(LABELS))
    expected = charlm.load("a", with_="c=0.25").predict_each(text for text in TEXTS if text)
    for row in found["predictions"]:
        if row["text"]:
            assert row["probabilities"] == pytest.approx(next(expected).probabilities, abs=1e-6)
    status, out, _ = call("predict", "--run", "a", "--with", "c", "--tokens", "good film")
    assert status == 0 and "film" in out


def test_serve_reports_the_mixture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (model,) = serve._models(serve.Asked(run="a", checkpoints=folder, with_=["c=0.25"]))
    assert "mixture: 0.750 a + 0.250 c (weights given)" in capsys.readouterr().err
    close(shares(model), shares(charlm.load("a", with_="c=0.25")))
