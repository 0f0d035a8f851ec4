"""Layout of samples: separators, records for programs, and notes."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from charlm.inference.generation import Sample
from charlm.inference.items import Item, Items
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.units import count_of

ESCAPES = re.compile(r"\\[nrt0]")
"""Escape of a line end, tab or NUL, which a shell passes on as two characters."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Text that is written between or after samples.

    By default each line ends with a line end, and other samples are separated by a blank line. A
    `separator` is written exactly between samples, so splitting at it gives them back; `print0`
    ends each with NUL. `show` makes a text fit for a terminal.
    """

    separator: str | None
    print0: bool
    lines: bool
    show: Callable[[str], str]

    def pieces(self, texts: Iterable[str]) -> Iterator[str]:
        """Yield each sample with what is written before and after it."""
        for number, text in enumerate(texts):
            yield self._around(self.show(text), first=number == 0)

    def _around(self, text: str, *, first: bool) -> str:
        if self.print0:
            return text + "\0"
        if self.separator is not None:
            return text if first else self.separator + text
        if self.lines:
            return text + "\n"
        return ("" if first else "\n") + text + ("" if text.endswith("\n") else "\n")


def sample_record(sample: Sample | Item, text: str, number: int, seed: int) -> dict[str, Any]:
    """Return a sample as a line of JSON; `text` may include the prompt."""
    record = {
        "schema_version": 1,
        "sample": number,
        "seed": seed,
        "text": text,
        "tokens": sample.tokens,
        "log_probability": -sample.nats,
    }
    return {**record, "attempt": sample.attempt} if isinstance(sample, Item) else record


def item_notes(items: Items, *, filtered: bool) -> list[str]:
    """Return notes on items that were left out and on items that were cut off."""
    notes = []
    if filtered and items.kept == items.count:
        found, attempts = count_of(items.count, "item"), count_of(items.attempts, "attempt")
        notes.append(f"{found} in {attempts}{items.reasons()}")
    if items.cut:
        cut, length = count_of(items.cut, "item"), count_of(items.length, "token")
        verb = "was" if items.cut == 1 else "were"
        notes.append(f"{cut} {verb} cut at {length}; allow more with --len")
    return notes


def text_warnings(vocabulary: Vocabulary, stop: str, separator: str, *, ends: bool) -> list[str]:
    """Warn of a stop text and a separator that will not work as intended.

    `ends` is true for a model that ends documents, which it can do at a line end.
    """
    warnings = [
        f"{flag} {text!r} is taken literally; for a line end or tab use "
        + "$'{}' in bash".format(text.replace("'", "\\'"))
        for flag, text in (("--stop", stop), ("--separator", separator))
        if ESCAPES.search(text)
    ]
    known = set("".join(vocabulary.tokens[2:] if stop else ()))
    never = [c for c in stop if c not in known and (c != "\n" or not ends)]
    if never and not ESCAPES.search(stop) and not vocabulary.spec.byte_level:
        warnings.append(
            f"stop text: the model cannot write {never[0]!r}, so it will not stop there"
        )
    return warnings
