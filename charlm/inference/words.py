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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.backends.interface import Entries, Ids, Nats
from charlm.errors import UsageError, check_choice, named
from charlm.text.direction import BackwardVocabulary
from charlm.text.tokenizers.decoders import byte_string
from charlm.text.tokenizers.spans import Places
from charlm.text.tokenizers.tokenizer_json import EOS, LETTERS, UNK
from charlm.text.tokenizers.vocabulary import Vocabulary

BOUNDARIES = ("trailing", "leading")
"""Rules for the blank at a word: `trailing` prices that the word ends, `leading` the blank before
it."""
WORD_CHARS = ("blank", "text")
"""Rules for the cut of words: at blanks, or into the pieces of `--words text`."""
INCLUDED = {"trailing": "that the word ends", "leading": "the blank before the word"}
"""Part of the text that the surprisal of a word includes, by the rule for its boundary."""
BLANKS = "\t\n\x0b\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""Characters with the Unicode property White_Space, for a regular expression."""
NO_TOKEN = -1
"""Id of a place without a token."""
NO_WORD_SPACE = -2
"""Id that no place has."""
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
        rule = f"--boundary {self.boundary}, --word-chars {self.chars}"
        return f"Surprisals include {INCLUDED[self.boundary]} ({rule})"


class WordScore(NamedTuple):
    """One word of a scored text.

    `nats` is its surprisal. `gap` holds the nats of the blanks and ends after it, and for the first
    word of those before it, that are not part of a word. `tokens` counts its tokens, with
    `leading` also the blank before it; `oov` is true if one of them is unknown. `start` and `end`
    are character offsets in the text, half open. `entropy` is that of the prediction of the first
    token with a character of the word, in nats, or None: the least entropy that the prediction of
    the word can have, since what follows its first token adds to it.
    """

    word: str
    nats: float
    gap: float
    tokens: int
    oov: bool
    start: int
    end: int
    entropy: float | None = None

    def __repr__(self) -> str:
        return f"WordScore({self.word!r}, {self.nats:.3f} nats)"


