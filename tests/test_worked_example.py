"""The worked example: its numbers are those of torch.nn, its gradients those of differences."""

import io
import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from rich.console import Console

from charlm.cli import main
from charlm.inspect.worked_example import STEPS, ExampleStep, WorkedExample, worked_example
from charlm.report.example import example_parts

TORCH = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
every_cell = pytest.mark.parametrize("cell", STEPS)


def mean_nats(example: WorkedExample, weights: dict, text: str) -> float:
    """The loss from the weights alone, through torch.nn's own layer."""
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in weights.items()}
    layer = TORCH[example.cell](len(example.letters), values["U"].shape[1]).double()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(values["W"])
        layer.weight_hh_l0.copy_(values["U"])
        layer.bias_ih_l0.copy_(values["b"])
        layer.bias_hh_l0.zero_()
        ids = torch.tensor([example.letters.index(letter) for letter in text])
        x = torch.nn.functional.one_hot(ids[:-1], len(example.letters)).double()
        hidden, _ = layer(x)
        logits = hidden @ values["V"].T + values["d"]
        return float(torch.nn.functional.cross_entropy(logits, ids[1:]))


@every_cell
@pytest.mark.parametrize("text", ["hello", "aab", "wörld \n"])
def test_the_numbers_are_those_of_torch(cell: str, text: str) -> None:
    """Each step's loss, the probabilities, and the mean, from the same weights."""
    example = worked_example(text, cell=cell, updates=5, seed=3)
    expected = mean_nats(example, example.weights, text)
    assert example.losses[-1] == pytest.approx(expected, abs=1e-12)
    assert np.mean([step.nats for step in example.steps]) == pytest.approx(expected, abs=1e-12)
    for step, (letter, target) in zip(example.steps, itertools.pairwise(text), strict=True):
        assert (step.letter, step.target) == (letter, target)
        assert sum(step.probabilities) == pytest.approx(1.0)
        chance = step.probabilities[example.letters.index(target)]
        assert step.nats == pytest.approx(-math.log(chance))
        assert sum(step.vectors["x"]) == 1.0


@every_cell
def test_gradients_are_those_of_finite_differences(cell: str) -> None:
    """Every single weight moved up and down."""
    example = worked_example("hello", cell=cell, updates=4, seed=2)
    for name, gradient in example.gradients.items():
        weights = {key: np.array(value) for key, value in example.weights.items()}
        for place in np.ndindex(weights[name].shape):
            losses = []
            for move in (1e-5, -1e-5):
                moved = {key: value.copy() for key, value in weights.items()}
                moved[name][place] += move
                losses.append(mean_nats(example, moved, "hello"))
            difference = (losses[0] - losses[1]) / 2e-5
            assert np.array(gradient)[place] == pytest.approx(difference, abs=1e-8), name


@every_cell
def test_the_word_is_learnt(cell: str) -> None:
    """A hundred updates spell hello: the loss falls at the first l and the second alike."""
    example = worked_example("hello", cell=cell)
    assert example.letters == ["h", "e", "l", "o"]
    assert example.losses[-1] < 0.1 < 0.9 < example.losses[0]
    for step in example.steps:
        best = int(np.argmax(step.probabilities))
        assert example.letters[best] == step.target
    assert example == worked_example("hello", cell=cell).__class__(
        **{**worked_example("hello", cell=cell).__dict__, "seconds": example.seconds}
    )


def test_the_command_shows_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Tables for people, JSON for programs."""
    with pytest.raises(SystemExit) as end:
        main(["explain", "hello", "--updates", "20"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    for part in ("step 1: reads 'h', should expect 'e'", "step 4", "h = tanh(W x + U h + b)",
                 "softmax", "loss = -ln P(o)", "gradient"):  # fmt: skip
        assert part in shown
    with pytest.raises(SystemExit):
        main(["explain", "ab", "--cell", "lstm", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert content["letters"] == ["a", "b"]
    assert len(content["steps"]) == 1


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_numbers_of_a_long_row_stay_below_each_other(width: int) -> None:
    """The story: with eight letters, wrapped lines began at other columns than those above."""
    values = [(-1.0) ** number * number for number in range(8)]
    matrix = [values, values]
    step = ExampleStep(
        letter="a", target="b", vectors={"x": values}, probabilities=[0.125] * 8, nats=0.5
    )
    example = WorkedExample(
        cell="rnn", letters=list("abcdefgh"), weights={"V": matrix}, gradients={"V": matrix},
        steps=[step], losses=[1.0, 0.5], seconds=1.0,
    )  # fmt: skip
    written = io.StringIO()
    console = Console(width=width, file=written)
    for part in example_parts(example):
        console.print(part)
    lines = written.getvalue().splitlines()
    for first in ("x ", "V 1"):
        at = next(number for number, line in enumerate(lines) if line.startswith(first))
        rows = [
            lines[at],
            *itertools.takewhile(lambda line: line.startswith("  "), lines[at + 1 :]),
        ]
        ends = [{match.end() for match in re.finditer(r"\d\.\d{4}", row)} for row in rows]
        assert all(below <= ends[0] for below in ends)
    numbers = re.findall(r"-?\d\.\d{4}", " ".join(lines))
    assert len(numbers) == 8 + 2 * 2 * 8 + 1
    assert all(len(line) <= width for line in lines)
