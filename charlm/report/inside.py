"""Texts in colours for terminals: surprisal, units, the difference of two models, alternatives."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.table import Table
from rich.text import Text

from charlm.config.cells import SIGNALS
from charlm.files.escapes import escape_controls
from charlm.inspect.find_units import UnitMatches
from charlm.inspect.text_view import Alternatives, Difference, Inspection, TextView, TokenView
from charlm.listing import WORDS, Part
from charlm.report.heat import (
    SIGNED,
    SURPRISAL,
    Scale,
    blind_guess,
    rich_style,
    signed_level,
    surprisal_bounds,
    surprisal_level,
)
from charlm.report.tables import BAR_WIDTH, plain_table
from charlm.report.text import number, padded, shortened, visible

FULL_DIFFERENCE = 4.0
"""Bits of difference at full colour."""
RANGES = (0.1, 0.25, 0.5, 1.0)
"""Values at full colour for units of small values; above, steps of 0.5."""
LINE_END = "⏎"
TAB = "⇥"


class Cell(NamedTuple):
    """Part of a text with its level of colour; `unknown` is true if its tokens are unknown."""

    text: str
    level: int
    unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class Heat:
    """Text in colours: its cells, the labels of its legend by level, and lines about it."""

    scale: Scale
    cells: Sequence[Cell]
    legend: Sequence[tuple[str, int]]
    before: str = ""
    """Label on the left of the legend."""
    after: str = ""
    """Label on the right of the legend."""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def text(self) -> str:
        """Text without colours."""
        return "".join(cell.text for cell in self.cells)


def heats(inspection: Inspection) -> list[Heat]:
    """Return what was asked for in colours: units, a difference, words, or the surprisal."""
    view = inspection.view
    if inspection.units:
        return [
            unit_heat(view, name, signal, values)
            for (name, signal), values in inspection.units.items()
        ]
    if inspection.other:
        return [difference_heat(inspection.differences, view.run, inspection.other)]
    return [word_heat(view, inspection.words) if inspection.words else surprisal_heat(view)]


def notes(inspection: Inspection) -> Sequence[str]:
    """Return lines about the figures of a text, for a table without colours."""
    if inspection.other:
        return heats(inspection)[0].notes
    return totals(inspection.view)


def surprisal_heat(view: TextView) -> Heat:
    """Return the tokens of a text, coloured by surprisal."""
    return _surprisal(view.parts, view.vocab_size, totals(view))


def word_heat(view: TextView, words: Sequence[Part]) -> Heat:
    """Return the words of a text, coloured by surprisal."""
    return _surprisal(words, WORDS, totals(view))


def _surprisal(parts: Sequence[Part], size: int, notes: Sequence[str]) -> Heat:
    """Return parts of a text, coloured by surprisal; a blind guess is one of `size`."""
    cells = [Cell(shown(part.text), surprisal_level(part.bits, size), part.oov) for part in parts]
    legend = [(f"{bound:.1f}", level) for level, bound in enumerate(surprisal_bounds(size))]
    after = f"blind guess {blind_guess(size):.1f} (of {size:,})"
    return Heat(
        scale=SURPRISAL, cells=cells, legend=legend, before="bits", after=after, notes=notes
    )


def totals(view: TextView) -> list[str]:
    """Return a line with the figures of a text."""
    tally = view.tally
    unknown = f", {tally.oov:,} unknown (UNK)" if tally.oov else ""
    ending = ", with the end of the text" if tally.eos else ""
    per_char = f", {number(tally.bits_per_char, 3)} bits/char" if tally.chars else ""
    return [f"{tally.tokens:,} tokens{unknown}, ln P {0.0 - tally.nats:.2f}{ending}{per_char}"]


def difference_heat(parts: Sequence[Difference], run: str, other: str) -> Heat:
    """Return a text, coloured by the difference of its bits under two models."""
    cells = [
        Cell(shown(part.text), signed_level(part.difference / FULL_DIFFERENCE)) for part in parts
    ]
    sums = [math.fsum(part.bits for part in parts), math.fsum(part.other_bits for part in parts)]
    won = sum(part.difference < 0 for part in parts) / max(len(parts), 1)
    return Heat(
        scale=SIGNED,
        cells=cells,
        legend=_signed_legend(),
        before=f"{run} {FULL_DIFFERENCE:g} bits better",
        after=f"{other} {FULL_DIFFERENCE:g} bits better",
        notes=[
            f"{run} {sums[0]:.2f} bits, {other} {sums[1]:.2f}, difference "
            f"{sums[0] - sums[1]:+.2f}; {run} is better on {100 * won:.0f} %"
        ],
    )


def unit_heat(view: TextView, name: str, signal: str, values: Sequence[float]) -> Heat:
    """Return a text, coloured by a signal of one unit after each token."""
    is_gate = SIGNALS[signal].endswith("gate")
    most = full_value(values)
    cells: list[Cell] = []
    for token, value in zip(view.tokens, values, strict=False):
        level = signed_level(2.0 * value - 1.0 if is_gate else value / most)
        if cells and not token.text:
            cells[-1] = cells[-1]._replace(level=level)
        else:
            cells.append(Cell(shown(token.text), level, token.oov))
    known = [value for value in values if value == value]  # none after the end of the text
    low, high = min(known, default=0.0), max(known, default=0.0)
    return Heat(
        scale=SIGNED,
        cells=cells,
        legend=_signed_legend("½" if is_gate else "0"),
        before="0" if is_gate else f"{-most:g}",
        after="1" if is_gate else f"{most:g}",
        notes=[f"unit {name}, {SIGNALS[signal]} {signal}, from {low:.2f} to {high:.2f}"],
    )


def full_value(values: Sequence[float]) -> float:
    """Return the value at full colour for a unit: at least the largest, a round number."""
    most = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return next((each for each in RANGES if most <= each), math.ceil(2.0 * most) / 2.0)


def _signed_legend(middle: str = "0") -> list[tuple[str, int]]:
    return [(" " if level else middle, level) for level in SIGNED.levels]


def shown(text: str) -> str:
    """Return a part of a text as a terminal shows it: line ends and tabs visible, controls escaped.

    The end of the text, which has no characters, is a line end.
    """
    text = text.replace("\r\n", "\n")
    if text.isprintable() and text:
        return text
    marked = text.replace("\n", f"{LINE_END}\n").replace("\t", TAB)
    return escape_controls(marked) if text else LINE_END


def heat_text(heat: Heat, theme: str, system: str | None) -> Text:
    """Return a text in colours with its legend, for a terminal with this `color_system`."""
    styles = {
        level: rich_style(level, theme, heat.scale, system=system) for level in heat.scale.levels
    }
    text = Text()
    for run, level, unknown in joined(heat.cells):
        style = styles[level] + UNKNOWN if unknown else styles[level]
        lines = run.split("\n")
        for line_number, line in enumerate(lines):
            text.append(line, style)
            if line_number < len(lines) - 1:
                text.append("\n")
    if not text.plain.endswith("\n"):
        text.append("\n")
    text.append(_legend_text(heat, styles))
    for note in heat.notes:
        text.append(f"\n{note}", DIM)
    return text


UNKNOWN = Style(underline=True)
DIM = Style(dim=True)


def _legend_text(heat: Heat, styles: dict[int, Style]) -> Text:
    text = Text().append(f"{heat.before} ", DIM)
    for label, level in heat.legend:
        text.append(f" {label} ", styles[level])
    return text.append(f" {heat.after}", DIM)


def joined(cells: Iterable[Cell]) -> Iterator[Cell]:
    """Yield cells with those of one look joined; marks without a width join the cell before."""
    texts: list[str] = []
    level, unknown = 0, False
    for cell in cells:
        alike = (cell.level, cell.unknown) == (level, unknown)
        if texts and not alike and cell_len(cell.text):
            yield Cell("".join(texts), level, unknown)
            texts = []
        if not texts:
            level, unknown = cell.level, cell.unknown
        texts.append(cell.text)
    if texts:
        yield Cell("".join(texts), level, unknown)


def alternatives_text(view: TextView, theme: str, system: str | None, width: int) -> Text:
    """Return a text with the alternatives of each token under it, the likeliest first.

    Each token is a column. As in Karpathy (2015), the more probable an alternative, the more
    colour it has; the one that came is bold.
    """
    heat = surprisal_heat(view)
    own = {level: rich_style(level, theme, system=system) for level in SURPRISAL.levels}
    chances = [
        rich_style(-level, theme, SIGNED, system=system) + Style(underline=False)
        for level in range(SIGNED.levels[-1] + 1)
    ]
    text = Text()
    for row in _rows(view, width):
        for token, column in row:
            level = surprisal_level(token.bits, view.vocab_size)
            text.append(padded(_name(token.token), column), own[level])
        for rank in range(max((len(token.alternatives) for token, _ in row), default=0)):
            text.append("\n")
            for token, column in row:
                name, chance = token.alternatives[rank]
                style = chances[signed_level(chance)]
                style += Style(bold=True) if name == token.token else Style(dim=chance < 0.01)
                text.append(padded(_name(name), column), style)
        text.append("\n\n")
    text.append(_legend_text(heat, own))
    text.append("\nprobability ", DIM)
    for level, style in enumerate(chances):
        text.append(f" {level / (len(chances) - 1):.1f} ", style)
    for note in heat.notes:
        text.append(f"\n{note}", DIM)
    return text


def _rows(view: TextView, width: int) -> Iterator[list[tuple[TokenView, int]]]:
    """Yield the tokens that fit beside each other, with their widths; a line end ends a row."""
    row: list[tuple[TokenView, int]] = []
    used = 0
    for token in view.tokens:
        names = [token.token, *(name for name, _ in token.alternatives)]
        column = max(cell_len(_name(name)) for name in names)
        column += column > 1  # words need a space between them, letters do not
        if row and used + column > width:
            yield row
            row, used = [], 0
        row.append((token, column))
        used += column
        if "\n" in token.text:
            yield row
            row, used = [], 0
    if row:
        yield row


def _name(token: str) -> str:
    """Return a token for a column of alternatives."""
    return LINE_END if token == "<eos>" else shortened(token, NAME_WIDTH)


NAME_WIDTH = 16
"""Maximum width of a token in a column of alternatives."""


def table_lines(inspection: Inspection) -> Iterator[str]:
    """Yield a table without colours: a line for each token, word or part of a difference."""
    names, rows = table_rows(inspection)
    shown_rows = [[_cell(value) for value in row] for row in rows]
    left = {at for at, name in enumerate(names) if name in ("token", "text", "alternatives")}
    return aligned(names, shown_rows, left=left)


Value = str | float | int | Alternatives
"""Content of a cell of a table."""


def table_rows(inspection: Inspection) -> tuple[list[str], list[list[Value]]]:
    """Return the names of the columns of a table about a text, and its rows."""
    view, units = inspection.view, inspection.units
    if inspection.other:
        heads = ["text", f"bits {view.run}", f"bits {inspection.other}", "difference"]
        return heads, [
            [part.text, part.bits, part.other_bits, part.difference]
            for part in inspection.differences
        ]
    if inspection.words:
        return ["text", "bits", "oov"], [[*word] for word in inspection.words]
    has_others = any(token.alternatives for token in view.tokens)
    heads = ["token", "bits", "rank", "oov", *map(" ".join, units)]
    rows: list[list[Value]] = [
        [token.token, token.bits, token.rank, token.oov, *(each[at] for each in units.values())]
        for at, token in enumerate(view.tokens)
    ]
    if has_others:
        heads.append("alternatives")
        for row, token in zip(rows, view.tokens, strict=True):
            row.append(token.alternatives)
    return heads, rows


def _cell(value: Value) -> str:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, tuple):
        return "  ".join(f"{visible(name)} {chance:.3f}" for name, chance in value)
    return f"{value:.3f}" if isinstance(value, float) else str(int(value))


def aligned(
    heads: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int]
) -> Iterator[str]:
    """Yield the lines of a table of any length, with columns as wide as their content.

    The columns of the numbers `left` are left-aligned.
    """
    lines = [heads, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        pairs = enumerate(zip(line, widths, strict=True))
        cells = [padded(cell, width, left=at in left) for at, (cell, width) in pairs]
        yield "  ".join(cells).rstrip() + "\n"


def match_table(matches: UnitMatches) -> Table:
    """Return the units that follow a pattern, with a bar for the correlation on held-out text."""
    has_auc = any(match.auc is not None for match in matches)
    table = plain_table("<unit", "<signal", "r", "held out", *(["AUC"] if has_auc else []), "<")
    for match in matches:
        bar = Text("█" * round(BAR_WIDTH * abs(match.r_held_out)), style="cyan")
        own = [] if match.auc is None else [f"{match.auc:.3f}"]
        figures = [f"{match.r:+.3f}", f"{match.r_held_out:+.3f}", *own]
        table.add_row(match.name, f"{match.signal} ({SIGNALS[match.signal]})", *figures, bar)
    return table
