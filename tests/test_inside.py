"""`charlm inside`: colours for a terminal, tables for a pipe, and files."""

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from helpers import Call
from rich.console import Console

import charlm
from charlm.api.inside import inspect
from charlm.api.model import Model
from charlm.cli.inside import MAX_CHARS, MAX_FILE
from charlm.inspect.text_view import Inspection, TextView, TokenView
from charlm.report.heat import SIGNED, SURPRISAL
from charlm.report.inside import (
    Cell,
    alternatives_text,
    full_value,
    heat_text,
    heats,
    joined,
    table_lines,
    unit_heat,
)
from charlm.report.inside_files import csv_lines, from_left, json_content, svg_picture, wrapped
from charlm.runs.built_in import built_in_run
from charlm.units import Tally

TEXT = 'She made the pie.\n"My dim urns!" said Ana.'
HOSTILE = {
    "controls": "a\x1b[31mb\x07\x00c",
    "markup": "[bold]a[/] [/]",
    "script": "</script><!-- <b>&amp;",
    "marks": "e\u0301\u0302\u0303 a",
    "wide": "猫犬 ａ",
    "direction": "שלום \u202eabc\u202c عربي",
    "joined": "👩\u200d🚀 👍🏽",
    "tabs": "a\tb\r\nc\rd",
    "unknown": "ÄÖÜ☃",
    "empty": "",
    "blank": " \n\n ",
}
"""Texts that could harm a terminal or a page."""
every_hostile_text = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


@pytest.fixture(scope="module")
def lm() -> Model:
    return charlm.load(built_in_run("tales"))


def view_of(*tokens: tuple[str, float]) -> TextView:
    """Return a view of tokens that are their own text."""
    views = tuple(TokenView(text, text, 2, bits, 1, oov=False) for text, bits in tokens)
    return TextView(run="x", unit="char", vocab_size=64, tokens=views, tally=Tally())


def rendered(text, *, colors: bool = True, width: int = 80) -> str:
    """Return what a terminal gets."""
    console = Console(
        width=width, force_terminal=True, color_system="truecolor" if colors else None,
        legacy_windows=False,
    )  # fmt: skip
    with console.capture() as capture:
        console.print(text)
    return capture.get()


def shown_in(heat) -> str:
    """Return the text part of a heat map in a wide terminal without colours."""
    return rendered(heat_text(heat, "dark", None), colors=False, width=1000)


def test_tokens_are_coloured_by_surprisal() -> None:
    """64 entries: a blind guess is 6 bits, the first bound of level 6."""
    (heat,) = heats(Inspection(view=view_of(("a", 0.0), ("b", 6.0), ("\n", 90.0))))
    assert heat.cells == [Cell("a", 0), Cell("b", 6), Cell("⏎\n", 7)]
    assert [label for label, _ in heat.legend][::6] == ["0.0", "6.0"]
    assert heat.after == "blind guess 6.0 (of 64)"


def test_a_unit_colours_the_token_that_it_has_read() -> None:
    """Full colour is a round number; gates run from shut to open."""
    view = view_of(("a", 1.0), ("b", 1.0), ("c", 1.0))
    heat = unit_heat(view, "2:8", "c", [-2.6, 0.0, 1.2])
    assert [cell.level for cell in heat.cells] == [-4, 0, 2]
    assert (heat.before, heat.after) == ("-3", "3")
    assert heat.notes == ["unit 2:8, cell c, from -2.60 to 1.20"]
    gate = unit_heat(view, "2:8", "f", [0.0, 0.5, 1.0])
    assert [cell.level for cell in gate.cells] == [-5, 0, 5]


def test_the_end_of_a_text_has_no_value_of_a_unit() -> None:
    """It has no colour, and is empty in CSV and null in JSON."""
    view = view_of(("a", 1.0), ("", 1.0))
    inspection = Inspection(view=view, units={("2:8", "c"): [0.5, math.nan]})
    (heat,) = heats(inspection)
    assert heat.notes == ["unit 2:8, cell c, from 0.50 to 0.50"]
    assert list(csv_lines(inspection))[2].endswith(",\n")
    assert json_content(inspection)["units"][0]["values"] == [0.5, None]


def test_full_colour_is_at_least_the_largest_value() -> None:
    for values in ([], [0.0], [0.03, -0.05], [0.3], [-0.9], [1.01], [4.2, -7.7], [math.nan]):
        most = full_value(values)
        assert most >= max((abs(v) for v in values if v == v), default=0.0)
        assert most > 0.0 and 20.0 * most == round(20.0 * most)


