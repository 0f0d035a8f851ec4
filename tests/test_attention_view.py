"""Attention of translations in terminals, tables and pages."""

import csv
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from charlm.inference.translating import Text, Token
from charlm.report.attention import BOUNDS, attention_grid, attention_level, attention_rows, bare
from charlm.report.page.attention import attention_html

SOURCE = ("<eos>", "The", " dog", " saw", ' "', "a,b", " <b>", " 世界")
OUTPUT = ("Der", " Hund", " sah", ' "', "&amp;", " 世界", "<eos>")


def answer(source: tuple[str, ...] = SOURCE, output: tuple[str, ...] = OUTPUT) -> Text:
    """A translation whose tokens look at the pieces of their own place, mostly."""
    weights = np.full((len(output), len(source)), 0.003, np.float32)
    for row in range(len(output)):
        weights[row, (row + 1) % len(source)] = 0.9 + row / 1000
    tokens = tuple(Token(text, 0.5, source[0]) for text in output)
    return Text("".join(output[:-1]).strip(), tokens, source, weights)


def test_levels_rise_with_the_weight() -> None:
    """Nothing for no attention, the strongest colour for all of it."""
    assert [attention_level(weight) for weight in (0.0, *BOUNDS, 1.0)] == [
        0,
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        7,
    ]


@pytest.mark.parametrize("width", [20, 40, 80, 120])
def test_grid_fits_the_terminal(width: int) -> None:
    """No line is longer, and each token has a row in every block."""
    lines = attention_grid(answer(), width).plain.split("\n")
    assert lines[0] == answer().text and max(cell_len(line) for line in lines[1:]) <= width
    assert sum("91" in line or "90" in line for line in lines) == len(OUTPUT)
    blocks = sum(line == "" for line in lines)
    assert blocks == (1 if width >= 80 else 2 if width == 40 else 4)
    assert all(any(bare(piece)[:4] in line for line in lines[1:]) for piece in SOURCE)
    names = [line.split(" ")[0] for line in lines[3 : 3 + len(OUTPUT)]]
    assert names == ["Der", "Hund", "sah", '"', "&amp;", "世界", "<eos>"]


def test_grid_shows_letters_in_narrow_columns() -> None:
    """Forty letters fit into a terminal of 120 columns, side by side."""
    letters = ("<eos>", *"the third of May 1979, in the afternoon!")
    lines = attention_grid(answer(letters, ("1", "9", "<eos>")), 130).plain.split("\n")
    assert len(lines) == 6 and lines[2].split()[1:4] == ["t", "h", "e"] and "␣" in lines[2]


def test_colours_follow_the_weights() -> None:
    """Each number has the background of its level, also in 256 colours; none without weight."""
    for system in ("truecolor", "256", "standard"):
        grid = attention_grid(answer(), 120, "dark", system)
        coloured = [grid.plain[span.start : span.end].strip() for span in grid.spans
                    if " on " in str(span.style)]  # fmt: skip
        assert coloured == ["90", "90", "90", "90", "90", "90", "91"]


def test_tables_hold_every_weight() -> None:
    """CSV is read back by csv; with tabs, controls are escaped."""
    rows = list(csv.reader(attention_rows(answer(), ",")))
    assert rows[0] == ["token", "probability", *SOURCE]
    assert [row[0] for row in rows[1:]] == list(OUTPUT)
    numbers = np.array([row[2:] for row in rows[1:]], float)
    assert np.abs(numbers - answer().attention).max() < 1e-6
    tabs = list(attention_rows(answer(("<eos>", "a\tb")), "\t"))
    assert tabs[0] == "token\tprobability\t<eos>\ta\\tb\n" and len(tabs) == 1 + len(OUTPUT)


class Cells(HTMLParser):
    """The heads, the titles of the cells, and every tag of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[float] = []
        self.classes: list[str | None] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        if tag == "td":
            self.classes.append(found.get("class"))
        if tag == "td" and found.get("title"):
            self.titles.append(float(found["title"] or 0))


def test_page_holds_every_weight_and_no_script() -> None:
    """Texts cannot add tags, and nothing is loaded from elsewhere."""
    page = attention_html("de<i>", 'The "dog" <script>', answer()._replace(text="<hr>"))
    cells = Cells()
    cells.feed(page)
    assert np.abs(np.array(cells.titles) - answer().attention.ravel()).max() < 1e-4
    assert "script" not in cells.tags and cells.tags.count("b") == 1  # the name of the run
    assert "hr" not in cells.tags and "&lt;hr&gt;" in page
    assert "i" in cells.tags and "<i>" not in page.split("<title>")[1].split("</title>")[0]
    assert page.count('title="0.9') == sum(map(bool, cells.classes)) == len(OUTPUT)
    assert cells.tags.count("tr") == 1 + len(OUTPUT)
    assert '<th scope="col"><span>&lt;eos&gt;</span></th><th scope="col">The</th>' in page
    assert "&lt;b&gt;" in page and "de&lt;i&gt;" in page and "$" not in page.split("<body>")[1]
    assert re.search(r"default-src 'none'; style-src 'sha256-[\w+/=]+';", page)
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_grid_renders_in_a_terminal() -> None:
    """Rich writes as many lines as the grid has, at its own width."""
    console = Console(width=40, force_terminal=True, color_system="truecolor")
    with console.capture() as capture:
        console.print(attention_grid(answer(), 40), soft_wrap=True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", capture.get())
    assert plain == attention_grid(answer(), 40).plain + "\n"
