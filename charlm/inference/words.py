"""Words: the surprisal of each word of a text, from tokens of any unit.

The probability of a word includes that it ends there, so that the probabilities of all words sum to
1 (Pimentel and Meister 2024, arxiv.org/abs/2406.14561; Oh and Schuler 2024,
arxiv.org/abs/2406.10851). With B, the total probability of the entries that end a word:

    surprisal = -ln P(its tokens) - ln B(after it) + ln B(before it)

The last term is there if a token of the word begins with the blank before it (byte-pair encoding).
The rest of the blanks, which of them it was and whether the text ends there, is the `gap`.
"""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np

from charlm.backends.interface import Entries, Ids, Nats
from charlm.errors import UsageError, check_choice, named
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.decoders import byte_string
from charlm.text.tokenizers.spans import Places
from charlm.text.tokenizers.tokenizer_json import EOS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

BOUNDARIES = ("trailing", "leading")
"""Rules for the blank at a word: `trailing` prices that the word ends, `leading` the blank before
it."""
WORD_CHARS = ("blank", "text")
"""Rules for the cut of words: at blanks, or into the pieces of `--words text`."""
STATEMENTS = {
    "trailing": "a word's surprisal includes that it ends there, and no blank",
    "leading": "a word's surprisal includes the blank before it, and not that it ends",
}
"""What the surprisal of a word includes, by the rule for its boundary."""
BLANKS = "\t\n\x0b\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Characters with the Unicode property White_Space, for a regular expression."""
APOSTROPHES = ("'", "’")


@cache
def _letters() -> str:
    """Return a class of a regular expression: letters, marks, numbers and the underscore.

    It is LETTER of `tokenizer_json`, which Python's expressions cannot name.
    """
    planes = chain(range(0x20000), range(0xE0000, 0xE0200))  # no others have marks
    marks = [letter for letter in map(chr, planes) if unicodedata.category(letter)[0] == "M"]
    return rf"[\w{''.join(marks)}]"


PATTERNS: dict[str, Callable[[], str]] = {
    "blank": lambda: f"[^{BLANKS}]+",
    "text": lambda: rf"{_letters()}+(?:['’]{_letters()}+)*|[^{BLANKS}]",
}
"""Regular expressions of words, by the rule of their cut."""
ENDING: dict[str, Callable[[], str]] = {
    "blank": lambda: f"[{BLANKS}]",
    "text": lambda: rf"(?!{_letters()})(?:[^'’]|['’](?!{_letters()})[\s\S])",
}
"""Regular expressions of the characters after a word that show that it has ended."""


@dataclass(frozen=True, kw_only=True)
class WordRule:
    """Rule by which tokens become words. Raises UsageError for unknown names."""

    boundary: str = "trailing"
    chars: str = "blank"

    def __post_init__(self) -> None:
        """Check the names."""
        check_choice(named("boundary"), self.boundary, BOUNDARIES)
        check_choice(named("word_chars"), self.chars, WORD_CHARS)

    def __str__(self) -> str:
        return f"{self.boundary} {self.chars}"

    @property
    def statement(self) -> str:
        """Sentence that states the rule."""
        cut = (
            "what blanks separate" if self.chars == "blank" else "pieces of text, punctuation apart"
        )
        return f"Words are {cut}; {STATEMENTS[self.boundary]} (--boundary {self.boundary})"


@dataclass(frozen=True, kw_only=True)
class WordScore:
    """One word of a scored text.

    `nats` is its surprisal. `gap` holds the nats of the blanks and ends after it, and for the first
    word of those before it, that are not part of a word. `tokens` counts its tokens; `oov` is true
    if one of them is unknown. `start` and `end` are character offsets in the text, half open.
    """

    word: str
    nats: float
    gap: float
    tokens: int
    oov: bool
    start: int
    end: int

    def __repr__(self) -> str:
        return f"WordScore({self.word!r}, {self.nats:.3f} nats)"


@dataclass(frozen=True, kw_only=True)
class TokenNats:
    """Tokens of a text: ids, nats, the characters that they cover, all of shape (tokens,).

    `log_masses` has ln B before each token, and, if no EOS ends the text, after the last.
    """

    ids: Ids
    nats: Nats
    starts: Places
    ends: Places
    log_masses: Nats