@dataclass(frozen=True, kw_only=True)
class TokenNats:
    """Tokens of a text: ids, nats, the characters that they cover, all of shape (tokens,).

    `log_masses` has ln B before each token, and, if no EOS ends the text, after the last.
    `before` is the last character of the context, without a space that is scored; "" without one.
    `entropies` are of the prediction of each token; None without.
    """

    ids: Ids
    nats: Nats
    starts: Places
    ends: Places
    log_masses: Nats
    before: str
    entropies: Nats | None = None


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
        self._mark = re.compile(f"(?!{_letters()})[^{BLANKS}]")
        self._space = _space_of_words(vocabulary)
        self.entries = None if self._is_leading else _ending_entries(vocabulary, rule, ends=ends)

    def words(
        self, texts: Sequence[str], tokens: Sequence[TokenNats]
    ) -> list[tuple[WordScore, ...]]:
        """Return the words of each text with their scores; all are computed at once.

        The sum of `nats` and `gap` over the words of a text is that of its tokens, plus with
        `trailing` -ln B after the last word if no token follows it.
        """
        every = _Tokens(texts, tokens)
        words = self._cut(every)
        if not len(words.texts):
            return [() for _ in texts]
        is_first = np.append(True, words.texts[1:] != words.texts[:-1])
        is_last = np.append(is_first[1:], True)
        text_begins, text_stops = every.begins[words.texts], every.stops[words.texts]
        begins = words.firsts
        if self._is_leading:
            begins = self._leading(
                words, every, np.where(is_first, text_begins, _shifted(words.stops))
            )
        nexts = np.where(is_last, text_stops, np.append(begins[1:], 0))  # begin of the word after
        nats, gaps = every.nats(begins, words.stops), every.nats(words.stops, nexts)
        gaps += np.where(is_first, every.nats(text_begins, begins), 0.0)
        if not self._is_leading:
            costs = self._end_costs(words, every)
            nats += costs
            costs = np.where(np.isfinite(costs), costs, 0.0)  # what follows is infinite too
            gaps -= np.where(is_last & (nexts == words.stops), 0.0, costs)
            joined = ~is_first & (_shifted(nexts) == _shifted(words.stops))
            before = np.where(joined, -_shifted(costs), self._begin_masses(words, every, is_first))
            nats += before
            gaps -= np.where(is_first, before, 0.0)
            gaps[:-1] -= np.where(is_first, 0.0, before)[1:]
        return self._scores(words, every, begins, nats, gaps)

    def _cut(self, every: "_Tokens") -> "_Words":
        """Return the characters and the tokens of each word; words that share a token are one."""
        spans: list[tuple[int, int]] = []
        counts = []
        for text in every.texts:
            own = [match.span() for match in self._pattern.finditer(text)]
            counts.append(len(own))
            spans += own
        owners = np.repeat(np.arange(len(counts)), counts)
        starts, ends = np.array(spans, np.int64).reshape(-1, 2).T + every.offsets[owners]
        firsts = np.searchsorted(every.ends, starts, "right")
        spelled = (every.ids[firsts - 1] == self._space) & (every.starts[firsts] == starts)
        firsts -= spelled
        stops = np.searchsorted(every.starts, ends, "left")
        begins = np.append(True, firsts[1:] >= stops[:-1])[: len(spans)]
        lasts = np.append(begins[1:], True)[: len(spans)]
        return _Words(
            texts=owners[begins],
            starts=starts[begins],
            ends=ends[lasts],
            firsts=firsts[begins],
            stops=stops[lasts],
        )

    def _leading(self, words: "_Words", every: "_Tokens", earliest: Places) -> Places:
        """Return the first token of each word with the blank before it, unless that is EOS.

        No token before `earliest` belongs to it.
        """
        blanks = np.searchsorted(every.ends, words.starts - 1, "right")
        blanks = np.maximum(blanks, earliest)
        is_end = every.ids[words.firsts - 1] == EOS
        return np.where((blanks < words.firsts) & ~is_end, blanks, words.firsts)

    def _end_costs(self, words: "_Words", every: "_Tokens") -> Nats:
        """Return -ln B after each word; 0 if it certainly ends there.

        B includes what follows the word if its first token does not show that the word ends: a
        blank of several bytes, an unknown one, an apostrophe before a blank.
        """
        costs = np.zeros(len(words.texts))
        if self.entries is None:
            return costs
        costs -= every.log_masses[words.stops]
        following = every.ids[words.stops]
        shown = (following == NO_TOKEN) | self.entries[following]
        for at in np.flatnonzero(~shown):
            after = every.characters(int(words.texts[at]), int(words.ends[at]), 2)
            deciding = 2 if self.rule.chars == "text" and after[:1] in APOSTROPHES else 1
            stop = np.searchsorted(every.starts, words.ends[at] + deciding, "left")
            stop = min(stop, every.stops[words.texts[at]])
            following_nats = every.nats(words.stops[at : at + 1], np.array([stop]))[0]
            costs[at] = -np.logaddexp(-costs[at], -following_nats)
        if self.rule.chars == "text":
            ends = zip(words.texts.tolist(), (words.ends - 1).tolist(), strict=True)
            costs[[self._is_mark(every.characters(text, end, 1)) for text, end in ends]] = 0.0
        return costs

    def _begin_masses(self, words: "_Words", every: "_Tokens", is_first: NDArray[np.bool_]) -> Nats:
        """Return ln B before each word whose first token begins with a blank; else 0.

        It is 0 for the first word of a text without context, and directly after a mark.
        """
        if self.entries is None:
            return np.zeros(len(words.texts))
        has_context = np.array([bool(each) for each in every.before])[words.texts]
        after_mark = np.array([self._is_mark(each) for each in every.before])[words.texts]
        after_mark &= words.firsts == every.begins[words.texts]
        opened = self.entries[every.ids[words.firsts]]
        opened &= every.starts[words.firsts] < words.starts
        opened &= ~is_first | (has_context & ~after_mark)
        return np.where(opened, every.log_masses[words.firsts], 0.0)

    def _is_mark(self, character: str) -> bool:
        """Return whether a character is a word of its own, after which B is not counted."""
        return self.rule.chars == "text" and bool(self._mark.match(character))

    @staticmethod
    def _scores(
        words: "_Words", every: "_Tokens", begins: Places, nats: Nats, gaps: Nats
    ) -> list[tuple[WordScore, ...]]:
        """Return the scores of the words of each text, whose first tokens are `begins`."""
        offsets = every.offsets[words.texts]
        unknown = every.unknown[words.stops] > every.unknown[begins]
        starts, ends = words.starts - offsets, words.ends - offsets
        columns = (words.texts, starts, ends, nats, gaps, words.stops - begins, unknown)
        entropies = every.entropies[words.firsts].tolist()
        rows = zip(*[column.tolist() for column in columns], entropies, strict=True)
        texts = every.texts
        scores = [
            WordScore(texts[text][start:end], cost, gap, count, oov, start, end, entropy)
            for text, start, end, cost, gap, count, oov, entropy in rows
        ]
        cuts = np.searchsorted(words.texts, np.arange(len(texts) + 1))
        return [tuple(scores[cut:stop]) for cut, stop in pairwise(cuts.tolist())]


