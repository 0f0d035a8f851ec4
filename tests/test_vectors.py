"""Word vectors: every format of their makers, only what is wanted, mistakes with their place."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import started, tiny_model, vocabulary_of

from charlm.api.loading import load
from charlm.errors import CorpusError, UsageError
from charlm.runs.checkpoints import checkpoint_folders
from charlm.text.vectors import nearest, read_vectors, vector_lines
from charlm.training.pretrained import find_vectors, set_vectors
from charlm.training.resume import halves, resume
from charlm.training.session import Session

WORDS = {"cat": [1.0, -2.0, 0.5], "naïve": [0.25, 0.0, -1e-3], "the": [3.0, 3.0, 3.0]}
TEXT = "the cat sat. The cat sat on the mat. " * 9


def text_of(words: dict[str, list[float]], header: bool) -> bytes:
    lines = [f"{len(words)} 3"] if header else []
    lines += [f"{word} {' '.join(map(str, values))}" for word, values in words.items()]
    return ("\n".join(lines) + "\n").encode()


def binary_of(words: dict[str, list[float]], after: bytes) -> bytes:
    entries = [w.encode() + b" " + struct.pack("<3f", *v) + after for w, v in words.items()]
    return f"{len(words)} 3\n".encode() + b"".join(entries)


FORMATS = {
    "glove.txt": text_of(WORDS, header=False),
    "fast.vec": text_of(WORDS, header=True),
    "trailing.vec": text_of(WORDS, header=True).replace(b"\n", b" \n"),
    "word2vec.bin": binary_of(WORDS, b"\n"),
    "gensim.bin": binary_of(WORDS, b""),
    "packed.txt.gz": gzip.compress(text_of(WORDS, header=False)),
    "packed.bin.gz": gzip.compress(binary_of(WORDS, b"\n")),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_requested_words(name: str, tmp_path: Path) -> None:
    """With and without counts, text and binary, packed; nothing else is kept."""
    path = tmp_path / name
    path.write_bytes(FORMATS[name])
    vectors = read_vectors(path, {"cat", "naïve", "dog"})
    assert vectors.width == 3
    assert set(vectors.by_word) == {"cat", "naïve"}
    for word, vector in vectors.by_word.items():
        np.testing.assert_allclose(vector, WORDS[word], rtol=1e-6)


def test_a_binary_file_whose_bytes_look_like_blanks_and_line_ends(tmp_path: Path) -> None:
    """Numbers can have any byte; the first entry shows that a large file is not text."""
    values = np.frombuffer(b" \n \n\t  \n  \n\n" * 3, "<f4")[:9].reshape(3, 3)
    words = dict(zip(["a", "b", "c"], values.tolist(), strict=True))
    path = tmp_path / "odd.bin"
    path.write_bytes(binary_of(words, b"\n"))
    vectors = read_vectors(path, set(words))
    for word, vector in words.items():
        np.testing.assert_array_equal(vectors.by_word[word], np.array(vector, np.float32))


@pytest.mark.parametrize("content", ["cat 1 2\n. . . 3 4\n", "2 2\n. . . 3 4\ncat 1 2\n"])
def test_a_word_may_hold_blanks(content: str, tmp_path: Path) -> None:
    """Some of GloVe's 840B do: numbers are counted from the right."""
    path = tmp_path / "v.txt"
    path.write_text(content)
    vectors = read_vectors(path, {". . .", "cat"}).by_word
    assert (vectors[". . ."].tolist(), vectors["cat"].tolist()) == ([3.0, 4.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["line 1 is ''", "expected a word and its numbers"]),
        (b"word\n", ["line 1 is 'word'"]),
        (b"a 1 2\nb 1 nan\n", ["vector of 'b'", "not finite"]),
        (b"a 1 2\nb 1 x\n", ["line 2 is 'b 1 x'", "a word and 2 numbers"]),
        (b"a 1 2\n\nb 1\n", ["line 3 is 'b 1'"]),
        (b"3 2\na 1 2\nb 1\n", ["line 3"]),
        (binary_of(WORDS, b"\n")[:-9], ["ends in entry 3 of 3"]),
        (binary_of(WORDS, b"\n").replace(b"3 3", b"9 3", 1), ["ends in entry 4 of 9"]),
        (binary_of(WORDS, b"\n").replace(b"3 3", b"2 3", 1), ["more data after the 2 entries"]),
        (binary_of(WORDS, b"\n").replace(b"3 3", b"3 2", 1), ["more data after the 3 entries"]),
        (b"2 4\na 0.1 0.2 0.3\nb 0.4 0.5 0.6\n", ["line 2", "3 fields", "a word and 4 numbers"]),
        (b"2 2\na 0.1 0.2 0.3\nb 0.4 0.5 0.6\n", ["line 2", "3 fields", "a word and 2 numbers"]),
        (b"2 3\na 0.1 0.2 x\nb 0.4 0.5 0.6\n", ["line 2", "a word and 3 numbers"]),
        (b"a 1 2\nb 1 2 3\n", ["line 2", "3 fields"]),
    ],
)
def test_a_damaged_file_is_named_with_its_place(content: bytes, words, tmp_path: Path) -> None:
    """The message says what was found and what was expected."""
    path = tmp_path / "v.txt"
    path.write_bytes(content)
    with pytest.raises(CorpusError) as caught:
        read_vectors(path, {"a", "b"})
    for word in ["v.txt", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("width", [20, 22])
def test_a_text_of_another_width_than_its_header_says_is_not_binary(
    width: int, tmp_path: Path
) -> None:
    """It was once read as binary: the embedding began with ASCII bytes read as floats."""
    rows = [f"{word} {' '.join(['0.25'] * width)}" for word in ("the", "cat", "sat")]
    path = tmp_path / "v.vec"
    path.write_text("\n".join(["3 21", *rows]) + "\n")
    with pytest.raises(CorpusError, match=f"v.vec: line 2 .* {width} fields .* 21 numbers"):
        read_vectors(path, {"the"})


@pytest.mark.parametrize("name", ["fast.vec", "word2vec.bin", "glove.txt"])
def test_a_byte_order_mark_is_dropped_and_reported(name: str, tmp_path: Path) -> None:
    """Before, it was a part of the first word or of the first count."""
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + FORMATS[name])
    vectors = read_vectors(path, {"cat"})
    assert vectors.by_word["cat"].tolist() == WORDS["cat"]
    assert ["byte-order mark" in note for note in vectors.warnings] == [True]


