"""Mixtures of runs: `--with` and `load(with_=...)`, weights, and what is refused."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Call

import charlm
from charlm.backends.softmax import log_softmax
from charlm.errors import RunError, UsageError
from charlm.files.atomic import json_bytes
from charlm.inference.adapt.mixture import fitted_weights
from charlm.inference.likelihood import text_nats
from charlm.runs.layout import read_config
from charlm.runs.mixtures import find_member
from charlm.text.tokenizers.tokenizer_json import EOS

TEXT = "abc abd\nab ca\n" * 30
TINY = {
    "embedding": 3, "layers": 1, "ngram": 0, "steps": 12, "batch": 2, "bptt": 4, "seed": 1,
    "precision": "fp32", "threads": 1, "learning_rate": 0.05, "cell": "gru",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `a` and `b` of one vocabulary, `c` of another, and `backward`."""
    path = tmp_path_factory.mktemp("mixtures")
    charlm.fit(text=TEXT, name="a", checkpoints=path, hidden=4, **TINY)
    charlm.fit(text=TEXT, name="b", checkpoints=path, hidden=6, **(TINY | {"seed": 2}))
    charlm.fit(text=TEXT + "xyz\n", name="c", checkpoints=path, hidden=4, **TINY)
    more = {"direction": "backward"}
    charlm.fit(text=TEXT, name="back", checkpoints=path, hidden=4, **TINY, **more)
    return path


@pytest.fixture(autouse=True)
def here(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(folder))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def test_scores_are_interpolated_token_by_token() -> None:
    own, other = charlm.load("a"), charlm.load("b")
    mixed = charlm.load("a", with_="b=0.25")
    ((left,), (right,), (both,)) = (
        model.score("ab cab", tokens=True) for model in (own, other, mixed)
    )
    for one, two, three in zip(left.tokens, right.tokens, both.tokens, strict=True):
        expected = 0.75 * np.exp(-one.nats) + 0.25 * np.exp(-two.nats)
        assert three.nats == pytest.approx(-np.log(expected), abs=1e-9)
        assert three.id == one.id
    assert mixed.score("ab cab")[0].tally.nats == pytest.approx(both.tally.nats, abs=1e-6)


def test_next_and_steps_agree_with_the_scores() -> None:
    mixed = charlm.load("a", with_=["b=0.5"])
    state, total = mixed.state("ab "), 0.0
    for letter in "ca\nab":
        by_next = {token.token: token.probability for token in mixed.next("ab ", top=50)}
        assert sum(by_next.values()) == pytest.approx(1.0)
        step, state = mixed.step(state, letter)
        total += step
    whole, start = (mixed.score(text)[0].log_probability for text in ("ab ca\nab", "ab "))
    assert total == pytest.approx(whole - start, abs=1e-5)


def test_missing_weights_are_those_with_the_least_loss_on_the_validation_text() -> None:
    mixed = charlm.load("a", with_=["b"])
    runs = [charlm.load(name).run for name in "ab"]
    valid = runs[0].kept("valid")
    best = fitted_weights([text_nats(run.backend, valid) for run in runs])
    assert mixed.mixture.weights == pytest.approx(best, abs=1e-6)
    assert str(mixed.mixture) == (
        f"mixture: {best[0]:.3f} a + {best[1]:.3f} b (weights fitted on the validation text)"
    )


def test_without_a_validation_text_the_weights_are_equal(folder: Path, here: Path) -> None:
    shutil.copytree(folder / "a", here / "bare")
    shutil.rmtree(here / "bare" / "data")
    mixed = charlm.load(str(here / "bare"), with_=["b", "a=0.2"])
    assert mixed.mixture.weights == pytest.approx((0.4, 0.4, 0.2))
    assert "equal, since there is no validation text" in str(mixed.mixture)


def test_a_companion_is_named_ngram_and_has_a_recorded_weight(folder: Path, here: Path) -> None:
    shutil.copytree(folder / "a", here / "run")
    shutil.copytree(folder / "b", here / "run" / "ngram")
    config = read_config(here / "run" / "ngram") | {"mixture_weight": 0.125}
    (here / "run" / "ngram" / "config.json").write_bytes(json_bytes(config))
    mixed = charlm.load(str(here / "run"), with_="ngram")
    assert mixed.mixture.weights == (0.875, 0.125)
    assert str(mixed.mixture) == "mixture: 0.875 run + 0.125 ngram (weights recorded in training)"
    assert charlm.load(str(here / "run"), with_="ngram=0.5").mixture.weights == (0.5, 0.5)
    with pytest.raises(
        RunError, match=r"a has no n-grams beside it.*charlm ngram --like .*/a --name NAME"
    ):
        charlm.load("a", with_="ngram")


