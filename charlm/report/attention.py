"""Attention of a translation: how much each token of the output looks at each piece of the source.

Rows are tokens of the output, columns pieces of the source; the weights of a row sum to one. A
source that is wider than the terminal continues in further blocks.
"""

from bisect import bisect_right
from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.text import Text as Line

from charlm.inference.translating import Text
from charlm.report.heat import SURPRISAL, rich_style
from charlm.report.predictions import one_line
from charlm.report.text import visible
from charlm.text.sources.delimited import quoted_field

BOUNDS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 0.8)
"""Lower bounds of the levels of colour from 1 on, as weights."""
MAX_NAME, MIN_NAME = 12, 4
"""Maximum width of the name of a row or column, and the least to which columns are cut."""


def attention_level(weight: float) -> int:
    """Return the level of colour of a weight in `SURPRISAL`, 0 to 7."""
    return bisect_right(BOUNDS, weight)


def bare(piece: str) -> str:
    """Return a piece for people, without the blank before it, which most have."""
    return visible(piece.strip(" ") or piece)


def attention_grid(
    answer: Text, width: int, theme: str = "dark", system: str | None = "truecolor"
) -> Line:
    """Return the translation and its attention in colours, for a terminal of this width.

    `theme` and `system` are as in `rich_style`. Weights are in hundredths; without a number they
    are below 0.005.
    """
    rows = [bare(token.text) for token in answer.tokens]
    columns = [bare(piece) for piece in answer.source]
    side = min(max(map(cell_len, rows), default=0), MAX_NAME)
    room, lengths = max(width - side - 1, MIN_NAME + 1), [*map(cell_len, columns)]
    cell = min(max(lengths, default=0), MAX_NAME)
    if (cell + 1) * len(columns) > room:  # names are cut before the source is
        least = min(max(lengths[1:], default=0), MIN_NAME)  # letters stay narrow
        cell = max(min(cell, room // len(columns) - 1), least)
    cell = max(cell, 2)
    fitting = max(room // (cell + 1), 1)
    shown = Line(end="").append(f"{one_line(answer.text)}\n", style="bold")
    for begin in range(0, len(columns), fitting):
        part = columns[begin : begin + fitting]
        heads = " ".join(set_cell_size(name, cell) for name in part).rstrip()
        shown.append(f"\n{' ' * (side + 1)}{heads}\n", style="dim")
        for name, weights in zip(rows, answer.attention.tolist(), strict=True):
            shown.append(set_cell_size(name, side))
            for weight in weights[begin : begin + fitting]:
                style = rich_style(attention_level(weight), theme, SURPRISAL, system=system)
                hundredths = round(100 * weight)
                shown.append(" ")
                shown.append(f"{hundredths or '':>{cell}}", style=style)
            shown.append("\n")
    shown.right_crop(1)
    return shown


def attention_rows(answer: Text, delimiter: str) -> Iterator[str]:
    """Yield the lines of a table: each token, its probability, and the weight of each piece."""
    yield _joined(["token", "probability", *answer.source], delimiter)
    for token, weights in zip(answer.tokens, answer.attention.tolist(), strict=True):
        numbers = (f"{value:.6f}" for value in (token.probability, *weights))
        yield _joined([token.text, *numbers], delimiter)


def _joined(cells: list[str], delimiter: str) -> str:
    if delimiter == "\t":
        return "\t".join(map(one_line, cells)) + "\n"
    return delimiter.join(quoted_field(cell, delimiter) for cell in cells) + "\n"
