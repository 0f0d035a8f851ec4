"""Files about a text in a model: CSV and JSON for programs, SVG for documents."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import chain, groupby, zip_longest
from operator import itemgetter
from typing import Any

from rich.cells import cell_len, chop_cells

from charlm.inspect.find_units import UnitMatches
from charlm.inspect.text_view import Inspection
from charlm.report.heat import INKS, PAPER, SCALES, SOFT, Scale
from charlm.report.inside import Cell, Heat, joined, table_rows
from charlm.text.sources.delimited import quoted_field
from charlm.units import finite


def csv_lines(inspection: Inspection) -> Iterator[str]:
    """Yield the lines of a table as CSV; alternatives have two columns each."""
    names, rows = table_rows(inspection)
    number = max((len(token.alternatives) for token in inspection.view.tokens), default=0)
    pairs = [f"{kind}_{at}" for at in range(1, number + 1) for kind in ("top", "probability")]
    heads = [*(name.replace(" ", "_") for name in names if name != "alternatives"), *pairs]
    yield ",".join(["id", *(quoted_field(head, ",") for head in heads)]) + "\n"
    for place, row in enumerate(rows, start=1):
        cells = [str(place)]
        for value in row:
            values = [each for pair in value for each in pair] if type(value) is tuple else [value]
            cells += [_field(each) for each in values]
        yield ",".join(cells) + "\n"


def _field(value: Any) -> str:
    if isinstance(value, str):
        return quoted_field(value, ",")
    if value != value:  # NaN, after the EOS at the end
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(int(value))


def match_csv(matches: UnitMatches) -> Iterator[str]:
    """Yield the units that follow a pattern as lines of CSV; AUC is empty for columns."""
    yield "unit,signal,r,r_held_out,auc\n"
    for row in matches.rows():
        cells = ["" if value is None else _field(value) for value in row.values()]
        yield ",".join(cells) + "\n"


def json_content(inspection: Inspection) -> dict[str, Any]:
    """Return a text with its tokens, and its words, units or differences, for JSON."""
    view = inspection.view
    content: dict[str, Any] = {
        "schema_version": 1,
        "run": view.run,
        "unit": view.unit,
        "vocabulary": view.vocab_size,
        "text": view.text,
        "log_probability": finite(-view.tally.nats),
        **view.tally.summary(),
        "token_scores": [
            {
                "text": token.text,
                "token": token.token,
                "bits": finite(token.bits),
                "rank": token.rank,
                "oov": token.oov,
                "alternatives": [
                    {"token": name, "probability": chance} for name, chance in token.alternatives
                ],
            }
            for token in view.tokens
        ],
    }
    if inspection.units:
        content["units"] = [
            {"unit": name, "signal": signal, "values": [finite(value) for value in values]}
            for (name, signal), values in inspection.units.items()
        ]
    if inspection.words:
        content["word_scores"] = [
            {"text": word.text, "bits": finite(word.bits), "oov": word.oov}
            for word in inspection.words
        ]
    if inspection.other:
        content["other"] = inspection.other
        content["differences"] = [
            {
                "text": part.text,
                "bits": finite(part.bits),
                "other_bits": finite(part.other_bits),
                "difference": finite(part.difference),
            }
            for part in inspection.differences
        ]
    return content


COLUMNS = 80
"""Width of a picture in characters; longer lines are wrapped."""
SIZE, ADVANCE, LEADING, MARGIN = 15.0, 9.0, 24.0, 20.0
"""Size of letters, width of one, height of a line, and margin, in pixels."""
MONO = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
SANS = "system-ui,'Segoe UI',Helvetica,Arial,'DejaVu Sans',sans-serif"


def svg_picture(heats: Sequence[Heat], titles: Sequence[str] = ()) -> str:
    """Return texts in colours with their legends, one below the other, as an SVG document.

    It is light or dark like the page that shows it. `titles` are lines above the texts.
    """
    parts: list[str] = []
    y = MARGIN
    for heat, title in zip_longest(heats, titles[: len(heats)]):
        if title:
            parts.append(_words(title, MARGIN, y + 0.7 * LEADING, "title"))
            y += 1.4 * LEADING
        for line in wrapped(joined(heat.cells), COLUMNS):
            parts += _line(heat.scale, line, MARGIN, y)
            y += LEADING
        y += 0.6 * LEADING
        parts += _legend(heat, y)
        y += 1.2 * LEADING
        for note in heat.notes:
            parts.append(_words(note, MARGIN, y + 0.6 * LEADING, "soft"))
            y += LEADING
        y += 0.6 * LEADING
    width, height = 2 * MARGIN + COLUMNS * ADVANCE, y - 0.6 * LEADING + MARGIN
    paper = f'<rect class="paper" width="{width:g}" height="{height:g}" rx="10"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img">'
    return "\n".join([head, f"<style>{_svg_style()}</style>", paper, *parts, "</svg>\n"])


def _svg_style() -> str:
    """Return the style of a picture: fonts, and the colours of both themes."""
    rules = [
        f"text{{font:{SIZE:g}px {MONO};white-space:pre}}"
        f".soft,.title{{font:13px {SANS}}}.title{{font-weight:600}}",
        _theme_style("light"),
        f"@media (prefers-color-scheme:dark){{{_theme_style('dark')}}}",
    ]
    return "".join(rules)


def _theme_style(theme: str) -> str:
    rules = [
        f"text{{fill:{INKS[theme][0]}}}.soft{{fill:{SOFT[theme]}}}.paper{{fill:{PAPER[theme]}}}"
    ]
    for scale in SCALES.values():
        for level in scale.levels:
            if name := scale.css_class(level):
                rules.append(f"rect.{name}{{fill:{scale.background(level, theme)}}}")
                rules.append(f"text.{name}{{fill:{scale.letter(level, theme)}}}")
    return "".join(rules)


def _line(scale: Scale, cells: Sequence[Cell], x: float, y: float) -> list[str]:
    """Return the boxes of a line and its letters, which are fitted to the boxes in any font."""
    boxes, letters = [], []
    begins_right, shown = from_left(cells)
    if begins_right:
        x += (COLUMNS - _width(cell for cell, _ in shown)) * ADVANCE
    for cell, is_right in shown:
        width = cell_len(cell.text) * ADVANCE
        name = scale.css_class(cell.level)
        under = " under" if cell.level <= -2 else ""
        if name:
            boxes.append(
                f'<rect class="{name}{under}" x="{x:g}" y="{y:g}" width="{width:g}" '
                f'height="{LEADING - 3:g}"/>'
            )
        if cell.text.strip():
            kind = f' class="{name}"' if name else ""
            line = ' text-decoration="underline"' if under or cell.unknown else ""
            begin = f'direction="rtl" x="{x + width:g}"' if is_right else f'x="{x:g}"'
            letters.append(
                f'<text{kind}{line} {begin} y="{y + 0.66 * LEADING:g}" textLength="{width:g}" '
                f'lengthAdjust="spacingAndGlyphs" xml:space="preserve">{escape(cell.text)}</text>'
            )
        x += width
    return [*boxes, *letters]


def from_left(cells: Iterable[Cell]) -> tuple[bool, list[tuple[Cell, bool]]]:
    """Return whether a line begins on the right, and its cells as they are shown from the left.

    With each cell is whether it is read from right to left; a cell with both directions is cut.
    """
    letters = [cell._replace(text=letter) for cell in cells for letter in cell.text]
    begins_right, are_right = _directions("".join(cell.text for cell in letters))
    runs: list[list[tuple[Cell, bool]]] = []
    for is_right, pairs in groupby(zip(are_right, letters, strict=True), itemgetter(0)):
        run = [(cell, is_right) for cell in joined(cell for _, cell in pairs)]
        runs.append(run[::-1] if is_right else run)
    return begins_right, list(chain(*(runs[::-1] if begins_right else runs)))


RIGHT_TO_LEFT = {"R": True, "AL": True, "L": False, "EN": False, "AN": False}
"""Direction of characters by their class in Unicode; numbers are read from the left."""


def _directions(text: str) -> tuple[bool, list[bool]]:
    """Return whether a line begins on the right, and whether each character is read to the left.

    The first two levels of Unicode's bidirectional algorithm (UAX 9): a line begins on the side of
    its first letter; blanks and punctuation between two directions have that of the line.
    """
    kinds = [unicodedata.bidirectional(letter) for letter in text]
    base = next((RIGHT_TO_LEFT[kind] for kind in kinds if kind in ("R", "AL", "L")), False)
    sides: list[bool | None] = []
    for kind in kinds:  # a mark stays with its letter
        sides.append(sides[-1] if kind == "NSM" and sides else RIGHT_TO_LEFT.get(kind))
    pairs = zip(_filled(sides, base), [*_filled(sides[::-1], base)][::-1], strict=True)
    return base, [before if before == after else base for before, after in pairs]


def _filled(sides: Iterable[bool | None], last: bool) -> Iterator[bool]:
    """Yield the values with None replaced by the value before, at first by `last`."""
    for side in sides:
        last = last if side is None else side
        yield last


def _legend(heat: Heat, y: float) -> list[str]:
    """Return the legend of a text."""
    cells = [Cell(f" {label} ", level) for label, level in heat.legend]
    x = MARGIN + len(heat.before) * 7.2 + 8
    width = sum(len(cell.text) for cell in cells) * ADVANCE
    return [
        _words(heat.before, MARGIN, y + 0.66 * LEADING, "soft"),
        *_line(heat.scale, cells, x, y),
        _words(heat.after, x + width + 10, y + 0.66 * LEADING, "soft"),
    ]


def _words(text: str, x: float, y: float, name: str) -> str:
    return f'<text class="{name}" x="{x:g}" y="{y:g}">{escape(text)}</text>'


def wrapped(cells: Iterable[Cell], columns: int) -> Iterator[list[Cell]]:
    """Yield cells as lines of at most this width, cut after blanks, or in words that are longer."""
    line: list[Cell] = []
    word: list[Cell] = []
    used, own = 0, 0  # columns of the line, and of the word
    for cell in cells:
        for piece in re.findall(r"\n|[^ \n]* |[^ \n]+", cell.text):
            if piece == "\n":
                yield line + word
                line, word, used, own = [], [], 0, 0
                continue
            for part in chop_cells(piece, columns) or [piece]:
                size = cell_len(part)
                if line and used + own + size > columns:
                    yield line
                    line, used = [], 0
                if word and own + size > columns:
                    yield word
                    word, own = [], 0
                word.append(cell._replace(text=part))
                own += size
                if part.endswith(" "):
                    line, word, used, own = line + word, [], used + own, 0
    if line or word:
        yield line + word


def _width(cells: Iterable[Cell]) -> int:
    return sum(cell_len(cell.text) for cell in cells)
