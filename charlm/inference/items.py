"""Items: whole documents that a model generates, such as names or lines, kept by rules.

Attempt number i depends on (seed, i) alone, so a seed gives the same items however many are asked
for and however they are batched. Items come in the order of their attempts.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from charlm.errors import RunError, UsageError
from charlm.inference.generation import Piece, gathered
from charlm.phases import advance, phase
from charlm.text.tokenizers.tokenizer_json import EOS

MAX_BATCH = 256
"""Attempts side by side; the first batches are as small as the number of items allows."""
MIN_ATTEMPTS = 1000
ATTEMPTS_PER_ITEM = 100
"""Attempts allowed for each item, and MIN_ATTEMPTS in any case, where no limit is given."""

Generate = Callable[[int, int], Iterator[Piece]]
"""Pieces of so many samples (second number) from a first attempt on, their samples counted from 0,
each sample ended at EOS."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item. `text` is new text, `whole` has the prompt in it; rules are about `whole`.

    `nats` is -ln P(text, and its end) under the model itself; `cut` means that the item reached the
    limit of tokens before its end.
    """

    text: str
    whole: str
    attempt: int
    tokens: int
    nats: float
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Rules for items that are kept; by default every one.

    `unique`: no item twice. `is_known`: skip items for which it is true (`--new`). `match`: a
    regular expression that is found somewhere in the item. Lengths are in characters.
    """

    unique: bool = False
    is_known: Callable[[str], bool] | None = None
    match: str = ""
    min_len: int = 0
    max_len: int | None = None

    def __post_init__(self) -> None:
        """Check the values. Raises UsageError."""
        if self.min_len < 0 or (self.max_len is not None and self.max_len < self.min_len):
            raise UsageError(
                f"--min-len is {self.min_len} and --max-len {self.max_len}; expected 0 or more, "
                "and --max-len not below --min-len"
            )
        try:
            re.compile(self.match)
        except re.error as error:
            raise UsageError(
                f"--match {self.match!r} is not a regular expression: {error}; expected one of "
                "Python's, such as '^[A-M]'"
            ) from error

    def problem(self, text: str) -> str:
        """Return the rule that an item breaks, as it is reported; empty if it breaks none."""
        if len(text) < self.min_len:
            return "shorter than --min-len"
        if self.max_len is not None and len(text) > self.max_len:
            return "longer than --max-len"
        if self.match and not re.search(self.match, text):
            return "without a match"
        if self.is_known is not None and self.is_known(text):
            return "in the training text"
        return ""


@dataclass(kw_only=True)
class Items:
    """Items as they are generated; iterate once. Counts what was left out on the way.

    `length` is the limit of tokens that `generate` keeps. `prompt` is the part of an item that is
    there before, `backward` means that the model writes what comes before it. `attempts` grows
    with each item tried, `rejected` counts the reasons.
    """

    generate: Generate
    count: int
    length: int
    rules: Rules = field(default_factory=Rules)
    limit: int | None = None
    prompt: str = ""
    backward: bool = False
    attempts: int = 0
    found: int = 0
    cut: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Item]:
        """Yield `count` items. Raises RunError when the attempts are used up before."""
        limit = self.limit or max(MIN_ATTEMPTS, ATTEMPTS_PER_ITEM * self.count)
        seen: set[str] = set()
        started, batch = 0, min(self.count, MAX_BATCH)
        while self.found < self.count and started < limit:
            kept: list[Item] = []
            with phase("searching for items", unit="attempts"):
                while not kept and started < limit:
                    batch = min(batch, limit - started)
                    kept += self._kept(started, batch, seen)
                    advance(batch)
                    started += batch
                    batch = min(2 * batch, MAX_BATCH)
            yield from kept
        if self.found == self.count:
            return
        raise RunError(
            f"{self.found:,} of {self.count:,} items were found in {self.attempts:,} attempts"
            f"{self.reasons()}; expected all of them. Ask for fewer with --n, relax the rules, "
            "raise --temperature, or allow more with --attempts"
        )

    def _kept(self, first: int, size: int, seen: set[str]) -> Iterator[Item]:
        """Yield what the rules keep of the attempts from `first` on, until there is enough."""
        for item in self._batch(first, size):
            self.attempts += 1
            problem = self.rules.problem(item.whole)
            if not problem and self.rules.unique and item.whole in seen:
                problem = "repeated"
            if problem:
                self.rejected[problem] += 1
                continue
            if self.rules.unique:
                seen.add(item.whole)
            self.found += 1
            self.cut += item.cut
            yield item
            if self.found == self.count:
                return

    def reasons(self) -> str:
        """Return the counts of what was left out, in brackets, the greatest first; or nothing."""
        found = [f"{count:,} {reason}" for reason, count in self.rejected.most_common()]
        return f" ({', '.join(found)})" if found else ""

    def _batch(self, first: int, size: int) -> Iterator[Item]:
        """Generate the attempts from `first` on and yield them in order."""
        for number, sample in enumerate(gathered(self.generate(first, size), size)):
            text, start = sample.text, self.prompt
            yield Item(
                text=text,
                whole=text + start if self.backward else start + text,
                attempt=first + number,
                tokens=sample.tokens,
                nats=sample.nats,
                cut=sample.tokens == self.length and sample.last != EOS,
            )
