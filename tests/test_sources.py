"""Sources of text: files, folders, patterns, standard input, compressed files, tables, the hub."""

import bz2
import gzip
import io
import json
import lzma
import os
import socket
import sys
import threading
from pathlib import Path

import datasets
import pytest

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError, EnvironmentFailure, UsageError
from charlm.runs.data import _absolute
from charlm.text.corpus import Corpus
from charlm.text.documents import END
from charlm.text.sources import compressed, files
from charlm.text.sources.hub import hub_parts
from charlm.text.sources.names import find


def read(*names, **options) -> str:
    return "".join(Corpus([str(name) for name in names], **options).chunks())


def fails(expected: type[Exception], *names, **options) -> str:
    """Return the message of the error, which must be one line."""
    with pytest.raises(expected) as caught:
        read(*names, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------ files, folders, patterns


def test_files_are_read_in_the_order_given(here):
    """The order of their names does not matter."""
    (here / "b.txt").write_text("B\n")
    (here / "a.txt").write_text("A\n")
    corpus = Corpus(["b.txt", "a.txt"])
    assert "".join(corpus.chunks()) == "B\nA\n"
    assert corpus.sources == ("b.txt", "a.txt")
    assert Corpus("a.txt").sources == ("a.txt",)
    assert (corpus.document, corpus.name, corpus.warnings) == ("stream", "b", [])


def test_a_text_named_twice_is_read_twice_and_noted(here):
    """Even if the names differ."""
    (here / "a.txt").write_text("A")
    corpus = Corpus(["a.txt", str(here / "a.txt")])
    assert "".join(corpus.chunks()) == "A\nA"
    assert "named twice" in corpus.warnings[0]


def test_a_folder_is_read_sorted_without_hidden_files(here):
    """Recursively; special files and hidden folders are skipped."""
    for name in ["b.txt", "a/z.md", "a/c.txt", ".hidden", ".git/x", "a/.x"]:
        (here / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "d" / name).write_text(f"<{name}>")
    os.mkfifo(here / "d" / "pipe")
    assert read("d") == "<a/c.txt>\n<a/z.md>\n<b.txt>"
    (here / "d" / "a" / "loop").symlink_to(here / "d", target_is_directory=True)
    corpus = Corpus(["d"])
    assert "".join(corpus.chunks()) == "<a/c.txt>\n<a/z.md>\n<b.txt>"
    assert corpus.name == "d" and "d/a/loop" in corpus.warnings[0]


def test_runs_in_a_folder_of_texts_are_skipped(here):
    """The story: `charlm train .` read the files of its own runs as text."""
    for name, kept in {"a": ("config.json", "run.json"), "b": ("search.json", "study.log")}.items():
        (here / "checkpoints" / name).mkdir(parents=True)
        for file in kept:
            (here / "checkpoints" / name / file).write_text("{}")
    (here / "t.txt").write_text("text")
    (here / "poems").mkdir()
    (here / "poems" / "config.json").write_text('["a poem"]')  # no run: it is read
    (here / "queries").mkdir()
    (here / "queries" / "search.json").write_text('["a query"]')  # nor is this a search
    corpus = Corpus(["."], document="stream")
    assert "".join(corpus.chunks()) == "a poem\na query\ntext"
    note = "checkpoints/a and 1 more were skipped: runs of charlm contain no text to train on."
    assert note in corpus.warnings


def test_a_name_with_blanks_that_was_not_quoted(here):
    (here / "my poems.txt").write_text("text")
    message = fails(CorpusError, "my", "poems.txt")
    assert message == (
        "my poems.txt was given as 2 names. Put quotes around a name with blanks: 'my poems.txt'."
    )


def test_a_link_loop_outside_the_folder_is_read_once(here):
    """A link may lead out of the folder; its target is read once."""
    (here / "d").mkdir()
    (here / "out").mkdir()
    (here / "out" / "x.txt").write_text("x")
    (here / "out" / "loop").symlink_to(here / "out", target_is_directory=True)
    (here / "d" / "link").symlink_to(here / "out", target_is_directory=True)
    assert read("d") == "x"


def test_links_to_files_of_the_folder_are_not_read_again(here):
    """The story: the folder of German fortunes has a link to each file, so all was read twice.

    A link out of the folder is read, once.
    """
    (here / "d").mkdir()
    (here / "out.txt").write_text("<out>")
    (here / "d" / "b.txt").write_text("<b>")
    for name, target in (("a", "d/b.txt"), ("c", "d/b.txt"), ("x", "out.txt"), ("y", "out.txt")):
        (here / "d" / name).symlink_to(here / target)
    corpus = Corpus(["d"])
    assert "".join(corpus.chunks()).split() == ["<b>", "<out>"]
    assert corpus.warnings[0] == ("d/a and 2 more skipped: links to files that are read anyway.")


def test_names_of_files_are_resolved_once(here, monkeypatch):
    """A look for links took four times as long as the list of 20,000 files."""
    for name in "abc":
        (here / f"{name}.txt").write_text("x")
    resolve, resolved = Path.resolve, list[str]()
    monkeypatch.setattr(
        Path, "resolve", lambda self, **options: resolved.append(self.suffix) or resolve(self)
    )
    assert len(find([str(here)], ReadSettings(), print)) == 3
    assert resolved.count(".txt") <= 3


def test_compiled_programs_in_a_folder_of_source_code_are_skipped(here):
    """The story: a folder of Python was refused because of its __pycache__."""
    (here / "d" / "__pycache__").mkdir(parents=True)
    (here / "d" / "__pycache__" / "a.cpython-311.pyc").write_bytes(b"\xa7\r\r\n\0\0\0\0")
    (here / "d" / "a.py").write_text("x = 1\n")
    corpus = Corpus(["d"])
    assert "".join(corpus.chunks()) == "x = 1\n"
    (warning,) = corpus.warnings
    assert warning.endswith("a.cpython-311.pyc skipped: compiled programs contain no text.")


def test_a_folder_without_text_is_refused(here):
    """A folder with hidden files and pictures is empty; other binary files are not skipped."""
    (here / "d").mkdir()
    (here / "d" / ".x").write_text("x")
    assert "d contains no files" in fails(CorpusError, "d")
    (here / "d" / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "d contains no files" in fails(CorpusError, "d")
    (here / "d" / "x").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "d/x is a PNG image" in fails(CorpusError, "d")


def test_a_pattern_is_sorted_and_each_file_read_once(here):
    """`**` through a loop of links repeats nothing; a file named like a pattern is a file."""
    for name in ("b1", "a1", ".c1"):
        (here / f"{name}.txt").write_text(f"<{name}>")
    (here / "loop").symlink_to(here, target_is_directory=True)
    assert read("*.txt") == read("**/*.txt") == "<a1>\n<b1>"
    assert Corpus(["*.txt"]).name == Corpus(["**/*.txt"]).name == "a1"
    assert [source.label for source in Corpus(["**/*.txt"])._opened] == ["a1.txt", "b1.txt"]
    (here / "[x].txt").write_text("literal")
    assert read("[x].txt") == "literal"
    assert "pattern *.md" in fails(CorpusError, "*.md")


def test_folders_with_brackets_in_their_names(here):
    """The story: a pattern in such a folder matched nothing, and neither did its resumed run."""
    for folder in ("a[1]", "a[1]/b*", "a1"):
        (here / folder).mkdir()
        (here / folder / "x.txt").write_text(f"<{folder}>")
    assert read("a[1]/*.txt") == read("a[1]/x.txt") == "<a[1]>"
    assert read("a[1]/b*/*.txt") == read("./a[1]/b*/x.*") == "<a[1]/b*>"
    assert read("a[1]/**/*.txt") == read("a[1]") == "<a[1]/b*>\n<a[1]>"
    assert read("a[!2]/*.txt") == "<a1>"
    assert "a[1]/y.txt does not exist" in fails(CorpusError, "a[1]/y.txt")
    os.chdir("a[1]")
    names = [_absolute(name) for name in ("b*/*.txt", "b*/x.txt")]
    os.chdir(here)
    assert [read(name) for name in names] == ["<a[1]/b*>"] * 2


def test_a_missing_file_suggests_a_similar_name(here):
    """From the same folder."""
    (here / "shakespeare.txt").write_text("x")
    assert "shakespear.txt does not exist. Did you mean shakespeare.txt?" in fails(
        CorpusError, "shakespear.txt"
    )
    assert "Check the name" in fails(CorpusError, "qqq")
    assert "nor does its folder" in fails(CorpusError, "no/where")
    assert "is an address" in fails(CorpusError, "https://example.org/a.txt")
    assert r"a\nb does not exist" in fails(CorpusError, "a\nb")


def test_nothing_named_is_a_usage_error():
    """No names, or an empty one."""
    assert "No text was named" in fails(UsageError)
    assert "is empty" in fails(UsageError, "")


def test_a_file_that_cannot_be_opened_is_named(here, monkeypatch):
    """The message has the reason of the system, and the cause is its error."""
    (here / "a.txt").write_text("x")
    corpus = Corpus(["a.txt"])
    (here / "a.txt").unlink()
    with pytest.raises(CorpusError, match=r"a\.txt cannot be read: No such file") as caught:
        list(corpus.chunks())
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_devices_and_sockets_are_refused(here):
    """Reading them would never end or never begin."""
    assert "/dev/zero is a device" in fails(CorpusError, "/dev/zero")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("s")
        assert "s is a socket" in fails(CorpusError, "s")


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.TGZ", "a.7z", "a.tar.zst"])
def test_archives_are_refused_with_advice(here, name):
    """They are not unpacked into the file system."""
    (here / name).write_bytes(b"x")
    assert "is an archive. Unpack it" in fails(CorpusError, name)


def test_names_for_runs(here):
    """Suffixes are removed, and unsafe characters become hyphens."""
    for name, short in [
        ("tales.txt.gz", "tales"),
        ("tales.v2.txt", "tales.v2"),
        ("Müllers Texte (1).txt", "Mullers-Texte-1"),
        ("-日本.txt", "text"),
        ("plain", "plain"),
    ]:
        (here / name).write_bytes(gzip.compress(b"x") if name.endswith("gz") else b"x")
        assert Corpus([f"./{name}"]).name == short
    assert Corpus.from_text("x", name="a b").name == "a-b"


# ------------------------------------------------------------------ read once


def test_standard_input_can_be_read_again(monkeypatch):
    """Several times, by two readers at once, and under two names."""
    text = "héllo\n" * 20_000
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    corpus = Corpus(["-"])
    corpus._block_bytes = 1000
    corpus._chunk_chars = 1000
    pairs = list(zip(corpus.chunks(), corpus.chunks(), strict=True))
    assert "".join(a for a, _ in pairs) == "".join(b for _, b in pairs) == text
    assert corpus.name == "stdin"
    assert not sys.stdin.buffer.closed
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"once")))
    assert read("-", "-") == "once\nonce"


