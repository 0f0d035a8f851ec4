"""Find units that follow a pattern of the text: quotes, capitals, the place in the line.

Units are ranked by the absolute correlation of their values with the pattern on the first half of a
text. The best of many units is flattered there, so each comes with its correlation on the second
half. Quote and line-length units: Karpathy et al. 2015, section 4.2.
"""

import json
import re
import sys
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from charlm.errors import CorpusError, UsageError, check_count, named
from charlm.inspect.hidden import Hidden
from charlm.listing import Listing
from charlm.products import product
from charlm.runs.run import Run
from charlm.text.tokenizers.tokenizer_json import EOS

COLUMN = "column"
"""Pattern that means the place in the line."""
SEARCH_TOKENS = 10_000
"""Number of tokens of the validation text in which units are searched by default."""
REGEX_SECONDS = 2.0
"""Time limit of a regular expression; some take forever on a text that they do not match."""
FINDER = """
import json, re, sys
pattern, text = json.load(sys.stdin)
json.dump([match.span() for match in re.finditer(pattern, text)], sys.stdout)
"""
"""Program of the process that searches, since Python cannot interrupt a search in a thread."""


class UnitMatch(NamedTuple):
    """A unit, its signal, and its correlation r with a pattern on either half of a text.

    `auc` is the probability, on the second half, that the signal tells a token inside of a match
    from one outside, in the direction of `r`; None for the pattern "column". Layers count from 1,
    units from 0.
    """

    layer: int
    unit: int
    signal: str
    r: float
    r_held_out: float
    auc: float | None

    def __repr__(self) -> str:
        auc = "" if self.auc is None else f", auc {self.auc:.3f}"
        figures = f"r {self.r:.3f}, held out {self.r_held_out:.3f}{auc}"
        return f"UnitMatch({self.name} {self.signal}, {figures})"

    @property
    def name(self) -> str:
        """Name of the unit, such as 2:8."""
        return f"{self.layer}:{self.unit}"


class UnitMatches(Listing[UnitMatch]):
    """Units that follow a pattern, the strongest first."""

    fraction: float | None = None
    """Fraction of the tokens of the text that are in a match; None for the pattern "column"."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the name, the signal and the figures of each unit."""
        return [
            {
                "unit": match.name,
                "signal": match.signal,
                "r": match.r,
                "r_held_out": match.r_held_out,
                "auc": match.auc,
            }
            for match in self
        ]


def search_text(run: Run) -> str:
    """Return the beginning of the validation text of a run, from its first whole line on.

    Raises CorpusError if none is kept.
    """
    kept = run.kept("valid")
    if kept is None:
        raise CorpusError(
            f"{run.path.name} keeps no validation text to search units in; give a text"
        )
    ids = np.asarray(kept.ids[:SEARCH_TOKENS])
    documents = np.split(ids, np.flatnonzero(ids == EOS) + 1)
    blank_line = run.boundaries.separator.removeprefix("\n")
    text = blank_line.join(run.vocabulary.decode(document) for document in documents)
    return text.partition("\n")[2] or text if kept.is_stream else text


def find_units(hidden: Hidden, pattern: str, top: int = 10) -> UnitMatches:
    """Return the units whose signals follow a pattern, the strongest first; see `UnitMatch`."""
    check_count(named("top"), top, 1)
    values = pattern_values(hidden, pattern)
    half = len(values) // 2
    for part in (values[:half], values[half:]):
        if not len(part) or part.min() == part.max():
            raise UsageError(
                f"{pattern!r} is {_everywhere(part)} a half of the text of {len(values):,} tokens; "
                "expected tokens inside and outside of matches in both halves. Give another "
                "pattern, or a longer text"
            )
    tables = []
    for signal, array in hidden.signals.items():
        for number, size in enumerate(hidden.sizes):
            own = array[number, :, :size].astype(np.float64)
            r, held_out = (
                correlations(own[part], values[part]) for part in (slice(half), slice(half, None))
            )
            tables += [
                UnitMatch(number + 1, unit, signal, float(r[unit]), float(held_out[unit]), None)
                for unit in range(size)
            ]
    best = sorted(tables, key=lambda match: -abs(match.r))[:top]
    if pattern == COLUMN:
        return UnitMatches(best)
    inside = values[half:] > 0
    matches = UnitMatches(
        match._replace(
            auc=auc(np.sign(match.r) * hidden.unit(match.name, match.signal)[half:], inside)
        )
        for match in best
    )
    matches.fraction = float(np.mean(values > 0))
    return matches


def _everywhere(part: NDArray[np.float64]) -> str:
    return "everywhere in" if len(part) and part[0] else "nowhere in"


def pattern_values(hidden: Hidden, pattern: str) -> NDArray[np.float64]:
    """Return 1 for tokens whose last character is in a match and 0 for others, or columns, (N,)."""
    text = "".join(hidden.pieces)
    lasts = np.maximum(hidden.cuts[1:] - 1, 0)
    if not len(lasts):
        return np.empty(0)
    if pattern == COLUMN:
        places = np.arange(len(text))
        is_end = np.frombuffer(text.encode("utf-32-le"), np.uint32) == ord("\n")
        begins = np.maximum.accumulate(np.where(np.append(True, is_end[:-1]), places, 0))
        return (places - begins)[lasts].astype(np.float64)
    steps = np.zeros(len(text) + 1)
    for start, end in match_spans(pattern, text):
        steps[start] += 1
        steps[end] -= 1
    return np.cumsum(steps)[lasts]


def check_pattern(pattern: str) -> None:
    """Raise UsageError for a pattern that is no regular expression."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UsageError(
            f"{pattern!r} is not a regular expression: {error}; expected one such as "
            f'\'"[^"]*"\', or {COLUMN}'
        ) from error


def match_spans(pattern: str, text: str) -> list[tuple[int, int]]:
    """Return the characters of each match of a regular expression.

    Raises UsageError for a wrong expression, and for one that takes longer than REGEX_SECONDS.
    """
    check_pattern(pattern)
    import subprocess  # a cost that commands which search nothing do without

    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", FINDER],
            input=json.dumps([pattern, text]),
            capture_output=True,
            text=True,
            timeout=REGEX_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise UsageError(
            f"{pattern!r} was not found in {len(text):,} characters within {REGEX_SECONDS:g} "
            "seconds; expected an expression that is fast. Nested repeats such as (a+)+ are slow: "
            "use one repeat, or a shorter text"
        ) from error
    return [(start, end) for start, end in json.loads(done.stdout)]


def correlations(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Pearson's r of each column of x (N, H) with y (N,); 0 for a constant column."""
    x, y = x - x.mean(axis=0), y - y.mean()
    sizes = np.sqrt(np.einsum("nh,nh->h", x, x) * product(y, y))
    return np.asarray(np.divide(product(y, x), sizes, out=np.zeros(x.shape[1]), where=sizes > 0))


def auc(values: NDArray[np.float64], inside: NDArray[np.bool_]) -> float:
    """Return the probability that a value inside is larger than one outside; ties count half.

    The statistic of Mann & Whitney 1947, divided by its maximum.
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    own = int(inside.sum())
    return float((ranks[inside].sum() - own * (own + 1) / 2) / (own * (len(values) - own)))
