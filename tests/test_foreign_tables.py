"""Tables of Excel, R and pandas, and pointers of Git LFS: read as intended, or refused."""

import gzip
import json
import os
import threading
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from charlm.api.scoring import stream_sentences
from charlm.errors import CorpusError
from charlm.text.corpus import Corpus
from charlm.text.sources import delimited, json_rows
from charlm.text.sources.rows import Columns


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str, content: str | bytes | None = None, **options) -> tuple[list, str]:
    """Return the rows as (line, text, cells), and all notes."""
    if content is not None:
        Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    corpus = Corpus([name], **options)
    rows = [(row.line, row.text, dict(row.cells)) for row in corpus.records()]
    return rows, " ".join(corpus.warnings)


def refused(name: str, content: str | bytes | None = None, **options) -> str:
    with pytest.raises(CorpusError) as caught:
        read(name, content, **options)
    return str(caught.value)


def test_the_delimiter_that_excel_declares() -> None:
    """Its line is not a row, but it counts in line numbers."""
    rows, notes = read("a.csv", "sep=;\r\nid;text\r\n1;a, b\r\n")
    assert rows == [(3, "a, b", {"id": "1"})]
    assert "semicolons" in notes
    assert "line 3 has 1 field" in refused("b.csv", "sep=|\nid|text\n1\n2|a\n")


@pytest.mark.parametrize(("name", "mark"), [("a.tsv", "\t"), ("a.csv", ","), ("b.csv", ";")])
def test_row_numbers_written_by_r(name: str, mark: str) -> None:
    """`write.table` does not name their column."""
    lines = [["text", "n"], ["1", "the cat", "3"], ["7", "the dog", "4"]]
    content = "\n".join(mark.join(f'"{cell}"' for cell in line) for line in lines)
    rows, notes = read(name, content)
    assert rows == [(2, "the cat", {"1": "1", "n": "3"}), (3, "the dog", {"1": "7", "n": "4"})]
    assert "begins with its number" in notes


def test_one_field_too_many_shifts_nothing() -> None:
    """Unless the field is a row number."""
    assert "line 2 has 3 fields" in refused("a.csv", '"text","n"\n"a","1","x"\n"b","2","x"\n')
    assert "line 2 has 3 fields" in refused("b.csv", '"text","n"\n"1","1","x"\n"1","2","x"\n')
    message = refused("c.tsv", "id\ttext\n1\t1\tthe cat\n")
    assert "row.names = FALSE" in message and '("id", ...)' in message


def test_escaped_quotes_of_r_are_refused_with_advice() -> None:
    """R escapes with a backslash by default, which is not CSV."""
    assert 'qmethod = "double"' in refused("a.csv", '"text"\n"he said \\"no\\" then"\n')


def test_blanks_before_quotes_are_refused_with_advice() -> None:
    """A quote after a blank does not enclose, so the delimiter after it counts."""
    assert "Remove the blank before" in refused("a.csv", 'id, text\n1, "a, b"\n')


def test_missing_texts_of_r_and_pandas_are_reported() -> None:
    """NA may be a word, so it is kept."""
    rows, notes = read("a.csv", "text\nNA\nan NA\nNaN\n")
    assert [text for _, text, _ in rows] == ["NA", "an NA", "NaN"]
    assert '2 texts of the column "text" are NA or NaN' in notes


def test_tables_that_were_joined_are_reported() -> None:
    """The second header is kept as a row."""
    rows, notes = read("a.csv", "id,text\n1,a\nid,text\n1,b\nid,text\n")
    assert [text for _, text, _ in rows] == ["a", "text", "b", "text"]
    assert "2 lines (the first is line 3) repeat the first row" in notes
    assert "line 3 repeats" in read("b.csv", "\ufeffid,text\n1,a\n\ufeffid,text\n1,b\n")[1]


def test_numbers_of_columns_without_names_are_no_row_of_names() -> None:
    """A series that holds 1 was reported as joined tables."""
    for content, value in (("7\n1\n1\n", "1"), ("1,a\n1,2\n", "2")):
        rows, notes = read("a.csv", content, header=False, column=value)
        assert len(rows) == content.count("\n") and "repeat" not in notes


