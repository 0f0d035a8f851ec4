"""Cut text into pieces whose borders no token crosses, so that pieces are encoded independently."""

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise, starmap

from charlm.text.documents import END
from charlm.text.tokenizers.tokenizer_json import LINE_END

FINE_CHARS = 256
"""Length of short pieces; only those that are not ASCII go to the slower library."""

KIRAT_RAI_E = "\U00016d67"
"""The only vowel letter, apart from Hangul, that joins with the one before (Unicode 16)."""


def cut_safely(text: str, size: int) -> Iterator[str]:
    """Yield pieces of at most `size` characters, cut where no token of any unit can cross.

    The cut is after a line end, or before a single blank between two other characters. If there is
    neither, it is near `size` characters, where no normal form joins two characters.
    """
    start = 0
    while len(text) - start > size:
        cut = _safe_cut(text, start, start + size)
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def safe_chunks(chunks: Iterable[str], size: int = 1 << 20) -> Iterator[str]:
    """Yield a text in chunks whose borders no token of any unit crosses."""
    rest = ""
    for chunk in chunks:
        pieces = list(cut_safely(rest + chunk, size))
        rest = pieces.pop() if pieces else ""
        yield from pieces
        mark = rest.rfind(END) + 1 or rest.rfind(LINE_END) + 1
        if mark:
            yield rest[:mark]
            rest = rest[mark:]
    if rest:
        yield rest


def fine_pieces(text: str) -> list[str]:
    """Cut a text into short pieces, since ASCII pieces are encoded much faster.

    A text is not cut if all of it is ASCII, or if a word would cross a border.
    """
    if text.isascii():
        return [text]
    pieces = list(cut_safely(text, FINE_CHARS))
    return pieces if all(starmap(_is_word_border, pairwise(pieces))) else [text]


def _is_word_border(left: str, right: str) -> bool:
    """Return True if a cut is at a line end or at a single blank, which no word crosses."""
    single = right[0] == " " and not left[-1].isspace() and not right[1:2].isspace()
    return left[-1] == LINE_END or single


def _safe_cut(text: str, start: int, stop: int) -> int:
    line = text.rfind(LINE_END, start, stop)
    if line >= 0:
        return line + 1
    blank = stop
    while (blank := text.rfind(" ", start + 1, blank)) > 0:
        if not text[blank - 1].isspace() and not text[blank + 1].isspace():
            return blank
    places = chain(range(stop, start, -1), range(stop + 1, len(text)))
    return next((place for place in places if starts_character(text[place])), len(text))


def starts_character(character: str) -> bool:
    """Return True if NFC and NFKC never join a character with the character before it.

    Combining marks join, and vowels and final consonants of Hangul, and a vowel of Kirat Rai; so
    does a character whose decomposition begins with one of them.
    """
    first = unicodedata.normalize("NFKD", character)[0]
    joins = unicodedata.combining(first) or unicodedata.category(first)[0] == "M"
    return not joins and not "\u1160" <= first <= "\u11ff" and first != KIRAT_RAI_E
