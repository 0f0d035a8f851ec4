"""Judge a finished run: is it over- or under-fitted, is a simple rule as good, what would help?

The judgement is one for all tasks. It rests on a figure of training text and of new text, both by
the best weights without dropout, on when those weights were found, and on simple rules (floors).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from charlm.errors import named
from charlm.training.trainer import Trainer

LATE = 0.75
"""Fraction of a run after which the best weights are not called early."""
FLAT = 0.003
"""Fraction by which the loss must fall after LATE for more time to be advised."""
FEW_PASSES = 3.0
"""Passes below which a curve that is flat at its end shows only that the learning rate fell."""
TO_MEMORISE = 2.0
"""Passes below which much better figures of training text mean that new text is of another kind."""
MAX_DROPOUT, MORE_DROPOUT = 0.5, 0.15
"""Greatest dropout that is advised, and how much more of it."""


class Limits(NamedTuple):
    """Limits between the verdicts on a fit.

    `small_gap` and `large_gap` are fractions of the error on new text that training text does not
    have: below the first, a run is under-fitted; above the second, it has memorised its training
    text, as has one whose errors on both are `far` apart. There is no more to learn if the error on
    new text is below `almost_nothing`.
    """

    small_gap: float
    large_gap: float
    almost_nothing: float
    far: float = math.inf
    worse: float = 0.02
    """Fraction by which the last validation must be worse than the best to have got worse."""
    noisy: bool = False
    """True if some errors may be chance, which no model predicts."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """Course of a finished training."""

    passes: float
    best_at: float
    """Fraction of the run after which the best weights were found."""
    validations: Sequence[float]
    """Sums of nats of all validations."""
    dropout: float
    can_start: bool = False
    """True if a language model could have given the first weights, and none has."""

    @classmethod
    def of(cls, trainer: Trainer, *, can_start: bool = False) -> "Course":
        """Return the course of a training that is over."""
        counters = trainer.counters
        return cls(
            passes=trainer.passes,
            best_at=counters.best_step / max(counters.step, 1),
            validations=counters.validation_nats,
            dropout=trainer.model.settings.dropout or 0.0,
            can_start=can_start,
        )

    @property
    def best_was_first(self) -> bool:
        """True if no validation was better than the first one."""
        return bool(self.validations) and min(self.validations) == self.validations[0]

    @property
    def improves(self) -> bool:
        """True if validation still improved at the end.

        If the curve is flat there, the last weights may be the best ones by chance. Validations are
        equally far apart, as far as the length of steps allows.
        """
        if self.best_at < LATE or len(self.validations) < 2 or self.passes < FEW_PASSES:
            return self.best_at >= LATE
        before = min(self.validations[: max(1, int(LATE * len(self.validations)))])
        return before - min(self.validations) > FLAT * abs(before)

    def got_worse(self, fraction: float) -> bool:
        """Return whether the last validation was worse than the best by more than a fraction."""
        best = min(self.validations, default=0.0)
        worse = len(self.validations) > 0 and self.validations[-1] - best > fraction * abs(best)
        return worse and self.best_at < 1.0


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A simple rule beside a run, on new text."""

    name: str
    """Name in a sentence, such as "a bag of words"."""
    figures: str
    """Its figure and that of the run."""
    low: float
    high: float
    """Ends of the interval of the run's gain over the rule, above zero if the run is better."""
    trivial: bool = False
    """True if the rule does not look at the text."""
    over_network: bool = False
    """True if the rule is a part of the run, and better than the network alone."""

    @property
    def sentence(self) -> str:
        """Sentence about a rule that is not worse than the run, else ""."""
        if self.low > 0.0:
            return ""
        begin = "not learned: " if self.trivial else ""
        shown = "worse than" if self.high < 0.0 else "not shown to be better than"
        return f"{begin}{shown} {self.name} ({self.figures})"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Facts about a finished run from which its review follows.

    `train` and `new` are the figure of training text and of new text (None if none was held out).
    `perfect` is the value of the figure without errors; its distance is the error.
    """

    key: str
    """Name of the figure: "accuracy"."""
    figure: str
    """Figure with a place for its value: "accuracy {}", "{} nats/token"."""
    train: float
    new: float | None
    perfect: float = 0.0
    limits: Limits
    course: Course
    noun: str = "text"
    """Noun of what is learned from: "texts", "sentences"."""
    examples: int | None = None
    """Number of training examples, if text comes in such."""
    floors: Sequence[Floor] = ()

    @property
    def figures(self) -> str:
        """Both figures: "accuracy 0.978 on training texts, 0.822 on new texts"."""
        train, new = (f"{value:#.3g}" if abs(value) < 0.1 else f"{value:.3f}"
                      for value in (self.train, self.new or 0.0))  # fmt: skip
        return f"{self.figure.format(train)} on training {self.noun}, {new} on new {self.noun}"

    @property
    def errors(self) -> tuple[float, float]:
        """Errors on training text and on new text."""
        return abs(self.train - self.perfect), abs((self.new or 0.0) - self.perfect)

    @property
    def is_beaten(self) -> bool:
        """True if a simple rule is better, so that there is more to learn."""
        return any(floor.high < 0.0 or floor.over_network for floor in self.floors)

    @property
    def gap(self) -> float:
        """Fraction of the error on new text that training text does not have."""
        train, new = self.errors
        return (new - train) / max(new, 1e-9)


def judged(fit: Fit) -> list[str]:
    """Return sentences about the fit of a run and what would help most."""
    if fit.new is None:
        return [f"nothing was held out, so the quality on new {fit.noun} is not known"]
    equals = [floor for floor in fit.floors if floor.sentence]
    lines = [floor.sentence for floor in equals]
    is_trivial = any(floor.trivial for floor in equals)
    if fit.errors[1] < fit.limits.almost_nothing:
        if is_trivial:  # such as 10 new texts, of which 9 have the most frequent label
            verdict = f"almost no errors are left ({fit.figures})"
            return [*lines, verdict, f"what helps most: more new {fit.noun} to compare on"]
        check = "check that training and new {} differ: hardly anything real is so regular"
        return [
            *lines,
            f"learned: almost no errors are left ({fit.figures})",
            check.format(fit.noun),
        ]
    verdict, advice = _verdict(fit, is_trivial or fit.is_beaten)
    if is_trivial and fit.course.passes >= 1.0:
        advice = f"check that what is to be learned follows from the {fit.noun}; then {advice}"
    return [*lines, verdict, f"what helps most: {advice}"]


def _verdict(fit: Fit, beaten: bool) -> tuple[str, str]:
    """Return a sentence about the fit, and what would help; `beaten` by a simple rule."""
    course, figures, noun = fit.course, fit.figures, fit.noun
    time, passes = f"more time ({named('minutes')})", f"after {course.passes:.1f} passes"
    early, worse = course.best_at < LATE, course.got_worse(fit.limits.worse)
    train, new = fit.errors
    memorised = fit.gap > fit.limits.large_gap or new - train > fit.limits.far
    if course.passes < 1.0:
        read = f"the run has read {100 * course.passes:.0f} % of its training {noun}"
        return f"under-fitted: {read} ({figures})", time
    if worse or (memorised and early):
        since = "got worse since" if worse else "was no better since"
        best = f"validation was best after {100 * course.best_at:.0f} % of the run and {since}"
        enough = f"{course.best_at * course.passes:.1f} of {course.passes:.1f} passes were enough"
        if course.best_was_first:
            enough = enough.replace(" were", " or fewer were")
        return f"over-fitted: {best} ({figures})", f"{_against_memory(fit)}; {enough}"
    if memorised and course.passes < TO_MEMORISE:
        other = f"the new {noun} may differ from the training {noun}, read only"
        like = f"new {noun} of the same kind to compare on"
        first = f"{time}, and " if course.improves else ""
        return f"{other} {course.passes:.1f} times ({figures})", f"{first}{like}"
    if memorised:
        much = f"the network does much better on training {noun} than on new {noun}"
        also = f"; validation was still improving, so {time} also helps" if course.improves else ""
        return f"over-fitted: {much} ({figures})", f"{_against_memory(fit)}{also}"
    if beaten or fit.gap < fit.limits.small_gap:
        better = "hardly better" if train < new else "no better"
        like_new = f": the network is {better} on training {noun} than on new {noun}"
        why = like_new if fit.gap < fit.limits.small_gap else ""
        begin = "under-fitted"
        if why and fit.limits.noisy and not fit.is_beaten:
            begin += f", or as good as the {noun} allow"
        less = "less dropout, then " if course.dropout > 0.1 else ""
        larger = f"{time}, and a larger model with it" if course.improves else "a larger model"
        advice = f"{less}{larger}"
        return f"{begin}{why} ({figures}), {passes}", advice
    more_time = f"{time}, or " if course.improves else ""
    return f"well fitted ({figures}), {passes}", f"{more_time}more {noun}"


def _against_memory(fit: Fit) -> str:
    """Return what helps a network that has memorised its training text."""
    ways = [f"more {fit.noun}" + (f" than {fit.examples:,}" if fit.examples else "")]
    if fit.course.can_start:
        ways.append(f"a language model to start from ({named('start_from')})")
    if fit.course.dropout + 0.05 < MAX_DROPOUT:
        value = min(fit.course.dropout + MORE_DROPOUT, MAX_DROPOUT)
        ways.append(f"more dropout ({named('dropout')} {value:.2g})")
    else:
        ways.append("a smaller model")
    return ", then ".join(ways)
