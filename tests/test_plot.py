"""Curves of training: comparable figures, scales, dots, files, and the command."""

import csv
import hashlib
import io
import json
import math
import re
import shutil
import unicodedata
import xml.etree.ElementTree as ElementTree
from base64 import b64encode
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
from helpers import Call
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from charlm import api
from charlm.api.results import History
from charlm.cli import plot as verb
from charlm.config.tasks import TASKS
from charlm.errors import RunError, UsageError
from charlm.report.axes import FIGURES, X_AXES, RunLog
from charlm.report.braille import Canvas
from charlm.report.curve_files import html_page
from charlm.report.curve_svg import svg
from charlm.report.curve_terminal import FEW, TerminalPicture, picture
from charlm.report.curves import (
    RUN_COLOURS,
    notes,
    plot_of,
    rows,
    summary,
)
from charlm.report.heat import contrast
from charlm.report.scale import Scale, lines, pieces, range_of, thinned
from charlm.runs.layout import read_metrics

FIXTURE = Path(__file__).parent / "fixtures" / "format-1"


def record(kind: str, step: int, nats: float | None, **others) -> dict:
    """Return a record of metrics.jsonl: a step, or a validation of 100 tokens of 4 bytes."""
    common = {"kind": kind, "step": step, "tokens": 20 * step, "seconds": 0.5 * step, "epoch": 0}
    if kind == "step":
        rate = {"learning_rate": 0.01, "gradient_norm": 0.5}
        return {**common, "nats_per_token": nats, **rate, **others}
    bits = None if nats is None else nats / math.log(2)
    figures = {
        "valid_nats_per_token": nats,
        "valid_bits_per_token": bits,
        "valid_bits_per_char": bits and bits / 2,
        "valid_bits_per_byte": bits and bits / 4,
        "valid_perplexity": None if nats is None else math.exp(nats),
        "valid_tokens": 100,
        "valid_oov": 0,
    }
    return {**common, **figures, **others}


def log(name: str = "a", unit: str = "char", *records: dict, **corpus) -> RunLog:
    """Return the log of a run whose tokens have 2 characters and 4 bytes each."""
    part = {"tokens": 1000, "chars": 2000, "bytes": 4000}
    about = {"name": "text", "fingerprint": "f", "vocabulary": 9, "parts": {"train": part}} | corpus
    run = {"settings": {"vocabulary": {"unit": unit}}, "corpus": about, "status": "training"}
    falling = [record("step", 10 * n, 4.0 / n) for n in range(1, 41)]
    usual = [*falling, record("evaluation", 200, 1.0), record("evaluation", 400, 1.5)]
    return RunLog(name=name, path=Path(name), run=run, records=records or usual)


@pytest.fixture
def folder(tmp_path: Path, here: Path) -> Path:
    """Return a folder of runs with one run, which is the working folder's."""
    shutil.copytree(FIXTURE, here / "checkpoints" / "one")
    return here / "checkpoints"


def copy_of(run: Path, name: str, **changes) -> Path:
    """Copy a run with other nats in its log."""
    path = run.parent / name
    shutil.copytree(run, path)
    records = [record("step", 10, 2.0), record("evaluation", 10, changes.get("nats", 2.0))]
    text = "".join(json.dumps(one | {"valid_nats_per_token": changes.get("nats", 2.0)}) + "\n"
                   for one in records)  # fmt: skip
    (path / "metrics.jsonl").write_text(text, encoding="utf-8")
    return path


# --- figures ---------------------------------------------------------------------------------


def test_training_is_converted_by_the_size_of_its_text() -> None:
    """4 nats per token are 4 / ln 2 bits, a half per character and a quarter per byte."""
    nats = record("step", 10, 4.0)
    values = {
        y: plot_of([log("a", "bpe", nats)], y=y).curves[0].training[0][1]
        for y in FIGURES
        if FIGURES[y].target in ("", "token")
    }
    bits = 4.0 / math.log(2)
    assert values == pytest.approx(
        {"bits/byte": bits / 4, "bits/char": bits / 2, "bits/token": bits, "nats/token": 4.0,
         "perplexity": math.exp(4), "rate": 0.01, "gradient": 0.5}
    )  # fmt: skip
    valid = log("a", "bpe", record("evaluation", 10, 4.0))
    for y in ("bits/byte", "bits/char", "bits/token", "nats/token", "perplexity"):
        assert plot_of([valid], y=y).curves[0].validation[0][1] == pytest.approx(values[y])


