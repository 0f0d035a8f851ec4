"""Texts that change, are damaged or are odd: refused in one line, or read exactly."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.settings import Settings
from charlm.config.text_units import TEXT_UNITS
from charlm.errors import CorpusError, EnvironmentFailure
from charlm.runs.data import corpus_record
from charlm.text import dataset, encoded, idcache
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.encoded import id_counts
from charlm.text.sources import files
from charlm.text.sources.files import Spool
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Treat every text as large: it is encoded into this cache."""
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)
    folder = tmp_path / "cache"
    monkeypatch.setenv("CHARLM_CACHE", str(folder))
    return folder


def load(*sources: Path, unit: str = "char", **corpus) -> Dataset:
    names = tuple(str(source) for source in sources)
    return load_dataset(CorpusSettings(sources=names, **corpus), VocabularySettings(unit=unit))


def built(text: str, unit: str, **named) -> Vocabulary:
    return build_vocabulary(lambda: [text], VocabularySettings(unit=unit, **named)).vocabulary


@pytest.mark.parametrize("change", ["cut", "same length", "emptied", "other file"])
@pytest.mark.parametrize("large", [True, False])
def test_a_text_that_changes_while_it_is_read_is_refused(
    change: str, large: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes between two passes; nothing of it stays in the cache."""
    if not large:
        monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 1 << 30)
    path = tmp_path / "text.txt"
    whole = "to be or not to be\n" * 30
    path.write_text(whole)
    os.utime(path, (1e9, 1e9))
    build = dataset.build_vocabulary

    def disturbed(*arguments, **named):
        vocabulary = build(*arguments, **named)
        target = tmp_path / "other.txt" if change == "other file" else path
        target.write_text({"cut": whole[:99], "emptied": ""}.get(change, whole[::-1]))
        if change == "other file":  # of the same size and time
            os.utime(target, (1e9, 1e9))
            target.replace(path)
        return vocabulary

    monkeypatch.setattr(dataset, "build_vocabulary", disturbed)
    with pytest.raises(CorpusError, match="changed while it was read"):
        load(path, valid_frac=0.0)
    monkeypatch.setattr(dataset, "build_vocabulary", build)
    path.write_text(whole)
    again = load(path, valid_frac=0.0)
    assert again.vocabulary.decode(again.train.ids) == whole
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize("damage", [lambda d: bytes([3]) * len(d), lambda d: b"\xc8" * len(d)])
def test_a_damaged_cache_of_the_right_length_is_built_again(damage, cache, tmp_path) -> None:
    """Every byte of it is part of a checksum."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)
    first = load(path, valid_frac=0.0).train.ids.tolist()
    (folder,) = cache.iterdir()
    data = (folder / "ids.bin").read_bytes()
    (folder / "ids.bin").unlink()
    (folder / "ids.bin").write_bytes(damage(data))
    assert load(path, valid_frac=0.0).train.ids.tolist() == first
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_several_threads_may_build_one_cache(cache: Path, tmp_path: Path) -> None:
    """All get the text, and nothing is left over."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 50)
    results: list[object] = []

    def work(gate: threading.Barrier) -> None:
        gate.wait()
        try:
            results.append(load(path).train.ids.tolist())
        except Exception as error:
            results.append(error)

    for _ in range(6):
        for entry in cache.glob("*") if cache.exists() else ():
            for file in entry.iterdir():
                file.unlink()
            entry.rmdir()
        gate = threading.Barrier(4)
        threads = [threading.Thread(target=work, args=(gate,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 24
    assert all(entry == results[0] and isinstance(entry, list) for entry in results)
    assert not list(cache.glob(".*"))


def test_a_source_that_breaks_off_leaves_nothing_in_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)

    def broken(*_: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(idcache, "encode_chunks", broken)
    with pytest.raises(KeyboardInterrupt):
        load(path)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_cache_has_the_permissions_of_the_umask(mask: int, cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)
    before = os.umask(mask)
    try:
        load(path, valid_frac=0.0)
    finally:
        os.umask(before)
    (folder,) = cache.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask
    assert (folder / "ids.bin").stat().st_mode & 0o777 == 0o666 & ~mask


def test_only_leftovers_of_builders_are_removed(cache: Path, tmp_path: Path) -> None:
    """The cache folder may hold files of other programs, however old."""
    mine = [".ssh", ".damaged", ".git", f".{'0' * 31}.abcdefgh", "x"]
    leftovers = [f".{'0' * 32}.abcdefgh", ".damaged-abcdefgh"]
    for name in [*mine, *leftovers]:
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (1e9, 1e9))
    (cache / f".{'1' * 32}.abcdefgh").mkdir()
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)
    load(path, valid_frac=0.0)
    left = {entry.name for entry in cache.iterdir()}
    assert left >= {*mine, f".{'1' * 32}.abcdefgh"}
    assert not left & set(leftovers)


def test_a_full_disk_is_noticed_before_a_cache_is_written(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)
    usage = idcache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(idcache.shutil, "disk_usage", lambda _: usage._replace(free=3))
    with pytest.raises(EnvironmentFailure, match="No space left"):
        load(path)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("unit", ["word", "bpe"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_very_long_word_is_counted_as_it_is_encoded(unit: str, lowercase: bool) -> None:
    """Every piece of the text has its id."""
    text = "Q" * 70_001 + " ends here. " + "x" * 9000
    vocabulary = built(text, unit, lowercase=lowercase, min_count=1)
    ids = vocabulary.encode(text)
    assert len(vocabulary.pieces(text)) == len(ids)
    assert vocabulary.unknown(text) == []
    assert not np.any(ids == 0)
    unseen = ["unseen"] if unit == "word" else []  # letters are always known to bpe
    assert vocabulary.unknown(text + " unseen") == unseen


@pytest.mark.parametrize("unit", TEXT_UNITS)
@pytest.mark.parametrize("lone", ["a\ud800b", "a\udfffb", "caf\udce9"])
def test_half_of_a_surrogate_pair_cannot_be_encoded(unit: str, lone: str) -> None:
    with pytest.raises(CorpusError, match=r"half of a surrogate pair, U\+D"):
        built("abc caf", unit).encode(lone)


def test_held_out_text_that_is_the_training_text_is_reported(tmp_path: Path) -> None:
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("to be or not to be\n")
    other.write_text("that is the question\n")
    for role in ("valid", "test"):
        notes = load(path, **{role: (str(path),)}).warnings
        assert any(f"The {role} text is the training text itself" in note for note in notes)
        assert not any("itself" in note for note in load(path, **{role: (str(other),)}).warnings)


def test_only_the_first_twenty_warnings_are_shown(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / f"{number:02d}.txt").write_text("\ufeffab\n")
    corpus = Corpus([str(tmp_path)], document="stream")
    for _ in range(2):
        "".join(corpus.chunks())
        assert len(corpus.warnings) == 21
        assert corpus.warnings[-1] == "And 30 more warnings like these."


def test_an_endless_stream_of_nuls_is_refused_at_once(monkeypatch) -> None:
    """It is not copied until the disk is full."""

    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            self.given += size
            assert self.given < 10 << 20
            return b"\0" * size

    with pytest.raises(CorpusError, match="NULs"):
        Spool("standard input", lambda: Endless()).open()


def test_ids_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts are those of the whole text, without a wider copy of it."""
    ids = np.random.default_rng(1).integers(0, 7, 1000).astype(np.uint8)
    monkeypatch.setattr(encoded, "PIECE", 64)
    assert id_counts(ids, 9).tolist() == np.bincount(ids, minlength=9).tolist()


SCRIPTS = st.characters(codec="utf-8") | st.sampled_from("\x1b\r\n\t\0\u2028👩‍🚀ﷺ\U0010ffff")


@settings(max_examples=60)
@given(text=st.text(SCRIPTS, min_size=2, max_size=60), unit=st.sampled_from(list(TEXT_UNITS)))
def test_any_characters_make_a_dataset_or_are_refused(text: str, unit: str) -> None:
    """Decoding gives the text again."""
    options = CorpusSettings(valid_frac=0.0), VocabularySettings(unit=unit, min_count=1)
    try:
        data = load_dataset(*options, corpus=Corpus.from_text(text))
    except CorpusError as error:
        assert len(str(error).split()) > 4
        return
    assert corpus_record(data, Settings(corpus=options[0], vocabulary=options[1]))["parts"][
        "train"
    ]["chars"] == len(text)
    if unit in ("char", "byte", "bpe"):
        assert data.vocabulary.decode(data.train.ids) == text


def test_a_table_of_many_rows_is_read_in_blocks(tmp_path: Path) -> None:
    """Every row once, in order, across blocks."""
    pytest.importorskip("datasets")
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "row {n}"}}\n' for n in range(1203)))
    text = "".join(Corpus([str(path)], document="stream").chunks())
    assert text.split("\n") == [f"row {n}" for n in range(1203)]


def test_names_of_columns_are_escaped(tmp_path: Path) -> None:
    """A name in a message cannot move the cursor of a terminal."""
    path = tmp_path / "rows.csv"
    path.write_text("te\x1b[31mxt,b\nx,y\n")
    with pytest.raises(CorpusError) as caught:
        list(Corpus([str(path)]).chunks())
    assert "\x1b" not in str(caught.value)
    assert files.shown("\x1b") in str(caught.value)
