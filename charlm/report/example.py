"""The worked example as text and tables."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from charlm.inspect.worked_example import ExampleStep, WorkedExample
from charlm.report.tables import plain_table
from charlm.report.text import visible


def example_parts(example: WorkedExample) -> Iterator[Text | Table]:
    """Yield a summary, one table for each letter, and the gradient of each weight."""
    first, last = example.losses[0], example.losses[-1]
    letters = " ".join(visible(letter) for letter in example.letters)
    yield Text(
        f"{example.cell.upper()} with {len(example.weights['V'][0])} units over the letters "
        f"{letters}: {len(example.losses) - 1} updates in {example.seconds:.2f} s, from "
        f"{first:.3f} to {last:.3f} nats a letter."
    )
    for number, step in enumerate(example.steps, start=1):
        yield _step_table(number, step, example.letters)
    yield _gradient_table(example)


def _step_table(number: int, step: ExampleStep, letters: Sequence[str]) -> Table:
    title = f"step {number}: reads {visible(step.letter)!r}, should expect {visible(step.target)!r}"
    table = plain_table("<", "<", title=title)
    table.show_header = False
    for name, values in step.vectors.items():
        table.add_row(name, _numbers(values))
    chances = "  ".join(
        f"{visible(letter)} {value:.3f}"
        for letter, value in zip(letters, step.probabilities, strict=True)
    )
    table.add_row("softmax", chances)
    table.add_row(f"loss = -ln P({visible(step.target)})", f"{step.nats:.4f} nats")
    return table


def _gradient_table(example: WorkedExample) -> Table:
    table = plain_table("<", "<weights, row by row", "<gradient of the mean loss")
    for name, rows in example.gradients.items():
        pairs = zip(_matrix(example.weights[name]), _matrix(rows), strict=True)
        for number, (weights, gradients) in enumerate(pairs):
            table.add_row(name if number == 0 else "", _numbers(weights), _numbers(gradients))
    return table


def _matrix(rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
    return rows if isinstance(rows[0], list) else [rows]


def _numbers(values: Sequence[Any]) -> str:
    return " ".join(f"{value:8.4f}" for value in values)
