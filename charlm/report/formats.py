"""Formats of scores for programs; each writer turns scored rows into lines of text.

`tsv` and `csv` are read back exactly by pandas.read_csv, by R's read.delim and read.csv, and by
charlm: a field with a separator, a quote or a line end is in double quotes, its own quotes doubled.
In the header of `tsv` the name of the text column is in quotes, so charlm knows that fields may be
quoted.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from charlm.inference.scores import Score, TokenScore
from charlm.inference.words import WordRule, WordScore
from charlm.text.sources.delimited import quoted_field
from charlm.units import LOG_BASES, Tally, finite

MISSING_SCORE = "nan"
"""Line of `scores` for a row without text; numpy, pandas, R and awk read it as a number."""


@dataclass(frozen=True, kw_only=True)
class ScoredRow:
    """One row of the input with its score.

    `number` counts the rows of the input from 1. `score` is None for a row without text. `kept` are
    the cells of its other columns, by their names in the output.
    """

    number: int
    score: Score | None
    kept: Mapping[str, str] = field(default_factory=dict)


class Writer(ABC):
    """Base of the formats.

    `by` is what has a line: "text", "word" or "token". `word_rule` is the rule of the words, `kept`
    are columns to copy. `entropy` adds the entropy of words or tokens.
    """

    def __init__(
        self,
        log_base: str = "e",
        *,
        by: str = "text",
        word_rule: WordRule | None = None,
        kept: Sequence[str] = (),
        entropy: bool = False,
    ) -> None:
        self.log_base, self.kept, self.entropy = log_base, kept, entropy
        self.by: str | None = by
        self.word_rule = word_rule or WordRule()

    @property
    def own_columns(self) -> list[str]:
        """Names of the columns that charlm fills in."""
        return []

    def header(self) -> str:
        """Return the first lines, each with a line end."""
        return ""

    @abstractmethod
    def lines(self, row: ScoredRow) -> str:
        """Return the lines of a row, at least one, each with a line end."""

    def footer(self) -> str:
        """Return the last lines, each with a line end."""
        return ""

    def _log(self, nats: float) -> float:
        """Convert nats to the base of the output; an empty text has 0, not -0."""
        return nats / LOG_BASES[self.log_base] + 0.0


class _Delimited(Writer):
    """Base of `tsv` and `csv`: a header, then a line for each text, word or token."""

    separator: str
    quoted_name: bool

    @property
    def own_columns(self) -> list[str]:
        """See `Writer.own_columns`."""
        base = f"base_{self.log_base}"
        entropy = [f"entropy_{base}"] * self.entropy
        if self.by == "word":
            return ["sentence_id", "word_id", "word", f"surprisal_{base}", *entropy, f"gap_{base}",
                    "tokens", "oov", "start", "end", "word_rule"]  # fmt: skip
        if self.by == "token":
            return ["sentence_id", "token_id", "token", f"surprisal_{base}", *entropy, "rank",
                    "oov", f"penalized_surprisal_{base}"]  # fmt: skip
        return ["sentence_id", f"log_probability_{base}", "tokens", "oov", "bits_per_char",
                f"penalized_log_probability_{base}", "text"]  # fmt: skip

    def header(self) -> str:
        """See `Writer.header`."""
        marked = self.by if self.quoted_name else None
        names = [f'"{name}"' if name == marked else self._field(name) for name in self.own_columns]
        return self.separator.join([*names, *map(self._field, self.kept)]) + "\n"

    def lines(self, row: ScoredRow) -> str:
        """See `Writer.lines`."""
        find = {"text": self._text_cells, "word": self._word_cells, "token": self._token_cells}
        lines = find[self.by or "text"](row.score) if row.score else ()
        kept = [self._field(row.kept.get(name, "")) for name in self.kept]
        own, start = len(self.own_columns), str(row.number)
        cells = [[start, *line, *kept] for line in lines]
        cells = cells or [[start, *[""] * (own - 1), *kept]]
        return "".join([self.separator.join(line) + "\n" for line in cells])

    def _text_cells(self, score: Score) -> Iterable[list[str]]:
        tally = score.tally
        yield [
            self._figure(score.log_probability), str(tally.tokens), str(tally.oov),
            f"{tally.bits_per_char:.6f}" if tally.chars else "",
            self._figure(score.penalized_log_probability), self._field(score.text),
        ]  # fmt: skip

    def _word_cells(self, score: Score) -> Iterable[list[str]]:
        """Yield a line for each word; a text of blanks has one for its gap."""
        rule = str(self.word_rule)
        for place, word in enumerate(score.words, start=score.first_word):
            yield [
                str(place), self._field(word.word), self._figure(word.nats),
                *self._entropy_cells(word), self._figure(word.gap), str(word.tokens),
                "1" if word.oov else "0", str(word.start), str(word.end), rule,
            ]  # fmt: skip
        if score.tally.tokens and not score.words:
            gap = self._figure(score.tally.nats)
            yield ["", "", "", *[""] * self.entropy, gap, "", "", "", "", rule]

    def _token_cells(self, score: Score) -> Iterable[list[str]]:
        for place, token in enumerate(score.tokens, start=1):
            price = score.unk_penalty if token.oov else 0.0
            yield [
                str(place), self._field(token.token), self._figure(token.nats),
                *self._entropy_cells(token), str(token.rank), str(int(token.oov)),
                self._figure(token.nats + price),
            ]  # fmt: skip

    def _entropy_cells(self, part: TokenScore | WordScore) -> list[str]:
        """Return the cell with the entropy of a token or word, if there is such a column."""
        if not self.entropy:
            return []
        return ["" if part.entropy is None else self._figure(part.entropy)]

    def _figure(self, nats: float) -> str:
        """Return nats in the base of the output with 6 decimals, and zero without a sign."""
        return f"{round(self._log(nats), 6) + 0.0:.6f}"

    def _field(self, text: str) -> str:
        return quoted_field(text, self.separator)


class Tsv(_Delimited):
    """Tab-separated values."""

    separator, quoted_name = "\t", True


class Csv(_Delimited):
    """Comma-separated values."""

    separator, quoted_name = ",", False


class Jsonl(Writer):
    """One JSON object for each row."""

    @property
    def own_columns(self) -> list[str]:
        """See `Writer.own_columns`."""
        return list(self._content(ScoredRow(number=1, score=None)))

    def lines(self, row: ScoredRow) -> str:
        """See `Writer.lines`."""
        content = self._content(row) | dict(row.kept)
        return json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n"

    def _content(self, row: ScoredRow) -> dict[str, object]:
        score = row.score
        empty: dict[str, object] = dict.fromkeys(Tally().summary())
        content: dict[str, object] = {
            "schema_version": 1,
            "sentence_id": row.number,
            "text": score and score.text,
            "log_base": self.log_base,
            "log_probability": score and finite(self._log(score.log_probability)),
            "penalized_log_probability": score
            and finite(self._log(score.penalized_log_probability)),
            "unk_penalty": score and score.unk_penalty,
            **(score.tally.summary() if score else empty),
        }
        if self.by == "word":
            content["word_rule"] = str(self.word_rule)
            content["word_scores"] = [
                self._word_members(word) for word in (score.words if score else ())
            ]
        if self.by == "token":
            content["token_scores"] = [
                {
                    "token": token.token,
                    "surprisal": finite(self._log(token.nats)),
                    **self._entropy_member(token),
                    "rank": token.rank,
                    "oov": token.oov,
                }
                for token in (score.tokens if score else ())
            ]
        return content

    def _word_members(self, word: WordScore | None) -> dict[str, object]:
        """Return the figures of a word by name; without a word they are null."""
        return {
            "word": word and word.word,
            "surprisal": word and finite(self._log(word.nats)),
            **self._entropy_member(word),
            "gap": word and finite(self._log(word.gap)),
            "tokens": word and word.tokens,
            "oov": word and word.oov,
            "start": word and word.start,
            "end": word and word.end,
        }

    def _entropy_member(self, part: TokenScore | WordScore | None) -> dict[str, float | None]:
        """Return the member with the entropy of a token or word, if it is to be written."""
        entropy = None if part is None or part.entropy is None else self._log(part.entropy)
        return {"entropy": entropy} if self.entropy else {}


class RegionJsonl(Jsonl):
    """One JSON object for each row that is a region of a text: the columns of `tsv` by word."""

    def _content(self, row: ScoredRow) -> dict[str, object]:
        return {
            "schema_version": 1,
            "sentence_id": row.number,
            "word_id": row.score and row.score.first_word,
            "log_base": self.log_base,
            **self._word_members(row.score.words[0] if row.score else None),
            "word_rule": str(self.word_rule),
        }


class Numbers(Writer):
    """Only the penalized log-probability, one line for each row."""

    def lines(self, row: ScoredRow) -> str:
        """See `Writer.lines`."""
        if row.score is None:
            return f"{MISSING_SCORE}\n"
        return f"{self._log(row.score.penalized_log_probability):.6f}\n"


FORMATS: dict[str, type[Writer]] = {"tsv": Tsv, "csv": Csv, "jsonl": Jsonl, "scores": Numbers}


REGION_FORMATS: dict[str, type[Writer]] = {"tsv": Tsv, "csv": Csv, "jsonl": RegionJsonl}
"""Formats of rows that are regions of texts."""


def output_names(columns: Iterable[str], own: Iterable[str]) -> dict[str, str]:
    """Return the output name of each input column: its own, or `input_NAME` if that is taken."""
    columns, taken = list(columns), set(own)
    used = taken | {name for name in columns if name not in taken}
    names = {}
    for column in columns:
        name = column
        while column in taken and name in used:
            name = f"input_{name}"
        used.add(name)
        names[column] = name
    return names
