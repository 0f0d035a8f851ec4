"""The worked example as text and tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
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
    chances = [
        f"{visible(letter)} {value:.3f}"
        for letter, value in zip(letters, step.probabilities, strict=True)
    ]
    table.add_row("softmax", Lines(chances, gap="  "))
    table.add_row(f"loss = -ln P({visible(step.target)})", f"{step.nats:.4f} nats")
    return table


def _gradient_table(example: WorkedExample) -> Table:
    table = plain_table("<", "<weights, row by row", "<gradient of the mean loss")
    for name, rows in example.gradients.items():
        pairs = zip(_matrix(example.weights[name]), _matrix(rows), strict=True)
        whole = len(_matrix(rows)) == 1
        for number, (weights, gradients) in enumerate(pairs, start=1):
            label = name if whole else f"{name} {number}"
            table.add_row(label, _numbers(weights), _numbers(gradients))
    return table


def _matrix(rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
    return rows if isinstance(rows[0], list) else [rows]


def _numbers(values: Sequence[Any]) -> "Lines":
    return Lines([f"{value:8.4f}" for value in values])


@dataclass(frozen=True)
class Lines:
    """Words of one width, in as many lines as they need, below each other.

    Wrapped as text, a line would begin without the blanks before its first number.
    """

    words: Sequence[str]
    gap: str = " "

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield lines that fit into the width."""
        step = max(1, (options.max_width + len(self.gap)) // (self._width + len(self.gap)))
        for at in range(0, len(self.words), step):
            yield Text(self.gap.join(self.words[at : at + step]), no_wrap=True)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the width of a word and that of all words in one line."""
        whole = len(self.words) * (self._width + len(self.gap)) - len(self.gap)
        return Measurement(self._width, min(whole, options.max_width))

    @property
    def _width(self) -> int:
        return max(cell_len(word) for word in self.words)
