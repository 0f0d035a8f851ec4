"""Words of sentences on disk, beside the encoded text of a split."""

import json
from pathlib import Path

import numpy as np

from charlm.errors import CorpusError, RunError
from charlm.files.safe_read import file_size, parse_json, read_bytes
from charlm.text.batches import Int64
from charlm.text.documents import check_text
from charlm.text.encoded import EncodedText
from charlm.text.groups import text_lengths
from charlm.text.sentences import Int32, Sentences

WORDS, SPELLINGS, PLACES, ENDS = "words.json", "spellings.bin", "places.bin", "sentences.bin"
"""Files of a split: distinct words; the number of each word among them; its first and last token
in its sentence; the number of words up to the end of each sentence. Numbers are int32, little
endian."""
MAX_WORDS_FILE = 64 << 20
"""Bytes of the distinct words of a split."""


def write_sentences(folder: Path, sentences: Sentences) -> None:
    """Write the words of sentences and their places into the folder of the encoded text."""
    words = json.dumps(list(sentences.words), ensure_ascii=False)
    (folder / WORDS).write_text(words, encoding="utf-8")
    places = np.stack([sentences.firsts, sentences.lasts], axis=1)
    for name, numbers in (
        (SPELLINGS, sentences.spelling), (PLACES, places), (ENDS, sentences.ends)
    ):  # fmt: skip
        (folder / name).write_bytes(numbers.astype("<i4").tobytes())


def read_kept(folder: Path, text: EncodedText) -> Sentences:
    """Read the sentences that `write_sentences` kept beside a text.

    Raises CorpusError if their files are damaged or missing.
    """
    try:
        words = parse_json(read_bytes(folder / WORDS, MAX_WORDS_FILE), folder / WORDS)
        if not isinstance(words, list) or not all(type(word) is str for word in words):
            raise ValueError(f"{WORDS} holds no list of words")
        check_text("".join(words))
        spelling, places, ends = (_numbers(folder / name) for name in (SPELLINGS, PLACES, ENDS))
        firsts, lasts = places[: 2 * len(spelling)].reshape(-1, 2).T
        counts = np.diff(ends, prepend=0)
        if len(ends) != text.documents or (counts < 0).any() or counts.sum() != len(spelling):
            raise ValueError(f"{len(spelling):,} words do not match {ENDS}")
        if len(places) != 2 * len(spelling) or not _lie_within(firsts, lasts, counts, text):
            raise ValueError(f"{PLACES} has invalid tokens")
        if ((spelling < 0) | (spelling >= len(words))).any():
            raise ValueError(f"{SPELLINGS} has invalid words")
    except (OSError, ValueError, RunError) as error:
        raise CorpusError(f"{folder}: the tagged words are damaged ({error}); delete it") from error
    return Sentences(
        text=text, words=words, spelling=spelling, firsts=firsts, lasts=lasts,
        ends=ends.astype(np.int64),
    )  # fmt: skip


def _lie_within(firsts: Int32, lasts: Int32, counts: Int64, text: EncodedText) -> bool:
    """Return True if all words, of which each sentence has `counts`, are tokens of it."""
    lengths = np.repeat(text_lengths(text), counts)
    return bool(((firsts >= 0) & (firsts <= lasts) & (lasts < lengths)).all())


def _numbers(path: Path) -> Int32:
    if file_size(path) % 4:
        raise ValueError(f"{path.name} is cut short")
    return np.fromfile(path, dtype="<i4").astype(np.int32)