def test_quotes_that_enclose_fields_of_a_tsv_are_reported() -> None:
    """Excel and pandas double quotes inside of a field."""
    frame = pandas.DataFrame({"id": [1, 2], "text": ['He said "no".', "b"]})
    frame.to_csv("a.tsv", sep="\t", index=False)
    rows, notes = read("a.tsv")
    assert rows[0][1] == '"He said ""no""."' and "add --quoting csv" in notes
    rows, notes = read("a.tsv", quoting="csv")
    assert rows[0][1] == 'He said "no".' and "doubled" not in notes
    assert "--quoting" not in read("b.tsv", 'text\tn\n"Come in."\t1\n"No" or "yes"\t2\n')[1]
    assert "add --quoting csv" in refused("c.tsv", 'id\ttext\n1\t"two\nlines"\n')


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", '{"text": "a", "n": 1}\n{"text": "b", "n": 2}\n', "--input-format jsonl"),
        ("a.tsv", '[\n {"text": "a"}\n]\n', "--input-format json or tsv"),
        ("b.csv", "<!DOCTYPE html>\n<html>404</html>\n", "looks like HTML"),
        ("c.tsv", "id,text\n1,a b\n2,b c\n", "has commas between the fields, expected tabs"),
        ("d.tsv", "id;text\n1;a b\n2;b c\n", "--input-format csv"),
        ("e.parquet", "id,text\n1,a\n", "first bytes are b'id,t', expected b'PAR1'"),
    ],
)
def test_a_file_with_the_name_of_another_format(name: str, content: str, words: str) -> None:
    """The suggested flag reads it."""
    assert words in refused(name, content)
    if name.endswith("v"):
        assert read(name, input_format=name[-3:], column="1")[0]


@pytest.mark.parametrize("suffix", ["txt", "csv", "tsv", "json", "jsonl", "parquet"])
def test_a_pointer_of_git_lfs_is_refused(suffix: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    assert "git lfs pull" in refused(f"a.{suffix}", pointer)


ROWS = [{"text": "a", "n": 1}, {"text": "b", "n": 2}]


def test_the_rows_in_an_object_are_read() -> None:
    """Other members describe the table."""
    rows, notes = read("a.json", json.dumps({"version": "1.0", "data": ROWS}))
    assert rows == [(None, "a", {"n": "1"}), (None, "b", {"n": "2"})]
    assert 'in the array "data"' in notes
    assert [text for _, text, _ in read("b.json", '{"words": ["a", "b"]}')[0]] == ["a", "b"]
    assert read("c.json", json.dumps(ROWS[0] | {"more": ROWS}))[0][0][1] == "a"  # one row
    assert "several arrays of rows" in refused("d.json", json.dumps({"a": ROWS, "b": ROWS}))


@pytest.mark.parametrize("form", ["columns", "index", "split", "values", "list"])
def test_other_forms_of_pandas_are_refused(form: str) -> None:
    frame = pandas.DataFrame(ROWS)
    content = json.dumps(frame.to_dict("list")) if form == "list" else frame.to_json(orient=form)
    message = refused("a.json", content)
    assert "expected an " in message and ("records" in message or form == "values")
    assert len(read("b.json", frame.to_json(orient="records"))[0]) == 2


def test_two_columns_of_one_name_in_parquet_are_refused() -> None:
    cells = [pyarrow.array(["a"]), pyarrow.array(["b"])]
    pyarrow.parquet.write_table(pyarrow.table(cells, names=["text", "text"]), "a.parquet")
    assert 'has 2 columns "text"' in refused("a.parquet")


def test_bytes_of_parquet_are_kept_as_text() -> None:
    table = pyarrow.table({"text": ["a", "b"], "id": pyarrow.array(["é".encode(), b"\xff"])})
    pyarrow.parquet.write_table(table, "a.parquet")
    assert [cells["id"] for _, _, cells in read("a.parquet")[0]] == ["é", "\\xff"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", ""), ("a.tsv", "\n\n"), ("a.json", "[]"), ("a.jsonl", "\n"), ("b.csv", "\ufeff")],
)
def test_a_table_of_no_rows_is_reported(name: str, content: str) -> None:
    """Nothing would be scored, silently."""
    rows, notes = read(name, content)
    assert not rows and f"{name} has no rows." in notes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("the cat\n".encode("utf-16"), "--encoding utf-16"),
        (gzip.compress(b"the cat\n"), "is gzip data, not text. Unpack it"),
        (b"PAR1" + bytes(100), "Read it with --input-format parquet"),
    ],
    ids=["utf-16", "gzip", "parquet"],
)
def test_standard_input_that_is_not_text_is_named(data: bytes, words: str) -> None:
    with pytest.raises(CorpusError) as caught:
        list(stream_sentences([data], {}, print))
    assert words in str(caught.value)


