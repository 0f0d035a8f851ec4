"""Texts with translations: readers of tables and of parallel files, datasets, batches."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from charlm.config.corpus import CorpusSettings, ReadSettings, VocabularySettings
from charlm.config.settings import Settings
from charlm.errors import CharlmError, CorpusError
from charlm.text.batches import PADDING, Position
from charlm.text.dataset import Dataset
from charlm.text.pair_batches import PairGroups, pair_batch
from charlm.text.parallel import MAX_SIDE, PARALLEL, TARGET, Parallel
from charlm.text.parallel_files import Pair, parallel_name, read_pairs
from charlm.text.sources.rows import Columns
from charlm.text.sources.text_lines import FileRules
from charlm.text.task_text import Given, gold_of
from charlm.text.tokenizers.tokenizer_json import EOS

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
    rules = FileRules(settings=settings, target=target, needed=needs, warn=warn)
    return list(read_pairs([str(path)], rules, like))


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
        "dev.en has no file of translations as x.de for x.en: dev.de is not there. Expected one "
        "line for each line. Name files alike, such as train.en train.de and dev.en dev.de"
    )
    written(tmp_path / "dev.de", "Eins.\n")
    assert pairs(tmp_path / "dev.en", **options)[0][:2] == ("One.", "Eins.")
    assert warnings[0].endswith("dev.en: its translations are in " + str(tmp_path / "dev.de") + ".")


def test_bad_tables_are_refused(tmp_path):
    three = written(tmp_path / "three.tsv", "id\ten\tde\nx\ty\tz\n")
    assert problem(three).startswith(
        "three.tsv: which column holds the texts and translations is not clear. Its columns: id, "
        "en, de. Name them with column and target. If its first row is data, add --no-header."
    )
    assert "the translations is not clear" in problem(three, column="en")
    assert "the texts is not clear" in problem(three, "de")
    assert 'three.tsv has no column "dee". Its columns: id, en, de. Did you mean "de"?' in problem(
        three, "dee", column="en"
    )
    assert 'the column "en" holds the texts; expected another' in problem(three, "en", column="en")
    one = written(tmp_path / "one.tsv", "en\nx\n")
    assert problem(one).startswith("one.tsv has one column, en; expected another with the transla")
    known = Columns(text="de", target="en", run="back")
    with pytest.raises(
        CorpusError, match=r'no column "de", on which run back .* its column "en" is'
    ):
        list(read_pairs([str(one)], FileRules(columns=known, needed=False)))
    two = written(tmp_path / "two.csv", "id,en\n1,x\n")
    with pytest.raises(CorpusError, match=r'no column "de", on which run .* "en" is that'):
        list(read_pairs([str(two)], FileRules(columns=known, needed=False)))
    nested = written(tmp_path / "x.jsonl", '{"en": "x", "de": ["y"]}\n')
    assert """line 1: the column "de" holds ["y"], expected one translation""" in problem(
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
    tabs = written(tmp_path / "fra.txt", "Go.\tVa !\tCC-BY\nHi.\tSalut !\tCC-BY\n")
    assert problem(tabs).endswith(
        "It looks like a table (tabs between the fields): add input_format tsv, and --no-header if "
        "its first line is data"
    )
    assert problem(source, str(tmp_path / "x.xx")).endswith(
        "x.xx is not there. Expected one line for each line. Give target an existing file"
    )
    assert "x.en is both source and translation" in problem(source, str(source))
    assert problem(Path("-"), str(longer)).startswith("standard input has no parallel file; ")
    binary = tmp_path / "x.bin"
    binary.write_bytes(b"\x7fELF\0\0\1\2" * 100)
    assert problem(source, str(binary)).startswith("x.bin ")
    written(tmp_path / "x.latin", "Eins.\n")
    (tmp_path / "x.latin").write_bytes("Läuft.\nHalt.\n".encode("latin-1"))
    assert "x.latin" in problem(source, str(tmp_path / "x.latin"))


# ------------------------------------------------------------------ datasets


TEXTS = [(f"a dog and {n} cats", f"ein Hund und {n} Katzen") for n in range(40)]
CHARS = VocabularySettings()
OPEN = ("vocabulary.unit",)


def load(examples=TEXTS, rule=CHARS, *, valid_frac=0.1, **given) -> Dataset:
    corpus = CorpusSettings(document="line", valid_frac=valid_frac)
    settings = Settings(corpus=corpus, vocabulary=rule)
    return PARALLEL.load(settings, Given(examples=examples, **given))


def test_both_sides_have_a_vocabulary_and_end_with_eos():
    dataset = load()
    parallel = gold_of(dataset, Parallel)
    assert set("dog") <= set(dataset.vocabulary.tokens)
    assert "K" in parallel.vocabulary.tokens
    assert "K" not in dataset.vocabulary.tokens
    assert dataset.valid is not None
    assert (dataset.train.documents, dataset.valid.documents) == (36, 4)
    for split in ("train", "valid"):
        sources, targets = dataset.split(split), parallel.texts[split]
        assert parallel.total(split) == len(targets.ids)
        assert (targets.ids[targets.ends - 1] == EOS).all()
        assert sources.documents == targets.documents
    decoded = [
        (dataset.vocabulary.decode(a), parallel.vocabulary.decode(b))
        for a, b in zip(
            np.split(dataset.valid.ids, dataset.valid.ends - 1)[:1],
            np.split(parallel.texts["valid"].ids, parallel.texts["valid"].ends - 1)[:1],
            strict=True,
        )
    ]
    assert decoded[0] == parallel.pairs["valid"][0]
    assert set(parallel.pairs["valid"]) < set(TEXTS)
    assert list(parallel.pairs) == ["valid"]


def test_short_translations_are_read_by_characters_unless_the_user_chose():
    bpe = VocabularySettings(unit="bpe", max_size=300)
    long = [(a, b * 3) for a, b in TEXTS]
    assert load(rule=bpe).vocabulary.unit == "bpe"
    assert load(long, bpe, open_settings=OPEN).vocabulary.unit == "bpe"
    dataset = load(rule=bpe, open_settings=OPEN)
    assert dataset.vocabulary.unit == gold_of(dataset, Parallel).vocabulary.unit == "char"
    assert len(dataset.vocabulary) > 10 and dataset.vocabulary.settings.max_size == 300
    assert "both texts are read by characters" in "".join(dataset.warnings)


def test_kept_vocabularies_stay():
    first = load()
    target = gold_of(first, Parallel).vocabulary
    again = load([("zz", "yy"), ("a", "b")], vocabulary=first.vocabulary, more={TARGET: target})
    assert again.vocabulary is first.vocabulary
    assert gold_of(again, Parallel).vocabulary is target


def test_the_limits_of_a_vocabulary_that_grows_are_those_of_the_target_too():
    first = load([("zz", "yy"), ("a", "b")], valid_frac=0).vocabulary
    rule = VocabularySettings(unit="char", min_count=2)
    rare = [("abcab", "xyzxy"), ("ab", "xy")]
    grown = load(rare, rule, vocabulary=first, grow=True, valid_frac=0)
    assert grown.vocabulary.tokens == [*first.tokens, "b"]
    assert gold_of(grown, Parallel).vocabulary.tokens[2:] == ["x", "y"]


def test_long_pairs_are_left_out():
    dataset = load([*TEXTS, ("a" * 100_000, "b"), ("a", "b" * (MAX_SIDE + 1))], valid_frac=0)
    assert dataset.train.documents == 40
    assert f"2 pairs of the training text left out: over {MAX_SIDE} tokens" in str(dataset.warnings)
    with pytest.raises(CorpusError, match="1 of 1 train pairs have more than 250 tokens on one"):
        load([("a" * 300, "b")])


def test_incomplete_pairs_are_skipped_or_refused():
    dataset = load([*TEXTS, ("a", " "), ("", "b")])
    assert "2 rows without a text or a translation skipped (example 41 has no" in str(
        dataset.warnings
    )
    with pytest.raises(CorpusError, match="2 of 3 rows lack a text or a translation"):
        load([("a", ""), ("", "b"), ("a", "b")])
    assert load([("a", "b")]).valid is None


def test_repeated_sources_are_reported():
    assert "4 of 4 validation texts are in the training text too" in str(
        load(TEXTS[:1] * 40).warnings
    )


def test_pairs_in_python_are_checked():
    assert PARALLEL.check_example(("a", "b")) == ""
    assert "a text and its translation" in PARALLEL.check_example(("a", 1))
    with pytest.raises(CorpusError, match="example 1: its translation has half of a surrogate"):
        load([("a", "\udcff")])


def test_parallel_text_comes_back_from_disk_and_damage_is_refused(tmp_path):
    dataset = load()
    parallel, config = gold_of(dataset, Parallel), {"task": {}}
    config["task"]["target_size"] = len(parallel.vocabulary)
    splits = {"train": dataset.train, "valid": dataset.valid}
    for split in splits:
        (tmp_path / "data" / split).mkdir(parents=True)
        parallel.write(tmp_path / "data" / split, split)
    for name, vocabulary in parallel.tokenizers().items():
        (tmp_path / name).write_text(json.dumps(vocabulary.to_json()), encoding="utf-8")
    read = PARALLEL.read(tmp_path, config, splits)
    assert read.pairs == parallel.pairs
    assert read.vocabulary.tokens == parallel.vocabulary.tokens
    assert all((read.texts[s].ids == parallel.texts[s].ids).all() for s in splits)
    with pytest.raises(CorpusError, match=r"target\.json has \d+ entries; expected 3"):
        PARALLEL.read(tmp_path, {"task": {"target_size": 3}}, splits)
    with pytest.raises(CorpusError, match="train-target: not the translations of"):
        PARALLEL.read(tmp_path, config, splits | {"train": dataset.valid})
    pairs = tmp_path / "data" / "valid" / "pairs.json"
    for damaged in ('{"pairs": []}', '{"pairs": [[1, 2], 3]}', "[]", "{"):
        pairs.write_text(damaged)
        with pytest.raises(CorpusError, match="the pairs are damaged"):
            PARALLEL.read(tmp_path, config, splits)


# ------------------------------------------------------------------ batches


def test_targets_follow_their_inputs():
    dataset = load([("abc", "xy"), ("d", "z"), ("", ""), ("ef", "uvw")], valid_frac=0)
    targets = gold_of(dataset, Parallel)
    x, y, z, u, v, w = targets.vocabulary.encode("xyzuvw").tolist()
    batch = pair_batch(dataset.train, targets.texts["train"], np.array([0, 1, 2]))
    assert batch.target_inputs.T.tolist() == [
        [EOS, x, y, EOS], [EOS, z, EOS, EOS], [EOS, u, v, w]
    ]  # fmt: skip
    pad = PADDING
    assert batch.targets.T.tolist() == [[x, y, EOS, pad], [z, EOS, pad, pad], [u, v, w, EOS]]
    assert batch.lengths.tolist() == [4, 2, 3]
    assert batch.tokens == 9
    first, second = batch.split(2)
    assert (first.inputs.shape, first.targets.shape, first.tokens) == ((4, 2), (3, 2), 5)
    assert first.target_inputs.shape == (3, 2)
    assert second.targets[:, 0].tolist() == [u, v, w, EOS]


def test_an_epoch_has_each_pair_once_and_like_ones_together():
    dataset = load([("a" * (n % 7), "b" * (n % 5)) for n in range(1, 200)], valid_frac=0)
    targets = gold_of(dataset, Parallel).texts["train"]
    groups = PairGroups(dataset.train, targets, 8, seed=1)
    batches = list(groups.epoch(Position()))
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(dataset.train.documents))
    assert sum(batch.tokens for batch in batches) == groups.total == len(targets.ids)
    filled = sum(batch.lengths.sum() for batch in batches)
    assert filled > 0.85 * sum(batch.inputs.size for batch in batches)
    resumed = next(groups.epoch(batches[3].next))
    assert np.array_equal(resumed.targets, batches[4].targets)
