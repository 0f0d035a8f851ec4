"""Tables in files: written rows are read back, and malformed ones are refused with their line."""

import bz2
import csv
import gzip
import io
import json
import lzma
import sys
from itertools import pairwise
from pathlib import Path

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.errors import CorpusError, UsageError
from charlm.text.corpus import Corpus
from charlm.text.documents import END
from charlm.text.sources import decoding, delimited, json_rows
from charlm.text.sources.decoding import line_batches
from charlm.text.sources.names import find
from charlm.text.sources.rows import Number, Rows, TextColumn
from charlm.text.sources.tables import TABLES

no_note = lambda sentence: None  # noqa: E731


def texts(name: str, content: str | bytes, **options) -> list[str]:
    return corpus_of(name, content, **options)[1]


def corpus_of(name: str, content: str | bytes, **options) -> tuple[Corpus, list[str]]:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    corpus = Corpus([name], **options)
    return corpus, "".join(corpus.chunks()).split(END)[:-1]


def records(name: str, content: str | bytes, **options) -> list[tuple]:
    corpus, _ = corpus_of(name, content, **options)
    (rows,) = corpus._opened
    assert isinstance(rows, Rows)
    return [(r.number, r.line, r.text, dict(r.cells)) for r in rows.records(no_note)]


def refused(name: str, content: str | bytes, **options) -> str:
    with pytest.raises(CorpusError) as caught:
        texts(name, content, **options)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(name)
    return str(caught.value)


# ------------------------------------------------------------------ reading equals writing

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), max_size=8)


def in_pieces(text: str, cuts: list[int]) -> list[str]:
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(places)]


def opened(module, content: str, cuts: list[int], *how, **named) -> list[tuple]:
    pieces = iter(in_pieces(content, cuts))
    rows = module.open_table(pieces, "x", *how, True, report=no_note, **named).records
    return [(r.number, r.text, dict(r.cells)) for r in rows]


def rules(**options):
    from charlm.config.corpus import ReadSettings

    return ReadSettings(**options)


@given(
    st.lists(st.tuples(ANY, ANY), min_size=1, max_size=5),
    st.sampled_from(",;|\t"),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(st.integers(0, 999), max_size=4),
)
def test_csv_is_read_as_python_writes_it(rows, delimiter, end, cuts) -> None:
    """With any delimiter, cut anywhere, and with quotes and line ends in cells."""
    file = io.StringIO()
    quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL  # which leaves "\r" bare there
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([("text", "other"), *rows])
    table_rows = opened(delimited, file.getvalue(), cuts, rules(), no_note, kind="csv")
    assert table_rows == [(n, a or None, {"other": b}) for n, (a, b) in enumerate(rows, 1)]


@given(st.lists(st.tuples(PLAIN, PLAIN), min_size=1, max_size=5), st.sampled_from(["\n", "\r\n"]))
def test_tsv_is_read_literally(rows, end) -> None:
    """Quotes have no meaning, at the beginning of a field or elsewhere."""
    content = "".join("\t".join(row) + end for row in [("text", "other"), *rows])
    table_rows = opened(delimited, content, [], rules(), no_note, kind="tsv")
    assert table_rows == [(n, a or None, {"other": b}) for n, (a, b) in enumerate(rows, 1)]


@given(
    st.lists(st.tuples(ANY, ANY), min_size=1, max_size=5),
    st.sampled_from(["lines", "array", "indented", "in a row"]),
    st.lists(st.integers(0, 999), max_size=4),
)
def test_json_is_read_as_python_writes_it(rows, form, cuts) -> None:
    """On lines, as an array, over several lines, one object after another; cut anywhere."""
    values = [{"text": a, "n": [1.50, {b: None}]} for a, b in rows]
    content = {
        "lines": "\n".join(json.dumps(v) for v in values),
        "array": json.dumps(values, ensure_ascii=False),
        "indented": json.dumps(values, indent=2),
        "in a row": "".join(json.dumps(v, indent=1) for v in values),
    }[form]
    read = json_rows.lines_of if form == "lines" else json_rows.values_of
    table_rows = opened(json_rows, content, cuts, values=read)
    assert [(number, text) for number, text, _ in table_rows] == [
        (n, a) for n, (a, _) in enumerate(rows, 1)
    ]
    assert [json.loads(cells["n"]) for _, _, cells in table_rows] == [v["n"] for v in values]


