"""The output of `charlm score`: no row is lost or moved, and other readers read it back exactly."""

import io
import json
from pathlib import Path

import pandas
import pytest
from helpers import CORPUS, Call, engine, tiny_model, vocabulary_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from charlm.cli import display
from charlm.config.corpus import ReadSettings
from charlm.inference.scores import Score, Scores, TokenScore
from charlm.inference.scoring import Scorer
from charlm.report.formats import FORMATS, ScoredRow, output_names
from charlm.text.boundaries import Boundaries
from charlm.text.corpus import Corpus
from charlm.text.sources.rows import Record, Rows
from charlm.units import Tally

AWKWARD = [
    '"Come in.', 'He said "no".', '"', '""', "a\tb", "a\nb", "a\rb", "a\r\nb", "\r", "\n", "\t",
    "\0", "a\0b", "NA", "null", "nan", "", " ", " a ", "a,b", "#", "'", "\\", '\\"', "\x0b",
    "\x1b[2J", "\x85", "\u2028", "\ufeff", "1", "007", "True", "猫",
]  # fmt: skip
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(codec="utf-8"), max_size=9))
ROWS = st.lists(st.tuples(st.one_of(st.none(), TEXTS), TEXTS), min_size=1, max_size=6)

READS_NUL = tuple(int(part) for part in pandas.__version__.split(".")[:2]) >= (3, 1)
"""True if this pandas keeps a NUL character; before 3.1 it ended the field."""