def test_no_standard_input_is_reported(monkeypatch):
    """A program without a console has none."""
    monkeypatch.setattr(sys, "stdin", None)
    assert "no standard input" in fails(CorpusError, "-")


def test_a_full_temporary_folder_is_reported(monkeypatch):
    """The message names the folder."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x")))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.shutil, "copyfileobj", full)
    assert "does not fit into the temporary folder" in fails(EnvironmentFailure, "-")


def test_a_named_pipe_can_be_read_again(here):
    """It is copied when it is first read."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: (here / "pipe").write_bytes(b"once"))
    writer.start()
    corpus = Corpus(["pipe"])
    assert ["".join(corpus.chunks()) for _ in range(2)] == ["once", "once"]
    writer.join()


# ------------------------------------------------------------------ compressed

PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files_are_unpacked_as_they_are_read(here, suffix):
    """Concatenated members are one text, and no file is written."""
    (here / f"a.txt.{suffix}").write_bytes(PACK[suffix](b"one\n") + PACK[suffix](b"two\n"))
    assert read(f"a.txt.{suffix}") == "one\ntwo\n"
    assert [path.name for path in here.iterdir()] == [f"a.txt.{suffix}"]


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_compressed_files_are_named(here, suffix):
    """Incomplete, with flipped bytes, or not compressed."""
    packed = PACK[suffix](os.urandom(3000).hex().encode())
    flipped = packed[:1000] + bytes(255 - value for value in packed[1000:1100]) + packed[1100:]
    for data in (packed[:-20], flipped, b"plain text"):
        (here / f"a.{suffix}").write_bytes(data)
        message = fails(CorpusError, f"a.{suffix}", encoding="latin-1")
        assert f"a.{suffix} cannot be unpacked as .{suffix}" in message