@given(ANY, st.lists(st.integers(0, 999), max_size=6))
def test_lines_do_not_depend_on_where_the_text_is_cut(text, cuts) -> None:
    r"""Joined, they are the text; each but the last ends with "\n"."""
    lines = [line for batch in line_batches(iter(in_pieces(text, cuts)), "x") for line in batch]
    assert "".join(lines) == text
    assert lines == list(io.StringIO(text, newline="\n")) or "\r" in text


def test_pandas_reads_the_same(here) -> None:
    """An independent reader of the same file, with quotes and line ends in cells."""
    content = 'id,text\n1,"a ""b"", c\nd"\n2,é\n3,\n4,NA\n'
    expected = pandas.read_csv(io.StringIO(content), keep_default_na=False)["text"].tolist()
    assert [text or "" for _, _, text, _ in records("a.csv", content)] == expected


# ------------------------------------------------------------------ tsv


def test_quotes_in_tsv_are_text(here) -> None:
    """The story: a sentence that begins with a quote swallowed the rows up to the next quote."""
    assert texts("q.tsv", 'sentence\n"Come in.\nHe said "no".\nlast\n') == [
        '"Come in.', 'He said "no".', "last",
    ]  # fmt: skip
    content = 'text\tn\n"He said\t1\nfine\t2\nshe said"\t3\nlast\t4\n'
    assert records("d.tsv", content) == [
        (1, 2, '"He said', {"n": "1"}), (2, 3, "fine", {"n": "2"}),
        (3, 4, 'she said"', {"n": "3"}), (4, 5, "last", {"n": "4"}),
    ]  # fmt: skip


def test_quotes_enclose_fields_if_a_name_is_in_quotes(here) -> None:
    """R writes this; it is reported, and --quoting none turns it off."""
    content = '"text"\tn\n"a\tb"\t1\n"c ""d"""\t2\n'
    corpus, cells = corpus_of("r.tsv", content)
    assert cells == ["a\tb", 'c "d"'] and "--quoting none" in corpus.warnings[0]
    assert texts("r.tsv", content, quoting="csv") == cells
    problem = refused("r.tsv", content, quoting="none")
    assert "line 2 has 3 fields, expected 2" in problem and "add --quoting csv" in problem
    problem = refused("s.tsv", 'text\tn\na\tb "c" d\t1\n')  # no field is in quotes
    assert "Put a field that contains the delimiter in quotes" in problem
    assert texts("t.tsv", 'text\n"a"\n', quoting="csv") == ["a"]


def test_an_empty_cell_of_one_column_is_a_row(here) -> None:
    """There, only a blank line can be an empty cell; in other tables it is reported and skipped."""
    assert [row[:3] for row in records("o.tsv", "text\na\n\nb\n")] == [
        (1, 2, "a"), (2, 3, None), (3, 4, "b"),
    ]  # fmt: skip
    assert [row[2] for row in records("n.tsv", "\na\n\nb\n", header=False)] == [
        None, "a", None, "b",
    ]  # fmt: skip
    corpus, cells = corpus_of("b.csv", "text,n\n\na,1\n\nb,2\n\n")
    assert cells == ["a", "b"] and "b.csv: 2 blank lines skipped." in corpus.warnings


# ------------------------------------------------------------------ rows and headers


def test_a_row_with_too_many_fields_shifts_nothing(here) -> None:
    """The story: with one field more than the header, the labels were scored."""
    content = "text,label\nThe cat sat,pos,\nThe dog ran,neg,\n"
    corpus, cells = corpus_of("a.csv", content, column="text")
    assert cells == ["The cat sat", "The dog ran"]
    assert "empty fields after the last column in 2 rows" in corpus.warnings[0]
    for name, content in [("b.csv", "text,n\na,1\nb,2,3\n"), ("b.tsv", "text\tn\na\t1\nb\t2\t3\n")]:
        assert "line 3 has 3 fields, expected 2" in refused(name, content)
    assert "line 3 has 1 field, expected 2" in refused("c.csv", "text,n\na,1\nb\n")
    assert "--input-format text" in refused("d.csv", "text\nno\nyes, but\n")
    assert texts("e.csv", "text,n,\na,1\nb,2\n") == ["a", "b"]