def readable(rows: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """Return the rows without the character that an old pandas cannot read."""
    if READS_NUL:
        return rows
    return [(text and text.replace("\0", "0"), cell.replace("\0", "0")) for text, cell in rows]


def scored(text: str) -> Score:
    """Return a score whose tokens are the characters, every second one unknown."""
    tokens = tuple(
        TokenScore(token=letter, id=2, nats=1.0, rank=3, oov=at % 2 == 1)
        for at, letter in enumerate(text)
    )
    tally = Tally(nats=float(len(text)), tokens=len(text), chars=len(text), oov=len(text) // 2)
    return Score(text=text, tally=tally, tokens=tokens, unk_penalty=0.25)


def written(name: str, rows: list[tuple[str | None, str]], *, tokens: bool = False) -> str:
    """Return scored texts in a format, each with one cell of another column."""
    writer = FORMATS[name](by="token" if tokens else "text", kept=["item"])
    lines = [
        writer.lines(
            ScoredRow(number=at, score=None if text is None else scored(text), kept={"item": cell})
        )
        for at, (text, cell) in enumerate(rows, start=1)
    ]
    return writer.header() + "".join(lines)


@pytest.mark.parametrize(("name", "separator"), [("tsv", "\t"), ("csv", ",")])
@given(rows=ROWS)
@example(rows=[(text, text) for text in AWKWARD])
@settings(max_examples=150)
def test_pandas_reads_each_row_and_field_back(name: str, separator: str, rows: list) -> None:
    """Its default reader has every row; without its own missing values, every character."""
    rows = readable(rows)
    data = written(name, rows).encode()
    default = pandas.read_csv(io.BytesIO(data), sep=separator)
    assert default.sentence_id.tolist() == list(range(1, len(rows) + 1))
    exact = pandas.read_csv(
        io.BytesIO(data), sep=separator, dtype={"text": str, "item": str}, keep_default_na=False
    )
    assert exact.text.tolist() == [text or "" for text, _ in rows]
    assert exact.item.tolist() == [cell for _, cell in rows]
    empty = [text is None for text, _ in rows]
    assert default.tokens.isna().tolist() == empty
    assert default.penalized_log_probability_base_e.isna().tolist() == empty


@pytest.mark.parametrize(("name", "separator"), [("tsv", "\t"), ("csv", ",")])
@given(rows=ROWS)
@example(rows=[(text, text) for text in AWKWARD])
@settings(max_examples=100)
def test_token_rows_have_their_sentence_and_its_cells(
    name: str, separator: str, rows: list
) -> None:
    """A row for each token; a text without tokens has one row without figures."""
    rows = readable(rows)
    data = written(name, rows, tokens=True).encode()
    assert len(pandas.read_csv(io.BytesIO(data), sep=separator)) == sum(
        len(text or " ") for text, _ in rows
    )
    exact = pandas.read_csv(
        io.BytesIO(data), sep=separator, dtype=str, keep_default_na=False
    ).to_dict("records")
    expected = [
        (str(at), token, cell)
        for at, (text, cell) in enumerate(rows, start=1)
        for token in text or [""]
    ]
    assert [(row["sentence_id"], row["token"], row["item"]) for row in exact] == expected


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("name", ["tsv", "csv"])
@given(rows=ROWS)
@example(rows=[(text, text) for text in AWKWARD])
@settings(max_examples=50)
def test_charlm_reads_it_back(
    name: str, tokens: bool, rows: list, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The bug: of four sentences it read two; a text that is empty is none when it is read."""
    path = tmp_path_factory.mktemp("again") / f"scores.{name}"
    path.write_bytes(written(name, rows, tokens=tokens).encode())
    column = "token" if tokens else "text"
    records = list(Corpus([str(path)], reading=ReadSettings(column=column)).records())
    expected = [
        (str(at), part or None, cell)
        for at, (text, cell) in enumerate(rows, start=1)
        for part in ((list(text or "") or [None]) if tokens else [text])
    ]
    assert [(row.cells["sentence_id"], row.text, row.cells["item"]) for row in records] == expected
    assert [row.number for row in records] == list(range(1, len(expected) + 1))


@given(rows=ROWS)
@settings(max_examples=50)
def test_json_lines_hold_every_row(rows: list) -> None:
    """Null for a row without text."""
    written_rows = [json.loads(line) for line in written("jsonl", rows).split("\n")[:-1]]
    assert [row["text"] for row in written_rows] == [text for text, _ in rows]
    assert [row["item"] for row in written_rows] == [cell for _, cell in rows]
    assert all((row["tokens"] is None) == (row["text"] is None) for row in written_rows)


def test_only_the_header_of_tsv_is_always_in_quotes() -> None:
    """It tells charlm to read quotes; a plain text stays as it is."""
    assert FORMATS["tsv"]().header().split("\t")[-1] == '"text"\n'
    assert '"token"' in FORMATS["tsv"](by="token").header()
    assert '"' not in written("tsv", [("plain text", "x")]).split("\n")[1]
    assert '"' not in FORMATS["csv"]().header()


def test_scores_have_a_line_for_each_row() -> None:
    """The penalized log-probability; a missing one is nan, a number to other programs."""
    assert written("scores", [("abc", "x"), (None, "y")]) == "-3.250000\nnan\n"


COLUMNS = st.lists(st.sampled_from(["a", "text", "input_text", "input_input_text"]), unique=True)


@given(columns=COLUMNS)
def test_no_column_of_the_input_is_lost_to_one_of_the_output(columns: list[str]) -> None:
    """Names stay unless they are taken, and all differ."""
    names = output_names(columns, ["text", "input_text"])
    assert list(names) == columns
    assert len({*names.values(), "text", "input_text"}) == len(columns) + 2
    assert all(
        name == column for column, name in names.items() if column not in ("text", "input_text")
    )


# The records of a corpus


@given(text=st.text("ab\n\r", max_size=12), size=st.integers(1, 5))
def test_lines_are_numbered_however_the_text_is_cut(text: str, size: int) -> None:
    """A record for each line end, and one for text after the last one."""
    corpus = Corpus.from_text(text, "line")
    corpus._reading = ReadSettings(keep_cr=True)
    corpus._chunk_chars = size
    expected = text.split("\n")
    expected = expected[:-1] if expected[-1] == "" else expected
    assert list(corpus.records()) == [
        Record(number, number, line) for number, line in enumerate(expected, start=1)
    ]


def test_rows_of_several_files_are_numbered_consecutively(tmp_path: Path) -> None:
    """Rows without text too."""
    (tmp_path / "a.csv").write_text("text,n\nx,1\n,2\n")
    (tmp_path / "b.csv").write_text("text,n\ny,3\n")
    records = list(Corpus([str(tmp_path / "*.csv")]).records())
    assert [(row.number, row.text, row.cells["n"]) for row in records] == [
        (1, "x", "1"), (2, None, "2"), (3, "y", "3")
    ]  # fmt: skip


# The command

VOCABULARY = vocabulary_of(CORPUS)
pytestmark = pytest.mark.usefixtures("here")


def test_an_empty_cell_is_a_row_in_its_place(call: Call, here: Path) -> None:
    """The bug: 23 of 1,619 rows were skipped, so two columns no longer matched."""
    (here / "t.csv").write_text('good,bad,n\nthe pear,"the\npair",1\nthe apple,,2\nthe tree,x,3\n')
    for column in ("good", "bad"):
        status, out, _ = call("score", "--file", "t.csv", "--column", column)
        table = pandas.read_csv(io.StringIO(out), sep="\t")
        assert (status, table.sentence_id.tolist(), table.n.tolist()) == (0, [1, 2, 3], [1, 2, 3])
    assert table.tokens.isna().tolist() == [False, True, False]
    assert table.good.tolist() == ["the pear", "the apple", "the tree"]
    scores = call("score", "--file", "t.csv", "--column", "bad", "--format", "scores")[1]
    assert [line == "nan" for line in scores.splitlines()] == [False, True, False]
    shown = call("score", "--file", "t.csv", "--column", "bad", "--format", "table")[1]
    assert "(no text)" in shown.splitlines()[2]


@pytest.mark.parametrize(("name", "content"), [("a.txt", ""), ("a.csv", "text,n\n,1\n")])
def test_a_file_without_text_is_reported(call: Call, here: Path, name: str, content: str) -> None:
    """Its output is a header and empty rows alone, which might be thought a failure."""
    (here / name).write_text(content)
    code, out, err = call("score", "--file", name)
    assert code == 0 and out.startswith("sentence_id")
    assert "no text was found, so nothing was scored" in err
    (here / name).write_text(content + "the cat,2\n")
    assert "no text" not in call("score", "--file", name)[2]


def test_columns_to_keep_are_chosen(call: Call, here: Path) -> None:
    """By names with commas between them; the table for people has them only if asked for."""
    (here / "t.csv").write_text('text,item,"a,b",c\nthe pear,7,8,9\n')
    head, row = call("score", "--file", "t.csv", "--column", "text")[1].splitlines()
    assert head.split("\t")[-4:] == ['"text"', "item", "a,b", "c"]
    keep = ["--keep", 'c,"a,b"']
    head, row = call("score", "--file", "t.csv", "--column", "text", *keep)[1].splitlines()
    assert head.split("\t")[-3:] == ['"text"', "c", "a,b"]
    assert row.split("\t")[-3:] == ["the pear", "9", "8"]
    table = ["--format", "table"]
    assert "a,b" not in call("score", "--file", "t.csv", "--column", "text", *table)[1]
    assert "a,b" in call("score", "--file", "t.csv", "--column", "text", *table, *keep)[1]
    status, out, err = call("score", "--file", "t.csv", "--column", "text", "--keep", "d")
    assert (status, out) == (2, "")
    assert "--keep names the column 'd'; expected" in err
    assert call("score", "the pear", "--keep", "c")[0] == 2


def test_a_column_that_is_called_as_one_of_the_output_keeps_its_cells(
    call: Call, here: Path
) -> None:
    """Under another name, which is reported."""
    (here / "t.csv").write_text("s,text,oov\nthe pear,x,y\n")
    _, out, err = call("score", "--file", "t.csv", "--column", "s")
    head, row = (line.split("\t") for line in out.splitlines())
    assert head[-3:] == ['"text"', "input_text", "input_oov"]
    assert row[-3:] == ["the pear", "x", "y"]
    assert 'were renamed, since the output has these names: "input_text" for "text", ' in err


def test_columns_that_appear_late_are_kept_or_reported(
    call: Call, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON lines have no header; TSV has one, which is written before."""
    rows = [Record(at, at, "the") for at in range(1, 257)] + [Record(257, 257, "a", {"late": "x"})]
    monkeypatch.setattr(Rows, "records", lambda self, note: iter(rows))
    (here / "t.jsonl").write_text('{"text": "the"}\n')
    lines = call("score", "--file", "t.jsonl", "--format", "jsonl")[1].splitlines()
    assert json.loads(lines[-1])["late"] == "x"
    _, out, err = call("score", "--file", "t.jsonl")
    assert len(out.splitlines()) == 258
    assert "late" not in out
    assert '"late" first appears in row 257' in err


def test_only_alternatives_are_ranked(call: Call, here: Path) -> None:
    """Sentences given together, or any with --rank; not the lines of a file."""
    (here / "t.txt").write_text("the pear\nthe apple\n")
    table = ["--format", "table"]
    assert "rank" in call("score", "the pear", "the apple", *table)[1]
    for arguments in (["--file", "t.txt"], ["the pear"], ["the pear", "the apple", "--carry"]):
        out = call("score", *arguments, *table)[1]
        assert "rank" not in out
        assert "*" not in out
    ranked = call("score", "--file", "t.txt", "--rank")[1]
    assert (ranked.count("*"), "rank" in ranked) == (1, True)
    assert call("score", "--rank", stdin=b"the pear\nthe apple\n")[1] == ranked
    assert call("score", "--rank", "--format", "tsv", "a", "b")[0] == 2
    assert call("score", "--rank", "--carry", "a", "b")[0] == 2


@pytest.mark.parametrize("text", ["- who is there", "-who", "--5 is", "-"])
@pytest.mark.parametrize("verb", ["score", "next", "fill"])
def test_a_text_that_begins_with_a_dash(verb: str, text: str, call: Call) -> None:
    """The error says how to give it as a text."""
    status, _, err = call(verb, text) if text != "-" else (2, "", f"charlm {verb} -- ")
    assert status == 2
    assert f"charlm {verb} -- " in err
    if verb == "score":
        out = call("score", "--format", "jsonl", "--", text, "x")[1]
        assert json.loads(out.splitlines()[0])["text"] == text


def test_a_mistyped_option_is_not_taken_for_a_text(call: Call) -> None:
    """If an option of nearly that name exists."""
    assert "Put an argument that begins" not in call("score", "--formt", "x")[2]
    assert "Put an argument that begins" in call("score", "--some text", "x")[2]


# Scores in the library


def scores_of(texts: list[str], *, tokens: bool = False) -> Scores:
    model = tiny_model("lstm", len(VOCABULARY), scale=3.0)
    over = Scorer(engine(model), VOCABULARY, Boundaries(document="file"), unk_penalty=2.0)
    return over.score(texts, by="token" if tokens else "text")


def test_scores_are_a_list_and_a_table() -> None:
    """One row a text, with the values of its score; per token with their sums."""
    texts = ["the cat", "", "zebra", "<b>"]
    scores = scores_of(texts, tokens=True)
    assert isinstance(scores, list)
    table = scores.to_pandas()
    assert table.text.tolist() == texts
    assert table.log_probability.tolist() == [score.log_probability for score in scores]
    tokens = scores.to_pandas(tokens=True)
    assert tokens.groupby("sentence_id").size().tolist() == table.tokens.tolist()
    sums = tokens.groupby("sentence_id").penalized_surprisal.sum()
    assert (-sums).tolist() == pytest.approx(table.penalized_log_probability.tolist())
    assert len(Scores().to_pandas()) == 0


def test_scores_show_themselves_in_few_words() -> None:
    """Text is never markup; a long list is cut."""
    html = scores_of(["<b>"] * 3)._repr_html_()
    assert "<b>" not in html
    assert html.count("<tr>") == 4
    shown = repr(scores_of(["the cat"] * 30))
    assert shown.startswith("Scores([Score('the cat'")
    assert shown.endswith("and 20 more])")
    assert len(shown) < 1000


def test_tokens_that_are_missing_are_refused() -> None:
    from charlm.errors import UsageError

    with pytest.raises(UsageError, match="tokens=True"):
        scores_of(["a"]).to_pandas(tokens=True)


@pytest.mark.parametrize("is_file", [True, False])
def test_a_file_on_stdin_has_its_progress_shown(
    is_file: bool, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million lines took ten minutes without a sign of life. A pipe may wait for a program."""
    begun: list[str] = []
    monkeypatch.setattr(display.Display, "begin", lambda _, phase: begun.append(phase.name))
    monkeypatch.setattr(display.Display, "end", lambda *_: None)
    if not is_file:
        monkeypatch.setattr("charlm.cli.score.is_file", lambda: False)
    assert call("score", "--run", "tales", stdin=b"The fox\nsat.\n")[0] == 0
    assert ("scoring" in begun) == is_file


def test_a_byte_order_mark_on_stdin_is_not_scored(call: Call) -> None:
    """The first sentence of a file from Windows had an unknown token."""
    plain = call("score", "--run", "tales", stdin=b"The fox\nsat.\n")
    marked = call("score", "--run", "tales", stdin=b"\xef\xbb\xbfThe fox\nsat.\n")
    assert plain[:2] == marked[:2]