@pytest.mark.parametrize(("said", "notes"), [(5, 1), (2, 1), (3, 0)])
def test_a_wrong_count_in_the_header_is_reported(said: int, notes: int, tmp_path: Path) -> None:
    """A file that was cut short between two lines has no other mark."""
    path = tmp_path / "v.vec"
    path.write_bytes(FORMATS["fast.vec"].replace(b"3 3", f"{said} 3".encode(), 1))
    vectors = read_vectors(path, set(WORDS))
    assert set(vectors.by_word) == set(WORDS)
    assert len(vectors.warnings) == notes
    assert all(f"says {said} vectors, the file has 3" in note for note in vectors.warnings)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """word2vec's text format; white space in a token does not break the lines."""
    matrix = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    path = tmp_path / "v.txt"
    path.write_text("".join(vector_lines(["a", " ", "\n", "über"], matrix)), encoding="utf-8")
    vectors = read_vectors(path, {"a", "\\x20", "\\n", "über"})
    np.testing.assert_allclose(np.stack(list(vectors.by_word.values())), matrix, rtol=1e-4)


def test_neighbours_by_hand() -> None:
    """Cosines of four vectors; a row is not its own neighbour, and zero is nobody's."""
    matrix = np.array([[1, 0], [2, 2], [0, -3], [0, 0]], np.float32)
    neighbours = nearest(matrix, 0, 5)
    assert [index for index, _ in neighbours] == [1, 2, 3]
    assert [cosine for _, cosine in neighbours] == pytest.approx([0.5**0.5, 0.0, 0.0])
    assert len(nearest(matrix, 0, 1)) == 1


def vectors_file(folder: Path) -> Path:
    path = folder / "v.txt"
    path.write_bytes(text_of(WORDS, header=True))
    return path


def test_entries_find_their_vectors_by_case_or_lower_case(tmp_path: Path) -> None:
    """`The` is read as `the` where there is no vector of its own; unknown ones keep theirs."""
    vocabulary = vocabulary_of(TEXT, "word", words="whitespace")
    pretrained = find_vectors(vectors_file(tmp_path), vocabulary)
    names = {vocabulary.token_text(int(index)) for index in pretrained.ids}
    assert names == {"the", "The", "cat"}
    model = tiny_model("lstm", len(vocabulary), embedding_size=3)
    before = model.embedding.weight.detach().clone()
    set_vectors(model, pretrained)
    after = model.embedding.weight.detach()
    for index, vector in zip(pretrained.ids, pretrained.vectors, strict=True):
        assert after[index].tolist() == vector.tolist()
    others = [index for index in range(len(vocabulary)) if index not in pretrained.ids]
    ratio = after[others] / before[others]
    torch.testing.assert_close(ratio, torch.full_like(ratio, float(ratio[0, 0])))