def test_errors_have_the_line_number_in_the_file(here) -> None:
    """Also after cells of several lines, and after blank lines."""
    assert "line 6 has 1 field" in refused("a.csv", 'text,n\n"a\nb",1\n\nc,2\nd\n')
    assert "line 5: text after the closing quote" in refused(
        "b.csv", 'text,n\n"a\nb",1\nc,2\n"x" y,3\n'
    )
    message = refused("c.csv", 'text,n\n"a\nb",1\nc,2\n"xy,3\nfoo,4\n')
    assert "begins in line 5 opens a quote that is never closed" in message
    assert "--quoting none" in message
    assert "line 3: a carriage return" in refused("d.csv", "text,n\na,1\nb\rc,2\n")


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(here, monkeypatch) -> None:
    """Rows have a maximum length, with quotes and without."""
    monkeypatch.setattr(delimited, "MAX_LINE_CHARS", 1000)
    monkeypatch.setattr(decoding, "MAX_LINE_CHARS", 1000)
    assert "never closed" in refused("a.csv", 'text\n"a\n' + "b\n" * 3000 + '"\n')
    with pytest.raises(CorpusError, match="a line of more than 1,000"):
        list(line_batches(["b" * 600, "b" * 600, "\n"], "a"))


def test_delimiters_are_found_and_reported(here) -> None:
    """The story: a table of semicolons was one column, and commas in its texts made two."""
    for mark, name in [(";", "semicolons"), ("|", "vertical bars"), ("\t", "tabs")]:
        content = f"id{mark}text\n1{mark}the cat, sat\n2{mark}the dog ran\n"
        corpus, cells = corpus_of("f.csv", content)
        assert cells == ["the cat, sat", "the dog ran"]
        assert f'the column "text" is read; fields are separated by {name}' in corpus.warnings[0]
    assert texts("g.csv", "text~n\na,b~1\n", delimiter="~") == ["a,b"]
    assert texts("h.csv", "text\tn\na,b\t1\n", delimiter="tab") == ["a,b"]
    with pytest.raises(UsageError, match="delimiter is '::'"):
        Corpus(["g.csv"], delimiter="::")


def test_a_header_that_is_data_is_refused(here) -> None:
    """The story: the first row was silently lost. A first row that may be names is reported."""
    content = "1,the cat sat\n2,the dog ran\n"
    assert "--no-header --column 2" in refused("g.csv", content)
    assert texts("g.csv", content, header=False) == ["the cat sat", "the dog ran"]
    assert texts("g.csv", content, header=False, column="2") == ["the cat sat", "the dog ran"]
    assert texts("g.csv", content, header=True) == ["the dog ran"]
    assert "looks like data" in refused("i.tsv", "The cat sat on the mat.\nA dog.\n")
    corpus, cells = corpus_of("w.tsv", "cat\ndog\n")
    assert cells == ["dog"] and "if it is data, add --no-header" in corpus.warnings[0]
    assert "add --no-header" in refused("h.csv", "the cat sat,pos\nthe dog ran,neg\n")


def test_columns_are_found_by_number(here) -> None:
    """A name precedes a number; repeated names need a number."""
    content = "a,a,,2\nw,x,y,z\n"
    assert 'has 2 columns "a"' in refused("d.csv", content, column="a")
    assert texts("d.csv", content, column="1", header=True) == ["w"]
    assert texts("d.csv", content, column="2", header=True) == ["z"]
    ((_, _, text, cells),) = records("d.csv", content, column="3", header=True)
    assert (text, cells) == ("y", {"a": "w", "a.1": "x", "2": "z"})
    assert 'no column "5"' in refused("d.csv", "a,b\nw,x\n", column="5")


def test_a_table_with_only_a_header_is_reported(here) -> None:
    """It may be one text without a header."""
    corpus, cells = corpus_of("h.csv", "hello\n")
    assert (
        cells == [] and "no other row" in corpus.warnings[0] and "--no-header" in corpus.warnings[0]
    )
    assert texts("h.csv", "hello\n", header=False) == ["hello"]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"\xef\xbb\xbftext,n\r\na,1\r\nb,2\r\n", {}),
        (b"text,n\ra,1\rb,2\r", {}),
        ("text,n\na,1\nb,2\n".encode("utf-16"), {"encoding": "utf-16"}),
        (b"\n\ntext,n\na,1\nb,2", {}),
    ],
)
def test_byte_order_marks_line_ends_and_encodings_are_handled(here, content, options) -> None:
    """A byte-order mark, line ends of Windows and old Macs, UTF-16, no final line end."""
    assert texts("a.csv", content, **options) == ["a", "b"]


# ------------------------------------------------------------------ JSON


