"""Rows that are words or regions of texts: joined, scored, and written in their own places."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers import Call

import charlm
from charlm.errors import CorpusError, UsageError
from charlm.inference.regions import region_scores
from charlm.inference.words import WordScore
from charlm.text.regions import RowText, join_rows
from charlm.text.sources.rows import Record

TABLE = """subj\titem\tzone\tword\tRT
s1\t1\t1\tabc\t300
s1\t1\t2\tabd ca\t320
s1\t1\t3\t\t305
s1\t1\t4\t ab \t310
s2\t1\t1\tabc\t301
s2\t1\t2\tabd ca\t325
s2\t1\t3\t\t299
s2\t1\t4\t ab \t311
s2\t2\t1\tcab\t340
"""


def rows(*cells: tuple[str, str, str]) -> list[Record]:
    """Return rows of an item, a position and a word."""
    return [
        Record(at, at + 1, word or None, {"item": item, "zone": zone})
        for at, (item, zone, word) in enumerate(cells, start=1)
    ]


@pytest.fixture
def runs(runs: Path) -> Path:
    """The folder of the runs, which commands find from a folder with a study."""
    Path("study.tsv").write_text(TABLE)
    return runs


def test_rows_are_joined_by_one_blank() -> None:
    """Blanks at the ends of cells do not count; rows without text have no place in it."""
    texts = join_rows(rows(("1", "1", " a b"), ("1", "2", ""), ("1", "3", "c "), ("2", "1", "d")),
                      ["item"], None)  # fmt: skip
    assert texts == [
        RowText(text="a b c", rows=(0, 1, 2), places=(0, 2), starts=(0, 4)),
        RowText(text="d", rows=(3,), places=(3,), starts=(0,)),
    ]


def test_positions_order_rows_that_are_apart() -> None:
    table = rows(("1", "10", "c"), ("2", "1", "d"), ("1", "2", "b"), ("1", "1.5", "a"))
    first, second = join_rows(table, ["item"], "zone")
    assert (first.text, first.places) == ("a b c", (3, 2, 0))
    assert second.text == "d"


@pytest.mark.parametrize(
    ("cells", "order", "expected"),
    [
        ([("1", "", "a"), ("2", "", "b"), ("1", "", "c")], None, "line 4: item 1 begins again"),
        ([("1", "", "a"), ("1", "", "b")] * 3, None, "item 1 is 'a b' 3 times; expected one text"),
        ([("1", "1", "a"), ("1", "1.0", "b")], "zone", "line 3: item 1 has a second row with"),
        ([("1", "1", "a"), ("1", "2,5", "b")], "zone", "line 3: zone is '2,5'; expected a number"),
        ([("1", "", "a")], "zone", "line 2: zone is ''; expected a number"),
    ],
)
def test_rows_that_are_no_single_text_are_refused(
    cells: list[tuple[str, str, str]], order: str | None, expected: str
) -> None:
    with pytest.raises(CorpusError, match=expected):
        join_rows(rows(*cells), ["item"], order)


def test_a_word_may_be_repeated_any_number_of_times() -> None:
    (text,) = join_rows(rows(*[("1", "", "no")] * 4), ["item"], None)
    assert text.text == "no no no no"


def test_a_column_that_the_table_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"group_by names the column 'x'.*: item, zone\."):
        join_rows(rows(("1", "1", "a")), ["x"], None)
    with pytest.raises(UsageError, match="order names the column 'x'"):
        join_rows(rows(("1", "1", "a")), ["item"], "x")
    with pytest.raises(UsageError, match="it has none"):
        join_rows([Record(1, 1, "a")], ["item"], None)


def test_regions_have_their_words_and_the_gaps_between_them() -> None:
    words = [WordScore("a", 1.0, 0.5, 1, False, 0, 1, 0.75),
             WordScore("b", 2.0, 0.25, 3, True, 2, 3),
             WordScore("cc", 4.0, 0.125, 2, False, 4, 6)]  # fmt: skip
    whole, nothing = region_scores("a b cc", words, (0, 5))
    assert whole == ("a b cc", 7.75, 0.125, 6, True, 0, 6, 0.75) and nothing is None
    first, last = region_scores("a b cc", words, (0, 4))
    assert first == ("a b", 3.5, 0.25, 4, True, 0, 3, 0.75) and last == words[2]
    first, last = region_scores("a b cc", words, (0, 4), follows=True)  # the blank before "a"
    assert first == ("a b", 3.0, 0.75, 4, True, 0, 3, 0.75) and last == words[2]
    assert region_scores("a b cc", words, (0, 2), follows=True)[0] == words[0]


@pytest.mark.parametrize("run", ["lines", "stream"])
def test_each_row_of_a_study_gets_its_surprisal(call: Call, runs: Path, run: str) -> None:
    """Rows keep their order and cells; their figures sum to that of the sentence."""
    status, out, err = call("score", "--run", run, "--file", "study.tsv", "--column", "word",
                            "--group-by", "subj,item")  # fmt: skip
    assert status == 0, err
    table = pandas.read_csv(io.StringIO(out), sep="\t")
    assert table.RT.tolist() == [300, 320, 305, 310, 301, 325, 299, 311, 340]
    assert table.sentence_id.tolist() == [1] * 4 + [2] * 4 + [3]
    assert table.word_id.fillna(0).tolist() == [1, 2, 0, 3, 1, 2, 0, 3, 1]
    assert table.word.fillna("").tolist() == ["abc", "abd ca", "", "ab"] * 2 + ["cab"]
    words = charlm.load(runs / run).words(["abc abd ca ab", "cab"]).rows()
    sums = table.groupby("sentence_id")[["surprisal_base_e", "gap_base_e"]].sum().sum(axis=1)
    expected = [sum(w["surprisal"] + w["gap"] for w in words if w["sentence_id"] == at)
                for at in (1, 2)]  # fmt: skip
    assert sums.tolist() == pytest.approx([expected[0], expected[0], expected[1]], abs=1e-5)
    region = words[1]["surprisal"] + words[1]["gap"] + words[2]["surprisal"]
    assert table.surprisal_base_e[1] == pytest.approx(region, abs=1e-6)


def test_the_order_of_the_rows_does_not_matter_with_positions(call: Call, runs: Path) -> None:
    """A table in any order, as CSV with semicolons, gets the figures of the ordered one."""
    flags = ["--column", "word", "--group-by", "subj,item", "--format", "csv"]
    _, ordered, _ = call("score", "--run", "lines", "--file", "study.tsv", *flags)
    head, *lines = TABLE.splitlines()
    random.Random(1).shuffle(lines)
    Path("mixed.csv").write_text("\r\n".join([head, *lines]).replace("\t", ";"), newline="")
    status, mixed, err = call("score", "--run", "lines", "--file", "mixed.csv", *flags,
                              "--order", "zone")  # fmt: skip
    assert status == 0, err
    by = ["subj", "item", "zone"]
    tables = [pandas.read_csv(io.StringIO(out)).drop(columns="sentence_id").sort_values(by)
              for out in (ordered, mixed)]  # fmt: skip
    pandas.testing.assert_frame_equal(
        tables[0].reset_index(drop=True), tables[1].reset_index(drop=True), atol=1e-5
    )


def test_a_context_precedes_each_text(call: Call, runs: Path) -> None:
    _, out, _ = call("score", "--run", "lines", "--file", "study.tsv", "--column", "word",
                     "--group-by", "subj,item", "--context", "ca ab")  # fmt: skip
    table = pandas.read_csv(io.StringIO(out), sep="\t")
    words = charlm.load(runs / "lines").words("abc abd ca ab", context="ca ab")
    assert table.surprisal_base_e[[0, 4]].tolist() == pytest.approx([words[0].nats] * 2, abs=1e-5)


def test_flags_without_a_place_are_refused(call: Call, runs: Path) -> None:
    study = ("score", "--file", "study.tsv", "--column", "word")
    for flags, expected in (
        (["--group-by", "item", "--rank"], "--rank with --group-by"),
        (["--group-by", "item", "--by", "token"], "--by token with --group-by"),
        (["--group-by", "item", "--format", "srilm"], "expected one of auto, tsv, csv, jsonl"),
        (["--group-by", ""], "--group-by names no column"),
        (["--order", "zone"], "--order has no effect without --group-by"),
    ):
        status, out, err = call(*study, *flags)
        assert (status, out) == (2, "") and expected in err
    assert "--group-by has no effect without --file" in call("score", "a", "--group-by", "b")[2]


def test_json_lines_are_read_and_written(call: Call, runs: Path) -> None:
    """The figures and cells of the same table as TSV; a row without text has null."""
    study = pandas.read_csv("study.tsv", sep="\t", keep_default_na=False)
    study.to_json("study.jsonl", orient="records", lines=True)
    flags = ["--column", "word", "--group-by", "subj,item", "--entropy", "--format"]
    _, tsv, _ = call("score", "--run", "lines", "--file", "study.tsv", *flags, "tsv")
    status, out, err = call("score", "--run", "lines", "--file", "study.jsonl", *flags, "jsonl")
    assert status == 0, err
    found, expected = [json.loads(line) for line in out.splitlines()], tsv.splitlines()[1:]
    assert len(found) == len(expected) == 9
    for row, line in zip(found, expected, strict=True):
        start, place, word, nats, entropy, gap, *_ = line.split("\t")
        assert row["sentence_id"] == int(start) and (row["word"] or "") == word
        for key, cell in (("surprisal", nats), ("entropy", entropy), ("gap", gap)):
            assert row[key] == (pytest.approx(float(cell), abs=1e-6) if cell else None)
        assert row["word_id"] == (int(place) if place else None)
    assert [int(row["RT"]) for row in found] == study.RT.tolist()


@pytest.mark.parametrize("frame", [True, False])
def test_python_gives_the_figures_of_the_command(call: Call, runs: Path, frame: bool) -> None:
    """Of a DataFrame or of dictionaries, in any order with positions, with the cells as given."""
    table = pandas.read_csv("study.tsv", sep="\t").sample(frac=1.0, random_state=1)
    given = table if frame else table.to_dict("records")
    flags = ["--column", "word", "--group-by", "subj,item", "--order", "zone", "--context", "ca"]
    table.to_csv("mixed.tsv", sep="\t", index=False)
    _, out, _ = call("score", "--run", "lines", "--file", "mixed.tsv", *flags)
    expected = pandas.read_csv(io.StringIO(out), sep="\t")
    regions = charlm.load(runs / "lines").regions(
        given, column="word", group_by=["subj", "item"], order="zone", context="ca"
    )
    found = regions.to_pandas()
    for name in ("surprisal", "gap"):
        assert found[name].tolist() == pytest.approx(
            expected[f"{name}_base_e"].tolist(), abs=1e-6, nan_ok=True
        )
    for name in ("sentence_id", "word_id", "RT", "tokens"):
        pandas.testing.assert_series_equal(found[name], expected[name], check_dtype=False)
    assert "entropy" not in found and set(found.word_rule) == {"trailing blank"}


def test_a_table_in_python_that_does_not_fit_is_refused(runs: Path) -> None:
    model = charlm.load(runs / "lines")
    for table, column, by, expected in (
        ("abc", "word", "item", "table is 'abc'"),
        ([1], "word", "item", "row 1 is 1"),
        ([{"item": 1}], "word", "item", "row 1 has no column 'word'.*item"),
        ([{"word": 5, "item": 1}], "word", "item", "row 1 has 5 in 'word'; expected a str"),
        ([{"word": "a", "item": 1}], "word", "subj", "group_by names the column 'subj'"),
        ([{"word": "a", "item": 1}], "word", [], "group_by names no column"),
    ):
        with pytest.raises(UsageError, match=expected):
            model.regions(table, column=column, group_by=by)


def test_words_that_are_scored_alone_are_reported(call: Call, runs: Path) -> None:
    """Rows of single words look like the words of sentences; sentences do not."""
    Path("words.csv").write_text("word,n\nabc,1\nabd,2\nca,3\n")
    _, _, err = call("score", "--by", "word", "--file", "words.csv", "--column", "word")
    assert "--group-by COLUMNS" in err
    Path("texts.csv").write_text("word,n\nabc abd,1\nabd,2\nca ab,3\n")
    _, _, err = call("score", "--by", "word", "--file", "texts.csv", "--column", "word")
    assert "--group-by" not in err


@pytest.mark.parametrize("missing", [None, float("nan"), np.float32("nan"), pandas.NA, pandas.NaT])
def test_cells_that_are_missing_are_no_text(missing: object) -> None:
    """NA of pandas is neither equal to itself nor unequal; other cells are kept as they are."""
    rows = [
        {"item": 1, "word": "the", "rt": missing, "eeg": np.arange(3)},
        {"item": 1, "word": missing, "rt": 2, "eeg": np.arange(3)},
    ]
    first, second = charlm.load("tales").regions(rows, column="word", group_by="item")
    assert first.score is not None and second.score is None
    assert first.cells["rt"] is missing and second.cells["rt"] == 2