def test_a_pipe_with_the_name_of_a_table_is_a_table() -> None:
    os.mkfifo("a.csv")
    writer = threading.Thread(target=Path("a.csv").write_text, args=("id,text\n1,a\n",))
    writer.start()
    rows, _ = read("a.csv")
    writer.join()
    assert rows == [(2, "a", {"id": "1"})]


def test_a_column_that_does_not_exist() -> None:
    """A similar name is suggested."""
    assert 'Did you mean "Sentence"?' in refused("a.csv", "ID,Sentence\n1,a\n", column="sentence")
    assert "Give --column one of them." in refused("a.csv", column="text")


def test_a_value_of_json_that_is_too_long_is_refused(monkeypatch) -> None:
    """It would fill the memory."""
    monkeypatch.setattr(json_rows, "MAX_LINE_CHARS", 2_000_000)
    content = json.dumps({"data": [{"text": "a" * 1000}] * 5000})
    assert "value that begins in line 1 has more than 2,000,000" in refused("a.json", content)
    monkeypatch.setattr(json_rows, "MAX_LINE_CHARS", 20_000_000)
    assert len(read("a.json")[0]) == 5000


def test_a_text_of_one_column_keeps_the_delimiter_at_its_end() -> None:
    content = "text\nHello there,\nand you\n"
    assert "line 2 has 2 fields, expected 1" in refused("a.csv", content)
    assert [text for _, text, _ in read("a.csv", quoting="none", delimiter="tab")[0]] == [
        "Hello there,", "and you"
    ]  # fmt: skip