def test_a_copied_mixture_has_the_same_weights(folder: Path) -> None:
    mixed = charlm.load("a", with_=["b", "b=0.2"])
    again = pickle.loads(pickle.dumps(mixed))
    assert again.mixture.weights == pytest.approx(mixed.mixture.weights, abs=1e-15)
    scores = [model.score("abc")[0].tally.nats for model in (again, mixed)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-12)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("c", "c has another vocabulary than a.*charlm compare .*/a .*/c"),
        ("back", "back reads backward, and a does not"),
        ("b=1", "b=1: the weight is 1; expected a number above 0 and below 1"),
        ("b=-0.5", "the weight is -0.5"),
        ("b=nan", "the weight is nan"),
    ],
)
def test_runs_that_do_not_fit_are_refused(call: Call, other: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        charlm.load("a", with_=other)
    for verb in (["score", "abc"], ["next", "abc"], ["sample"], ["eval"]):
        status, out, err = call(*verb, "--run", "a", "--with", other)
        assert (status, out) == (2, ""), err
    with pytest.raises(UsageError, match=r"weights of with_ sum to 1; expected less than 1"):
        charlm.load("a", with_=["b=0.5", "b=0.5"])


def test_backward_runs_mix_with_each_other() -> None:
    mixed, own = charlm.load("back", with_="back"), charlm.load("back")
    assert mixed.score("abc")[0].tally.nats == pytest.approx(own.score("abc")[0].tally.nats)


def test_verbs_use_the_mixture_and_report_its_weights(call: Call) -> None:
    mixed = charlm.load("a", with_="b=0.25")
    flags = ["--run", "a", "--with", "b=0.25"]
    status, out, err = call("score", "abc", *flags, "--format", "scores", "--unk-penalty", "0")
    assert (status, err.count("mixture: 0.750 a + 0.250 b (weights given)")) == (0, 1)
    assert float(out) == pytest.approx(mixed.score("abc")[0].log_probability, abs=1e-5)
    status, out, _ = call("next", "abc", "--json", *flags)
    expected = {token.token: token.probability for token in mixed.next("abc")}
    shown = {row["token"]: row["probability"] for row in json.loads(out)["next"]}
    assert shown == pytest.approx(expected)
    status, out, _ = call("sample", "--seed", "1", "--len", "40", *flags)
    assert out.rstrip("\n") == mixed.sample(40, seed=1).rstrip("\n")


def test_samples_are_drawn_from_the_mixture() -> None:
    """Each token's nats are those of the mixture, which neither member has alone."""
    mixed = charlm.load("a", with_="b=0.5")
    pieces = [piece for piece in mixed.generate(20, seed=3) if piece.id is not None]
    inputs = np.array([EOS, *(piece.id for piece in pieces)])[:, None]
    state = mixed.run.backend.initial_state(1)
    for number, piece in enumerate(pieces):
        logits, state = mixed.run.backend.logits(inputs[number : number + 1], state)
        assert piece.nats == pytest.approx(-log_softmax(logits)[0, piece.id], abs=1e-5)


# Evaluation


def test_eval_reports_each_run_and_the_mixture_on_files(call: Call, here: Path) -> None:
    """The weights are those of the validation text."""
    (here / "t.txt").write_text(TEXT[:90])
    status, out, err = call("eval", "--run", "a", "--with", "b", "--file", "t.txt", "--json")
    assert status == 0
    figures = json.loads(out)
    assert list(figures) == ["text", "text, b", "text, mixture"]
    mixed = charlm.load("a", with_="b")
    for name, model in (("text", charlm.load("a")), ("text, b", charlm.load("b"))):
        assert figures[name]["nats"] == pytest.approx(model.evaluate(TEXT[:90]).nats, rel=1e-6)
    expected = mixed.evaluate(TEXT[:90]).nats
    assert figures["text, mixture"]["nats"] == pytest.approx(expected, rel=1e-6)
    assert str(mixed.mixture) in err


def test_eval_of_the_only_text_fits_the_weights_on_its_first_half(call: Call) -> None:
    status, out, err = call("eval", "--run", "a", "--with", "b", "--json")
    assert status == 0
    figures = json.loads(out)
    half = "2nd half of valid"
    assert list(figures) == ["valid", half, f"{half}, b", f"{half}, mixture"]
    assert "(weights fitted on the first half of valid)" in err
    runs = [charlm.load(name).run for name in "ab"]
    valid = runs[0].kept("valid")
    nats = [text_nats(run.backend, valid) for run in runs]
    cut = len(valid.ids) // 2
    weights = fitted_weights([own[:cut] for own in nats])
    mixed = -np.log(sum(w * np.exp(-own[cut:]) for w, own in zip(weights, nats, strict=True)))
    assert figures[f"{half}, mixture"]["nats"] == pytest.approx(mixed.sum(), rel=1e-6)
    assert figures[half]["nats"] == pytest.approx(nats[0][cut:].sum(), rel=1e-6)
    assert figures[half]["chars"] == figures[half]["tokens"] == len(valid.ids) - cut
    assert figures["valid"]["tokens"] == len(valid.ids)


def test_eval_with_given_weights_needs_no_halves(call: Call) -> None:
    status, out, _ = call("eval", "--run", "a", "--with", "b=0.5", "--json")
    figures = json.loads(out)
    assert (status, list(figures)) == (0, ["valid", "valid, b", "valid, mixture"])
    both = charlm.load("a", with_="b=0.5").run
    expected = text_nats(both.backend, both.kept("valid")).sum()
    assert figures["valid, mixture"]["nats"] == pytest.approx(expected, rel=1e-6)


def test_eval_of_documents_is_halved_between_them(call: Call, folder: Path) -> None:
    charlm.fit(text=TEXT, name="l", checkpoints=folder, hidden=4, document="line", **TINY)
    status, out, _ = call("eval", "--run", "l", "--with", "l", "--json")
    figures = json.loads(out)
    half, whole = figures["2nd half of valid"], figures["valid"]
    assert (status, 2 * half["documents"]) == (0, whole["documents"])
    assert half["chars"] == half["tokens"]


def test_mixtures_need_no_torch(folder: Path) -> None:
    code = """
import sys
from charlm.cli import main
for arguments in (["eval"], ["next", "ab"]):
    try:
        main([*arguments, "--run", "a", "--with", "b"])
    except SystemExit as ended:
        assert ended.code == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


RUNS = ("ngram", "a=b/run", "lr=fast", "lr=0.01", "lr=3", "both", "both=0.5")
"""Names of runs; some end like a weight."""


def known_run(name: str) -> Path:
    """Return the folder of one of `RUNS`."""
    if name not in RUNS:
        raise RunError(f"no run {name!r}")
    return Path(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((name, (Path(name), None)) for name in RUNS[:-1]),
        ("both=0.5", (Path("both"), 0.5)),
        ("both=0.5=0.25", (Path("both=0.5"), 0.25)),
        ("a=b/run=0.25", (Path("a=b/run"), 0.25)),
        ("lr=0.01=1e-3", (Path("lr=0.01"), 0.001)),
    ],
)
def test_a_weight_follows_the_last_sign_of_equality(
    text: str, expected: tuple[Path, float | None]
) -> None:
    assert find_member(text, known_run) == expected


@pytest.mark.parametrize("weight", ["0", "1", "-0.5", "nan", "inf", "0,5", "50%", ""])
def test_a_wrong_weight_of_a_run_is_refused(weight: str) -> None:
    expected = (
        f"with_ both={weight}: the weight is {weight or 'missing'}; expected a number above 0"
    )
    with pytest.raises(UsageError) as raised:
        find_member(f"both={weight}", known_run)
    assert str(raised.value).startswith(expected)
    assert str(raised.value).endswith("Write for example both=0.3")


@pytest.mark.parametrize(
    ("text", "name"),
    [("c", "c"), ("c=0.5", "c"), ("c=5", "c=5"), ("=0.5", "=0.5"), ("=", "="), ("", "")],
)
def test_an_unknown_run_is_named(text: str, name: str) -> None:
    with pytest.raises(RunError, match=re.escape(f"no run {name!r}")):
        find_member(text, known_run)