@pytest.mark.parametrize("task", [task for task, row in TASKS.items() if row.labelled])
def test_a_run_of_a_task_is_shown_in_the_nats_that_it_logs(task: str) -> None:
    """Translations too, whose tokens have no bits per character of the source."""
    nats = f"nats_per_{TASKS[task].target}"
    own = {"kind": "evaluation", "step": 5, "tokens": 5, f"{TASKS[task].target}s": 5}
    steps = own | {"kind": "step", nats: 2.0}, own | {f"valid_{nats}": 1.5}
    (curve,) = plot_of([of_task(log("a", "char", *steps), task)]).curves
    assert (curve.training[0][1], curve.validation[0][1]) == (2.0, 1.5)


def of_task(log: RunLog, task: str) -> RunLog:
    """Return the log as that of a task."""
    settings = log.run["settings"] | {"task": {"task": task}}
    return replace(log, run={**log.run, "settings": settings})


def test_each_axis_across_has_its_own_numbers() -> None:
    ends = {
        x: plot_of([log()], x=x).across.high
        for x, axis in X_AXES.items()
        if axis.target in ("", "token")
    }
    assert ends == {"tokens": 8000, "steps": 400, "seconds": 200, "epochs": 8}


def test_runs_are_shown_in_the_figure_of_their_unit_or_in_bits_per_byte() -> None:
    """Word models of two vocabularies share no tokens either."""
    for unit, figure in {
        "char": "bits/char", "byte": "bits/byte", "word": "perplexity", "bpe": "perplexity"
    }.items():  # fmt: skip
        assert (plot_of([log("a", unit), log("b", unit)]).y) == figure
    mixed = plot_of([log("a", "char"), log("b", "word")])
    assert (mixed.x, mixed.y) == ("epochs", "bits/byte")
    other = log("b", "word", vocabulary=10)
    assert plot_of([log("a", "word"), other]).y == "bits/byte"
    with pytest.raises(UsageError, match=r"perplexity counts tokens.*Use bits/byte"):
        plot_of([log("a", "word"), other], y="perplexity")
    with pytest.raises(UsageError, match="did you mean 'bits/char'"):
        plot_of([other], y="bits/chars")


def test_what_cannot_be_computed_is_refused_and_what_misleads_is_said() -> None:
    empty = log("a", parts={"train": {"tokens": 9, "chars": 0, "bytes": 0}})
    with pytest.raises(RunError, match="run a does not record the bytes of its training text"):
        plot_of([empty], y="bits/byte")
    for wrong in ("x", None, -1, True):
        with pytest.raises(RunError, match=f"has tokens {wrong!r}; expected a number"):
            plot_of([log("a", "char", record("step", 10, 1.0, tokens=wrong))])
    other = log("b", "word", record("evaluation", 10, 1.0, valid_oov=7), fingerprint="g")
    first, second = notes(plot_of([log(), other]))
    assert "different texts" in first and "7.0 % of its validation tokens as UNK" in second
    diverged = plot_of([log("a", "char", record("step", 10, 1.0), record("step", 20, None))])
    diverged.curves[0].log.run["status"] = "diverged"
    assert notes(diverged) == [
        "run a: 1 value is not finite, and left out", "run a diverged; its curve ends there"
    ]  # fmt: skip


def test_the_first_records_do_not_set_the_range_of_a_loss() -> None:
    """Of 40 records the first five are above the picture; other figures have their whole range."""
    assert plot_of([log()], y="bits/token").up.high == pytest.approx(1.5 / math.log(2))
    training = [record("step", 10 * n, 4.0 / n) for n in range(1, 81)]
    plot = plot_of([log("a", "char", *training)], y="bits/token")
    assert plot.up.high == pytest.approx(4 / 6 / math.log(2))
    assert plot_of([log()], y="rate").up.low < 0.01 < plot_of([log()], y="rate").up.high


def test_a_summary_has_the_newest_and_the_best() -> None:
    assert plot_of([log()]).curves[0].end == (8000, pytest.approx(1.5 / math.log(2) / 2))
    assert summary(plot_of([log()], y="perplexity")) == [
        {"run": "a", "training": pytest.approx(math.exp(0.1)), "best_step": 200,
         "validation": pytest.approx(math.exp(1.5)), "best": pytest.approx(math.exp(1.0))}
    ]  # fmt: skip


