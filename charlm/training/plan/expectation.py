"""What a plan may be expected to reach on the validation text, from runs that were measured.

How hard a text is shows in what n-grams make of it; how far a network gets beyond them shows in
the operations that it spends on each token of the text. Measured runs of LSTMs on several texts
(`scripts/measure_plans.py`, results beside it) give the quotient of their nats by those of the
n-grams for some numbers of operations; between them it is read off.
"""

import math
from typing import Any

import numpy as np

from charlm.config.cells import CELLS
from charlm.config.text_units import UNITS
from charlm.ngram.baseline import ngram_nats
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

A text of a megabyte is used up where one of five still teaches. The last point of the long ones is
an hour by the clock (`charlm reproduce ptb-char`)."""
MILLIONS = 2_000_000
"""Letters from which a text is a long one."""
SPREAD = 0.05
"""Share by which measured runs lie beside the line."""
MIN_STEPS = 250
"""Steps below which nothing is said: all measured runs made many more."""
MARGIN = 0.7
"""How far beyond the measured points, in powers of ten, something is still said."""


def expected(dataset: Dataset, plan: Plan) -> dict[str, Any] | None:
    """Nats per token with the ends of the range, and the n-grams' own; None where nothing is known.

    That is without validation text, for other cells than the LSTM, for pieces of words, for runs
    much shorter or longer than the measured ones, and where the rates are not the plan's own.
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
    places, shares = zip(*points, strict=True)
    if not places[0] - MARGIN <= work <= places[-1] + MARGIN:
        return None
    plain = ngram_nats(dataset.train.ids, dataset.valid.ids, len(dataset.vocabulary))
    nats = plain * float(np.interp(work, places, shares))
    return {
        "nats": nats,
        "low": nats * (1.0 - SPREAD),
        "high": nats * (1.0 + SPREAD),
        "ngram_nats": plain,
    }


def kind_of(unit: str, vocab_size: int, tokens: int) -> str:
    """The line of MEASURED for a text: what its tokens are, and how many there are."""
    if UNITS[unit].expectation == "words" and vocab_size > 1000:
        return "words"
    return "letters" if tokens < MILLIONS else "millions of letters"


def multiplied(plan: Plan, vocab_size: int) -> float:
    """log10 of the operations that a plan spends on each token of the text."""
    weights = count_parameters(plan.settings.model, vocab_size)
    return math.log10(max(OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * plan.passes, 1.0))
