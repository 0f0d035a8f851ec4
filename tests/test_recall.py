"""The recall task, which has a known lag: its text, its measurements and its lesson."""

import json
import math
import random
import re
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers import Call
from torch.nn import functional as F

import charlm
from charlm.config.cells import CELLS
from charlm.inference.likelihood import evaluate
from charlm.inspect import recall
from charlm.inspect.gradients import GradientFlow, LayerFlow
from charlm.inspect.recall import LETTERS, recall_flow, recall_flows, recall_settings, recall_text
from charlm.report.gradients import PLOT_DECADES, curve_plot
from charlm.runs.layout import read_record
from charlm.runs.run import load_run, torch_model
from charlm.text.corpus import Corpus
from charlm.text.encoded import EncodedText
from charlm.training.start import start


def test_the_recall_text_repeats_each_letter_after_a_gap() -> None:
    """Decided by the seed; gaps of all lengths below the lag, letters as often as one another."""
    text = recall_text(7, seed=1)
    assert text == recall_text(7, seed=1)
    assert text != recall_text(7, seed=2)
    lines = text.splitlines()
    matches = [re.fullmatch(r"([a-h])([xy]*)\?\1", line) for line in lines]
    assert all(matches)
    assert {len(match[2]) for match in matches} == set(range(7))
    counts = [sum(match[1] == letter for match in matches) for letter in LETTERS]
    assert min(counts) > len(lines) / len(LETTERS) / 1.3