FILMS = [("neg", "a film"), ("pos", "a plot"), ("neg", "an end"), ("pos", "a start"), ("pos", "it")]
FILMS += 2 * [("neg", "a poem")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize(("opened", "closed"), [(0, 1), (1, 4), (0, 4)])
def test_a_quote_that_swallows_rows(opened: int, closed: int, order: tuple, end: str) -> None:
    """A text that begins with a quote and a later one that ends with one are valid CSV together."""
    rows = [list(row) for row in FILMS]
    rows[opened][1] = f'"{rows[opened][1]}'
    rows[closed][1] = f'{rows[closed][1]}"'
    lines = [",".join(row[column] for column in order) for row in [("label", "text"), *rows]]
    problem = refused("a.csv", end.join(lines), column="text")
    assert f"the row that begins in line {opened + 2} has a field of" in problem
    assert "quoting none if quotes are text" in problem
    whole = read("b.csv", end.join(lines), column="text", quoting="none")[0]
    assert [text for _, text, _ in whole] == [row[1] for row in rows]
    kept, _ = read("c.csv", end.join(lines), column="text", quoting="csv")
    assert len(kept) == len(rows) - (closed - opened)


def test_a_field_of_several_lines_with_delimiters() -> None:
    """Lines of a poem may have as many commas as a row; their parts are no values of a column."""
    poem = 'pos,"roses are red,\nviolets, blue\nand, sweet"\n'
    rows, _ = read("a.csv", "label,text\n" + 3 * poem + "neg,none\n", column="text")
    assert [len(text) for _, text, _ in rows] == [39, 39, 39, 4]
    rows, _ = read("b.csv", 'text\n"yes\nno"\nyes\nyes\nno\nno\n', column="text")
    assert len(rows) == 5


def test_a_line_of_a_letter_that_looks_like_a_row() -> None:
    """One such line between others is chance; a quote that is missing encloses rows only."""
    letter = 'no,"I asked him, why\nno, he said\nand went, to the sea, with us"\n'
    content = "label,text\n" + letter + 3 * "no,dull\nyes,good\n"
    assert len(read("a.csv", content, column="text")[0]) == 7
    numbers = '1,"The soup needs\n1,5 l of water\nand a pan"\n'
    assert (
        len(read("b.csv", "label,text\n" + 2 * numbers + "0,dull\n0,bad\n", column="text")[0]) == 4
    )


def test_quotes_around_most_texts_of_a_tsv() -> None:
    """Their header has none, so quotes are text; a few quotations are no reason to doubt that."""
    rows, notes = read("a.tsv", 'text\tlabel\n"a film"\tpos\n"a plot"\tneg\nan end\tneg\n')
    assert [text for _, text, _ in rows] == ['"a film"', '"a plot"', "an end"]
    assert "2 of 3 texts are in quotes, which are read as a part of them" in notes
    assert "add --quoting csv" in notes
    notes = read("b.tsv", 'text\tlabel\n"a film"\tpos\na plot\tneg\nan end\tneg\n')[1]
    assert "in quotes" not in notes


def test_a_blank_before_a_quote() -> None:
    """The text keeps both; where a comma follows, the row has a field too many."""
    rows, notes = read("a.csv", 'label,text\npos, "a film"\nneg, none\n', column="text")
    assert [text for _, text, _ in rows] == [' "a film"', " none"]
    assert "1 text with a blank before a quote" in notes


def test_columns_with_one_name() -> None:
    """The texts are never taken from one of several; of other columns the names are reported."""
    rows, notes = read("a.csv", "text,label,label\na,x,y\n")
    assert rows == [(2, "a", {"label": "x", "label.1": "y"})]
    assert 'has 2 columns "label"; each after the first has a number, as in "label.1"' in notes
    assert "each after" not in read("b.csv", ",text,\n1,a,\n2,b,\n")[1]


def test_arrow_is_refused_with_what_helps() -> None:
    table = pyarrow.table({"text": ["a film"], "label": [1]})
    for name, kind in (("a.arrow", "file"), ("b.arrow", "stream")):
        with getattr(pyarrow.ipc, f"new_{kind}")(name, table.schema) as writer:
            writer.write_table(table)
        assert f"is an Arrow {kind}, not text. Write it as Parquet" in refused(name)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a", "b"], ""), (["", "", "a"], ""), (["a", "b", "c", "b", "a"], "b"), ([], "")],
)
def test_the_first_name_that_is_repeated(names: list[str], expected: str) -> None:
    """Columns without a name are no repetition; wide tables are read once."""
    assert delimited._repeated(names) == expected
    assert delimited._repeated([f"{n}" for n in range(100_000)]) == ""


def test_repeated_columns_of_many_files_are_reported_once() -> None:
    for number in range(3):
        Path(f"{number}.csv").write_text("text,x,x\na film,1,2\n")
    corpus = Corpus(["0.csv", "1.csv", "2.csv"])
    assert len(list(corpus.chunks())) > 0
    (note,) = (warning for warning in corpus.warnings if "2 columns" in warning)
    assert note.startswith("0.csv")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            "Reviews 2024,,\ntext,label,stars\nGood film,pos,5\nBad,neg,1\n",
            "line 2: text, label, st",
        ),
        ("Reviews 2024,,\n,,\ntext,label,stars\nGood film,pos,5\nBad,neg,1\n", "line 3: text"),
        ("Review,,Rating,\nTitle,Body,Kind,Stars\nA,Good,x,5\nB,Bad,y,1\n", "Title, Body, Kind"),
        ("Q1,Q2\nWhat?,How?\n" + '"{""ImportId"":""Q""}",x\na,b\n', "exports of Qualtrics"),
        ('Q1,Q2\n"{""ImportId"":""Q""}",x\na,b\n', "exports of Qualtrics"),
    ],
)
def test_a_header_of_two_rows_is_refused(content: str, found: str) -> None:
    """The names of its columns were read as data, and columns were called by their numbers."""
    problem = refused("a.csv", content, column="1")
    assert found in problem and "expected one row of names" in problem
    rows, _ = read("a.csv", content, column="1", header=True)
    assert len(rows) == content.count("\n") - 1


