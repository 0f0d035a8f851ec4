"""Spans: the characters of a text that each of its tokens covers."""

import numpy as np
from numpy.typing import NDArray

from charlm.text.documents import END
from charlm.text.tokenizers.cutting import cut_safely, starts_character
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary, code_points
from charlm.text.tokenizers.words import ASCII_WORDS

Places = NDArray[np.int64]


def token_spans(vocabulary: Vocabulary, text: str, ids: Ids) -> tuple[Places, Places]:
    """Return the first character of each token, and the one after its last; shapes (tokens,).

    `ids` are those of `vocabulary.encode_marked(text)`. Characters are counted in the text as it is
    given, before the vocabulary normalises it. A token that spells a part of a character, or of
    characters that a normal form joins, covers all of them.
    """
    normalized, firsts, lasts = _aligned(vocabulary, text)
    if vocabulary.spec.byte_level:
        starts, ends = _byte_spans(vocabulary, normalized, ids)
    elif vocabulary.spec.whole_words:
        starts, ends = _word_spans(vocabulary, text)
    else:
        starts = np.arange(len(ids))
        ends = starts + 1
    return (starts, ends) if firsts is None else (firsts[starts], lasts[ends - 1])


def _aligned(vocabulary: Vocabulary, text: str) -> tuple[str, Places | None, Places]:
    """Return the normalised text, and for each of its characters the given ones it comes from.

    These are the first one and the one after the last; None if both texts have equal characters, up
    to case.
    """
    if not vocabulary.normalizes or text.replace(END, "").isascii():
        return text, None, np.empty(0, np.int64)
    starts = [
        at for at, letter in enumerate(text) if at == 0 or _starts(letter) or text[at - 1] == END
    ]
    pieces: list[str] = []
    firsts: list[int] = []
    lasts: list[int] = []
    for start, stop in zip(starts, [*starts[1:], len(text)], strict=True):
        given = text[start:stop]
        piece = given if given == END else vocabulary.normalized(given)
        pieces.append(piece)
        if len(piece) == len(given):
            firsts += range(start, stop)
            lasts += range(start + 1, stop + 1)
        else:
            firsts += [start] * len(piece)
            lasts += [stop] * len(piece)
    return "".join(pieces), np.array(firsts, np.int64), np.array(lasts, np.int64)


def _starts(letter: str) -> bool:
    return letter.isascii() or letter == END or starts_character(letter)


def _byte_spans(vocabulary: Vocabulary, text: str, ids: Ids) -> tuple[Places, Places]:
    """Return the spans of byte-level tokens; an END is one byte."""
    lengths = vocabulary.byte_lengths[ids]
    ends = np.cumsum(lengths)
    starts = ends - lengths
    if text.isascii():
        return starts, ends
    codes = code_points(text)
    sizes = 1 + sum((codes >= step).astype(np.int64) for step in (0x80, 0x800, 0x10000))
    stops = np.cumsum(np.where(codes == ord(END), 1, sizes))  # byte after each character
    return np.searchsorted(stops, starts, "right"), np.searchsorted(stops, ends, "left") + 1


def _word_spans(vocabulary: Vocabulary, text: str) -> tuple[Places, Places]:
    """Return the spans of words in a text that is cut and normalised as for `encode_marked`."""
    spans: list[tuple[int, int]] = []
    base = 0
    for number, document in enumerate(text.split(END)):
        if number:
            spans.append((base, base + 1))
            base += 1
        for part in cut_safely(document, vocabulary.piece_chars):
            if part.isascii():
                found = ASCII_WORDS[vocabulary.settings.words].finditer(part)
                spans += [(base + word.start(), base + word.end()) for word in found]
                base += len(part)
                continue
            part = vocabulary.normalized(part)
            cuts = vocabulary.tokenizer.pre_tokenizer.pre_tokenize_str(part)
            spans += [(base + start, base + end) for _, (start, end) in cuts]
            base += len(part)
    both = np.array(spans, np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]
