"""Sentences of tagged words in tables: lists of words and tags, or a word in each row."""

import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from helpers import Call
from hypothesis import given
from hypothesis import strategies as st

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.sources.rows import Columns
from charlm.text.sources.text_lines import FileRules
from charlm.text.tagged_files import read_sentences
from charlm.text.tagged_tables import Sentence

SENTENCES = [
    (("EU", "rejects", "German", "call"), ("B-ORG", "O", "B-MISC", "O")),
    (("Peter", "left", "."), ("B-PER", "O", "O")),
]
TOO_DEEP = "too deep" if sys.version_info < (3, 14) else "line 1 has '[[["
"""Python 3.14 writes lists far deeper, so they are shown as a tag that is none."""


def read(
    path: Path, *, needs_tags: bool = True, columns: Columns | None = None, **options
) -> tuple[list[Sentence], str]:
    """Return the sentences of a file, and all warnings."""
    target, warnings = options.pop("target", None), list[str]()
    rules = FileRules(
        settings=ReadSettings(**options), target=target, needed=needs_tags, warn=warnings.append,
        columns=columns or Columns(),
    )  # fmt: skip
    return list(read_sentences([str(path)], rules)), " ".join(warnings)


def refused(path: Path, **options) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path, **options)
    return str(caught.value)


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def words_in_rows(header: str, end: str = "", key: bool = False) -> str:
    """A table with a word in each row, its tag behind it; `key` numbers the sentences first."""
    rows = [header]
    for number, (words, tags) in enumerate(SENTENCES):
        pairs = zip(words, tags, strict=True)
        rows += [f"{number}," * key + f"{word},{tag}" for word, tag in pairs] + [end] * (not key)
    return "\n".join(rows) + "\n"


def tables(folder: Path) -> dict[str, Path]:
    """The same sentences in tables of each form."""
    rows = [{"id": "x", "tokens": list(w), "ner_tags": list(t)} for w, t in SENTENCES]
    parquet = folder / "lists.parquet"
    table = {name: [row[name] for row in rows] for name in ("tokens", "ner_tags")}
    pyarrow.parquet.write_table(pyarrow.table(table), parquet)
    kaggle = words_in_rows("Sentence #,Word,Tag", key=True).replace("\n0,", "\n,")
    return {
        "jsonl": written(folder, "lists.jsonl", lines(rows)),
        "json": written(folder, "lists.json", json.dumps(rows)),
        "parquet": parquet,
        "blank lines": written(folder, "blank.csv", words_in_rows("token,tag")),
        "empty rows": written(folder, "empty.csv", words_in_rows("token,tag", ",")),
        "numbered": written(folder, "key.csv", words_in_rows("sentence_id,word,ner", key=True)),
        "kaggle": written(folder, "kaggle.csv", kaggle.replace(",EU", "Sentence: 1,EU")),
        "tabs": written(folder, "x.tsv", words_in_rows("token,tag").replace(",", "\t")),
    }


def test_all_forms_have_the_same_sentences(tmp_path: Path) -> None:
    for form, path in tables(tmp_path).items():
        found, warnings = read(path)
        assert [(each.words, each.tags) for each in found] == SENTENCES, form
        assert "words are in the column" in warnings and "tags in" in warnings
        found, _ = read(path, needs_tags=False)
        assert [each.words for each in found] == [words for words, _ in SENTENCES], form


@given(
    st.lists(
        st.lists(
            st.tuples(*[st.text(st.characters(codec="utf-8"), min_size=1)] * 2), min_size=1
        ),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_any_lists_are_read_exactly_or_refused(
    tmp_path_factory: pytest.TempPathFactory, sentences: list[list[tuple[str, str]]]
) -> None:
    """Words are as written; tags lose blanks around them. A blank one is refused."""
    rows = [{"tokens": [w for w, _ in s], "tags": [t for _, t in s]} for s in sentences]
    path = written(tmp_path_factory.mktemp("any"), "x.jsonl", lines(rows))
    pairs = [pair for sentence in sentences for pair in sentence]
    parts = [part for word, tag in pairs for part in (word, tag.strip())]
    if all(part.strip() and not set(part) & set("\t\r\n") for part in parts):
        found, _ = read(path)
        assert [list(each.words) for each in found] == [row["tokens"] for row in rows]
        assert [list(each.tags or ()) for each in found] == [
            [tag.strip() for tag in row["tags"]] for row in rows
        ]
    else:
        assert "Correct that row" in refused(path)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_tags_that_are_numbers_are_names_of_classes(form: str, tmp_path: Path) -> None:
    """As in data sets of Hugging Face, whose names are elsewhere; which is said."""
    path = tmp_path / f"x.{form}"
    tokens, tags = [["a", "b"], ["c"]], [[0, 3], [12]]
    if form == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"tokens": tokens, "ner_tags": tags}), path)
    else:
        pairs = zip(tokens, tags, strict=True)
        written(tmp_path, path.name, lines([{"tokens": w, "ner_tags": t} for w, t in pairs]))
    found, warnings = read(path)
    assert [each.tags for each in found] == [("0", "3"), ("12",)]
    assert "tags are numbers" in warnings and "spans are not recognised" in warnings