def test_the_best_validation_is_the_one_that_chose_the_weights() -> None:
    """Those of a tagger have the greatest F1, not the least loss."""
    marks = zip((1.0, 0.5, 0.7, 0.6), (True, True, True, False), strict=True)
    records = [
        record("evaluation", 10 * number, nats, best=best)
        for number, (nats, best) in enumerate(marks, 1)
    ]
    (row,) = summary(plot_of([log("a", "char", *records)], y="nats/token"))
    assert (row["best"], row["best_step"]) == (pytest.approx(0.7), 30)


# --- scales ----------------------------------------------------------------------------------

NUMBERS = st.floats(1e-6, 1e12)


@given(NUMBERS, st.floats(1.001, 1e6), st.integers(2, 12), st.booleans(),
       st.sampled_from(["number", "count", "time"]))  # fmt: skip
def test_ticks_are_few_in_the_range_in_order_and_differ(low, factor, most, logarithmic, kind):
    """Those of a linear scale are at equal distances."""
    scale = Scale(low, low * factor, logarithmic, kind)
    ticks = scale.ticks(most)
    assert len(ticks) <= most
    assert all(low * (1 - 1e-6) <= tick <= scale.high * (1 + 1e-6) for tick in ticks)
    gaps = [after - before for before, after in pairwise(ticks)]
    assert all(gap > 0 for gap in gaps)
    if not logarithmic:
        assert gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-3) if gaps else True


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 12))
@example(0.5, 0.25, 2)  # a single tick, 0.6
def test_labels_have_the_values_of_their_ticks(low, range_, most):
    """A rate of 2.5e-05 was labelled 0.00003, and a figure of 0.00125 was labelled 0.0013."""
    scale = Scale(low, low + range_)
    for tick, text in scale.labels(most).items():
        assert float(text.replace(",", "")) == pytest.approx(tick, rel=1e-7, abs=1e-9 * range_)


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (Scale(0, 1_500_000, kind="count"), ["0", "500 k", "1 M", "1.5 M"]),
        (Scale(0, 3, kind="count"), ["0", "1", "2", "3"]),
        (Scale(0, 5000, kind="time"), ["0", "30 min", "60 min"]),
        (Scale(0, 90, kind="time"), ["0", "30 s", "60 s", "90 s"]),
        (Scale(1.9, 3.6), ["2.0", "2.5", "3.0", "3.5"]),
        (Scale(0, 1e-4), ["0.00000", "0.00005", "0.00010"]),
        (Scale(0.001, 0.0019), ["0.00100", "0.00125", "0.00150", "0.00175"]),
        (Scale(0, 9e-6), ["0", "2.5e-06", "5e-06", "7.5e-06"]),
        (Scale(1, 1e18, logarithmic=True, kind="count"), ["1", "100 k", "10 G", "1e+15"]),
        (Scale(40, 700, logarithmic=True, kind="count"), ["50", "100", "200", "500"]),
    ],
)
def test_ticks_are_round(scale: Scale, labels: list[str]) -> None:
    assert list(scale.labels(4).values()) == labels


def test_a_range_is_never_empty() -> None:
    assert range_of([]) == (0.0, 1.0) and range_of([], logarithmic=True) == (1.0, 10.0)
    assert range_of([2.0, math.nan, math.inf]) == (1.8, 2.2)
    assert range_of([0.0, -1.0, 5.0], logarithmic=True) == (4.5, 5.5)
    assert range_of([0.0]) == (-1.0, 1.0)


def test_gaps_split_a_curve() -> None:
    curve = [(0, math.nan), (1, 1.0), (2, 2.0), (3, math.nan), (4, math.inf), (5, 1.0)]
    assert pieces(curve) == [[(1, 1.0), (2, 2.0)], [(5, 1.0)]]


CURVES = st.lists(st.floats(0, 1), min_size=2, max_size=80).map(
    lambda values: [(at / (len(values) - 1), y) for at, y in enumerate(values)]
)


@given(CURVES, st.integers(2, 12))
def test_a_thinned_curve_has_the_same_picture(curve, width: int) -> None:
    """Dot for dot: the least and the greatest of each column are kept."""
    unit = Scale(0.0, 1.0)
    kept = thinned(curve, unit, 2 * width)
    assert set(kept) <= set(curve) and kept == sorted(kept)
    canvases = [Canvas(width, 4), Canvas(width, 4)]
    for canvas, points in zip(canvases, (curve, kept), strict=True):
        canvas.line(points, "red")
    assert canvases[0].rows == canvases[1].rows


