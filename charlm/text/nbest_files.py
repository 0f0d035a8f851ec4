"""Files of n-best lists and of references: their lines, and errors with file and line."""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from charlm.config.corpus import ReadSettings
from charlm.errors import CorpusError
from charlm.text.documents import check_text
from charlm.text.nbest import NBestLists
from charlm.text.sources.decoding import line_batches
from charlm.text.sources.encodings import decoded
from charlm.text.sources.files import TextFile, shown
from charlm.text.sources.rows import Number, Warn
from charlm.units import count_of, first_few

_MARKS = re.compile(r"^\s*<s>\s*|\s*</s>\s*$", re.IGNORECASE)
"""Marks of the beginning and the end of a sentence, which n-best lists may have."""
_MARK = re.compile(r"</?s>", re.IGNORECASE)
ADVICE = "Correct the line, or name another format with --format"


@dataclass(frozen=True, kw_only=True)
class NBestFiles:
    """The file or folder of n-best lists, and what their format needs beside it.

    `acoustic` and `graph` are files with a cost for each hypothesis (kaldi), `beam` is the number
    of hypotheses for each utterance (nemo), `reading` has the encoding.
    """

    path: Path
    acoustic: Path | None = None
    graph: Path | None = None
    beam: int | None = None
    reading: ReadSettings = field(default_factory=ReadSettings)
    warn: Warn = lambda _: None
    marked: list[int] = field(default_factory=list)
    """Lines of the texts whose sentence marks `unmarked` removed."""

    def pieces(self, path: Path) -> Iterator[str]:
        """Yield the text of a file in pieces. Raises CorpusError if it cannot be read."""
        if not path.exists():
            raise CorpusError(f"{shown(path)} does not exist; expected a file. Check the name")
        return decoded(TextFile(shown(path), path), self.reading, self.warn)

    def unmarked(self, text: str, path: Path, line: int) -> str:
        """Return a text without <s> at its beginning and </s> at its end, and note its line.

        Raises CorpusError if one of them is at another place.
        """
        bare = _MARKS.sub("", text)
        if match := _MARK.search(bare):
            raise line_error(
                path, line, f"has {match[0]} inside a text ({shown(text[:60])})",
                "<s> only at the beginning of a text, </s> only at its end", "Remove it",
            )  # fmt: skip
        if bare != text:
            self.marked.append(line)
        return bare

    def report_marks(self) -> None:
        """Warn of the sentence marks that were removed."""
        if self.marked:
            texts = count_of(len(self.marked), "text")
            self.warn(
                f"{shown(self.path)}: {texts} with <s> or </s> around them, which are no words and "
                f"were left out (the first in line {min(self.marked):,})"
            )

    def lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Yield the lines of a file that are not blank, with their numbers, without line ends."""
        batches = line_batches(self.pieces(path), shown(path))
        for number, line in enumerate(chain.from_iterable(batches), start=1):
            if not line.isspace():
                yield number, line.rstrip("\r\n")


def line_error(
    path: Path | None, line: int, found: str, expected: str, advice: str = ADVICE
) -> CorpusError:
    """Return the error of a line; `found` is a verb and its object."""
    place = f"{shown(path or '')}: line {line:,}"
    return CorpusError(f"{place} {found}; expected {expected}. {advice}")


def is_number(text: object) -> bool:
    """Return True for a decimal number, also NaN or an infinity."""
    pattern = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|[-+]?(nan|inf|infinity)"
    return isinstance(text, str) and re.fullmatch(pattern, text, re.IGNORECASE) is not None


def finite_number(text: object, path: Path, line: int, name: str) -> float:
    """Return a finite number. Raises CorpusError for anything else."""
    if isinstance(text, str) and is_number(text) and math.isfinite(value := float(text)):
        return value
    found = f"has {shown(str(text)[:40])!r} as {name}" if text is not None else f"lacks {name}"
    raise line_error(path, line, found, "a finite number")


def references(lists: NBestLists, files: NBestFiles) -> dict[str, str]:
    """Return the reference of each utterance in a file, as `api.rescoring.read_references`."""
    path, texts = files.path, dict[str, str]()
    for line, text in files.lines(path):
        name, words = _reference(path, line, text)
        words = files.unmarked(words, path, line)
        if name in texts:
            found = f"repeats utterance {shown(name)}"
            raise line_error(path, line, found, "each once", "Remove one of the lines")
        texts[name] = words
    check_same(texts, lists, shown(path))
    files.report_marks()
    return texts


def check_same(references: Mapping[str, str], lists: NBestLists, source: str) -> None:
    """Raise CorpusError unless references, whose place is `source`, fit the lists."""
    names = [utterance.name for utterance in lists]
    for names_of, others, problem in (
        (names, references.keys(), f"{source}: no reference"),
        (references.keys(), set(names), "the n-best lists: no hypotheses"),
    ):
        if lacking := [name for name in names_of if name not in others]:
            raise CorpusError(
                f"{problem} for utterance {first_few(map(shown, lacking), 1)}; expected the same "
                "utterances in lists and references. Add it, or remove the other one"
            )


def _reference(path: Path, line: int, text: str) -> tuple[str, str]:
    if not text.startswith("{"):
        name, *words = text.split()
        return name, " ".join(words)
    try:
        row = json.loads(text, parse_int=Number)
    except (ValueError, RecursionError) as error:
        raise line_error(
            path, line, "begins with { and is not JSON", "utt1 w1 w2 ... or JSON"
        ) from error
    words, name = row.get("text"), row.get("id", str(line))
    if not isinstance(words, str) or not isinstance(name, str):
        raise line_error(path, line, "lacks a text", '{"id": "utt1", "text": "w1 w2 ..."}')
    check_text(words, f"{shown(path)}: line {line:,}", "Correct that line.")
    return name, words
