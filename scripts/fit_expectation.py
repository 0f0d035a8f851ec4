"""Fit the expectation of plans to the measured runs of `plans.jsonl`, and validate it.

    python scripts/fit_expectation.py

The loss of a run is compared with that of a Kneser-Ney model on the same text:

    ln(nats / n-gram nats) = INTERCEPT + SLOPE log10(min(C, 10^USEFUL N) / 10^7) + RARE V / (p N)

for C operations per token of the text, N tokens, V entries of the vocabulary and p passes: on a
short text, more operations stop helping earlier, and an entry is learned from several tokens.
INTERCEPT, SLOPE and RARE are a least-squares fit in which each text has the same weight; USEFUL is
the best of a grid. Only runs count that a plan would make: plans, and runs within NEAR of the best
of their text and time. Each text is left out in turn, and predicted from the others. SPREAD holds
80 % of the left-out runs, each text with the same weight.

It prints the constants of `charlm/training/plan/expectation.py`, and a row for each text.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESULTS = Path(__file__).parent / "experiments" / "plans.jsonl"
NEAR = 0.02
"""Fraction by which a run may be worse than the best of its text and time."""
GRID = np.arange(1.5, 3.01, 0.1)
"""Values of USEFUL that are tried."""
COVERED = 0.8
"""Fraction of the left-out runs that the interval holds."""
ORIGIN = 7.0
"""log10 of the operations per token at which INTERCEPT is the prediction."""


@dataclass(frozen=True)
class Measured:
    """Run that a plan could have made."""

    text: str
    operations: float
    """log10 of the operations per token of the text."""
    tokens: float
    """log10 of the tokens of the text."""
    rare: float
    """Entries of the vocabulary for each token that the run read."""
    log_ratio: float
    """ln(nats / n-gram nats)."""

    def features(self, useful: float) -> tuple[float, float, float]:
        """Return the factors of INTERCEPT, SLOPE and RARE."""
        return 1.0, min(self.operations, useful + self.tokens) - ORIGIN, self.rare


@dataclass(frozen=True)
class Fit:
    """Constants of the expectation."""

    intercept: float
    slope: float
    rare: float
    useful: float

    def predict(self, run: Measured) -> float:
        """Return the expected ln(nats / n-gram nats) of a run."""
        one, work, rare = run.features(self.useful)
        return self.intercept * one + self.slope * work + self.rare * rare


def plan_like(records: Sequence[dict[str, Any]]) -> Iterator[Measured]:
    """Yield the runs that a plan could have made, and those of recipes."""
    ngrams = {record["text"]: record["nats"] for record in records if record["kind"] == "ngram"}
    runs = [record for record in records if record["kind"] == "run" and _has_bias(record)]
    best: dict[tuple[str, float, str | None], float] = {}
    for run in runs:
        key = run["text"], run["minutes"], run["point"].get("machine")
        best[key] = min(run["nats"], best.get(key, math.inf))
    for run in runs:
        near = (
            run["nats"]
            <= (1.0 + NEAR) * best[run["text"], run["minutes"], run["point"].get("machine")]
        )
        if near or run["point"].get("planned"):
            yield _measured(run, ngrams[run["text"]])
    for record in records:
        if record["kind"] == "recipe":
            yield _measured(record, record["ngram_nats"])


def _has_bias(run: dict[str, Any]) -> bool:
    """Test whether a run began at the frequencies of the tokens, as every plan does today.

    For names, with their 28 entries, it makes no difference.
    """
    return bool(run["point"].get("unigrams")) or run["text"] == "names"


def _measured(run: dict[str, Any], ngram_nats: float) -> Measured:
    return Measured(
        text=run["text"],
        operations=math.log10(6.0 * run["weights"] * run["passes"]),
        tokens=math.log10(run["train_tokens"]),
        rare=run["vocab_size"] / (run["passes"] * run["train_tokens"]),
        log_ratio=math.log(run["nats"] / ngram_nats),
    )


def weights(runs: Sequence[Measured]) -> NDArray[np.float64]:
    """Return the weight of each run: those of a text sum to 1."""
    texts = [run.text for run in runs]
    return np.array([1.0 / texts.count(text) for text in texts])


def fit(runs: Sequence[Measured]) -> Fit:
    """Return the constants with the smallest weighted squared error."""
    targets = np.array([run.log_ratio for run in runs])
    roots = np.sqrt(weights(runs))
    best: tuple[float, Fit] | None = None
    for useful in GRID:
        design = np.array([run.features(useful) for run in runs])
        solution, *_ = np.linalg.lstsq(design * roots[:, None], targets * roots, rcond=None)
        error = float((((design @ solution - targets) * roots) ** 2).sum())
        if best is None or error < best[0]:
            intercept, slope, rare = map(float, solution)
            best = error, Fit(intercept, slope, rare, useful=round(float(useful), 1))
    assert best is not None
    return best[1]


def left_out(runs: Sequence[Measured]) -> list[tuple[Measured, float]]:
    """Return each run with its error, predicted from the runs of the other texts."""
    errors = []
    for text in dict.fromkeys(run.text for run in runs):
        fitted = fit([run for run in runs if run.text != text])
        errors += [(run, run.log_ratio - fitted.predict(run)) for run in runs if run.text == text]
    return errors


def spread(errors: Sequence[tuple[Measured, float]]) -> float:
    """Return the size of error that COVERED of the runs do not exceed, by weight."""
    sizes = np.array([abs(error) for _, error in errors])
    order = np.argsort(sizes)
    shares = np.cumsum(weights([run for run, _ in errors])[order])
    return float(sizes[order][np.searchsorted(shares, COVERED * shares[-1] - 1e-9)])


def records() -> list[dict[str, Any]]:
    """Return all results of `measure_plans.py`."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Print the constants and the table."""
    runs = list(plan_like(records()))
    fitted, errors = fit(runs), left_out(runs)
    bound = spread(errors)
    print(f"INTERCEPT = {fitted.intercept:.3f}")
    print(f"SLOPE = {fitted.slope:.3f}")
    print(f"RARE = {fitted.rare:.2f}")
    print(f"USEFUL = {fitted.useful:.1f}")
    print(f"SPREAD = {bound:.3f}")
    operations = [run.operations for run in runs]
    print(f"log10 operations per token: {min(operations):.2f} to {max(operations):.2f}")
    print()
    print("| text | tokens | runs | operations per token | mean error | within the interval |")
    print("|---|---:|---:|---|---:|---:|")
    for text in dict.fromkeys(run.text for run in runs):
        own = [(run, error) for run, error in errors if run.text == text]
        inside = sum(abs(error) <= bound for _, error in own)
        lowest, highest = (f(run.operations for run, _ in own) for f in (min, max))
        mean = float(np.mean([error for _, error in own]))
        print(
            f"| {text} | {10 ** own[0][0].tokens:,.0f} | {len(own)} "
            f"| 10^{lowest:.1f} to 10^{highest:.1f} | {100.0 * math.expm1(mean):+.1f} % "
            f"| {inside} of {len(own)} |"
        )
    inside = sum(abs(error) <= bound for _, error in errors)
    print(f"| all | | {len(errors)} | | | {inside} of {len(errors)} |")


if __name__ == "__main__":
    main()