def test_a_column_keeps_its_first_least_greatest_and_last_point() -> None:
    column = [(0, y) for y in (0.4, 0.5, 0.1, 0.5, 0.9, 0.3, 0.6)]
    assert [y for _, y in thinned(column, Scale(0.0, 1.0), 2)] == [0.4, 0.1, 0.9, 0.6]


def test_a_line_ends_where_it_leaves_the_picture() -> None:
    unit = Scale(0.0, 1.0)
    assert lines([(0.0, 3.0), (1.0, 0.0)], unit, unit, 9) == [[(pytest.approx(2 / 3), 1.0), (1, 0)]]
    assert len(lines([(0, 0), (0.5, 2), (1, 0)], unit, unit, 9)) == 2
    assert lines([(0, 2), (1, 3)], unit, unit, 9) == []


# --- pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "row"), list(product(range(2), range(4))))
def test_dots_are_numbered_as_in_unicode(column: int, row: int) -> None:
    """1, 2, 3 and 7 on the left, 4, 5, 6 and 8 on the right."""
    canvas, numbers = Canvas(1, 1), ((1, 2, 3, 7), (4, 5, 6, 8))
    canvas.line([(column, 1 - row / 3)], "")
    name = unicodedata.name(canvas.row(0).plain)
    assert name == f"BRAILLE PATTERN DOTS-{numbers[column][row]}"


def test_a_letter_covers_the_dots() -> None:
    canvas = Canvas(1, 1)
    canvas.line([(0, 1), (0, 0), (1, 0)], "")
    assert canvas.row(0).plain == "⣇"
    canvas.write(0, 0, "●")
    assert canvas.row(0).plain == "●"


@pytest.mark.parametrize("width", [30, 60, 80, 120])
def test_a_picture_fits_its_width_and_names_every_run(width: int) -> None:
    names = ["first", "second", "a/rather/long/name/of/a/run/that/must/be/cut", "two\nlines", "猫"]
    plot = plot_of([log(name) for name in names])
    text = picture(plot, width, 12).plain
    assert all(cell_len(line) <= width for line in text.split("\n"))
    assert "a/rather/lo" in text and "猫" in text and r"two\nlines" in text
    below = text.split("\n")[-5:]
    assert [line[1] for line in below] == list("●■▲◆○")
    assert all("training 0.072" in line for line in below) == (width > 30)
    assert all("best 0.721" in line for line in below) == (width > 80)


def test_marks_are_at_the_values_of_the_validations() -> None:
    """The best one, half-way, is in the lowest row; the last, at the end, in the uppermost."""
    records = [record("evaluation", 10, 1.0), record("evaluation", 20, 3.0)]
    lines = picture(plot_of([log("a", "char", *records)]), 40, 5).plain.split("\n")
    assert [line.count("●") for line in lines[1:6]] == [1, 0, 0, 0, 1]
    assert lines[1].endswith("●") and len(lines[1]) == 40 and lines[5].index("●") < 25


def test_one_point_and_no_point_are_pictures_too() -> None:
    for records in ([record("step", 10, 1.0)], [record("evaluation", 10, 1.0)],
                    [record("saved", 10, None)]):  # fmt: skip
        plot = plot_of([log("a", "char", *records)])
        assert picture(plot).plain and svg(plot)


@pytest.mark.parametrize(("system", "code"), [("truecolor", "38;2;"), ("standard", "\x1b[1;94m●")])
def test_a_terminal_of_16_colours_gets_names_of_colours(system: str, code: str) -> None:
    """So that no two runs are rounded to one colour."""
    assert len(set(FEW)) == len(FEW) == len(RUN_COLOURS)
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system=system, width=60)
    console.print(TerminalPicture(plot=plot_of([log()])))
    assert code in out.getvalue()