def test_a_title_above_the_columns_of_a_run_is_refused() -> None:
    """Its advice was to choose "Pairs 2024" or "2" as the column."""
    known = Columns(text="en", run="pairs")
    problem = refused("a.csv", "Pairs 2024,\nen,de\nA dog,Ein Hund\n", columns=known)
    assert "a title or merged cells above the names of its columns (line 2: en, de)" in problem


def test_comments_above_a_table_are_named() -> None:
    """The advice was to put quotes around fields, or to read the table as text."""
    problem = refused("a.csv", "# station 7\n# by hand\nday,value\n1,2\n")
    assert "line 3 has 2 fields" in problem and "are comments, remove them, apart from" in problem


@pytest.mark.parametrize(
    "content",
    [
        ",text,label\nr1,Good film,pos\nr2,Bad,neg\n",  # a named index of pandas
        "text,kind,\nGood film,pos,note\nBad,neg,x\n",  # an unnamed column of notes
        "text,n,\nGood film,5,note\nBad,1,x\n",
        "text,,\nGood film,pos,pos\nBad,1,2\n",  # a repeated cell
        "text,label\nGood film,pos\nBad,neg\n",
        "text,label,\nGood film,pos,n/a\nBad,neg,4\n",  # not all notes are numbers
        "text,kind,\nGood film,class,note\nBad,neg,x\n",
    ],
)
def test_other_empty_names_are_read(content: str) -> None:
    rows, _ = read("a.csv", content, column="text")
    assert [text for _, text, _ in rows] == ["Good film", "Bad"]


def test_a_column_that_is_named_shows_that_the_first_row_holds_the_names() -> None:
    content = "item,,price\nApple,red,n/a\nPear,green,3.50\nFig,blue,4\n"
    assert "a title or merged cells" in refused("a.csv", content)
    assert [text for _, text, _ in read("a.csv", content, column="item")[0]] == [
        "Apple",
        "Pear",
        "Fig",
    ]


def test_a_table_that_is_read_twice_is_reported_once() -> None:
    """The second sentence had no advice on the first row, whose names were known by then."""
    Path("poem.csv").write_text("Roses are red,\nViolets are blue,\nSugar is sweet,\n")
    corpus = Corpus(["poem.csv"])
    assert len(list(corpus.chunks())) == len(list(corpus.chunks())) > 0
    (note,) = corpus.warnings
    assert "They are the first row; if it is data, add --no-header" in note


def test_a_table_of_numbers_names_the_way_to_learn_them() -> None:
    advice = "To learn a series of numbers, use: charlm train FILE --unit number"
    assert f"{advice} --column temp" in refused("a.csv", "day,temp\n1,3.5\n2,4\n")
    assert advice in refused("b.jsonl", '{"day": 1, "temp": 2}\n')
    assert advice in refused("c.csv", "1,3.5\n2,4\n3,1\n", header=False)
    assert "no-header" not in refused("c.csv", "1,3.5\n2,4\n3,1\n", header=False)
    assert advice not in refused("d.csv", "a,b\nx,y\nz,u\n")
    assert f"{advice} --column" not in refused("e.jsonl", '{"day": 1, "more": {"x": [1]}}\n')
    assert advice not in refused("f.jsonl", '{"a": {"x": [1]}, "b": null, "c": true}\n')
