"""Loss that a plan should reach on the validation text, from measured runs.

The loss of n-grams shows how hard a text is; the operations per token show how much better a
network gets. Measured runs of LSTMs on several texts (`scripts/measure_plans.py`) give the ratio of
their nats to those of n-grams for some numbers of operations; in between, it is interpolated.
"""

import math
from typing import Any

import numpy as np

from charlm.config.cells import CELLS
from charlm.config.text_units import UNITS
from charlm.ngram.kneser_ney import ngram_nats
from charlm.nn.model import count_parameters
from charlm.text.dataset import Dataset
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import OPERATIONS_PER_WEIGHT_AND_TOKEN

MEASURED: dict[str, tuple[tuple[float, float], ...]] = {
    "letters": ((6.28, 0.99), (6.95, 0.92), (7.26, 0.905), (7.69, 0.881), (8.05, 0.876)),
    "millions of letters": ((6.28, 0.99), (6.97, 0.90), (7.41, 0.879), (8.09, 0.796)),
    "words": ((7.03, 0.938), (7.69, 0.870), (8.41, 0.843)),
}
"""log10 of operations for each token of the text (all passes) -> nats / nats of n-grams.

On a text of 1 MB, more operations stop helping earlier than on one of 5 MB. The last point of long
texts is a run of an hour (`charlm reproduce ptb-char`)."""
MILLIONS = 2_000_000
"""Letters of a long text, at least."""
SPREAD = 0.05
"""Fraction by which measured runs differ from the line."""
MIN_STEPS = 250
"""Fewest steps for an expectation: all measured runs made many more."""
MARGIN = 0.7
"""Powers of ten beyond the measured points for which there is still an expectation."""


def expected(dataset: Dataset, plan: Plan) -> dict[str, Any] | None:
    """Return the expected nats per token with their range, and those of n-grams; None if unknown.

    They are unknown without validation text, for cells and units that were not measured, for runs
    much shorter or longer than the measured ones, and for learning rates of the user.
    """
    model, unit = plan.settings.model, dataset.vocabulary.unit
    if plan.steps < MIN_STEPS or "training.learning_rate" not in plan.reasons:
        return None
    if not (CELLS[model.cell].has_expectation and UNITS[unit].expectation):
        return None
    if dataset.valid is None or not len(dataset.valid.ids):
        return None
    points = MEASURED[kind_of(unit, len(dataset.vocabulary), len(dataset.train.ids))]
    work = multiplied(plan, len(dataset.vocabulary))
    exponents, ratios = zip(*points, strict=True)
    if not exponents[0] - MARGIN <= work <= exponents[-1] + MARGIN:
        return None
    ngrams = ngram_nats(dataset.train.ids, dataset.valid.ids, len(dataset.vocabulary))
    nats = ngrams * float(np.interp(work, exponents, ratios))
    return {
        "nats": nats,
        "low": nats * (1.0 - SPREAD),
        "high": nats * (1.0 + SPREAD),
        "ngram_nats": ngrams,
    }


def kind_of(unit: str, vocab_size: int, tokens: int) -> str:
    """Return the row of MEASURED for a text: the kind of its tokens, and their number."""
    if UNITS[unit].expectation == "words" and vocab_size > 1000:
        return "words"
    return "letters" if tokens < MILLIONS else "millions of letters"


def multiplied(plan: Plan, vocab_size: int) -> float:
    """Return log10 of the operations that a plan spends on each token of the text."""
    weights = count_parameters(plan.settings.model, vocab_size)
    return math.log10(max(OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * plan.passes, 1.0))
