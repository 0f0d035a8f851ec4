"""Readers of texts with translations: tables, parallel files, and bad input named by its place."""

import gzip
import json
from pathlib import Path

import pytest

from charlm.config.corpus import ReadSettings
from charlm.errors import CharlmError
from charlm.text.parallel_files import Pair, parallel_name, read_pairs

PAIRS = [("A dog runs.", "Ein Hund läuft."), ('"Stop", he said.', "„Halt“, sagte er.")]


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def as_tsv(folder: Path) -> Path:
    return written(folder / "x.tsv", "".join(f"{a}\t{b}\n" for a, b in [("en", "de"), *PAIRS]))


def as_jsonl(folder: Path) -> Path:
    rows = [json.dumps({"id": i, "en": a, "de": b}) for i, (a, b) in enumerate(PAIRS)]
    return written(folder / "x.jsonl", "\n".join(rows))


def as_parquet(folder: Path) -> Path:
    columns = {"en": [a for a, _ in PAIRS], "de": [b for _, b in PAIRS]}
    table = pytest.importorskip("pyarrow").table(columns)
    pytest.importorskip("pyarrow.parquet").write_table(table, folder / "x.parquet")
    return folder / "x.parquet"


def as_files(folder: Path) -> Path:
    for ending, side in (("en", 0), ("de", 1)):
        written(folder / f"x.{ending}", "".join(pair[side] + "\r\n" for pair in PAIRS))
    return folder / "x.en"


def as_packed(folder: Path) -> Path:
    for ending, side in (("en", 0), ("de", 1)):
        text = "\n".join(pair[side] for pair in PAIRS)
        (folder / f"x.{ending}.gz").write_bytes(gzip.compress(text.encode()))
    return folder / "x.en.gz"


def pairs(
    path: Path, target: str | None = None, *, needs=True, warn=lambda _: None, like=None, **reading
) -> list[Pair]:
    settings = ReadSettings(**reading)
    read = read_pairs([str(path)], settings, target, warn, needs_targets=needs, like=like)
    return list(read)


def problem(path: Path, target: str | None = None, **options) -> str:
    with pytest.raises(CharlmError) as raised:
        pairs(path, target, **options)
    return str(raised.value).replace(str(path.parent) + "/", "")


@pytest.mark.parametrize("write", [as_tsv, as_jsonl, as_parquet, as_files, as_packed])
def test_formats_give_the_same_pairs(write, tmp_path):
    path = write(tmp_path)
    target = str(path).replace(".en", ".de") if ".en" in path.name else "de"
    column = None if ".en" in path.name else "en"
    assert [pair[:2] for pair in pairs(path, target, column=column)] == PAIRS


def test_two_columns_need_no_names(tmp_path):
    warnings: list[str] = []
    read = pairs(as_tsv(tmp_path), warn=warnings.append)
    assert read[0] == Pair(*PAIRS[0], f"{tmp_path}/x.tsv: line 2")
    assert 'texts are in the column "en", translations in "de"' in warnings[0]
    assert [pair[:2] for pair in pairs(tmp_path / "x.tsv", "en")] == [p[::-1] for p in PAIRS]
    assert [pair[:2] for pair in pairs(tmp_path / "x.tsv", "1", column="2")] == [
        pair[::-1] for pair in PAIRS
    ]


def test_texts_alone_are_read_too(tmp_path):
    lines = written(tmp_path / "x.txt", "One.\n\nTwo.\n")
    assert [pair[:2] for pair in pairs(lines, needs=False)] == [
        ("One.", None), (None, None), ("Two.", None)
    ]  # fmt: skip
    assert pairs(as_tsv(tmp_path), needs=False)[0][:2] == PAIRS[0]


def test_empty_sides_are_missing(tmp_path):
    table = written(tmp_path / "x.tsv", "a\tb\nx\ty\n \tz\nw\t\n")
    assert [pair[:2] for pair in pairs(table)] == [("x", "y"), (None, "z"), ("w", None)]


@pytest.mark.parametrize(
    ("source", "target", "other", "expected"),
    [
        ("train.en", "train.de", "dev.en", "dev.de"),
        ("train.en.gz", "train.de.gz", "dev.en.gz", "dev.de.gz"),
        ("en/train.txt", "de/train.txt", "en/dev.txt", "de/dev.txt"),
        ("a/train_src.txt", "a/train_tgt.txt", "a/dev_src.txt", "a/dev_tgt.txt"),
        ("train.en", "/data/train.de", "dev.en", "/data/dev.de"),
        ("train.de-en.en", "train.de-en.de", "dev.de-en.en", "dev.de-en.de"),
        ("train.en", "train.de", "dev.fr", ""),
    ],
)
def test_names_of_parallel_files_follow_from_the_first_two(source, target, other, expected):
    assert parallel_name(source, target, other) == expected


def test_held_out_files_are_found_by_name(tmp_path):
    train, warnings = as_files(tmp_path), list[str]()
    written(tmp_path / "dev.en", "One.\n")
    options = {"target": str(tmp_path / "x.de"), "like": str(train), "warn": warnings.append}
    assert problem(tmp_path / "dev.en", **options).startswith(
        "dev.en has no file of translations as x.de for x.en: dev.de is not there. Expected one"
    )
    written(tmp_path / "dev.de", "Eins.\n")
    assert pairs(tmp_path / "dev.en", **options)[0][:2] == ("One.", "Eins.")
    assert warnings[0].endswith("dev.en: its translations are in " + str(tmp_path / "dev.de") + ".")


def test_bad_tables_are_refused(tmp_path):
    three = written(tmp_path / "three.tsv", "id\ten\tde\nx\ty\tz\n")
    assert problem(three).startswith(
        "three.tsv: which column holds the texts and translations is not clear. Its columns: id, "
        "en, de. Name it with column and target"
    )
    assert "the translations is not clear" in problem(three, column="en")
    assert "the texts is not clear" in problem(three, "de")
    assert 'three.tsv has no column "dee". Its columns: id, en, de. Did you mean "de"?' in problem(
        three, "dee", column="en"
    )
    assert 'the column "en" is both source and translation' in problem(three, "en", column="en")
    one = written(tmp_path / "one.tsv", "en\nx\n")
    assert "the translations is not clear" in problem(one)
    nested = written(tmp_path / "x.jsonl", '{"en": "x", "de": ["y"]}\n')
    assert """line 1: the column "de" holds ["y"], expected a text""" in problem(
        nested, "de", column="en"
    )


def test_bad_parallel_files_are_refused(tmp_path):
    source = as_files(tmp_path)
    longer = written(tmp_path / "x.fr", "Un.\nDeux.\nTrois.\n")
    assert problem(source, str(longer)) == (
        "x.en has 2 lines, x.fr 3; expected as many, a translation for each line. Add or remove "
        "lines where they begin to differ"
    )
    assert problem(source).startswith("x.en is plain text and target is not given; expected the")
    assert "x.xx is not there" in problem(source, str(tmp_path / "x.xx"))
    assert "x.en is both source and translation" in problem(source, str(source))
    assert problem(Path("-"), str(longer)).startswith("standard input has no parallel file; ")
    binary = tmp_path / "x.bin"
    binary.write_bytes(b"\x7fELF\0\0\1\2" * 100)
    assert problem(source, str(binary)).startswith("x.bin ")
    written(tmp_path / "x.latin", "Eins.\n")
    (tmp_path / "x.latin").write_bytes("Läuft.\nHalt.\n".encode("latin-1"))
    assert "x.latin" in problem(source, str(tmp_path / "x.latin"))
