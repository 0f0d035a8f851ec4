"""The list of runs as aligned lines, and the sentences about broken ones below it.

The lines are aligned here: a `rich.table.Table` of 200 runs takes longer than reading them.
"""

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from charlm.files.escapes import escape_unprintable
from charlm.report.text import age, number, padded, short_count
from charlm.runs.overview import (
    BROKEN,
    DIVERGED,
    FINISHED,
    INTERRUPTED,
    SEARCHED,
    TRAINING,
    RunInfo,
)
from charlm.units import count_of

COLOURS = {TRAINING: "green", INTERRUPTED: "yellow", DIVERGED: "red", BROKEN: "red"}
"""Colours of the statuses; others have none."""
BUILT_IN = "built-in"
HEAD = ("run", "text", "unit", "size", "bits/byte", "age", "status", "disk")
SHORT = {"accuracy": "acc", "f1": "F1", "chrf": "chrF", "mse": "MSE"}
"""Names of figures in the list, if they are not their keys."""
LEFT = (0, 1, 2, 6)
"""Columns that are aligned to the left."""
PART_MARK = "*"
"""Mark of a figure that is of a part of the validation text."""
TEXT_COLUMN, MIN_TEXT = 1, 8
"""Column that is cut on a narrow terminal, and its minimum width."""


def run_lines(runs: Sequence[RunInfo], now: float, width: int) -> Text:
    """Return a line for each run, with trials indented below their search.

    `now` is the time in seconds since 1970, from which ages are counted; `width` that of the
    terminal. Names and figures are never cut.
    """
    listed = list(_with_trials(runs))
    cells = [HEAD, *(_cells(depth, run, now) for depth, run in listed)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    excess = sum(widths) + 2 * (len(widths) - 1) - width
    widths[TEXT_COLUMN] = max(widths[TEXT_COLUMN] - max(0, excess), MIN_TEXT)
    styles = ["bold", *(COLOURS.get(run.status, "") for _, run in listed)]
    lines = Text(no_wrap=True, overflow="ignore")
    for style, row in zip(styles, cells, strict=True):
        columns = [
            padded(cell, wide, left=number in LEFT)
            for number, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ]
        whole = row is HEAD
        before, status, after = ("  ".join(columns[a:b]) for a, b in ((0, 6), (6, 7), (7, 8)))
        lines.append(f"{before}  ", style if whole else "")
        lines.append(status, style)
        lines.append(f"  {after}\n", style if whole else "")
    lines.right_crop(1)
    return lines


def _cells(depth: int, run: RunInfo, now: float) -> tuple[str, ...]:
    return (
        "  " * depth + escape_unprintable(run.name),
        escape_unprintable(run.text),
        escape_unprintable(run.unit),
        "" if run.size is None else short_count(run.size),
        "" if run.status == BROKEN else _figure(run),
        "" if run.built_in else age(max(0.0, now - run.changed)),
        _status(run),
        short_count(run.bytes, "B"),
    )


def _figure(run: RunInfo) -> str:
    """Return the headline of a run: its bits per byte, or a figure of its task by name."""
    value = run.figures.get(run.headline)
    if value is None or run.headline == "bits_per_byte":
        return number(value) + PART_MARK * bool(run.part)
    shown = f"{value:.2g}" if 0.0 < value < 1e-3 else number(value, 3)
    return f"{SHORT.get(run.headline, run.headline)} {shown}"


def _with_trials(runs: Sequence[RunInfo]) -> Iterator[tuple[int, RunInfo]]:
    """Yield each run, and below a search its trials, with their depth."""
    for run in runs:
        yield 0, run
        yield from ((1, trial) for trial in run.trials)


def _status(run: RunInfo) -> str:
    """Return the status of a run as it is shown."""
    if run.built_in and run.status == FINISHED:
        return BUILT_IN
    if run.kind == SEARCHED and run.status == FINISHED:
        return count_of(len(run.trials), "trial")
    return run.status


def part_lines(runs: Sequence[RunInfo]) -> list[str]:
    """Return the line that explains the mark of figures, if a run has it."""
    if not any(_figure(run).endswith(PART_MARK) for _, run in _with_trials(runs)):
        return []
    return [
        f"{PART_MARK} on a part of the validation text: charlm info shows which, and charlm eval "
        "reads all of it"
    ]


def problem_lines(runs: Sequence[RunInfo]) -> list[str]:
    """Return a line for each broken run: its name, and what is wrong."""
    rows = (run for _, run in _with_trials(runs) if run.problem)
    return [escape_unprintable(f"{run.name}: {run.problem}") for run in rows]
