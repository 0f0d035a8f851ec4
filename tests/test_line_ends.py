"""Line ends of files: CR LF, a lone CR, or none at the end; what is read and what is reported."""

import json
from pathlib import Path

import pytest
from helpers import Call

from charlm import load, train
from charlm.errors import CorpusError
from charlm.runs.layout import SEAL, read_config, read_record, write_record
from charlm.text.corpus import Corpus
from charlm.text.documents import END
from charlm.text.sources.text_lines import FileRules
from charlm.text.tagged_files import read_sentences
from charlm.training.resume import resume

TINY = {"hidden_size": 4, "num_layers": 1, "steps": 2, "batch_size": 1, "bptt": 8, "seed": 1,
        "precision": "fp32", "threads": 1}  # fmt: skip
NAMES = b"Anna\r\nBert\r\nClara\r\n"


def corpus(folder: Path, files: dict[str, bytes], document: str = "line", **rules) -> Corpus:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return Corpus([str(folder / name) for name in files], document=document, **rules)


def read(corpus: Corpus) -> str:
    return "".join(corpus.chunks())


# ------------------------------------------------------------------ CR LF and CR


def test_the_cr_of_a_list_is_dropped_and_reported_once(tmp_path) -> None:
    """--keep-cr keeps it."""
    files = {"a.txt": NAMES, "b.txt": b"Dora\n", "c.txt": b"Emil\r\n"}
    texts = corpus(tmp_path, files)
    assert read(texts) == read(texts) == END.join(["Anna", "Bert", "Clara", "Dora", "Emil", ""])
    (note,) = texts.warnings
    assert f"2 files (the first is {tmp_path}/a.txt) end lines with CR LF" in note
    assert "--keep-cr" in note
    kept = corpus(tmp_path, {"a.txt": NAMES}, keep_cr=True)
    assert read(kept) == f"Anna\r{END}Bert\r{END}Clara\r{END}"
    assert (kept.warnings, kept.crlf, texts.crlf) == ([], True, False)


def test_no_advice_names_a_flag_that_a_task_refuses(tmp_path) -> None:
    """A tagger never keeps CR, so only the reading of a lone CR, a guess, is reported."""
    warnings: list[str] = []
    for name, end in (("dos.conll", b"\r\n"), ("mac.conll", b"\r")):
        (tmp_path / name).write_bytes(end.join([b"EU B-ORG", b"votes O", b""]))
        rules = FileRules(warn=warnings.append, needed=False)
        read = read_sentences([str(tmp_path / name)], rules)
        assert [each.words for each in read] == [("EU", "votes")]
    (warning,) = warnings
    assert "mac.conll ends lines with a lone CR" in warning and "--" not in warning


@pytest.mark.parametrize("block", [1, 2, 3, 100])
def test_a_lone_cr_ends_a_line_in_a_file_without_lf(tmp_path, block: int) -> None:
    """A lone CR in another file is text."""
    texts = corpus(tmp_path, {"mac.txt": b"Anna\rBert\rClara", "b.txt": b"Do\rra\nEmil\n"})
    texts._block_bytes = block
    assert read(texts) == END.join(["Anna", "Bert", "Clara", "Do\rra", "Emil", ""])
    assert ["mac.txt ends lines with a lone CR" in note for note in texts.warnings] == [True]
    kept = corpus(tmp_path, {"mac.txt": b"Anna\rBert"}, keep_cr=True)
    assert read(kept) == f"Anna\rBert{END}"
    assert "are not cut into lines" in kept.warnings[0]


@pytest.mark.parametrize("document", ["stream", "file"])
def test_mixed_line_ends_of_a_stream_are_kept_and_reported_once(tmp_path, document) -> None:
    """Line ends of one kind are not reported."""
    files = {"a.txt": NAMES, "b.txt": b"Dora\n", "c.txt": b"Emil\r\nFritz\n", "d.txt": b"Gustav\n"}
    texts = corpus(tmp_path, files, document)
    assert read(texts).replace(END, "") == b"".join(files.values()).decode()
    (note,) = texts.warnings
    assert note.startswith(f"Line ends differ: {tmp_path}/a.txt ends lines with CR LF; ")
    assert "2 files (the first is" in note and "c.txt ends lines with both CR LF and LF" in note
    for alike in ({"a.txt": NAMES, "b.txt": NAMES}, {"a.txt": b"x\n", "b.txt": b"y\n"}):
        same = corpus(tmp_path, alike, document)
        read(same)
        assert same.warnings == []
    mac = corpus(tmp_path, {"a.txt": b"x\ry\r"}, document)
    assert read(mac).rstrip(END) == "x\ry\r"
    assert "lone CR" in mac.warnings[0]


