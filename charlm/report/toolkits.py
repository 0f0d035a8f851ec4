"""Formats of n-gram toolkits, byte for byte: SRILM, KenLM, TheanoLM, lm-zoo.

Programs that read the output of `ngram -ppl` (SRILM 1.7.3), `query` (KenLM), `theanolm score` and
`lm-zoo get-surprisals` read these. The base of the logarithms is part of each format.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from charlm.inference.scores import Score
from charlm.inference.steps import START, UNKNOWN, Step, StepReader
from charlm.report.formats import ScoredRow, Writer
from charlm.text.sources.delimited import quoted_field
from charlm.units import bits, perplexity

LN10 = math.log(10.0)
TAB = "\t"
HISTORY = 3
"""Number of words of a history that TheanoLM writes."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Origin of the steps: their reader, the name of the input, and of the kind of model.

    `closed` leaves unknown words out of the sums.
    """

    reader: StepReader
    name: str = "-"
    kind: str = "lstm"
    closed: bool = False


@dataclass
class Totals:
    """Counts of a sentence or text, and its log10 P; in SRILM, words do not include the ends."""

    sentences: int = 0
    words: int = 0
    oov: int = 0
    zero: int = 0
    steps: int = 0
    log10: float = 0.0

    def add(self, other: "Totals") -> None:
        """Add the counts of a sentence."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


class StepWriter(Writer):
    """Base of the formats that list steps; `by` None writes what the program writes by default."""

    default_by: str | None = None
    """Detail if none is asked for; None is a summary."""
    precision: type[np.floating[Any]] = np.float64
    """Type in which the log10 P of a sentence is summed."""
    source: Source
    """Origin of the steps, to be set before the first row."""

    def __init__(self, log_base: str = "e", *, by: str | None = None) -> None:
        super().__init__(log_base)
        self.by = by or self.default_by
        self.total = Totals()

    def steps(self, score: Score | None) -> list[Step]:
        """Return the steps of a score."""
        return self.source.reader.steps(score) if score else []

    def is_left_out(self, step: Step) -> bool:
        """Return whether a step does not count, since its word is unknown."""
        return self.source.closed and step.oov

    def count(self, steps: list[Step]) -> Totals:
        """Return the totals of a sentence; steps of probability 0 are counted and left out.

        log10 P is summed in `precision`, as the tool does.
        """
        kept = [step for step in steps if not self.is_left_out(step)]
        possible = [step for step in kept if step.nats < math.inf]
        sum10 = self.precision(0.0)
        for step in possible:
            sum10 += self.precision(log10(step))
        words = sum(not step.is_end for step in steps)
        totals = Totals(
            sentences=1,
            words=words,
            oov=len(steps) - len(kept),
            zero=len(kept) - len(possible),
            steps=len(possible),
            log10=float(sum10),
        )
        self.total.add(totals)
        return totals


def log10(step: Step) -> np.float32:
    """Return log10 P of a step in single precision, as KenLM and SRILM keep it."""
    return np.float32(-step.nats / LN10 + 0.0)


class Srilm(StepWriter):
    """Output of SRILM's `ngram -ppl`: -debug 0, 1 (by "text") or 2 (by "word" or "token")."""

    def lines(self, row: ScoredRow) -> str:
        """See `Writer.lines`; a row without words has no lines and is not counted."""
        steps = self.steps(row.score)
        if all(step.is_end for step in steps):
            return ""
        totals = self.count(steps)
        if self.by is None:
            return ""
        text = " ".join(step.name for step in steps if not step.is_end)
        details = "".join(self._details(steps)) if self.by != "text" else ""
        return f"{text}\n{details}{self._statistics(totals)}\n"

    def _details(self, steps: list[Step]) -> Iterator[str]:
        before, dots = START, ""
        for step in steps:
            name = UNKNOWN if step.oov else step.name
            kind = f"{step.length}gram" if step.length else self.source.kind
            value = log10(step)
            figures = f"[{kind}] {10.0 ** float(value):.7g} [ {value:.7g} ]"
            if self.is_left_out(step):
                figures = "[OOV] 0 [ -inf ]"
            yield f"\tp( {name} | {before} {dots}) \t= {figures}\n"
            before, dots = name, "..."

    def _statistics(self, totals: Totals) -> str:
        first = f"{totals.sentences} sentences, {totals.words} words, {totals.oov} OOVs\n"
        if not totals.words + totals.sentences:
            return first
        ends = totals.steps + totals.zero + totals.oov - totals.words
        return (
            f"{first}{totals.zero} zeroprobs, logprob= {totals.log10:.7g}"
            f" ppl= {_perplexity(totals.log10, totals.steps)}"
            f" ppl1= {_perplexity(totals.log10, totals.steps - ends)}\n"
        )

    def footer(self) -> str:
        """See `Writer.footer`."""
        return f"file {self.source.name}: {self._statistics(self.total)}"


def _perplexity(log10_p: float, count: int) -> str:
    """Format 10 ** (-log10 P / count) as SRILM does."""
    return f"{_power10(-log10_p / count):.7g}" if count > 0 else "undefined"