def test_cells_of_one_look_are_joined_and_marks_stay_on_their_letter() -> None:
    cells = [Cell("a", 1), Cell("b", 1), Cell("e", 2), Cell("\u0301", 5), Cell("c", 1, True)]
    assert list(joined(cells)) == [Cell("ab", 1), Cell("e\u0301", 2), Cell("c", 1, True)]
    assert list(joined([])) == []


@every_hostile_text
def test_a_terminal_gets_no_control_characters(text: str, lm: Model) -> None:
    """Nor markup of rich; line ends are visible and break lines."""
    heat = heats(inspect(lm, text))[0]
    shown = shown_in(heat)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    visible = {"controls": r"a\x1b[31mb\x07\x00c", "markup": "[bold]a[/] [/]", "wide": "猫犬 ａ",
               "script": "</script><!-- <b>&amp;", "joined": HOSTILE["joined"]}  # fmt: skip
    for name, expected in visible.items():
        assert text != HOSTILE[name] or expected in shown


@every_hostile_text
def test_a_table_has_neither_colours_nor_broken_lines(text: str, lm: Model) -> None:
    """One line for each token, below the heading."""
    inspection = inspect(lm, text)
    lines = "".join(table_lines(inspection)).splitlines()
    assert len(lines) == 1 + len(inspection.view.tokens)
    assert "\x1b" not in "".join(lines)


@every_hostile_text
def test_a_picture_is_valid_and_has_the_text(text: str, lm: Model) -> None:
    tree = ET.fromstring(svg_picture(heats(inspect(lm, text))))
    inside = "".join(
        element.text or "" for element in tree.iter("{http://www.w3.org/2000/svg}text")
    )
    for letter in "".join(text.split()):
        assert letter in inside or not letter.isprintable()
    assert len({element.get("y") for element in tree}) > 1


def test_a_picture_has_the_colours_of_both_themes(lm: Model) -> None:
    picture = svg_picture(heats(inspect(lm, TEXT)))
    light, _, dark = picture.partition("@media (prefers-color-scheme:dark)")
    assert SURPRISAL.background(7, "light") in light and SIGNED.background(5, "light") in light
    assert SURPRISAL.background(7, "dark") in dark and SIGNED.background(5, "dark") in dark


@pytest.mark.parametrize(
    ("line", "begins_right", "shown"),
    [
        (["ab", "c 1"], False, ["ab", "c 1"]),
        (["א", "ב ג", "!"], True, ["!", "ב ג", "א"]),
        (["א", "b", "c", " ", "ג"], True, ["ג", " ", "b", "c", "א"]),
        (["a ", "בג", " ד", " e"], False, ["a ", " ד", "בג", " e"]),
        (["שלום 12 a"], True, ["12 a", "שלום "]),
        (["a ב\u05b0ג"], False, ["a ", "ב\u05b0ג"]),
        ([], False, []),
    ],
)
def test_a_line_of_a_picture_is_in_visual_order(
    line: list[str], begins_right: bool, shown: list[str]
) -> None:
    """Runs of letters from right to left are mirrored; numbers and marks stay as they are."""
    cells = [Cell(text, level % 3) for level, text in enumerate(line)]
    is_right, pairs = from_left(cells)
    assert (is_right, [cell.text for cell, _ in pairs]) == (begins_right, shown)


@pytest.mark.parametrize("columns", [1, 2, 7])
def test_wrapped_lines_fit_and_lose_nothing(columns: int) -> None:
    cells = [Cell("abc def", 1), Cell("ghi⏎\n", 2), Cell("jk", 3)]
    lines = list(wrapped(cells, columns))
    assert all(sum(len(cell.text) for cell in line) <= columns for line in lines)
    assert "".join(cell.text for line in lines for cell in line) == "abc defghi⏎jk"


def test_a_word_of_several_cells_stays_in_one_line() -> None:
    cells = [Cell("ab ", 0), Cell("c", 1), Cell("d e", 2), Cell("f", 1), Cell("ghijk l", 0)]
    lines = ["".join(cell.text for cell in line) for line in wrapped(cells, 4)]
    assert lines == ["ab ", "cd ", "ef", "ghij", "k l"]


def test_alternatives_stand_under_their_token(lm: Model) -> None:
    """A letter is a column; a line end begins a new row, with as many lines as alternatives."""
    inspection = inspect(lm, TEXT, top=3)
    text = alternatives_text(inspection.view, "dark", None, 80)
    rows = rendered(text, colors=False).splitlines()
    first = list(inspection.view.tokens)[: TEXT.index("\n") + 1]
    assert rows[0].replace("␣", " ").replace("⏎", "\n") == "".join(token.text for token in first)
    for line in range(3):
        names = [token.alternatives[line][0] for token in first]
        assert rows[1 + line].replace("␣", " ").replace("⏎", "\n") == "".join(names)
    assert rows[5].startswith('"My')