def begun(folder: Path, **changes) -> Session:
    """Start a run of words with the vectors of a file."""
    values = {"vectors": str(vectors_file(folder)), "embedding_size": None, "steps": 4,
              "unit": "word", "words": "whitespace"}  # fmt: skip
    return started(folder, text=TEXT, **values | changes)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_starts_from_the_vectors_and_may_freeze_them(frozen: bool, tmp_path: Path) -> None:
    """The width follows, the coverage is reported; frozen vectors do not change."""
    session = begun(tmp_path, freeze_vectors=frozen)
    assert session.trainer.model.settings.embedding_size == 3
    (note,) = [note for note in session.warnings if note.startswith("vectors:")]
    assert "3 of" in note
    assert "% of the training tokens" in note
    list(session.records())
    model = load(session.path)
    row = model.embedding[model.vocabulary.ids["cat"]]
    assert np.allclose(row, WORDS["cat"]) == frozen
    names = [model.vocabulary.token_text(index) for index in range(len(model.vocabulary))]
    assert model.nearest("cat", top=2)[0][0] in names
    with pytest.raises(UsageError, match="'dog' is not an entry"):
        model.nearest("dog")


def test_a_run_killed_at_once_resumes_without_the_file(tmp_path: Path) -> None:
    """The vectors are kept with it, so it ends as a run that did not die."""
    whole = begun(tmp_path)
    list(whole.records())
    (tmp_path / "other").mkdir()
    died = begun(tmp_path / "other")
    assert checkpoint_folders(died.path) == []
    died.lock.release()
    (tmp_path / "other" / "v.txt").unlink()
    list(resume(died.path).records())
    name = "model.safetensors"
    assert (died.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_vectors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Another width, one-hot input, no word in common, nothing to freeze."""
    for wrong in ({"embedding_size": 5}, {"one_hot": True}):
        with pytest.raises(UsageError, match="the vectors have 3 numbers"):
            begun(tmp_path, **wrong)
    with pytest.raises(CorpusError, match="holds none of"):
        find_vectors(vectors_file(tmp_path), vocabulary_of("xyz"))
    with pytest.raises(UsageError, match="freeze_vectors without vectors"):
        begun(tmp_path, vectors=None, freeze_vectors=True)


def test_damaged_packed_files_are_refused(tmp_path: Path) -> None:
    """Like those of a corpus."""
    for name in ("v.txt.gz", "v.txt.xz", "v.txt.bz2"):
        (tmp_path / name).write_bytes(gzip.compress(FORMATS["glove.txt"])[:-12] + b"x" * 9)
        with pytest.raises(CorpusError, match="cannot be unpacked"):
            read_vectors(tmp_path / name, {"cat"})
    with pytest.raises(CorpusError, match="cannot be read"):
        read_vectors(tmp_path / "none.txt", {"cat"})


def test_exported_vectors_of_pieces_with_blanks_are_read_again(tmp_path: Path) -> None:
    """` the` and `the` are two entries of a bpe vocabulary, each with a vector of its own."""
    vocabulary = vocabulary_of(TEXT, "bpe")
    names = [vocabulary.token_text(index) for index in range(len(vocabulary))]
    assert any(name.startswith(" ") for name in names)
    matrix = np.random.default_rng(0).normal(size=(len(names), 3)).astype(np.float32)
    path = tmp_path / "v.txt"
    path.write_text("".join(vector_lines(names, matrix)), encoding="utf-8")
    pretrained = find_vectors(path, vocabulary)
    np.testing.assert_allclose(pretrained.vectors, matrix[pretrained.ids], rtol=1e-4)


def test_both_halves_start_from_the_vectors(tmp_path: Path) -> None:
    """Frozen, they are the same in both at the end; the file is needed once only."""
    session = begun(tmp_path, direction="both", freeze_vectors=True)
    (tmp_path / "v.txt").unlink()
    for half in halves(session):
        list(half.records())
    for path in (session.path, session.path / "backward"):
        model = load(path)
        np.testing.assert_allclose(model.embedding[model.vocabulary.ids["cat"]], WORDS["cat"])
