"""Texts that change, lie or are odd: refused with one line, or read as what they are."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.text_units import UNITS
from charlm.errors import CorpusError, EnvironmentFailure
from charlm.runs.data import corpus_record
from charlm.text import dataset, encoded, idcache, splits
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.encoded import id_counts
from charlm.text.sources import files
from charlm.text.sources.files import Spool
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every text is large: encoded into this cache."""
    monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 0)
    folder = tmp_path / "cache"
    monkeypatch.setenv("CHARLM_CACHE", str(folder))
    return folder


def load(*sources: Path, unit: str = "char", **corpus) -> Dataset:
    names = tuple(str(source) for source in sources)
    return load_dataset(CorpusSettings(sources=names, **corpus), VocabularySettings(unit=unit))


def built(text: str, unit: str, **named) -> Vocabulary:
    return build_vocabulary(lambda: [text], VocabularySettings(unit=unit, **named)).vocabulary


@pytest.mark.parametrize("change", ["cut", "same length", "emptied"])
@pytest.mark.parametrize("large", [True, False])
def test_a_text_that_changes_while_it_is_read_is_refused(
    change: str, large: bool, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured, then changed, then encoded: nothing of it stays in the cache."""
    if not large:
        monkeypatch.setattr(idcache, "CACHED_FROM_BYTES", 1 << 30)
    path = tmp_path / "text.txt"
    whole = "to be or not to be\n" * 30
    path.write_text(whole)
    os.utime(path, (1e9, 1e9))
    build = dataset.build_vocabulary

    def disturbed(*arguments, **named):
        found = build(*arguments, **named)
        path.write_text({"cut": whole[:99], "same length": whole[::-1], "emptied": ""}[change])
        return found

    monkeypatch.setattr(dataset, "build_vocabulary", disturbed)
    with pytest.raises(CorpusError, match="changed while it was read"):
        load(path, valid_frac=0.0)
    monkeypatch.setattr(dataset, "build_vocabulary", build)
    path.write_text(whole)
    again = load(path, valid_frac=0.0)
    assert again.vocabulary.decode(again.train.ids) == whole
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize("damage", [lambda d: bytes([3]) * len(d), lambda d: b"\xc8" * len(d)])
def test_a_damaged_cache_of_the_right_length_is_made_again(damage, cache, tmp_path) -> None:
    """Every byte of it is summed."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)
    first = load(path, valid_frac=0.0).train.ids.tolist()
    (folder,) = cache.iterdir()
    data = (folder / "ids.bin").read_bytes()
    (folder / "ids.bin").unlink()
    (folder / "ids.bin").write_bytes(damage(data))
    assert load(path, valid_frac=0.0).train.ids.tolist() == first
    assert [entry.name for entry in cache.iterdir()] == [folder.name]


def test_many_builders_of_one_cache(cache: Path, tmp_path: Path) -> None:
    """Threads that begin together, time and again: all get the text, nothing is left over."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 50)
    found: list[object] = []

    def work(gate: threading.Barrier) -> None:
        gate.wait()
        try:
            found.append(load(path).train.ids.tolist())
        except Exception as error:
            found.append(error)

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
    assert len(found) == 24
    assert all(entry == found[0] and isinstance(entry, list) for entry in found)
    assert not list(cache.glob(".*"))


def test_a_source_that_breaks_off_leaves_nothing_in_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason, an interruption included."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)

    def broken(*_: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(idcache, "encode_chunks", broken)
    with pytest.raises(KeyboardInterrupt):
        load(path)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_cache_has_the_usual_rights(mask: int, cache: Path, tmp_path: Path) -> None:
    """As the umask says: others may share it, or not."""
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
    """The cache may be somebody's home: nothing of another name is touched, however old."""
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


def test_a_cache_that_will_not_fit_is_refused_before_it_is_written(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The space is looked at first."""
    path = tmp_path / "text.txt"
    path.write_text("to be or not to be\n" * 9)
    usage = idcache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(idcache.shutil, "disk_usage", lambda _: usage._replace(free=3))
    with pytest.raises(EnvironmentFailure, match="No space left"):
        load(path)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("unit", ["word", "bpe"])
@pytest.mark.parametrize("lowercase", [True, False])
def test_a_word_without_end_is_counted_as_it_is_encoded(unit: str, lowercase: bool) -> None:
    """What the vocabulary is made of is what a text is cut into, and every piece has its id."""
    text = "Q" * 200_001 + " ends here. " + "x" * 9000
    vocabulary = built(text, unit, lowercase=lowercase, min_count=1)
    ids = vocabulary.encode(text)
    assert len(vocabulary.pieces(text)) == len(ids)
    assert vocabulary.unknown(text) == []
    assert not np.any(ids == 0)
    unseen = ["unseen"] if unit == "word" else []  # letters are always known to bpe
    assert vocabulary.unknown(text + " unseen") == unseen


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("lone", ["a\ud800b", "a\udfffb", "caf\udce9"])
def test_half_of_a_pair_is_no_text_for_a_model(unit: str, lone: str) -> None:
    """Not unknown, not the end of a document, not an error of a library."""
    with pytest.raises(CorpusError, match=r"half of a surrogate pair, U\+D"):
        built("abc caf", unit).encode(lone)


def test_a_text_that_judges_itself_is_told(tmp_path: Path) -> None:
    """The same text for training and validation or test; another one is not told."""
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("to be or not to be\n")
    other.write_text("that is the question\n")
    for role in ("valid", "test"):
        notes = load(path, **{role: (str(path),)}).warnings
        assert any(f"The {role} text is the training text itself" in note for note in notes)
        assert not any("itself" in note for note in load(path, **{role: (str(other),)}).warnings)


def test_of_a_long_text_not_more_is_held_out_than_is_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth, at most so many characters; a share that is given is kept."""
    path = tmp_path / "a.txt"
    path.write_text("ab" * 500)
    monkeypatch.setattr(splits, "VALID_CHARS", 50)
    assert len(load(path).valid.ids) == 50
    assert len(load(path, valid_frac=0.1).valid.ids) == 100
    assert load(path, valid_frac=0.0).valid is None
    monkeypatch.setattr(splits, "VALID_CHARS", 5000)
    assert len(load(path).valid.ids) == 100


def test_notes_of_thousands_of_files_are_counted(tmp_path: Path) -> None:
    """Twenty are told, the others are a number."""
    for number in range(50):
        (tmp_path / f"{number:02d}.txt").write_text("\ufeffab\n")
    corpus = Corpus([str(tmp_path)], document="stream")
    for _ in range(2):
        "".join(corpus.chunks())
        assert len(corpus.warnings) == 21
        assert corpus.warnings[-1] == "And 30 more warnings like these."


def test_an_endless_stream_of_nothing_is_refused_at_once(monkeypatch) -> None:
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
    """The same as at once, without a copy of the whole text in wider numbers."""
    ids = np.random.default_rng(1).integers(0, 7, 1000).astype(np.uint8)
    monkeypatch.setattr(encoded, "PIECE", 64)
    assert id_counts(ids, 9).tolist() == np.bincount(ids, minlength=9).tolist()


SCRIPTS = st.characters(codec="utf-8") | st.sampled_from("\x1b\r\n\t\0\u2028👩‍🚀ﷺ\U0010ffff")


@settings(max_examples=60)
@given(text=st.text(SCRIPTS, min_size=2, max_size=60), unit=st.sampled_from(list(UNITS)))
def test_every_script_makes_a_dataset_or_one_refusal(text: str, unit: str) -> None:
    """Through splitting, counting, encoding and what run.json tells of it; decoding undoes it."""
    chosen = CorpusSettings(valid_frac=0.0), VocabularySettings(unit=unit, min_count=1)
    try:
        found = load_dataset(*chosen, corpus=Corpus.from_text(text))
    except CorpusError as error:
        assert len(str(error).split()) > 4
        return
    assert corpus_record(found, _settings(chosen))["parts"]["train"]["chars"] == len(text)
    if unit in ("char", "byte", "bpe"):
        assert found.vocabulary.decode(found.train.ids) == text


def _settings(chosen):
    from charlm.config.settings import Settings

    return Settings(corpus=chosen[0], vocabulary=chosen[1])


def test_a_table_of_many_rows_is_read_in_blocks(tmp_path: Path) -> None:
    """Every row once, in order, past the border of a block."""
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
        "".join(Corpus([str(path)]).chunks())
    assert "\x1b" not in str(caught.value)
    assert files.shown("\x1b") in str(caught.value)