@pytest.mark.parametrize("colour", RUN_COLOURS)
def test_colours_can_be_seen_on_light_and_on_dark(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 3 and contrast(colour, "#14161a") >= 3


def test_an_svg_is_well_formed_whatever_the_name() -> None:
    plot = plot_of([log("<a & b>\x07"), log("c")])
    root = ElementTree.fromstring(svg(plot, "svg { color: red; }"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert r"<a & b>\x07" in texts and "tokens" in texts
    dots = [e for e in root.iter("{http://www.w3.org/2000/svg}title") if "400" not in str(e.text)]
    assert len(dots) == 4 and "bits per character at 4 k tokens" in str(dots[0].text)
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 1 + len(dots)  # that of the key, and one for each validation


def test_a_page_has_no_script_and_a_policy_that_allows_its_style_only() -> None:
    page = html_page(plot_of([log("<script>alert(1)</script>"), log("b")]))
    assert (
        "<script" not in page
        and "style=" not in page
        and "http" not in page.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    )
    style = re.findall("<style>(.*?)</style>", page, re.DOTALL)
    digest = b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert len(style) == 1 and f"default-src 'none'; style-src 'sha256-{digest}'" in page


# --- the command -----------------------------------------------------------------------------


def test_the_newest_run_is_drawn_without_colours_in_a_pipe(call: Call, folder: Path) -> None:
    status, out, err = call("plot")
    assert (status, err) == (0, "run one (the newest run)\n")
    assert "\x1b" not in out and max(map(len, out.split("\n"))) <= 100
    assert "bits per character" in out and "validation 3.053" in out


def test_csv_and_json_have_every_point(call: Call, folder: Path) -> None:
    records = [r for r in read_metrics(FIXTURE) if r["kind"] == "evaluation"]
    expected = [(r["step"], r["valid_bits_per_char"]) for r in records]
    table = list(csv.DictReader(io.StringIO(call("plot", "one", "--csv", "--x", "steps")[1])))
    found = [row for row in table if row["text"] == "validation"]
    assert [(int(r["steps"]), float(r["bits/char"])) for r in found] == expected
    content = json.loads(call("plot", "--run", "one", "--json", "--x", "steps")[1])
    run = content["runs"][0]
    assert (content["schema_version"], content["y"], run["unit"]) == (1, "bits/char", "char")
    points = [p for p in run["points"] if p["text"] == "validation"]
    assert [(p["steps"], p["bits/char"]) for p in points] == expected
    assert len(table) == len(run["points"]) == 4


@pytest.mark.parametrize("name", ["x.svg", "x.html", "x.png", "x.pdf"])
def test_pictures_are_written(call: Call, folder: Path, name: str) -> None:
    status, out, err = call("plot", "one", "--out", name)
    assert (status, out, err) == (0, "", f"wrote {name}\n")
    starts = {"svg": b"<svg", "html": b"<!doctype", "png": b"\x89PNG", "pdf": b"%PDF"}
    assert Path(name).read_bytes().startswith(starts[name[2:]])


def test_a_search_shows_its_best_trials(call: Call, folder: Path) -> None:
    """At most eight, in their order; one that was never trained is left out."""
    (folder / "s").mkdir()
    (folder / "s" / "search.json").write_text("{}", encoding="utf-8")
    for number in range(10):
        copy_of(folder / "one", f"s/trial-{number:03d}", nats=9.0 - number % 5 if number else 99.0)
    shutil.copytree(folder / "one", folder / "s" / "trial-010")
    (folder / "s" / "trial-010" / "metrics.jsonl").unlink()
    status, out, err = call("plot", "s", "--json")
    assert (status, err) == (0, "search s: the best 8 of 10 trials\n")
    names = [run["run"] for run in json.loads(out)["runs"]]
    assert names == [f"s/trial-{number:03d}" for number in range(1, 10) if number != 5]


def test_both_halves_of_a_pair_and_runs_of_one_name_are_shown(call: Call, folder: Path) -> None:
    shutil.copytree(folder / "one", folder / "one" / "backward")
    shutil.copytree(FIXTURE, folder.parent / "other" / "one")
    copies = ("one", str(folder / "one"), "one/backward")
    content = json.loads(call("plot", "one", "other/one", *copies, "--json")[1])
    assert [run["run"] for run in content["runs"]] == [
        "checkpoints/one", "one/backward", "other/one"
    ]  # fmt: skip


def test_a_run_is_named_as_elsewhere_wherever_the_command_runs(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder of a run or of a search, `.` had no name."""
    monkeypatch.chdir(folder / "one")
    assert json.loads(call("plot", ".", "--json")[1])["runs"][0]["run"] == "one"
    copy_of(folder / "one", "s").rename(folder / "trial-000")
    (folder / "search.json").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(folder)
    assert json.loads(call("plot", ".", "--json")[1])["runs"][0]["run"] == "checkpoints/trial-000"


def test_a_run_without_a_log_is_one_line(call: Call, folder: Path) -> None:
    """An error if it is alone, else a message. So is an empty log."""
    status, out, err = call("plot", "tales")
    assert (status, out, err.count("\n")) == (4, "", 1)
    assert "run tales has no log" in err and "charlm train" in err
    shutil.copytree(folder / "one", folder / "grams")
    (folder / "grams" / "ngrams.safetensors").write_bytes(b"")
    status, out, err = call("plot", "one", "grams")
    assert status == 0 and "run grams is an n-gram model" in err and "one" in out
    (copy_of(folder / "one", "new") / "metrics.jsonl").write_bytes(b'{"cut')
    status, out, err = call("plot", "new")
    assert (status, out) == (4, "") and "no bits per character in its log yet" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--csv", "--json"], "--csv with --json; expected one of them"),
        (["--watch"], "--watch draws on a terminal"),
        (["--x", "hours"], "--x is 'hours'; expected one of tokens, steps"),
        (["--out", "x.gif"], "expected a name that ends in .html, .pdf, .png, .svg"),
    ],
)
def test_wrong_flags_are_refused(call: Call, folder: Path, words: list[str], message: str) -> None:
    status, out, err = call("plot", "one", *words)
    assert (status, out) == (2, "") and message in err


def test_a_notebook_shows_the_curves_of_a_history() -> None:
    """A history without a picture is a table; an empty one is shown as `repr` shows it."""
    history = History(read_metrics(FIXTURE), FIXTURE)
    picture = ElementTree.fromstring(history._repr_html_())
    assert picture.get("aria-label") == "format-1: bits per character over tokens"
    for other in (History(history), History(history[-1:], FIXTURE)):
        assert "<table" in other._repr_html_()
    assert History(history[:0], FIXTURE)._repr_html_() is None


def append(path: Path, *records: dict) -> None:
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in records)


def test_a_watched_run_is_yielded_when_it_grows_until_it_is_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after its last record, which may come while the watch sleeps."""
    path = copy_of(folder / "one", "two")
    slept: list[float] = []
    monkeypatch.setattr(api.plots, "is_training", lambda at: at == path and len(slept) < 3)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) in (1, 3):
            append(path, record("step", 10 + 10 * len(slept), 1.0))

    seen = list(api.plots.watch(["two"], folder, sleep=sleep))
    assert [len(log.records) for (log,) in seen] == [2, 3, 4]
    assert slept == [1.0] * 3


def test_a_watched_search_is_yielded_when_a_trial_begins_until_the_search_is_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch knew the trials of its start, and ended with them."""
    (folder / "s").mkdir()
    (folder / "s" / "search.json").write_text("{}", encoding="utf-8")
    copy_of(folder / "one", "s/trial-000")
    slept: list[float] = []
    monkeypatch.setattr(api.plots, "is_training", lambda at: at == folder / "s" and not slept)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        copy_of(folder / "one", "s/trial-001")

    seen = list(api.plots.watch(["s"], folder, sleep=sleep))
    assert [len(logs) for logs in seen] == [1, 2]


def test_a_run_that_has_just_been_started_can_be_watched(
    call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log begins with step 10; it was refused as a run without a log."""
    (folder / "one" / "metrics.jsonl").unlink()
    monkeypatch.setattr(api.plots, "is_training", lambda at: at.name == "one")
    (log,) = next(api.plots.watch(["one"], folder))
    assert log.records == [] and "bits per character" in picture(plot_of([log])).plain
    status, _, err = call("plot", "one")
    assert status == 4 and "Wait for it with --watch" in err


def test_watching_draws_over_the_last_picture(call: Call, folder: Path, monkeypatch) -> None:
    """Until Ctrl-C, which is no error."""
    copy_of(folder / "one", "two")

    def watch(runs, folder):
        yield api.plots.find_logs(runs, folder)[0]
        yield api.plots.find_logs(runs, folder)[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "on_terminal", lambda: True)
    monkeypatch.setattr(api.plots, "watch", watch)
    status, out, _ = call("plot", "two", "--watch")
    height = out.split("\x1b[")[0].count("\n")
    assert status == 0 and f"\x1b[{height}F\x1b[J" in out


def test_rows_of_a_gap_have_no_value() -> None:
    plot = plot_of([log("a", "char", record("step", 10, None))], y="bits/token")
    assert list(rows(plot)) == [{"run": "a", "text": "training", "tokens": 200, "bits/token": None}]