# ------------------------------------------------------------------ files without a final line end


def test_files_of_a_stream_are_separated_by_a_line_end(tmp_path) -> None:
    """`one two` and `three four` once gave `twothree`."""
    files = {"s1": b"one two", "e": b"", "s2": b"three four", "s3": b"five\n", "s4": b"six"}
    texts = corpus(tmp_path, files, "stream")
    assert read(texts) == "one two\nthree four\nfive\nsix"
    (note,) = texts.warnings
    assert note.startswith(f"2 files (the first is {tmp_path}/s1) have no line end at their end")
    one = corpus(tmp_path, {"s1": b"a", "s2": b"b"}, "stream")
    assert read(one) == "a\nb"
    assert one.warnings[0].startswith(f"{tmp_path}/s1 has no line end at its end")
    glued = corpus(tmp_path, files, "stream", glue=True)
    assert (read(glued), glued.warnings) == ("one twothree fourfive\nsix", [])


# ------------------------------------------------------------------ runs


def run_of(tmp_path: Path, **options) -> Path:
    record = list(train(checkpoints=tmp_path / "runs", name="r", **TINY, **options))[-1]
    assert record.reason
    return tmp_path / "runs" / "r"


def test_a_text_in_memory_is_read_as_a_file_is(tmp_path) -> None:
    """Training and evaluation drop the CR of a list."""
    text = NAMES.decode() * 9
    path = run_of(tmp_path, text=text, document="line")
    model = load(path)
    assert read_config(path)["crlf"] is False
    assert "\r" not in model.vocabulary.ids
    assert model.evaluate(text) == model.evaluate(text.replace("\r", ""))


def test_a_model_with_cr_lf_reads_cr_lf(tmp_path, monkeypatch, call: Call) -> None:
    """Every command reads a text by the rules of the training text."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "names.txt"
    source.write_bytes(NAMES * 9)
    path = run_of(tmp_path, text=source.read_bytes().decode(), document="line", keep_cr=True)
    code, out, err = call("eval", "--run", str(path), "--file", str(source), "--json")
    assert code == 0, err
    kept = load(path).evaluate(source.read_bytes().decode())
    assert f'"tokens": {kept.tokens},' in out
    assert kept.tokens == 27 * 2 + len("AnnaBertClara") * 9
    code, out, err = call("score", "--run", str(path), "--file", str(source), "--format", "jsonl")
    assert code == 0, err
    assert json.loads(out.splitlines()[0])["text"] == "Anna\r"


def test_a_run_of_an_older_version_reads_its_text_as_before(tmp_path, monkeypatch) -> None:
    """It joined files and kept a CR, without a setting for either."""
    monkeypatch.setattr("charlm.runs.data.CACHED_FROM_BYTES", 10)
    files = {"a.txt": NAMES * 3 + b"Dora", "b.txt": NAMES * 3}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    sources = [str(tmp_path / name) for name in files]
    old = {"keep_cr", "glue"}
    for document, rule in {"stream": {"glue": True}, "line": {"keep_cr": True}}.items():
        run = list(train(*sources, checkpoints=tmp_path / document, name="r", document=document,
                         **TINY, **rule))  # fmt: skip
        assert run
        path = tmp_path / document / "r"
        record = read_record(path)
        for name in old:
            del record["settings"]["corpus"][name]
        write_record(path, record)
        assert not {SEAL, *old} & record["settings"]["corpus"].keys()
        session = resume(path, {"training": {"steps": 3}})
        assert "\r" in session.dataset.vocabulary.ids
        list(session.records())
        assert read_record(path)["settings"]["corpus"]["keep_cr"] is True
        session = resume(path, {"training": {"steps": 4}})  # the settings are written out now
        session.lock.release()
    new = list(train(*sources, checkpoints=tmp_path / "new", name="r", **TINY))
    assert new
    record = read_record(tmp_path / "new" / "r")
    record["settings"]["corpus"]["glue"] = True
    write_record(tmp_path / "new" / "r", record)
    with pytest.raises(CorpusError, match="has changed"):
        resume(tmp_path / "new" / "r", {"training": {"steps": 3}})
