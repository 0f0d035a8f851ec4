"""Readers of labelled texts: one result whatever the format, and bad input named by its place."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import charlm.text.dataset
from charlm.config.corpus import CorpusSettings, ReadSettings, VocabularySettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.errors import CharlmError
from charlm.text.encoded import write_encoded
from charlm.text.examples import Example, LabelColumns, near_targets, read_examples
from charlm.text.labelled import LABELLED
from charlm.text.labels import write_targets
from charlm.text.parallel_files import PairColumns
from charlm.text.sources.rows import TwoColumns
from charlm.text.sources.text_lines import FileRules

PAIRS = [(f'"Film {i}" is {word}, café!', label) for i in range(12) for word, label in
         (("stirring", "pos"), ("dull", "neg"), ("long\u2019s", "so so"))]  # fmt: skip
WORDS = VocabularySettings(unit="word", words="bare", lowercase=True, max_size=100)


def as_tsv(folder: Path, pairs) -> Path:
    rows = ["label\tid\ttext", *(f"{label}\t{i}\t{text}" for i, (text, label) in enumerate(pairs))]
    return written(folder / "x.tsv", "\n".join(rows) + "\n")


def as_csv(folder: Path, pairs) -> Path:
    cells = [(text.replace('"', '""'), label) for text, label in pairs]
    rows = [f'"{text}";{label}' for text, label in cells]
    return written(folder / "x.csv", "\r\n".join(["Sentence;Label", *rows]))


def as_jsonl(folder: Path, pairs) -> Path:
    rows = [json.dumps({"review": text, "sentiment": label}) for text, label in pairs]
    return written(folder / "x.jsonl", "\n".join(rows))


def as_json(folder: Path, pairs) -> Path:
    rows = [{"class": label, "n": 3, "text": text} for text, label in pairs]
    return written(folder / "x.json", json.dumps({"data": rows}))


def as_parquet(folder: Path, pairs) -> Path:
    table = pytest.importorskip("pyarrow").table(
        {"text": [text for text, _ in pairs], "label": [label for _, label in pairs]}
    )
    pytest.importorskip("pyarrow.parquet").write_table(table, folder / "x.parquet")
    return folder / "x.parquet"


def as_fast_text(folder: Path, pairs) -> Path:
    return written(folder / "x.txt", "\n\n".join(f"__label__{b} {a}" for a, b in pairs))


def as_folder(folder: Path, pairs) -> Path:
    for number, (text, label) in enumerate(pairs):
        written(folder / "tree" / label / f"{number:03}.txt", text + "\n")
    return folder / "tree"


FORMATS: dict[str, Callable[..., Path]] = {
    "tsv": as_tsv, "csv": as_csv, "jsonl": as_jsonl, "json": as_json, "parquet": as_parquet,
    "fasttext": as_fast_text, "folder": as_folder,
}  # fmt: skip


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def examples(path: Path, target: str | None = None, **reading) -> list[Example]:
    rules = FileRules(settings=ReadSettings(**reading), target=target)
    return list(read_examples([str(path)], rules))


def problem(path: Path, target: str | None = None, **reading) -> str:
    with pytest.raises(CharlmError) as raised:
        examples(path, target, **reading)
    return str(raised.value).replace(str(path.parent) + "/", "")


def notes(path: Path) -> list[str]:
    warnings: list[str] = []
    list(read_examples([str(path)], FileRules(warn=warnings.append)))
    return [warning.replace(str(path.parent) + "/", "") for warning in warnings]


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_texts_and_labels(form, tmp_path):
    pairs = [(text, label.replace(" ", "-")) for text, label in PAIRS]
    found = [(each.text, each.label) for each in examples(FORMATS[form](tmp_path, pairs))]
    assert sorted(found) == sorted(pairs)


def test_copies_of_a_set_give_the_same_files(tmp_path):
    """fastText lines, tables and folders: the same bytes in the folder data of a run."""
    pairs = sorted(((text, label.replace(" ", "-")) for text, label in PAIRS), key=lambda p: p[1])
    content: dict[str, bytes] = {}
    for form, write in FORMATS.items():
        path = write(tmp_path / form if form != "parquet" else tmp_path, pairs)
        settings = CorpusSettings(sources=(str(path),), document="line")
        task = TaskSettings(task="classify")
        data = LABELLED.load(Settings(corpus=settings, vocabulary=WORDS, task=task))
        assert data.labelled is not None
        for name in ("train", "valid"):
            folder = tmp_path / "data" / form / name
            write_encoded(folder, data.split(name))
            write_targets(folder, data.labelled.targets[name])
            for file in ("ids.bin", "ends.bin", "counts.json", "targets.bin"):
                known = content.setdefault(f"{name}/{file}", (folder / file).read_bytes())
                assert (folder / file).read_bytes() == known, (form, name, file)


def test_columns_without_names_are_numbered_from_one(tmp_path):
    """The form of the 1.6 million tweets: label first, text sixth."""
    path = written(
        tmp_path / "x.csv", '"0","1","d","q","u","a, b"\n"4","2","d","q","u","caf\xe9"\n'
    )
    path.write_bytes(path.read_text().encode("latin-1"))
    found = examples(path, "1", header=False, column="6", encoding="latin-1")
    assert [(each.text, each.label) for each in found] == [("a, b", "0"), ("caf\xe9", "4")]
    assert found[1].place.endswith("x.csv: line 2")


@pytest.mark.parametrize("target", [None, "label", "2"])
def test_the_only_other_column_of_text_is_read(target, tmp_path):
    path = written(tmp_path / "x.tsv", "n\tlabel\tcomment\n1\ta\tb c\n2\td\te\n")
    assert [each[:2] for each in examples(path, target)] == [("b c", "a"), ("e", "d")]


def test_numbers_of_json_are_labels_as_they_are_written(tmp_path):
    path = written(tmp_path / "x.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": 1.50}\n'
                   '{"text": "c", "label": null}\n')  # fmt: skip
    assert [each.label for each in examples(path)] == ["1", "1.50", None]


@pytest.mark.parametrize("cell", [["a", "b"], {"name": "a"}, []])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_list_or_an_object_is_no_label(form, cell, tmp_path):
    """In silence, each different list would be a label of its own."""
    rows = [{"text": "t", "label": None}, {"text": "u", "label": cell}]
    path = tmp_path / f"x.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pandas = pytest.importorskip("pandas")
        pandas.DataFrame(rows).to_parquet(path)
    assert f'2: the column "label" holds {json.dumps(cell)}, expected one label' in problem(path)


def test_one_sentence_names_the_columns_of_texts_and_labels(tmp_path):
    path = as_tsv(tmp_path, PAIRS)
    assert notes(path) == [
        'x.tsv: texts are in the column "text", labels in "label"; fields are separated by tabs. '
        "Its columns: label, id, text."
    ]


@pytest.mark.parametrize(
    ("form", "column", "target"),
    [("tsv", "text", "label"), ("jsonl", "review", "sentiment"), ("parquet", "text", "label")],
)
def test_a_column_of_labels_that_nobody_named_is_reported(form, column, target, tmp_path):
    path, reading = FORMATS[form](tmp_path, PAIRS), ReadSettings(column=column)
    reports: list[str] = []
    rules = FileRules(settings=reading, target=target, warn=reports.append)
    list(read_examples([str(path)], rules))
    assert not reports
    list(read_examples([str(path)], replace(rules, target=None)))
    assert len(reports) == 1 and f'"{column}", labels in "{target}"' in reports[0]


def test_files_beside_label_folders_are_skipped_and_counted(tmp_path):
    path = as_folder(tmp_path, PAIRS)
    written(path / "README.txt", "x")
    written(path / "urls.txt", "y")
    assert len(examples(path)) == len(PAIRS)
    assert notes(path) == [
        "tree/README.txt and 1 other file were skipped, beside folders whose names are labels."
    ]


def test_folders_inside_label_folders_are_reported(tmp_path):
    """The form of the reviews of IMDb, whose folders train and test hold the folders of labels."""
    for place in ("train/neg/1.txt", "train/pos/2.txt", "test/neg/3.txt"):
        written(tmp_path / "set" / place, "x")
    assert {each.label for each in examples(tmp_path / "set")} == {"train", "test"}
    assert notes(tmp_path / "set") == [
        "set/test holds folders, such as neg; all its texts have the label test. If its folders "
        "are the labels, name set/test instead."
    ]


def test_texts_without_labels_are_read_for_predictions(tmp_path):
    plain = written(tmp_path / "x.txt", "a film\r\n\r\ndull")
    read = read_examples([str(plain)], FileRules(needed=False))
    assert [(each.text, each.label) for each in read] == [("a film", None), ("", None),
                                                          ("dull", None)]  # fmt: skip
    table = written(tmp_path / "x.csv", "text,n\na,1\n,2\n")
    read = read_examples([str(table)], FileRules(needed=False))
    assert [(each.text, each.label) for each in read] == [("a", None), (None, None)]
    for file, expected in ((table, 'no column "missing"'), (plain, "no source is a table")):
        with pytest.raises(CharlmError, match=expected):
            list(read_examples([str(file)], FileRules(target="missing", needed=False)))
    fast = as_fast_text(tmp_path, [("a", "x")])
    assert [e.label for e in read_examples([str(fast)], FileRules(needed=False))] == ["x"]


@pytest.mark.skipif("CHARLM_DATA" not in os.environ, reason="CHARLM_DATA names no folder of data")
def test_quotes_of_a_tsv_file_are_text() -> None:
    """The story: with the quotes of CSV, 46 of the 6,920 sentences of SST-2 were swallowed."""
    found = examples(Path(os.environ["CHARLM_DATA"], "tasks/sst2/train.tsv"))
    assert len(found) == 6920 and all(each.text and each.label for each in found)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("name", "content", "target", "expected"),
    [
        ("x.tsv", "label\ttext\na\tb\n", "stars", 'no column "stars". Its columns: label, text.'),
        ("x.tsv", "stars\ttext\na\tb\n", "star", 'Did you mean "stars"?'),
        ("x.tsv", "stars\ttext\na\tb\n", None, "x.tsv has no column with a name of labels. Its"),
        ("x.tsv", "label\ta\tb\nx\ty\tz\n", None, "several columns of text. Its columns: label"),
        ("x.tsv", "text\ta\nx\ty\n", "text", 'the column "text" holds the texts; expected another'),
        (
            "x.tsv",
            "0\tA dull film.\n4\tb\n",
            None,
            "Use --no-header --target N --column 2, or --hea",
        ),
        ("x.txt", "__label__a b\n\nc\n", None, "x.txt: line 3 does not begin with __label__ (it"),
        ("x.txt", "a\n__label__a b\n", None, "x.txt: line 1 does not begin with __label__ (it is"),
        ("x.txt", "__label__a __label__b c\n", None, "x.txt: line 1 has several labels; expected"),
        ("x.txt", "__label__a b\n__label__a c\t__label__b\n", None, "line 2 has several labels"),
        ("x.txt", "a film\n", None, "x.txt has no labels; expected a table with a column of them"),
        ("x.txt", "__label__a b\n", "label", "target was given, but no source is a table"),
        ("x.txt", "__label__a b\n__label__c caf\xe9 et th\xe9 fran\xe7ais\n", None, "seems to"),
        ("x.tsv", "label\ttext\na\tcaf\xe9 fran\xe7ais\n", None, "9 is not valid UTF-8; the file"),
    ],
)
def test_bad_input_is_refused_with_its_place(name, content, target, expected, tmp_path):
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    assert expected in problem(path, target)


def test_only_a_table_whose_first_row_may_be_data_has_advice_about_it(tmp_path: Path) -> None:
    """The story: it was given twice, and about JSON lines."""
    (tmp_path / "x.tsv").write_text("human\tmachine\na\tb\n")
    (tmp_path / "x.jsonl").write_text('{"a": "x", "b": "y"}\n')
    assert problem(tmp_path / "x.tsv").count("irst row is data, add --no-header") == 1
    assert problem(tmp_path / "x.jsonl").endswith("Its columns: a, b. Name it with target")


def load(path: Path, target: str | None = None, **settings) -> charlm.text.dataset.Dataset:
    corpus = CorpusSettings(sources=(str(path),), document="line", **settings)
    task = TaskSettings(task="classify", target=target)
    return LABELLED.load(Settings(corpus=corpus, vocabulary=WORDS, task=task))


def test_a_dataset_has_the_name_of_its_first_folder_or_file(tmp_path):
    assert load(as_folder(tmp_path, PAIRS)).name == "tree"
    assert load(as_tsv(tmp_path, PAIRS).with_suffix(".ts?")).name == "x"


def test_a_column_with_different_cells_is_refused_and_a_better_one_named(tmp_path):
    with pytest.raises(
        CharlmError, match=r"36 of 36 labels are different.*Did you mean target lab"
    ):
        load(as_tsv(tmp_path, PAIRS), "id")
    with pytest.raises(CharlmError, match=r"Choose the column of the labels$"):
        load(as_fast_text(tmp_path, [(text, str(i)) for i, (text, _) in enumerate(PAIRS)]))


def test_standard_input_is_not_read_again_for_advice():
    """A second look at a named pipe would wait for ever."""
    assert near_targets(["-"], ReadSettings(input_format="tsv"), "id") == ""


def test_labels_that_are_rare_or_not_in_training_are_reported(tmp_path):
    path = as_tsv(tmp_path, [*PAIRS, ("x", "rare\x1b"), ("y", "odd")])
    test = as_fast_text(tmp_path, [("a", "pos"), ("b", "new"), (PAIRS[0][0], "pos"), ("c", "odd")])
    written(test, test.read_text() + f"\n__label__neg {PAIRS[1][0]}\n")
    data = load(path, test=(str(test),))
    assert data.labelled is not None
    assert data.labelled.targets["test"].tolist()[1] == -1
    assert [warning for warning in data.warnings if "columns" not in warning][:3] == [
        "2 labels have only one training text, too few to learn: odd, rare\\x1b",
        "Labels of the test text that training lacks: new (1 text, counted as wrong)",
        "2 of 5 test texts are in the training text too, so the test figures look better than they "
        "are. Remove the repeats",
    ]


def test_a_language_model_reports_a_column_of_labels(tmp_path):
    path = as_tsv(tmp_path, PAIRS)
    data = charlm.text.dataset.load_dataset(CorpusSettings(sources=(str(path),)), WORDS)
    assert f"{path} has a column of labels (label); --task classify reads it" in data.warnings


@pytest.mark.parametrize("kind", [LabelColumns, PairColumns])
def test_a_second_column_may_have_an_empty_name(kind: type[TwoColumns]) -> None:
    """Another column with a usual name is not read instead."""
    columns = ["", "text", "label"]
    assert kind(target="1").second_column("x.jsonl", columns, "text") == ""
