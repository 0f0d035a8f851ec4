"""Advice about a text before training: lists, repeated documents, unknown and too few tokens.

Each function returns sentences with the flag that helps; none for ordinary prose, verse or code.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from statistics import median, quantiles

from charlm.config.text_units import UNITS
from charlm.errors import named
from charlm.text.documents import END
from charlm.text.passages import copied_fraction

HEAD_CHARS = 1 << 20
"""Characters examined at the beginning of a text."""
MIN_ENTRIES = 20
"""Minimum number of lines of a list."""
MAX_ENTRY_CHARS, MAX_ENTRY_WORDS = 40, 3
"""Upper bounds of a list: characters of nine entries in ten, words of half of the entries."""
MAX_SORTED_CHARS = 100
"""Upper bound of characters if the lines are sorted, as the lines of running text never are."""
MAX_BLANK, MAX_MARKED, MAX_REPEATED = 0.02, 0.1, 0.5
"""Upper bounds of a list: fractions of lines that are blank, that have marks of sentences or code,
and that are repeated."""
MIN_WORDY = 0.8
"""Lower bound of the fraction of lines with a letter; a column of numbers is not a list."""
MIN_ORDERED = 0.9
"""Lower bound of the fraction of ordered neighbours in sorted lines; by chance it is 0.5, with a
standard deviation of 0.07 for 20 lines."""
MIN_SHARED = 0.05
"""Fraction of held-out documents also in the training text from which there is a warning."""
MAX_COMPARED_CHARS = 20_000_000
"""Longest text whose documents or passages are compared, in characters."""
MIN_COPIED = 0.1
"""Fraction of a held-out stream that repeats the training text from which there is a warning."""
MIN_COVERAGE = 0.9
"""Fraction of training tokens in the vocabulary below which there is a warning."""
UNKNOWN_MARK, MIN_MARKS = "<unk>", 10
"""Symbol of texts that were prepared for models of words, and how many of it such a text has at
its beginning."""
FEW_TOKENS = 1000
"""Training tokens below which there is a warning."""

MIN_NUMBERS = 20
"""Lines of numbers from which a text may be a series."""
_NUMBER = re.compile(r"[+-]?(?!0\d)(?!\d{16})(\d+([.,]\d+)?|[.,]\d+)([eE][+-]?\d+)?")
"""Numbers of a series: neither codes that begin with 0 nor more digits than a float64 holds."""
_SENTENCE_ENDS = frozenset(".,;:!?…-–—\"'”’»。、！？」।۔؟")
_CODE = frozenset("{}[]()=<>;|\\/#@*")


def list_advice(head: str, document: str, *, ends_held_out: bool) -> list[str]:
    """Advise about a list that is read as one stream, or of which only the end is held out.

    `head` is the beginning of the text, with END marks.
    """
    if document not in ("stream", "line"):
        return []
    whole = head[:HEAD_CHARS]
    lines = whole.split("\n" if document == "stream" else END)
    cut = len(head) >= HEAD_CHARS
    if cut or not lines[-1]:
        lines.pop()
    entries = [stripped for line in lines if (stripped := line.strip())]
    if len(entries) < MIN_ENTRIES:
        return []
    in_order = _is_sorted(entries)
    if document == "line":
        if not (in_order and ends_held_out):
            return []
        return [
            "The documents are sorted, so the held-out last ones are not like the others. "
            "Hold out documents from the whole text with --hold-out random"
        ]
    if not _is_list(lines, entries, in_order):
        return []
    size = f"half of them of {median(map(len, entries)):.0f} characters or fewer"
    order = ", sorted" if in_order else ""
    more = " or more" if cut else ""
    return [
        f"The text looks like a list ({len(entries):,} lines{more}, {size}{order}), but is read "
        "as one stream. To read each line as a separate document use: "
        "--document line --hold-out random"
    ]


def _is_sorted(entries: Sequence[str]) -> bool:
    folded = [entry.casefold() for entry in entries]
    pairs = [(left, right) for left, right in pairwise(folded) if left != right]
    rising = sum(left < right for left, right in pairs)
    most = max(rising, len(pairs) - rising)
    return len(pairs) >= MIN_ENTRIES - 1 and most >= MIN_ORDERED * len(pairs)


def _is_list(lines: Sequence[str], entries: Sequence[str], in_order: bool) -> bool:
    count = len(entries)
    marked = sum(entry[-1] in _SENTENCE_ENDS or not _CODE.isdisjoint(entry) for entry in entries)
    indented = sum(line[:1].isspace() for line in lines)
    wordy = sum(any(map(str.isalpha, entry)) for entry in entries)
    ninth_decile = quantiles(map(len, entries), n=10)[-1]
    short = ninth_decile <= MAX_ENTRY_CHARS and (
        median(len(entry.split()) for entry in entries) <= MAX_ENTRY_WORDS
    )
    formulas = _are_formulas(entries)
    return (
        (short or formulas or (in_order and ninth_decile <= MAX_SORTED_CHARS))
        and len(lines) - count <= MAX_BLANK * len(lines)
        and (formulas or marked <= MAX_MARKED * count)
        and indented <= MAX_MARKED * count
        and wordy >= MIN_WORDY * count
        and count - len(set(entries)) <= MAX_REPEATED * count
    )


def _are_formulas(entries: Sequence[str]) -> bool:
    """Return True for ASCII without blanks, whatever marks it has: molecules, addresses.

    Lines of which many have the greatest length are one text that was wrapped. Lines of Chinese,
    Japanese or Thai have no blanks either.
    """
    count = len(entries)
    longest = max(map(len, entries))
    unbroken = sum(entry.isascii() and len(entry.split()) == 1 for entry in entries)
    wrapped = sum(len(entry) == longest for entry in entries)
    fields = sum(entry[0] in "<{[" or "," in entry or ";" in entry for entry in entries)
    return (
        unbroken >= (1 - MAX_BLANK) * count
        and wrapped <= MAX_MARKED * count
        and fields <= MAX_REPEATED * count
    )


def shared_advice(train: Iterable[str], held_out: Iterable[str], document: str) -> list[str]:
    """Advise if many held-out documents are in the training text too.

    Both texts come in chunks, with an END after each document.
    """
    known = set(map(hash, _documents(train)))
    count = shared = 0
    for text in _documents(held_out):
        count += 1
        shared += hash(text) in known
    if shared < max(2, MIN_SHARED * count):
        return []
    how = ", such as with: awk '!seen[$0]++'" if document == "line" else ""
    return [
        f"{100 * shared / count:.0f} % of the held-out documents ({shared:,} of {count:,}) are in "
        "the training text too, so the validation figures look better than they are. Remove the "
        f"repeats{how}"
    ]


def copied_advice(train: Iterable[str], held_out: Iterable[str]) -> list[str]:
    """Advise if much of a held-out stream repeats passages of the training text.

    That happens if a folder holds several drafts of one text.
    """
    fraction = copied_fraction(train, held_out)
    if fraction < MIN_COPIED:
        return []
    return [
        f"{100 * fraction:.0f} % of the passages of the held-out text are in the training text "
        "too, so the validation figures look better than they are. Keep one draft of each text, or "
        "give another text with --valid"
    ]


def _documents(chunks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(END)
        yield from (text for text in whole if text.strip())


def coverage_advice(coverage: float, unit: str, *, built: bool) -> list[str]:
    """Advise if many training tokens are unknown; `built` if the vocabulary is of this text."""
    if coverage >= MIN_COVERAGE:
        return []
    hint = ""
    if built and UNITS[unit].whole_words:
        hint = ". For a script without blanks between its words use --unit char or bpe"
    unknown = f"{100.0 * (1.0 - coverage):.0f} %"
    return [f"{unknown} of the training tokens are not in the vocabulary (UNK){hint}"]


def prepared_advice(head: str, unit: str, words: str) -> list[str]:
    """Advise if a text that is prepared for models of words, as Penn Treebank is, is cut again.

    `head` is the beginning of the text, `words` the rule that splits it.
    """
    count = head[:HEAD_CHARS].count(UNKNOWN_MARK)
    if not UNITS[unit].whole_words or words == "whitespace" or count < MIN_MARKS:
        return []
    return [
        f"The text has {UNKNOWN_MARK} in the place of words ({count:,} times at its beginning), as "
        f"texts for models of words have; --words {words} cuts {UNKNOWN_MARK} into pieces, and the "
        "perplexity is not that of publications. To split at blanks use: --words whitespace"
    ]


def numbers_advice(head: str) -> list[str]:
    """Advise if each line or row at the beginning of a text, `head`, is one number."""
    lines = head[:HEAD_CHARS].replace(END, "\n").split("\n")[:-1]  # the last one may be cut
    rows = [line.strip() for line in lines if line.strip()]
    if len(rows) < MIN_NUMBERS or not all(map(_NUMBER.fullmatch, rows)):
        return []
    return [
        f"Each line of the text is a number (the first is {rows[0]:.20}), read as text. To "
        f"learn and forecast a series of numbers use: {named('unit')} number"
    ]


def size_advice(tokens: int, chars: int, unit: str) -> list[str]:
    """Advise about a training text of few tokens."""
    if tokens >= FEW_TOKENS:
        return []
    spec = UNITS[unit]
    other = "" if spec.letter else f", or use --unit char ({chars:,} characters)"
    return [
        f"The training text has {tokens:,} {spec.plural}; a model learns little from fewer than "
        f"{FEW_TOKENS:,}. Give more text{other}"
    ]