def test_other_columns_never_matter(here) -> None:
    """The story: a column that appeared late, or changed its type, was an error."""
    rows = [{"text": "a" * 1000} for _ in range(11)] + [{"text": "b", "n": 1}]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    content += '{"text": "c", "n": "x"}\n{"n": {"y": [1e999, ' + "9" * 5000 + ']}, "text": "d"}\n'
    assert "".join(texts("a.jsonl", content)) == "a" * 11000 + "bcd"


def test_json_that_is_not_a_table_is_refused(here) -> None:
    """With the line, what was expected, and what to do."""
    for name, content, words in [
        ("a.jsonl", '{"text": "a"}\n\n[1]\n', "line 3 holds a list, expected an object"),
        ("b.jsonl", '{"text": "a"}\n{"text":\n', "line 2 is not valid JSON (character"),
        ("c.jsonl", '{"text": ' + "[" * 100_000, "nested too deeply"),
        ("d.json", '[{"text": "a"},\n {"text": "b"}', "line 2 holds the end of the file"),
        ("e.json", '[{"text": "a"}\n {"text": "b"}]', "line 2 holds '{', expected , or ]"),
        ("f.json", '[{"text": "a"},]', "not valid JSON"),
        ("g.json", '[{"text": "a"}]\n[]', "line 2 continues after the end of the array"),
        ("h.json", '[{"text": nul}]' + " " * 99, "not valid JSON"),
        ("i.json", '{"data": {"text": "x"}}', "is one object (data) with no array of rows"),
        ("j.json", "[1, 2]", "line 1 holds the number 1"),
    ]:
        assert words in refused(name, content)


def test_json_texts_without_names(here) -> None:
    """An array of texts, a text on each line; an empty array has no rows."""
    assert texts("a.json", '["a", "b"]') == texts("a.jsonl", '"a"\n"b"\n') == ["a", "b"]
    assert texts("d.json", '[{"p": "a", "n": 1}]') == ["a"]
    assert texts("b.json", " [ ] ") == texts("c.json", "") == []


def test_numbers_are_kept_as_they_are_written(here) -> None:
    """In the cells that are copied to the output."""
    content = '{"text": "a", "n": 0.10, "m": 12345678901234567890123, "o": [1.0, true, null]}'
    ((_, _, _, cells),) = records("a.jsonl", content)
    assert cells == {"n": "0.10", "m": "12345678901234567890123", "o": "[1.0, true, null]"}
    assert not isinstance("1", Number)


# ------------------------------------------------------------------ Parquet


def parquet(**columns) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


def test_parquet_of_no_rows_and_of_other_types(here) -> None:
    """No rows are accepted; a column of numbers is refused."""
    nothing = parquet(text=pyarrow.array([], pyarrow.string()))
    assert texts("a.parquet", nothing) == []
    content = parquet(n=[1, 2], text=["a", None], d=[{"x": 1.5}, None])
    assert records("b.parquet", content) == [
        (1, None, "a", {"n": "1", "d": '{"x": 1.5}'}), (2, None, None, {"n": "2", "d": ""}),
    ]  # fmt: skip
    assert 'column "n" holds the number 1' in refused("b.parquet", content, column="n")
    coded = pyarrow.array(["x", "y", "x"]).dictionary_encode()
    assert texts("c.parquet", parquet(**{"a.b": coded})) == ["x", "y", "x"]
    assert "cannot be read as Parquet" in refused("d.parquet", content[:-9])


def test_columns_of_parquet_may_begin_with_empty_cells(here) -> None:
    """Their types say what they hold: a text that began after 100 rows was not found."""
    late = pyarrow.array([None] * 150 + ["a"], pyarrow.string())
    numbers = pyarrow.array([None] * 150 + [1.5], pyarrow.float64())
    assert texts("a.parquet", parquet(t=late, n=range(151))) == ["a"]
    assert texts("b.parquet", parquet(t=["a"] * 151, n=numbers)) == ["a"] * 151
    assert "several columns of text" in refused("c.parquet", parquet(t=late, u=["b"] * 151))
    first = records("d.parquet", parquet(t=late, n=numbers))[0]
    assert first == (1, None, None, {"n": ""})  # no example of its type


# ------------------------------------------------------------------ every format

CONTENT = {
    "csv": b"text,n\na,1\nb,2\n",
    "tsv": b"text\tn\na\t1\nb\t2\n",
    "jsonl": b'{"text": "a", "n": 1}\n{"text": "b", "n": 2}\n',
    "json": b'[{"text": "a", "n": 1}, {"text": "b", "n": 2}]',
    "parquet": parquet(text=["a", "b"], n=[1, 2]),
}