@pytest.mark.skipif(compressed._zstd is not None, reason="the standard library reads it")
def test_zstandard_needs_an_extra(here, monkeypatch):
    """The message names it."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (here / "a.zst").write_bytes(b"x")
    assert 'pip install "charlm[zstd]"' in fails(EnvironmentFailure, "a.zst")


def test_zstandard_files(here):
    """Concatenated frames are one text; damaged and incomplete files are named."""
    if compressed._zstd is None:
        compress = pytest.importorskip("zstandard").compress
    else:
        compress = compressed._zstd.compress
    text = os.urandom(5000).hex()
    (here / "a.txt.zst").write_bytes(compress(text.encode()) + compress(b"two"))
    assert read("a.txt.zst") == text + "two"
    for data in (compress(text.encode())[:-20], b"plain text"):
        (here / "a.zst").write_bytes(data)
        assert "a.zst cannot be unpacked as .zst" in fails(CorpusError, "a.zst")


# ------------------------------------------------------------------ tables


def test_rows_are_documents(here):
    """Each row is one document, whatever it contains; in a stream, line ends join the rows."""
    (here / "a.jsonl").write_text('{"text": "a\\n\\nb", "n": 1}\n{"text": "\\u00e4", "n": 2}\n')
    assert Corpus(["a.jsonl"]).document == "line"
    for document in ("auto", "line", "paragraph", "file"):
        assert read("a.jsonl", document=document) == f"a\n\nb{END}ä{END}"
    assert read("a.jsonl", document="stream") == "a\n\nb\nä"


def test_rows_in_a_stream_are_on_separate_lines(here):
    """Between two tables, and between a table and a text."""
    (here / "a.jsonl").write_text('{"t": "a"}\n{"t": "b"}\n')
    (here / "x.txt").write_text("x")
    assert Corpus(["a.jsonl", "x.txt"]).document == "stream"
    assert read("a.jsonl", "a.jsonl", "x.txt", "x.txt", "a.jsonl") == "a\nb\na\nb\nx\nx\na\nb"


def test_rows_without_text_are_skipped_and_counted(here):
    """A null in JSON, an empty cell in CSV; an empty table has no rows."""
    (here / "a.jsonl").write_text('{"t": null}\n{"t": "a"}\n{"t": null}\n')
    corpus = Corpus(["a.jsonl"])
    assert ["".join(corpus.chunks()) for _ in range(2)] == [f"a{END}"] * 2
    assert corpus.warnings == ['a.jsonl: 2 rows without text in the column "t" skipped.']
    for name in ("e.jsonl", "e.csv"):
        (here / name).write_text("")
        assert read(name) == ""


def test_the_text_column_is_chosen_or_asked_for(here):
    """It is "text", or the only column with text; else the message lists the columns."""
    (here / "a.jsonl").write_text('{"p": "a", "q": "b", "n": 1}\n')
    (here / "t.jsonl").write_text('{"p": "a", "text": "b"}\n')
    (here / "n.jsonl").write_text('{"n": 1}\n')
    assert "several columns of text. Its columns: p, q, n." in fails(CorpusError, "a.jsonl")
    advice = "Choose one with --column, or read every file as plain text with --input-format text."
    assert advice in fails(CorpusError, "a.jsonl")
    assert read("a.jsonl", input_format="text") == (here / "a.jsonl").read_text()
    assert "no column of text" in fails(CorpusError, "n.jsonl")
    assert 'no column "z". Its columns: p, q, n.' in fails(CorpusError, "a.jsonl", column="z")
    assert read("a.jsonl", column="q") == read("t.jsonl") == f"b{END}"
    assert 'line 1: the column "n" holds the number 1' in fails(CorpusError, "a.jsonl", column="n")
    (here / "m.jsonl").write_text('{"text": "hello"}\n{"text": 5}\n')
    assert 'line 2: the column "text" holds the number 5' in fails(CorpusError, "m.jsonl")
    (here / "x.txt").write_text("x")
    message = fails(UsageError, "x.txt", column="q")
    assert "no source is a table of the format jsonl, json, csv" in message
    assert "(found: x.txt). Leave it out" in message


# ------------------------------------------------------------------ the hub


def test_names_on_the_hub():
    """`hf:org/name[:config][/split][#column]`."""
    for name, expected in [
        ("hf:o/n", ("o/n", None, None, None)),
        ("hf:o/n/test#body", ("o/n", None, "test", "body")),
        ("hf:o/n:en-1.0/valid", ("o/n", "en-1.0", "valid", None)),
        ("hf:n:c#x y", ("n", "c", None, "x y")),
    ]:
        parts = hub_parts(name)
        assert tuple(parts[key] for key in ("path", "config", "split", "column")) == expected
    for name in ("hf:", "hf:/n", "hf:o/n/s/t", "hf:o/n#"):
        assert "not have the form hf:org/name" in fails(UsageError, name)


class Hub:
    """Stand-in for `datasets.load_dataset` that remembers its arguments."""

    def __init__(self, result):
        self.result = result
        self.asked = None

    def __call__(self, *arguments, **options):
        self.asked = (*arguments, options)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_a_dataset_of_the_hub(monkeypatch):
    """It is streamed; a column in the name overrides the option."""
    hub = Hub([{"a": "x", "b": "y"}, {"a": None, "b": "z"}])
    monkeypatch.setattr(datasets, "load_dataset", hub)
    corpus = Corpus(["hf:org/Some.Name:en/test#a"], column="b")
    assert "".join(corpus.chunks()) == f"x{END}"
    assert hub.asked == ("org/Some.Name", "en", {"split": "test", "streaming": True})
    assert (corpus.name, corpus.document) == ("Some.Name", "line")
    assert "1 row without text" in corpus.warnings[0]
    assert read("hf:org/n", column="b") == f"y{END}z{END}"
    assert hub.asked == ("org/n", None, {"split": "train", "streaming": True})


@pytest.mark.parametrize("lone", ["\ud800", END])
def test_surrogates_in_a_row_are_refused(here, monkeypatch, lone):
    """END cannot come from a table."""
    (here / "s.jsonl").write_text(json.dumps({"t": f"a{lone}"}))
    assert "s.jsonl: line 1 has half of a surrogate pair" in fails(CorpusError, "s.jsonl")
    monkeypatch.setattr(datasets, "load_dataset", Hub([{"t": "fine"}, {"t": f"a{lone}"}]))
    assert "hf:o/n: row 2 has half of a surrogate pair" in fails(CorpusError, "hf:o/n")


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (ConnectionError("Couldn't reach\nthe Hub"), EnvironmentFailure, "HF_HUB_OFFLINE"),
        (datasets.exceptions.DatasetNotFoundError("no such"), CorpusError, "no such. Check"),
        (datasets.exceptions.DatasetNotFoundError("gated"), CorpusError, "hf auth login"),
        (ValueError('Bad split: x. Available splits: ["a"]'), CorpusError, "Available splits"),
        (ImportError("needs soundfile"), EnvironmentFailure, "soundfile"),
        (RuntimeError("Could not determine home directory."), EnvironmentFailure, "Set HOME"),
    ],
)
def test_failures_of_the_hub_are_one_line(monkeypatch, error, expected, words):
    """With the name, the reason and what to do."""
    monkeypatch.setattr(datasets, "load_dataset", Hub(error))
    message = fails(expected, "hf:o/n")
    assert words in message and message.startswith("hf:o/n cannot be")


def test_an_interrupted_stream_is_an_error(monkeypatch):
    """A dataset that was read in part is not treated as complete."""

    def rows():
        yield {"t": "a"}
        raise TimeoutError("timed out")

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows())
    assert "hf:o/n cannot be fetched: timed out" in fails(EnvironmentFailure, "hf:o/n")


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_invalid_bytes_are_replaced_in_tables_too(suffix, here):
    """The story: the reader of JSON replaced nothing if the encoding was named utf-8."""
    before, after = {"jsonl": (b'{"text": "', b'"}\n'), "csv": (b"text\n", b"\n")}[suffix]
    (here / f"a.{suffix}").write_bytes(before + b"a\xffb" + after)
    assert read(f"a.{suffix}", errors="replace") == "a\ufffdb" + END
    fails(CorpusError, f"a.{suffix}")
