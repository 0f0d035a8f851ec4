"""Results as notebooks show them: tables, and texts coloured by surprisal."""

import ast
import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from waiting import PATIENCE

import charlm
from charlm.api.model import Model
from charlm.cli import guide
from charlm.errors import UsageError
from charlm.inference.scores import Score, Scores, TokenScore
from charlm.inspect import find_units
from charlm.listing import HeatText, Part
from charlm.report import notebook
from charlm.report.heat import SIGNED, SURPRISAL, signed_level, surprisal_level
from charlm.report.inside import full_value
from charlm.report.notebook import table_html
from charlm.units import Tally, bits

TEXT = 'The <b>old</b> dog\n said "so" & ran\x1b[31m.'
QUOTE = '"Seven old dogs rest here," said Tess.'


@pytest.fixture(scope="module")
def model() -> Model:
    return charlm.load("tales")


class Page(HTMLParser):
    """The tags of a page that are open or were closed wrongly, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.spans: list[tuple[str, str]] = []
        self._class = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self._class = dict(attrs).get("class") or ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "span":
            self.spans.append((data, self._class))


def test_a_text_is_coloured_token_by_token(model: Model) -> None:
    """Every character appears once, escaped, with the level of its surprisal."""
    scores = model.score([TEXT], by="token")
    page = Page(scores._repr_html_())
    assert page.open == []
    assert "".join(text for text, _ in page.spans) == TEXT.replace("\x1b", "\\x1b")
    levels = [
        surprisal_level(bits(token.nats), len(model.vocabulary)) for token in scores[0].tokens
    ]
    assert [name for _, name in page.spans] == [SURPRISAL.css_class(level) for level in levels]
    assert len(set(levels)) > 3


def test_words_are_coloured_with_the_blanks_before_them(model: Model) -> None:
    scores = model.score([TEXT, "The dog"], by="word")
    page = Page(scores._repr_html_())
    texts = [text for text, _ in page.spans]
    assert texts[:4] == ["The", " <b>old</b>", " dog", "\n said"]
    assert texts[-2:] == ["The", " dog"]
    words = Page(model.words([TEXT])._repr_html_())
    assert [text for text, _ in words.spans] == TEXT.replace("\x1b", "\\x1b").split()


def test_a_text_is_coloured_by_a_unit(model: Model) -> None:
    """Each piece has the level of its value; the quote unit changes its sign at quotes."""
    hidden = model.hidden(QUOTE)
    shown = hidden.show("2:8")
    values = hidden.unit("2:8")
    assert [value for _, value in shown] == values.tolist()
    page = Page(shown._repr_html_())
    assert "".join(text for text, _ in page.spans) == QUOTE
    full = full_value(values.tolist())
    names = [SIGNED.css_class(signed_level(value / full)) for value in values]
    assert [name for _, name in page.spans] == names
    assert {name[:1] for name in names} >= {"n", "p"}
    assert [*shown.rows()[0]] == ["piece", "2:8 c"]
    assert [*hidden.show("2:8", "h").rows()[0]] == ["piece", "2:8 h"]


def test_text_without_scores_of_parts_has_no_colour(model: Model) -> None:
    html = model.score([TEXT])._repr_html_()
    assert "<style>" not in html
    assert "<span" not in html
    assert "&lt;b&gt;old" in html


def test_a_piece_that_the_text_does_not_have_is_a_part_of_its_own() -> None:
    """Such as the end, or a token of a normalised text; then the text goes on."""
    tokens = tuple(
        TokenScore(token=token, id=2, nats=nats, rank=1, oov=token == "X")
        for token, nats in (("a", 1.0), ("X", 2.0), ("b", 3.0), ("<eos>", 4.0))
    )
    scores = Scores([Score(text="a b", tally=Tally(), tokens=tokens)])
    scores.vocab_size = 50
    parts = scores.shown_rows()[0]["text"].parts
    assert [part.text for part in parts] == ["a", "X", " b", "<eos>"]
    assert [part.oov for part in parts] == [False, True, False, False]
    assert parts[2].bits == pytest.approx(3.0 / math.log(2.0))


def test_names_are_above_their_values() -> None:
    """At the side of the first value that is there; yes and no are words."""
    html = table_html([{"a": None, "b": "x", "c": True}, {"a": 1.0, "b": 2, "c": False}])
    assert re.findall(r'<th style="text-align: (\w+)">(\w)', html) == [
        ("right", "a"), ("left", "b"), ("left", "c"),
    ]  # fmt: skip
    assert [*re.findall(r'<td style="text-align: (\w+)', html)][2::3] == ["left", "left"]


def test_an_empty_list_is_shown_by_its_repr(model: Model) -> None:
    """A table without rows would look like no output at all."""
    for empty in (model.score([]), model.words([]), model.hidden("").show("1:0"), model.history):
        assert empty._repr_html_() is None


def test_long_texts_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "SHOWN_PARTS", 3)
    html = table_html([{"text": HeatText([Part("x", 1.0)] * 5, 50)}])
    assert html.count("<span") == 3
    assert "… 2 more" in html
    rows = table_html([{"n": number} for number in range(notebook.SHOWN_ROWS + 2)])
    assert rows.count("<tr>") == 1 + notebook.SHOWN_ROWS + 1
    assert "2 more rows; to_pandas() has them all" in rows


def test_colours_follow_the_theme_of_the_page() -> None:
    html = table_html([{"text": HeatText([Part("x", 9.0)], 50)}])
    for level in SURPRISAL.levels[1:]:
        rule = re.search(rf"\.charlm-heat \.s{level}\{{(.*?)\}}", html)
        assert rule
        assert rule[1].count("light-dark(") == 2
    assert re.search(r'\[data-jp-theme-light="false"\] \.charlm-heat.*\{color-scheme:dark\}', html)


def test_a_model_shows_what_it_is(model: Model, tmp_path: Path) -> None:
    html = model._repr_html_()
    assert html is not None
    assert "<caption>tales</caption>" in html
    assert "2 x 176 LSTM" in html
    assert "51 char entries" in html
    assert "bits per character" in html
    mixed = charlm.load("tales", with_="tales=0.25")._repr_html_()
    assert mixed is not None
    assert ">0.750 tales + 0.250 tales" in mixed
    broken = charlm.load("tales")
    broken.path = tmp_path
    assert broken._repr_html_() is None


def test_pairs_are_shown_by_paradigm(model: Model) -> None:
    pairs = charlm.pairs(model, [("the dog", "thx dog"), ("a cat", "a czt")])
    html = pairs._repr_html_()
    assert html.count("<tr>") == 3
    assert "all pairs" in html


def test_arguments_of_another_type_are_named(model: Model) -> None:
    """As a newcomer may give them."""
    for call, problem in [
        (lambda: model.hidden(3), "The text is 3; expected a str"),
        (lambda: model.surprisal(b"a"), "b'a'; expected a str"),
        (lambda: model.score(5), "texts is 5; expected a str or several"),
        (lambda: model.hidden("a").show(2.8), "unit is 2.8; expected a layer and a unit"),
    ]:
        with pytest.raises(UsageError, match=problem):
            call()


def test_neighbours_are_a_table(model: Model) -> None:
    pandas = pytest.importorskip("pandas")
    near = model.nearest("a", top=3)
    frame = near.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert [(row.token, row.cosine) for row in frame.itertuples()] == list(near)
    assert near._repr_html_().count("<tr>") == 4


# The notebook of the guide


def cells() -> list[str]:
    """Return the code of the notebook's cells."""
    content = json.loads(guide.NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in content["cells"])  # none that could be outdated
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def test_every_cell_of_the_notebook_runs(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each prints something, or shows a result as HTML."""
    monkeypatch.setattr(find_units, "SEARCH_TOKENS", 1000)
    names: dict[str, object] = {}
    for cell in cells():
        tree = ast.parse(cell.replace("steps=200", "steps=2"))
        *lines, last = tree.body
        shown = isinstance(last, ast.Expr) and not ast.unparse(last).startswith("print")
        exec(compile(ast.Module(lines if shown else tree.body, []), "cell", "exec"), names)
        if shown:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            html = value._repr_html_()
            assert re.match("<(table|div|svg|figure)", html), cell
        else:
            assert capfd.readouterr().out, cell


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = nbformat.read(guide.NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(
        notebook, timeout=PATIENCE, resources={"metadata": {"path": here}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not any(output.output_type == "error" for output in outputs)
    assert sum("text/html" in output.get("data", {}) for output in outputs) >= 6


INTERRUPTED = """
import json, os, signal, threading
from pathlib import Path
import charlm
text = "the cat sat on the mat, and the dog sat on the log. " * 40
def options(): return dict(text=text, processes=2, hidden=8, batch=4, bptt=8, evals=2, device="cpu")
def interrupt():
    while not (log := Path("checkpoints/a/metrics.jsonl")).exists() or not log.stat().st_size:
        os.sched_yield()
    os.kill(os.getpid(), signal.SIGINT)
---
threading.Thread(target=interrupt).start()
charlm.fit(name="a", steps=10**6, **options())
---
print(json.loads(Path("checkpoints/a/run.json").read_text())["status"])
print(charlm.fit(name="b", steps=4, **options()))
done = []
thread = threading.Thread(target=lambda: done.append(charlm.fit(name="c", steps=4, **options())))
thread.start(); thread.join()
print(done[0])
---
print([n for p in Path("/proc/self/task").glob("*/children") for n in p.read_text().split()])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for children")
def test_two_processes_train_in_a_kernel_that_is_interrupted(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Functions of cells have no module; the run is saved, and no process is left."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    cells = [nbformat.v4.new_code_cell(code) for code in INTERRUPTED.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(
        notebook, timeout=PATIENCE, allow_errors=True, resources={"metadata": {"path": here}}
    ).execute()
    _, interrupted, again, orphans = notebook.cells
    (error,) = [each for each in interrupted.outputs if each.output_type == "error"]
    assert (error.ename, "stopped and saved" in error.evalue) == ("KeyboardInterrupt", True)
    shown = "".join(each.text for each in interrupted.outputs if each.get("name") == "stderr")
    assert "starting the other processes" in shown
    assert shown.count("\n") == 1  # of one bar
    printed = "".join(each.text for each in again.outputs if each.get("name") == "stdout")
    assert [line.split("(")[0] for line in printed.splitlines()] == ["stopped", "Model", "Model"]
    assert orphans.outputs[0].text == "[]\n"