@pytest.mark.parametrize("kind", CONTENT)
def test_every_format_by_suffix_by_option_packed_and_piped(kind, here, monkeypatch) -> None:
    """The same rows each time; records and texts can be read repeatedly."""
    content = CONTENT[kind]
    expected = [(1, "a", {"n": "1"}), (2, "b", {"n": "2"})]
    for suffix, pack in [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)]:
        assert texts(f"p.{kind}.{suffix}", pack(content)) == ["a", "b"]
    for table_rows in (records(f"a.{kind}", content), records("a.txt", content, input_format=kind)):
        assert [(n, text, cells) for n, _, text, cells in table_rows] == expected
    assert kind in TABLES.values()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    corpus = Corpus(["-", "-"], input_format=kind)
    assert ["".join(corpus.chunks()) for _ in range(2)] == [f"a{END}b{END}" * 2] * 2
    if kind == "parquet":
        assert "--input-format parquet" in refused("a", content)
    else:
        assert texts(f"a.{kind}", content, input_format="text", document="file") == [
            content.decode()
        ]


def test_packed_tables_that_cannot_be_unpacked_say_what_to_do(here) -> None:
    """The story: the message was "Compression type zstd not supported", without advice."""
    for name, content, words in [
        ("b.csv.lz4", b"\x04\x22\x4d\x18" + bytes(9), "packed by lz4, not text. Unpack"),
        ("c.csv", gzip.compress(b"text\na\n"), "rename it to end in .gz"),
        ("d.csv.gz", b"text\na\n", "cannot be unpacked as .gz"),
        ("e.jsonl.gz", gzip.compress(CONTENT["jsonl"])[:-9], "cannot be unpacked as .gz"),
        ("f.parquet.gz", b"PAR1", "cannot be unpacked as .gz"),
    ]:
        assert words in refused(name, content)


def test_tables_that_are_alike_are_reported_once(here) -> None:
    """The story: each file of a folder had its own report, which hid other warnings."""
    for number in range(30):
        Path(f"{number:02}.csv").write_text(f"id,text\n1,{number}\n\n")
    Path("30.jsonl").write_text('{"id": 1, "text": "30"}\n')
    corpus = Corpus(["*.csv", "30.jsonl"])
    for again in (corpus, corpus, corpus.with_document("line")):
        assert "".join(again.chunks()) == "".join(f"{n}{END}" for n in range(31))
        reports = [note for note in again.warnings if 'the column "text" is read' in note]
        assert [note.partition(":")[0] for note in reports] == ["00.csv", "30.jsonl"]


def test_options_of_tables_need_one() -> None:
    """They have no effect on plain text."""
    with pytest.raises(UsageError, match=r"^input_format csv was given, but"):
        Corpus(["hf:o/n"], input_format="csv")
    for option, value in (("column", "x"), ("delimiter", ";"), ("quoting", "none"),
                          ("header", False), ("header", True)):  # fmt: skip
        with pytest.raises(UsageError, match=f"^{option} was given, but no source is a table"):
            Corpus([__file__], **{option: value})


# ------------------------------------------------------------------ columns of another kind


class Digits(TextColumn):
    """Column of whole numbers."""

    holds, skips_blank = "numbers", False

    def fits(self, cells) -> bool:
        return all(cell is None or str(cell).isdecimal() for cell in cells)

    def cell(self, value, place, column) -> str:
        return f"{place} {column} {value}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "a,m\nb,1\n\nc,2\n"),
        ("x.tsv", "a\tm\nb\t1\n\nc\t2\n"),
        ("x.jsonl", '{"a": "b", "m": 1}\n{"a": "d", "m": null}\n{"a": "c", "m": 2}\n'),
        ("x.parquet", None),
    ],
)
def test_a_rule_chooses_the_column_and_reads_its_cells(here, name, content) -> None:
    if content is None:
        table = pyarrow.table({"a": ["b", "d", "c"], "m": [1, None, 2]})
        pyarrow.parquet.write_table(table, name)
    else:
        Path(name).write_text(content)
    (rows,) = find([name], rules(), no_note)
    opened = rows.read(no_note, False, Digits())
    values = [record.text and record.text.rpartition(" ")[2] for record in opened.records]
    assert (opened.column, values) == ("m", ["1", None, "2"])