class WordReader:
    """Reader of words from the tokens of a vocabulary, under a rule.

    `ends` is true if EOS ends a word. `entries` are the entries that end a word, or None if every
    token ends it, since tokens are words. Raises UsageError if the vocabulary has no such words.
    """

    def __init__(self, vocabulary: Vocabulary, rule: WordRule, *, ends: bool) -> None:
        if isinstance(vocabulary, BackwardVocabulary):
            raise UsageError(
                "words of a model that reads backward; expected one that reads forward. "
                f"Score texts or tokens ({named('by')})"
            )
        if rule.chars == "text" and vocabulary.line_ends_are_eos:
            raise UsageError(
                f"{named('word_chars')} is text, but the tokens of this model are what blanks "
                f"separate; expected blank. Leave out {named('word_chars')}"
            )
        self.rule = rule
        self._is_leading = rule.boundary == "leading"
        self._pattern = re.compile(PATTERNS[rule.chars]())
        self.entries = None if self._is_leading else _ending_entries(vocabulary, rule, ends=ends)

    def words(self, text: str, tokens: TokenNats) -> tuple[WordScore, ...]:
        """Return the words of a text with their scores.

        The sum of `nats` and `gap` over the words is that of the tokens, plus with `trailing` -ln B
        after the last word if no token follows it.
        """
        starts, ends, firsts, stops = self._spans(text, tokens)
        if not len(starts):
            return ()
        sums = np.concatenate([[0.0], np.cumsum(tokens.nats)])
        unknown = np.concatenate([[0], np.cumsum(tokens.ids == UNK)])
        begins = self._leading(starts, firsts, stops, tokens) if self._is_leading else firsts
        nexts = np.append(begins[1:], len(tokens.ids))  # first token of the word after each
        nats, gaps = sums[stops] - sums[begins], sums[nexts] - sums[stops]
        gaps[0] += sums[begins[0]]
        if not self._is_leading:
            costs = self._end_costs(text, ends, stops, sums, tokens)
            nats += costs
            gaps -= np.where(nexts > stops, costs, 0.0)
            nats[1:] -= np.where(nexts[:-1] > stops[:-1], 0.0, costs[:-1])
            if self.entries is not None and firsts[0] == 0 and tokens.starts[0] < 0:
                nats[0] += tokens.log_masses[0]  # it begins with the blank after the context
                gaps[0] -= tokens.log_masses[0]
        columns = (starts, ends, nats, gaps, stops - firsts, unknown[stops] > unknown[firsts])
        return tuple(
            WordScore(
                word=text[start:end],
                nats=cost,
                gap=gap,
                tokens=count,
                oov=oov,
                start=start,
                end=end,
            )
            for start, end, cost, gap, count, oov in zip(
                *(column.tolist() for column in columns), strict=True
            )
        )

    def _spans(self, text: str, tokens: TokenNats) -> tuple[Places, Places, Places, Places]:
        """Return the characters and the tokens of each word, from the first to before the stop.

        Words that share a token are one.
        """
        spans = [match.span() for match in self._pattern.finditer(text)]
        starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
        firsts = np.searchsorted(tokens.ends, starts, "right")
        stops = np.searchsorted(tokens.starts, ends, "left")
        begins = np.append(True, firsts[1:] >= stops[:-1])[: len(spans)]
        lasts = np.append(begins[1:], True)[: len(spans)]
        return starts[begins], ends[lasts], firsts[begins], stops[lasts]

    def _leading(self, starts: Places, firsts: Places, stops: Places, tokens: TokenNats) -> Places:
        """Return the first token of each word with the blank before it, unless that is EOS."""
        blanks = np.searchsorted(tokens.ends, starts - 1, "right")
        blanks = np.maximum(blanks, np.append(0, stops[:-1]))
        is_end = tokens.ids[firsts - 1] == EOS
        return np.where((blanks < firsts) & ~is_end, blanks, firsts)

    def _end_costs(
        self, text: str, ends: Places, stops: Places, sums: Nats, tokens: TokenNats
    ) -> Nats:
        """Return -ln B after each word; 0 if it certainly ends there.

        B includes what follows the word if its first token does not show that the word ends: a
        blank of several bytes, an unknown one, an apostrophe before a blank.
        """
        costs = np.zeros(len(ends))
        if self.entries is None:
            return costs
        costs -= tokens.log_masses[stops]
        following = tokens.ids[np.minimum(stops, len(tokens.ids) - 1)]
        shown = (stops == len(tokens.ids)) | self.entries[following]
        for at in np.flatnonzero(~shown):
            after = text[ends[at] : ends[at] + 2]
            deciding = 2 if self.rule.chars == "text" and after[:1] in APOSTROPHES else 1
            stop = np.searchsorted(tokens.starts, ends[at] + deciding, "left")
            costs[at] = -np.logaddexp(-costs[at], sums[stops[at]] - sums[stop])
        if self.rule.chars == "text":
            letter = re.compile(_letters()).match
            certain = [not letter(text[end - 1]) for end in ends]
            costs[certain] = 0.0
        return costs


def _ending_entries(vocabulary: Vocabulary, rule: WordRule, *, ends: bool) -> Entries | None:
    """Return the entries after which a word has ended, by the characters that they begin with.

    EOS is one of them with `ends`, UNK is none. None if every entry ends a word, or none does.
    """
    if vocabulary.line_ends_are_eos or (vocabulary.spec.whole_words and rule.chars == "text"):
        return None
    pattern = re.compile(ENDING[rule.chars]())
    entries = np.zeros(len(vocabulary), np.bool_)
    entries[EOS] = ends
    for index, token in enumerate(vocabulary.tokens[EOS + 1 :], start=EOS + 1):
        text = _whole_characters(byte_string(token)) if vocabulary.spec.byte_level else token
        entries[index] = bool(pattern.match(text))
    return entries if entries.any() else None


def _whole_characters(data: bytes) -> str:
    """Return the characters at the beginning of bytes, up to the first incomplete one."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return data[: error.start].decode("utf-8")