@pytest.mark.parametrize("cell", CELLS)
def test_the_largest_lag_is_the_gradient_of_the_state_after_the_letter(
    cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a leaf in its place: read on from there, one loss, one gradient."""
    lag = 6
    monkeypatch.setattr(recall, "LINES", 200)
    settings = recall_settings(cell, seed=1, steps=3)
    session = start(settings, tmp_path, corpus=Corpus.from_text(recall_text(lag, 1), "line"))
    list(session.records())
    flow = recall_flow(session.path, lag)
    (layer,) = flow.layers
    assert len(layer.norms) == lag + 1
    model, vocabulary = torch_model(session.path).double(), load_run(session.path).vocabulary
    expected = []
    draw = random.Random(recall.MEASURED_SEED)
    for letter in LETTERS * recall.MEASURED_EACH:
        noise = "".join(draw.choices("xy", k=lag - 1))
        ids = torch.from_numpy(vocabulary.encode(f"{letter}{noise}?{letter}").astype(int))
        with torch.no_grad():
            _, state = model(torch.tensor([[1], [int(ids[0])]]))
        state = tuple(tuple(p.clone().requires_grad_() for p in one) for one in state)
        logits, _ = model(ids[1:-1, None], state)
        loss = F.cross_entropy(logits[-1], ids[-1:])
        gradients = torch.autograd.grad(loss, state[0])
        expected.append(sum(float(g.pow(2).sum()) for g in gradients) ** 0.5)
    assert layer.norms[lag] == pytest.approx(sum(expected) / len(expected), rel=1e-6)


def test_a_short_lag_teaches_in_seconds() -> None:
    """A letter 40 tokens back reaches the lstm and not the rnn, long before either recalls it."""
    settings = [recall_settings(cell, seed=1, steps=150) for cell in ("rnn", "lstm")]
    rnn, lstm = recall_flows(settings, 40)
    assert rnn.diagnosis.startswith("vanishing: ")
    assert lstm.diagnosis.startswith("not learned: " if lstm.recalled <= 0.25 else "healthy: ")


def test_a_guess_recalls_more_than_a_quarter_of_the_letters_in_few_cases_only() -> None:
    """Of 32 letters, each one of eight: the tail of the binomial distribution."""
    count, chance = len(LETTERS) * recall.MEASURED_EACH, 1 / len(LETTERS)
    more = range(int(recall.GUESSED * count) + 1, count + 1)
    tail = sum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in more)
    assert 0.01 < tail < 0.025


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_default_comparison_teaches(seed: int) -> None:
    """The lstm recalls all letters over 100 tokens, the rnn guesses, and the gradients say why."""
    settings = [recall_settings(cell, seed=seed) for cell in ("rnn", "lstm")]
    rnn, lstm = recall_flows(settings)
    assert lstm.recalled == 1.0
    assert lstm.left > 0.1
    assert rnn.recalled < 0.5
    assert rnn.left < 1e-4
    assert rnn.diagnosis.startswith("vanishing: ")
    assert "--cell lstm" in rnn.diagnosis


def flow_of(norms: list[float], name: str = "x", recalled: float | None = None) -> GradientFlow:
    layer = LayerFlow(norms=norms, hidden_norms=norms, gates={}, radii=[])
    guessed = recall.GUESSED if recalled is not None else None
    return GradientFlow(name=name, cell="rnn", layers=[layer], recalled=recalled, guessed=guessed)


@pytest.mark.parametrize(
    ("norms", "recalled", "words"),
    [
        ([10 ** (-7.5 * k / 200) for k in range(201)], None,
         ["vanishing: 3e-08 of the gradient is left 200 tokens back", "a hundredth 53 tokens"]),
        ([10 ** (-7.5 * k / 100) for k in range(101)], 0.125,
         ["vanishing: 3e-08", "100 tokens back, where the letter is", "12 % of letters", "lstm"]),
        ([1.0] * 101, 0.125,
         ["not learned: 100 % of the gradient is left", "12 % of letters recalled, which is guess",
          "Train for longer (--minutes)"]),
        ([1.0] * 101, 0.5, ["healthy: 100 %", "50 % of letters recalled"]),
        ([1.0] * 101, 1.0, ["healthy: 100 % of the gradient", "100 % of letters recalled"]),
        ([10 ** (-5 * k / 200) for k in range(201)], None, ["healthy"]),
    ],
)  # fmt: skip
def test_the_verdict_is_vanishing_if_little_gradient_is_left(norms, recalled, words) -> None:
    """The story: 3e-08 after 200 tokens was called healthy, and a network that only guesses."""
    for word in words:
        assert word in flow_of(norms, recalled=recalled).diagnosis


@pytest.mark.parametrize("depth", range(1, PLOT_DECADES + 1))
def test_a_label_of_the_plot_is_at_its_own_power_of_ten(depth: int) -> None:
    """The story: at two powers of ten, 1e-01 was the label of 0.28; at twelve, 1e-06 was left out.

    The curve falls by one power of ten at each lag, so it crosses each labelled row once.
    """
    norms = [0.0, *(10.0**-lag for lag in range(depth + 1))]
    labelled = [
        (label, curve.find("o"))
        for line in curve_plot([flow_of(norms)], width=depth + 1).plain.splitlines()
        for label, bar, curve in [line.partition("|")]
        if bar and label.strip()
    ]
    assert [float(label) for label, _ in labelled] == pytest.approx(
        [10.0**-lag for lag in range(depth + 1)]
    )
    assert [column for _, column in labelled] == list(range(depth + 1))


def test_all_curves_are_in_one_plot() -> None:
    """A flat one at the top, a falling one down to the bottom; each has a mark in the legend."""
    falling = flow_of([10.0**-k for k in range(101)], "rnn")
    shown = curve_plot([falling, flow_of([1.0] * 101, "lstm")]).plain.splitlines()
    assert all(len(line) <= 79 for line in shown)
    rows = [line.split("|", 1) for line in shown if "|" in line]
    assert rows[0][1].count("x") == len(rows[0][1])
    assert shown[-1].split() == ["o", "rnn", "x", "lstm"]
    columns = [row.index("o") for _, row in rows[1:] if "o" in row]
    assert all(a < b for a, b in pairwise(columns))
    assert rows[-1][0].strip() == f"1e-{PLOT_DECADES}"
    assert "100 tokens back" in shown[-2]
    for odd in ([0.0, 0.0, 0.0], [0.0, float("nan"), 1.0], [0.0, 1e-5, 1e-5]):
        assert curve_plot([flow_of(odd)]).plain


def test_the_command_compares_on_the_task(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs no text; an unknown cell is refused first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(recall, "STEPS", 2)
    status, out, err = call("gradients", "--compare", "rnn,gru", "--lags", "9")
    assert status == 0, err
    assert "recall a letter after up to 9 tokens" in err
    assert "rnn: " in out
    assert "gru: " in out
    assert "o rnn   x gru" in out
    arguments = ["--compare", "rnn", "--lags", "9", "--minutes", "0.002", "--json", "--seed", "2"]
    status, out, _ = call("gradients", *arguments)
    (model,) = json.loads(out)["models"]
    assert (status, len(model["layers"][0]["norms"])) == (0, 10)
    assert 0.0 <= model["recalled"] <= 1.0
    status, _, err = call("gradients", "--compare", "rnn,tree")
    assert (status, err.count("\n")) == (2, 1)


@pytest.mark.slow
def test_the_figures_of_the_built_in_run_are_those_of_its_text() -> None:
    """All 100,000 characters, of which a usual test reads a tenth."""
    model = charlm.load("tales")
    valid = model.run.kept("valid")
    figures = read_record(model.path)["results"]["valid"]
    assert valid is not None
    tally = evaluate(model.run.backend, valid)
    assert tally.tokens == figures["tokens"]
    assert tally.nats_per_token == pytest.approx(figures["nats_per_token"], rel=1e-3)


def test_the_built_in_run_has_its_text(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps none, and the text ships: the held-out part is the one that its figures are of."""
    monkeypatch.chdir(tmp_path)
    model = charlm.load("tales")
    valid = model.run.kept("valid")
    figures = read_record(model.path)["results"]["valid"]
    assert valid is not None
    counts = asdict(valid.counts) | {"tokens": len(valid.ids)}
    assert counts == {name: figures[name] for name in counts}
    tally = evaluate(model.run.backend, EncodedText.stream(valid.ids[:10_000]))
    assert tally.nats_per_token == pytest.approx(figures["nats_per_token"], rel=0.01)
    status, out, err = call("gradients", "--run", "tales", "--lags", "5")
    assert status == 0, err
    assert "tales: healthy" in out