def test_columns_are_preferred_named_or_those_of_a_run(tmp_path: Path) -> None:
    row = {"tokens": ["a", "b"], "pos_tags": ["N", "V"], "ner_tags": ["O", "B-X"], "raw": ["c"]}
    path = written(tmp_path, "x.jsonl", lines([row]))
    assert read(path)[0][0].tags == ("O", "B-X")
    assert read(path, target="pos_tags")[0][0].tags == ("N", "V")
    known = Columns(text="tokens", target="pos_tags", run="r")
    found, warnings = read(path, columns=known)
    assert found[0].tags == ("N", "V") and warnings.count("as in training") == 2
    filled = Columns()
    read(path, columns=filled)
    assert filled.record() == {"text": "tokens", "target": "ner_tags"}
    unknown = Columns(text="tokens", target="chunks", run="r")
    assert 'no column "chunks", on which run r was trained' in refused(path, columns=unknown)
    assert 'the column "tokens" holds the words' in refused(path, target="tokens")
    assert 'no column "tgs"' in refused(path, target="tgs")
    assert 'no column "words"' in refused(path, column="words")
    assert "1 word and 2 tags" in refused(path, column="raw")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("x.jsonl", lines([{"tokens": ["a", "b"], "tags": ["O"]}]), "2 words and 1 tag"),
        ("x.jsonl", lines([{"tokens": ["a"]}]), "expected a CoNLL file, or a column of tags"),
        ("x.jsonl", lines([{"text": "a b", "entities": []}]), "or a column of words: rows such as"),
        ("x.jsonl", lines([{"tokens": ["a"], "tags": [["O"]]}]), "as tags; expected a list of"),
        ("x.jsonl", lines([{"tokens": [["a"]], "tags": ["O"]}]), "a list with a list in it"),
        ("x.jsonl", lines([{"tokens": [{"w": "a"}], "tags": ["O"]}]), "a list with an object in"),
        ("x.jsonl", '{"tokens": ' + "[" * 900 + "]" * 900 + ', "tags": []}\n', "list in it"),
        ("x.jsonl", '{"tokens": ["a"], "tags": ' + "[" * 900 + "]" * 900 + "}\n", TOO_DEEP),
        ("x.jsonl", '{"tokens": ["\\ud800"], "tags": ["O"]}\n', "surrogate"),
        ("x.jsonl", lines([{"tokens": ["a"], "tags": "O"}]), "'O' as tags; expected a list"),
        ("x.jsonl", lines([{"tokens": [""], "tags": ["O"]}]), "the word '', which is blank"),
        ("x.jsonl", lines([{"tokens": ["a\nb"], "tags": ["O"]}]), "has a line end or a tab"),
        ("x.jsonl", lines([{"tokens": "a b", "tags": ["O", "O"]}]), "and a list of tags"),
        ("x.jsonl", lines([{"tokens": 3, "tags": ["O"]}]), 'column "tokens" holds the number 3'),
        ("x.jsonl", lines([{"tokens": ["a"], "tags": ["O"]}, {"tokens": "b", "tags": ["O"]}]),
         "line 2 has 'b' as words"),
        ("x.csv", "tokens,tags\n\"['a', 'b']\",\"['O', 'O']\"\n", "as pandas writes it"),
        ("x.csv", "word,tag\na,\nb,O\n", "line 2 has no tag"),
        ("x.csv", "word,tag\na,O\n,O\n", "line 3 has no word"),
        ("x.csv", "word,tag\n" + "a,O\n" * 400, "400 rows and no end of a sentence"),
        ("x.csv", "sent,word,tag\n" + "1,a,O\n" * 400, "400 rows and no end of a sentence"),
        ("x.csv", "sent,tokens,tags\n1,a b,O B-X\n2,c d,O O\n", "several words and tags in a row"),
        ("x.jsonl", lines([{"tokens": "a b", "tags": "O B-X"}]), "(a b: O B-X); expected rows"),
        ("x.csv", 'words,tags\n"[a, b]","[O, B-X]"\n', "several words and tags in a row"),
        ("x.tsv", "EU\tB-ORG\nleft\tO\n\n", "--input-format text if this is a CoNLL file"),
    ],
)  # fmt: skip
def test_other_tables_are_refused(
    name: str, content: str, found: str, tmp_path: Path, call: Call
) -> None:
    path = written(tmp_path, name, content)
    flag = found.startswith("--")
    if flag:
        status, _, err = call("train", str(path), "--task", "tag", "--plan")
        assert status == 3 and found in err
    else:
        assert found in refused(path)


def test_rows_without_words_are_counted(tmp_path: Path) -> None:
    rows = [{"tokens": [], "tags": []}, {"tokens": ["a"], "tags": ["O"]}, {"tokens": None}]
    found, warnings = read(written(tmp_path, "x.jsonl", lines(rows)))
    assert len(found) == 1 and "2 rows without words skipped" in warnings
    found, _ = read(tmp_path / "x.jsonl", needs_tags=False)  # answers keep their places
    assert [each.words for each in found] == [(), ("a",), ()]


