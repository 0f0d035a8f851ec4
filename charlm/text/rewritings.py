"""Ways to write texts so that fewer of their tokens are unknown to a vocabulary."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.units import first_few

SAMPLE = 1000
"""Number of texts that are enough to look at."""
MAX_NAMED = 5
"""Unknown pieces that a note names."""
MIN_GAIN = 0.1
"""Minimum fraction of the unknown tokens that a rewriting makes known."""
APART = "blanks around punctuation and before n't and 's"
BARE = "no punctuation, but blanks before n't and 's"
UNK_NAME = "<unk>"
PLAIN = {
    "‘": "'", "’": "'", "‚": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"',
    "‐": "-", "‑": "-", "–": "-", "—": "-", "…": "...", "\xa0": " ", "\u202f": " ", "\xad": "",
}  # fmt: skip
"""Typographic marks, as word processors set them, and what keyboards have."""
PLAIN_TABLE = {ord(mark): other for mark, other in PLAIN.items()}
ENDINGS = "(?:s|re|ve|ll|d|m)\\b"
CLITICS = re.compile(rf"(?<=\w)(n['’]t\b|['’]{ENDINGS})", re.IGNORECASE)
MARKS = re.compile(
    rf"([\"“”()\[\]?!;:…—]|[.,](?!\d)|(?<=\s)['‘](?!{ENDINGS})|['’](?=\s|$))", re.IGNORECASE
)


def apart(text: str) -> str:
    """Return a text with blanks around its punctuation marks and before n't, 's and the like."""
    return " ".join(MARKS.sub(r" \1 ", CLITICS.sub(r" \1", text)).split())


def bare(text: str) -> str:
    """Return a text without punctuation marks, with blanks before n't, 's and the like."""
    return " ".join(MARKS.sub(" ", CLITICS.sub(r" \1", text)).split())


def spaced(text: str) -> str:
    """Return a text with single blanks in place of tabs, line ends and several blanks."""
    return " ".join(text.split())


def composed(text: str) -> str:
    """Return a text whose accents are part of their letters."""
    return unicodedata.normalize("NFC", text)


def plain(text: str) -> str:
    """Return a text with the quotes, apostrophes and dashes of a keyboard."""
    return text.translate(PLAIN_TABLE)


REWRITINGS: Mapping[str, Callable[[str], str]] = {
    "composed accents (Unicode NFC)": composed,
    "the quotes, apostrophes and dashes of a keyboard": plain,
    "blanks in place of tabs and line ends": spaced,
    "lower case": str.lower,
    APART: apart,
    BARE: bare,
}
"""Rewritings by what texts have then, in the order in which they are tried."""


def helpful(vocabulary: Vocabulary, texts: Sequence[str]) -> tuple[list[str], int, int]:
    """Return the rewritings after which fewer tokens of texts are unknown, and both numbers.

    Each is tried after those before it that helped, and once more at the end: an apostrophe may
    matter only once it is apart.
    """
    before = now = _count(vocabulary, texts)
    names: list[str] = []
    for name, rewrite in [*REWRITINGS.items()] * 2:
        if not now or name in names:
            continue
        others = [rewrite(text) for text in texts]
        after = _count(vocabulary, others)
        if now - after >= MIN_GAIN * before:
            names.append(name)
            texts, now = others, after
    if BARE in names and APART in names:
        names.remove(APART)
    return names, before, now


def frequent_note(vocabulary: Vocabulary, texts: Sequence[str]) -> str:
    """Return a note that names the most frequent unknown tokens of texts, or ""."""
    pieces = Counter(piece for text in texts[:SAMPLE] for piece in _unknown(vocabulary, text))
    named = first_few((_shown(piece) for piece, _ in pieces.most_common()), MAX_NAMED)
    return f"Unknown, the most frequent first: {named}" if pieces else ""


def rewriting_note(vocabulary: Vocabulary, texts: Sequence[str], needed: str = "") -> str:
    """Return a note on how to write texts so that fewer of their tokens are unknown, or "".

    If a rewriting is `needed`, there is no note unless it helps.
    """
    names, before, after = helpful(vocabulary, texts[:SAMPLE])
    if not names or (needed and needed not in names):
        return ""
    return (
        f"If the texts had {', '.join(names)}, {after:,} of {before:,} unknown tokens would "
        "remain. Write them as the training text of the run is written"
    )


def _shown(piece: str) -> str:
    """Return a piece in quotes, or the number of a character that cannot be seen alone."""
    if len(piece) == 1 and (not piece.isprintable() or unicodedata.combining(piece)):
        return f"U+{ord(piece):04X}"
    return repr(piece)


def _count(vocabulary: Vocabulary, texts: Sequence[str]) -> int:
    return sum(len(_unknown(vocabulary, text)) for text in texts)


def _unknown(vocabulary: Vocabulary, text: str) -> list[str]:
    """Return the unknown pieces of a text, without those that are spelled as UNK itself."""
    return [piece for piece in vocabulary.unknown_pieces(text) if piece != UNK_NAME]