@dataclass(frozen=True, kw_only=True)
class _Words:
    """Words of several texts: their text, and the first and the stop of characters and tokens."""

    texts: Places
    starts: Places
    ends: Places
    firsts: Places
    stops: Places


class _Tokens:
    """Tokens of several texts in one row, each text followed by a place without a token.

    Characters are counted through all texts, with a gap between two of them; `offsets` has the
    first of each text, `begins` its first token, `stops` the place after its last. `unknown` has
    the number of UNKs before each place, `before` the character before each text, `entropies` the
    entropy of each token, or None.
    """

    def __init__(self, texts: Sequence[str], tokens: Sequence[TokenNats]) -> None:
        self.texts = texts
        lengths = np.array([len(each.ids) + 1 for each in tokens], np.int64)
        sizes = np.array([len(text) + 2 for text in texts], np.int64)
        self.offsets = np.cumsum(sizes) - sizes
        self.stops = np.cumsum(lengths) - 1
        self.begins = self.stops + 1 - lengths
        count = int(lengths.sum())
        self.ids = np.full(count, NO_TOKEN)
        self.starts, self.ends = np.empty(count, np.int64), np.empty(count, np.int64)
        self.log_masses, nats = np.zeros(count), np.zeros(count + 1)
        self.before = [each.before for each in tokens]
        self.entropies = np.full(count, None, object)
        places = zip(self.begins.tolist(), self.stops.tolist(), self.offsets.tolist(), strict=True)
        for at, (begin, stop, offset) in enumerate(places):
            own, length = tokens[at], len(texts[at])
            self.ids[begin:stop], nats[begin + 1 : stop + 1] = own.ids, own.nats
            self.starts[begin:stop], self.ends[begin:stop] = own.starts, own.ends
            if own.entropies is not None:
                self.entropies[begin:stop] = own.entropies[: stop - begin].tolist()
            self.starts[stop] = self.ends[stop] = length
            self.starts[begin] = max(self.starts[begin], -1)
            self.starts[begin : stop + 1] += offset
            self.ends[begin : stop + 1] += offset
            self.log_masses[begin : begin + len(own.log_masses)] = own.log_masses[
                : stop + 1 - begin
            ]
        is_infinite = np.isinf(nats)
        self._infinite = np.cumsum(is_infinite)
        self._sums = np.cumsum(np.where(is_infinite, 0.0, nats))
        self.unknown = np.cumsum(np.append(0, self.ids == UNK))

    def nats(self, firsts: Places, stops: Places) -> Nats:
        """Return the sum of the nats from each first place up to its stop."""
        sums = self._sums[stops] - self._sums[firsts]
        return np.where(self._infinite[stops] > self._infinite[firsts], np.inf, sums)

    def characters(self, text: int, start: int, count: int) -> str:
        """Return characters of a text, from one that is counted through all texts."""
        start -= int(self.offsets[text])
        return self.texts[text][start : start + count]


def _shifted(values: NDArray[Any]) -> NDArray[Any]:
    """Return the value of the word before each word; that of the first one has no meaning."""
    return np.roll(values, 1)


def _space_of_words(vocabulary: Vocabulary) -> int:
    """Return the id of a blank alone if tokens of the unit begin with the blank before a word.

    A rare word is spelled by that blank and letters, so the blank is one of its tokens. Other units
    have none: NO_WORD_SPACE.
    """
    pieces = vocabulary.spec.byte_level and not vocabulary.spec.letter
    return vocabulary.ids[LETTERS[0x20]] if pieces else NO_WORD_SPACE


def _ending_entries(vocabulary: Vocabulary, rule: WordRule, *, ends: bool) -> Entries | None:
    """Return the entries after which a word has ended, by the characters that they begin with.

    EOS is one of them with `ends`, UNK is none. None if every entry ends a word, or none does.
    """
    if vocabulary.drops_blanks or (vocabulary.spec.whole_words and rule.chars == "text"):
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