def test_texts_of_a_table_are_sentences_to_tag(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", "text,label\nPeter left .,x\nHe ran,y\n")
    found, _ = read(path, needs_tags=False)
    assert [each.words for each in found] == [("Peter", "left", "."), ("He", "ran")]


def test_a_run_learns_and_reads_tables(tmp_path: Path, call: Call) -> None:
    rows = [{"tokens": list(words), "ner_tags": list(tags)} for words, tags in SENTENCES * 10]
    path = written(tmp_path, "train.jsonl", lines(rows))
    where = ("--checkpoints", str(tmp_path / "runs"))
    tiny = ("--hidden", "4", "--embedding", "4", "--steps", "2", "--threads", "1", "-q")
    assert call("train", str(path), "--task", "tag", "--name", "t", *tiny, *where)[0] == 0
    status, _, err = call("eval", "--run", "t", "--file", str(path), *where)
    assert status == 0 and err.count("as in training") == 2
    status, out, err = call("predict", "--run", "t", "--file", str(path), *where)
    assert status == 0 and out.count("\n\n") >= len(rows) - 1 and out.startswith("EU\t")


def test_words_of_a_column_of_a_run_are_no_sentences(tmp_path: Path) -> None:
    """Each was tagged as a sentence of its own, unless the column had a usual name."""
    content = "sent,Wort,Art\n1,EU,X\n1,left,Y\n2,Peter,X\n2,ran,Y\n"
    path = written(tmp_path, "x.csv", content)
    known = Columns(text="Wort", target="Art", run="r")
    for needs_tags in (True, False):
        found, _ = read(path, needs_tags=needs_tags, columns=known)
        assert [each.words for each in found] == [("EU", "left"), ("Peter", "ran")]


@pytest.mark.parametrize("name", ["Wort", " wort"])
def test_words_without_tags_are_sentences_to_tag(name: str, tmp_path: Path) -> None:
    """They were refused as having blank tags, and below another spelling each was a sentence."""
    content = f"sent,{name}\n1,EU\n1,left\n2,Peter\n2,ran\n"
    known = Columns(text="Wort", target="Art", run="r")
    for columns in (known, Columns(text="word", target="tag", run="r")):
        path = written(
            tmp_path, "x.csv", content.replace(name, name if columns is known else "word")
        )
        found, _ = read(path, needs_tags=False, columns=columns)
        assert [each.words for each in found] == [("EU", "left"), ("Peter", "ran")]
        assert all(each.tags is None for each in found)


def test_texts_below_a_usual_name_of_words_are_sentences(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", "words,id\nPeter left .,1\nHe ran,2\nNo,3\n")
    found, _ = read(path, needs_tags=False)
    assert [each.words for each in found] == [("Peter", "left", "."), ("He", "ran"), ("No",)]


def test_rows_that_are_words_or_sentences_are_reported_or_clear(tmp_path: Path) -> None:
    """A row of one word beside one of three was joined to one sentence, without a word."""
    path = written(tmp_path, "x.csv", "tokens\nPeter left .\nHello\n")
    found, warnings = read(path, needs_tags=False)
    assert [each.words for each in found] == [("Peter", "left", "."), ("Hello",)]
    assert "is read as a word" not in warnings
    found, warnings = read(written(tmp_path, "x.csv", "tokens\nPeter\nleft\n"), needs_tags=False)
    assert [each.words for each in found] == [("Peter", "left")]
    assert "each row is read as a word; a sentence ends at an empty row" in warnings


def test_words_and_tags_may_have_blanks(tmp_path: Path) -> None:
    content = "sent,word,tag\n1,New York,proper noun\n1,shines,verb\n2,1 000,number\n2,won,verb\n"
    (first, second), _ = read(written(tmp_path, "x.csv", content))
    assert first.words == ("New York", "shines") and first.tags == ("proper noun", "verb")
    assert second.words == ("1 000", "won")


def test_numbers_of_sentences_may_begin_again_in_each_document(tmp_path: Path) -> None:
    """Two documents of one sentence were one sentence."""
    content = "doc_id,sent_id,word,tag\na,1,EU,X\na,1,left,Y\nb,1,He,X\nb,2,ran,Y\n"
    found, warnings = read(written(tmp_path, "x.csv", content))
    assert [each.words for each in found] == [("EU", "left"), ("He",), ("ran",)]
    assert 'where the column "sent_id" or "doc_id" changes' in warnings


def test_a_later_table_without_words_is_refused_by_the_first(tmp_path: Path) -> None:
    """The error named a run, and none was read."""
    first = written(tmp_path, "a.csv", "word,tag\nEU,O\n")
    later = written(tmp_path, "b.csv", "tag\nO\nB-X\n")
    with pytest.raises(CorpusError, match='no column "word", as the first table has; its column'):
        list(read_sentences([str(first), str(later)], FileRules()))
    told = refused(later, columns=Columns(text="word", target="tag", run="r"), needs_tags=False)
    assert 'no column "word", on which run r was trained; its column "tag" is that of' in told
