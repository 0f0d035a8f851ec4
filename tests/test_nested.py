"""Texts inside the objects of JSON rows: read if they are named, and named in messages."""

import json
import sys
from pathlib import Path

import pytest

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.corpus import Corpus
from charlm.text.examples import read_examples
from charlm.text.parallel_files import read_pairs
from charlm.text.sources.nested import inner_names, leaves, with_inner
from charlm.text.sources.text_lines import FileRules

ROWS = [
    {"id": 1, "translation": {"en": "a dog", "de": "ein Hund"}, "meta": {"by": {"name": "x"}}},
    {"id": 2, "translation": {"en": "a cat"}, "meta": {"by": {"name": "y"}}},
]


def written(folder: Path, rows: list) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def refused(path: str, **fields: str) -> str:
    with pytest.raises(CorpusError) as caught:
        list(Corpus([path], **fields).records())
    return str(caught.value)


def test_leaves_are_the_fields_of_objects() -> None:
    row = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [{"g": 4}]}
    assert dict(leaves(row)) == {"b.c": 2, "b.d.e": 3}
    assert with_inner(row, ["b.d.e", "b.x"]) == {**row, "b.d.e": 3, "b.x": None}
    assert inner_names([row], ["b.c", "a", None, "b.c", "b.x"]) == ["b.c"]
    assert inner_names([{"b": {"c": 1}, "b.c": 2}], ["b.c"]) == []  # a column comes first
    deep: dict = {}
    for _ in range(20_000):
        deep = {"a": deep}
    assert len(list(leaves(deep))) == 1


def test_a_named_field_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    records = list(Corpus([path], column="translation.de").records())
    assert [record.text for record in records] == ["ein Hund", None]
    assert "translation.de" not in records[0].cells
    names = [each.text for each in Corpus([path], column="meta.by.name").records()]
    assert names == ["x", "y"]


def test_pairs_and_labels_may_be_fields(tmp_path: Path) -> None:
    path = written(tmp_path, ROWS)
    reading = ReadSettings(column="translation.en")
    pairs = read_pairs([path], FileRules(settings=reading, target="translation.de"))
    assert [(each.source, each.target) for each in pairs] == [
        ("a dog", "ein Hund"), ("a cat", None)
    ]  # fmt: skip
    labelled = read_examples([path], FileRules(settings=reading, target="meta.by.name"))
    assert [(each.text, each.label) for each in labelled] == [("a dog", "x"), ("a cat", "y")]


def test_messages_name_the_fields(tmp_path: Path) -> None:
    """They said only that there is no column of text, or that a column holds an object."""
    path = written(tmp_path, ROWS)
    fields = "Texts are inside objects: translation.en, translation.de, meta.by.name. Name one"
    assert fields in refused(path)
    assert "Texts are inside objects: translation.en, translation.de. Name one" in refused(
        path, column="translation"
    )
    assert fields in refused(path, column="translation.fr")
    with pytest.raises(CorpusError, match=r"or a field of it: translation\.NAME"):
        reading = ReadSettings(column="meta.by.name")
        list(read_examples([path], FileRules(settings=reading, target="translation")))


def test_fields_beside_the_text_are_reported(tmp_path: Path) -> None:
    corpus = Corpus([written(tmp_path, [{"id": "x", "doc": {"body": "hello"}}])])
    assert [each.text for each in corpus.records()] == ["x"]
    assert any("texts inside objects (doc.body) are not read" in each for each in corpus.warnings)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([{"role": "user", "content": "hi"}], "lists of objects (role, content)"),
        (["a", "b"], "holds lists. Join each"),
    ],
)
def test_lists_are_refused_with_a_way_to_convert_them(
    value: list, found: str, tmp_path: Path
) -> None:
    path = written(tmp_path, [{"messages": value}])
    for fields in ({}, {"column": "messages"}):
        problem = refused(path, **fields)
        assert found in problem and "jq -c" in problem


def test_files_are_joined_with_their_own_fields(tmp_path: Path) -> None:
    """A field that a later file has as a column is that column."""
    first = written(tmp_path, ROWS)
    second = tmp_path / "second.jsonl"
    second.write_text('{"translation.en": "own"}\n', encoding="utf-8")
    corpus = Corpus([first, str(second)], column="translation.en")
    assert [each.text for each in corpus.records()] == ["a dog", "a cat", "own"]


def test_lists_that_are_too_deep_are_refused(tmp_path: Path) -> None:
    """Beside the text they ended in a traceback. Python 3.14 writes lists far deeper."""
    path = tmp_path / "deep.jsonl"
    deep = "[" * 900 + "]" * 900
    path.write_text(f'{{"text": "a", "x": {deep}}}\n', encoding="utf-8")
    if sys.version_info >= (3, 14):
        assert [each.cells for each in Corpus([str(path)]).records()] == [{"x": deep}]
    else:
        assert "line 1 has lists or objects in each other that are too deep" in refused(str(path))
    assert list(Corpus([str(path)]).chunks())  # which needs only the text


@pytest.fixture
def parquet(tmp_path: Path) -> str:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return str(path)


def test_fields_of_parquet_are_those_of_json(parquet: str, tmp_path: Path) -> None:
    """As `translation` of data sets of pairs on the hub, which held a struct."""
    path = written(tmp_path, ROWS)
    for column in ("translation.en", "translation.de", "meta.by.name"):
        found, expected = (Corpus([each], column=column) for each in (parquet, path))
        assert "".join(found.chunks()) == "".join(expected.chunks())
        names = [[(row.text, row.cells) for row in each.records()] for each in (found, expected)]
        assert [text for text, _ in names[0]] == [text for text, _ in names[1]]
        assert all(column not in cells and "id" in cells for _, cells in names[0])
    reading = ReadSettings(column="translation.en")
    pairs = read_pairs([parquet], FileRules(settings=reading, target="translation.de"))
    assert [(each.source, each.target) for each in pairs] == [
        ("a dog", "ein Hund"), ("a cat", None)
    ]  # fmt: skip


def test_messages_name_the_fields_of_parquet(parquet: str) -> None:
    fields = "Texts are inside objects: translation.de, translation.en, meta.by.name. Name one"
    for options in ({}, {"column": "translation.fr"}):
        problem = refused(parquet, **options)
        assert set(fields.replace(",", "").split()) <= set(problem.replace(",", "").split())
    assert "holds an object, expected text. Texts are" in refused(parquet, column="translation")
    assert "holds the number 1, expected text" in refused(parquet, column="id")