def _power10(exponent: float) -> float:
    return 10.0**exponent if exponent < 308.0 else math.inf


class Kenlm(StepWriter):
    """Output of KenLM's `query`: the words of each sentence, or only its total (by "text")."""

    default_by, precision = "word", np.float32

    def __init__(self, log_base: str = "e", *, by: str | None = None) -> None:
        super().__init__(log_base, by=by)
        self.unknown = Totals()

    def lines(self, row: ScoredRow) -> str:
        """See `Writer.lines`."""
        steps = self.steps(row.score)
        totals = self.count(steps)
        unknown = [step for step in steps if step.oov]
        self.unknown.oov += len(unknown)
        self.unknown.log10 += sum(float(log10(step)) for step in unknown)
        words = "".join(
            f"{step.name}={step.id} {step.length} {_shortest(log10(step))}\t" for step in steps
        )
        end = f"Total: {_shortest(np.float32(totals.log10))} OOV: {len(unknown)}\n"
        return end if self.by == "text" else words + end

    def footer(self) -> str:
        """See `Writer.footer`."""
        known = self.total.log10 - self.unknown.log10, self.total.steps - self.unknown.oov
        return (
            f"Perplexity including OOVs:\t{_mean_power(self.total.log10, self.total.steps)}\n"
            f"Perplexity excluding OOVs:\t{_mean_power(*known)}\n"
            f"OOVs:\t{self.unknown.oov}\n"
            f"Tokens:\t{self.total.steps}\n"
        )


def _mean_power(log10_p: float, count: int) -> str:
    return _shortest(_power10(-log10_p / count)) if count else "NaN"


def _shortest(value: np.float32 | float) -> str:
    """Format a number with the fewest digits that read back to it in its precision."""
    if not math.isfinite(value):
        return str(float(value))
    return np.format_float_positional(value, unique=True, trim="-")


class Theanolm(StepWriter):
    """Output of `theanolm score`: perplexity, and with by "word" or "token" each of them."""

    def __init__(self, log_base: str = "e", *, by: str | None = None) -> None:
        super().__init__(log_base, by=by)
        self.nats, self.token_count = 0.0, 0

    def lines(self, row: ScoredRow) -> str:
        """See `Writer.lines`; a row without words has no lines and is not counted."""
        steps = self.steps(row.score)
        if row.score is None or all(step.is_end for step in steps):
            return ""
        totals = self.count(steps)
        kept = (step for step in steps if not self.is_left_out(step))
        nats = math.fsum(step.nats for step in kept if step.nats < math.inf)
        self.nats += nats
        self.token_count += row.score.tally.tokens + 1
        if self.by not in ("word", "token"):
            return ""
        return (
            f"# Sentence {self.total.sentences}\n{''.join(self._details(steps))}"
            f"Sentence perplexity: {perplexity(nats, totals.steps)}\n\n"
        )

    def _details(self, steps: list[Step]) -> Iterator[str]:
        names = [START, *(step.name for step in steps)]
        for at, step in enumerate(steps, start=1):
            history = " ".join(["..."] * (at > HISTORY) + names[max(0, at - HISTORY) : at])
            known = f"  [{step.name}:{'OOV' if step.oov else 'shortlist'}]"
            if self.is_left_out(step):
                yield f"p({step.name} | {history}) is not predicted{known}\n"
            else:
                yield f"log(p({step.name} | {history})) = {-step.nats + 0.0}{known}\n"

    def footer(self) -> str:
        """See `Writer.footer`."""
        total = self.total
        all_steps = total.steps + total.oov + total.zero
        lines = (
            f"Number of sentences: {total.sentences}\n"
            f"Number of words: {all_steps + total.sentences}\n"
            f"Number of tokens: {self.token_count}\n"
            f"Number of predicted probabilities: {total.steps}\n"
            f"Number of excluded (OOV) words: {total.oov}\n"
            f"Number of zero probabilities: {total.zero}\n"
        )
        if not total.steps:
            return lines
        return (
            f"{lines}Cross entropy (base e): {self.nats / total.steps}\n"
            f"Perplexity: {perplexity(self.nats, total.steps)}\n"
        )


class LmZoo(StepWriter):
    """Output of `lm-zoo get-surprisals`: a line for each word or token, in bits."""

    default_by = "word"

    def header(self) -> str:
        """See `Writer.header`."""
        return "sentence_id\ttoken_id\ttoken\tsurprisal\n"

    def lines(self, row: ScoredRow) -> str:
        """See `Writer.lines`."""
        return "".join(
            f"{row.number}\t{place}\t{quoted_field('<eos>' if step.is_end else step.name, TAB)}"
            f"\t{bits(step.nats) + 0.0:.6f}\n"
            for place, step in enumerate(self.steps(row.score), start=1)
        )


TOOLKIT_FORMATS: dict[str, type[StepWriter]] = {
    "srilm": Srilm,
    "kenlm": Kenlm,
    "theanolm": Theanolm,
    "lm-zoo": LmZoo,
}
