"""Items: complete generated documents, such as names or lines, that satisfy rules.

Attempt i depends only on (seed, i), so the items of a seed do not depend on their number or on
batches. Items are in the order of their attempts.
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
"""Maximum number of attempts side by side; the first batch has as many as there are items."""
MIN_ATTEMPTS = 1000
ATTEMPTS_PER_ITEM = 100
"""Default limit of attempts per item; the limit is never below MIN_ATTEMPTS."""

Generate = Callable[[int, int], Iterator[Piece]]
"""Function of the first attempt and the number of samples that yields the pieces of these samples,
numbered from 0; each sample ends at EOS."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item: its new `text`, and the `whole` with the prompt, to which the rules apply.

    `nats` is -ln P(text and its end) under the model; `cut` is True if the item reached the limit
    of tokens before its end.
    """

    text: str
    whole: str
    attempt: int
    tokens: int
    nats: float
    cut: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Rules for items; by default all items are kept.

    `unique`: no item twice. `is_known`: skip items for which it returns True (`--new`). `match`: a
    regular expression that must match anywhere in the item. Lengths are in characters.
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
        """Return the reason to reject an item, or an empty string."""
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
    """Iterator over items as they are generated, with counts of the rejected ones; for one use.

    `length` is the limit of tokens of `generate`. `prompt` is the given part of each item; a
    `backward` model generates the text before it. `attempts` counts the items that were tried,
    `rejected` the reasons to reject them.
    """

    generate: Generate
    count: int
    length: int
    rules: Rules = field(default_factory=Rules)
    limit: int | None = None
    prompt: str = ""
    backward: bool = False
    attempts: int = 0
    kept: int = 0
    cut: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Item]:
        """Yield `count` items. Raises RunError if there are not enough attempts."""
        limit = self.limit or max(MIN_ATTEMPTS, ATTEMPTS_PER_ITEM * self.count)
        seen: set[str] = set()
        started, batch = 0, min(self.count, MAX_BATCH)
        while self.kept < self.count and started < limit:
            items: list[Item] = []
            with phase("searching for items", unit="attempts"):
                while not items and started < limit:
                    batch = min(batch, limit - started)
                    items += self._accepted(started, batch, seen)
                    advance(batch)
                    started += batch
                    batch = min(2 * batch, MAX_BATCH)
            yield from items
        if self.kept == self.count:
            return
        raise RunError(
            f"{self.kept:,} of {self.count:,} items were found in {self.attempts:,} attempts"
            f"{self.reasons()}; expected all of them. Ask for fewer with --n, relax the rules, "
            "raise --temperature, or allow more with --attempts"
        )

    def _accepted(self, first: int, size: int, seen: set[str]) -> Iterator[Item]:
        """Yield the items that the rules accept from attempt `first` on, until there are enough."""
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
            self.kept += 1
            self.cut += item.cut
            yield item
            if self.kept == self.count:
                return

    def reasons(self) -> str:
        """Return the counts of rejected items in brackets, the greatest first, if there are any."""
        counts = [f"{count:,} {reason}" for reason, count in self.rejected.most_common()]
        return f" ({', '.join(counts)})" if counts else ""

    def _batch(self, first: int, size: int) -> Iterator[Item]:
        """Generate `size` attempts from `first` on and yield them in order."""
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