def test_the_command_writes_a_table_to_a_pipe(call: Call, here: Path) -> None:
    status, out, err = call("inside", "--run", "tales", TEXT)
    assert status == 0
    heads, *lines = out.splitlines()
    assert heads.split() == ["token", "bits", "rank", "oov"]
    assert len(lines) == len(TEXT)
    assert "ln P" in err and "\x1b" not in out + err


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ([], 4),
        (["--by", "word"], 4),
        (["--unit", "2:8", "--unit", "2:9"], 9),
        (["--top", "2", "--unit", "2:8"], 16),
        (["--with", "prose"], 4),
    ],
)
def test_a_terminal_gets_colours(
    arguments: list[str], lines: int, call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines of text with a legend and figures; NO_COLOR makes it a table."""
    for name, value in {"FORCE_COLOR": "1", "COLORTERM": "truecolor", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    status, out, _ = call("inside", "--run", "tales", TEXT, *arguments)
    assert status == 0
    assert "\x1b[38;2;" in out
    plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
    assert plain.replace("⏎", "").replace("␣", " ").startswith(TEXT[: TEXT.index("\n")])
    assert len(plain.splitlines()) == lines
    assert max(map(len, plain.splitlines())) <= 100
    light = call("inside", "--run", "tales", TEXT, *arguments, "--theme", "light")[1]
    assert light != out and re.sub(r"\x1b\[[0-9;]*m", "", light) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in call("inside", "--run", "tales", TEXT, *arguments)[1]


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_the_text_is_an_argument_a_file_or_stdin(source: str, call: Call, here: Path) -> None:
    """The last line end of a file is not part of the text."""
    (here / "a.txt").write_text(f"{TEXT}\n", encoding="utf-8")
    arguments = {"argument": [TEXT], "file": ["--file", "a.txt"], "stdin": ["-"]}[source]
    stdin = f"{TEXT}\n".encode() if source == "stdin" else None
    status, out, _ = call("inside", "--run", "tales", "--json", *arguments, stdin=stdin)
    assert status == 0
    assert json.loads(out)["text"] == TEXT


def test_csv_and_json_have_the_figures_of_the_score(call: Call, here: Path, lm: Model) -> None:
    (score,) = lm.score(TEXT, tokens=True)
    _, out, _ = call("inside", "--run", "tales", "--json", TEXT)
    content = json.loads(out)
    assert content["schema_version"] == 1
    assert content["log_probability"] == pytest.approx(score.log_probability)
    assert [token["rank"] for token in content["token_scores"]] == [t.rank for t in score.tokens]
    _, out, _ = call("inside", "--run", "tales", "--csv", "--top", "2", TEXT)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert "".join(row["token"] for row in rows) == TEXT
    nats = [float(row["bits"]) * math.log(2) for row in rows]
    assert nats == pytest.approx([token.nats for token in score.tokens], abs=1e-6)
    assert {"top_1", "probability_1", "top_2", "probability_2"} < set(rows[0])


def test_words_and_differences_are_tables_too(call: Call, here: Path) -> None:
    _, out, _ = call("inside", "--run", "tales", "--by", "word", "--csv", TEXT)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert "".join(row["text"] for row in rows) == TEXT
    _, out, _ = call("inside", "--run", "tales", "--with", "prose", "--csv", TEXT)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert "".join(row["text"] for row in rows) == TEXT
    for row in rows:
        assert float(row["difference"]) == pytest.approx(
            float(row["bits_tales"]) - float(row["bits_prose"]), abs=2e-6
        )
    bits = math.fsum(float(row["bits_prose"]) for row in rows)
    prose = charlm.load(built_in_run("prose"))
    assert bits * math.log(2) == pytest.approx(-prose.score(TEXT)[0].log_probability, abs=1e-4)
    assert "difference" in call("inside", "--run", "tales", "--with", "prose", TEXT)[2]


def test_units_are_columns_of_the_table(call: Call, here: Path, lm: Model) -> None:
    """One for each unit and signal, with the values of `Model.hidden`."""
    arguments = ["--unit", "2:8", "--unit", "1:0", "--signal", "c,f", "--csv", "--top", "1", TEXT]
    status, out, _ = call("inside", "--run", "tales", *arguments)
    assert status == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    hidden = lm.hidden(TEXT, signals=["c", "f"])
    for unit, signal in (("2:8", "c"), ("2:8", "f"), ("1:0", "c"), ("1:0", "f")):
        values = [float(row[f"{unit}_{signal}"]) for row in rows]
        assert values == pytest.approx(hidden.unit(unit, signal).tolist(), abs=1e-6)


def test_units_of_a_pattern_are_found(
    call: Call, here: Path, lm: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best one for quotations is the quote unit, as a table, CSV and JSON."""
    monkeypatch.setattr("charlm.inspect.find_units.SEARCH_TOKENS", 2_000)
    find = ["inside", "--run", "tales", "--find", '"[^"]*"', "--top", "2"]
    matches = lm.find_units('"[^"]*"', top=2)
    assert matches[0].name == "2:8"
    _, out, _ = call(*find)
    assert [line.split()[0] for line in out.splitlines()] == ["unit", *(m.name for m in matches)]
    (first, _) = csv.DictReader(io.StringIO(call(*find, "--csv")[1]))
    assert (first["unit"], first["signal"]) == ("2:8", "c")
    content = json.loads(call(*find, "--json")[1])
    assert content["units"] == matches.rows()


def test_a_table_may_have_a_long_text(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charlm.cli.inside.MAX_CHARS", 3)
    assert call("inside", "--run", "tales", "four", "--csv")[0] == 0
    assert "characters; expected at most 3 here" in call("inside", "--run", "tales", "four")[2]


def test_the_units_of_a_page_are_as_many_as_asked_for(call: Call, here: Path) -> None:
    """With --find, --top is their number; tokens have five alternatives."""
    call("inside", "--run", "tales", TEXT, "--html", "a.html", "--find", '"[^"]*"', "--top", "2")
    page = (here / "a.html").read_text(encoding="utf-8")
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert len(data["find"]["units"]) == 2
    top = data["score"]["columns"].index("top")
    assert {len(token[top]) for token in data["score"]["tokens"]} == {5}


@pytest.mark.filterwarnings("error")
def test_a_page_of_an_empty_text_is_saved(call: Call, here: Path) -> None:
    """Without a warning about means of nothing."""
    status, out, err = call("inside", "--run", "tales", "", "--html", "a.html")
    assert (status, out, err.splitlines()[1:]) == (0, "", [])


def test_a_picture_is_saved(call: Call, here: Path) -> None:
    status, out, err = call("inside", "--run", "tales", TEXT, "--svg", "a.svg")
    assert (status, out) == (0, "")
    assert "wrote a.svg" in err
    ET.parse(here / "a.svg")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "no text; expected one as an argument"),
        (["a", "--file", "a.txt"], "a text and --file were both given"),
        (["a", "--by", "line"], "--by is 'line'; expected one of token, word"),
        (["a", "--csv", "--json"], "--csv and --json were both given"),
        (["a", "--signal", "c"], "--signal has no effect without --unit"),
        (["a", "--unit", "9:9"], "a layer and a unit, 1:0 to 2:175. Find some with --find"),
        (["a", "--unit", "1:1", "--signal", "q"], "is 'q'; expected one of h, c, i, f, g, o"),
        (["--find", "(", "--run", "prose"], "'(' is not a regular expression"),
        (["a", "--find", "a", "--svg", "a.svg"], "--find with --svg"),
        (["a", "--by", "word", "--html", "a.html"], "--by word with --html"),
        (["--find", "a", "--html", "a.html"], "no text; expected one as an argument"),
        (["a", "--by", "word", "--top", "3"], "--by word and --top were given; expected one"),
        (["a", "--find", "a", "--unit", "2:8"], "--find and --unit were given; expected one"),
        (["a", "--find", "a", "--with", "prose"], "--find and --with were given; expected one"),
        (["a", "--top", "3", "--svg", "a.svg"], "--top with --svg, whose picture has one colour"),
        (["a", "--html", "a.txt", "--svg", "./a.txt"], "--html and --svg are both a.txt"),
        (["a", "--unit", "2:08"], "--unit is '2:08'; expected a layer and a unit"),
        (["a", "--signal", ""], "--signal has no effect without --unit"),
        (["a", "--theme", "grey"], "--theme is 'grey'; expected one of light, dark"),
        (["a" * (MAX_CHARS + 1)], "the text has 100,001 characters; expected at most 100,000"),
        (["a" * (MAX_FILE + 1), "--svg", "a.svg"], "expected at most 20,000 in a.svg"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    arguments: list[str], problem: str, call: Call, here: Path
) -> None:
    (here / "a.txt").write_text("a")
    status, out, err = call("inside", "--run", "tales", *arguments)
    assert (status, out) == (2, "")
    assert problem in err
