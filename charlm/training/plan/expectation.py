"""Loss that a plan should reach on the validation text, from measured runs.

The loss of n-grams shows how hard a text is; the operations per token show how much better a
network gets. With C operations per token, N tokens, V entries of the vocabulary and p passes,

    ln(nats / n-gram nats) = INTERCEPT + SLOPE log10(min(C, 10^USEFUL N) / 10^7) + RARE V / (p N)

`scripts/fit_expectation.py` fits the constants to measured runs of LSTMs on several texts
(`scripts/measure_plans.py`), and predicts each text from the others.
"""

import math
from typing import Any

from charlm.config.cells import CELLS
from charlm.config.text_units import UNITS
from charlm.ngrams.kneser_ney import ngram_nats
from charlm.nn.model import count_parameters
from charlm.text.dataset import Dataset
from charlm.training.plan.planner import Plan
from charlm.training.plan.speed import OPERATIONS_PER_WEIGHT_AND_TOKEN

INTERCEPT = -0.012
"""ln(nats / n-gram nats) with 10^7 operations per token and a small vocabulary."""
SLOPE = -0.085
"""Change with ten times as many operations per token."""
RARE = 0.53
"""Change with each entry of the vocabulary for a token that is read: entries have to be learned."""
USEFUL = 2.1
"""log10 of the operations per token, for each token of the text, above which more do not help."""
SPREAD = 0.056
"""Error of the logarithm that 80 % of the measured runs do not exceed, each predicted without the
runs on its own text."""
MIN_WORK, MAX_WORK = 6.1, 8.6
"""log10 of the operations per token of the measured runs."""
MIN_TOKENS = 30_000
"""Tokens of the shortest measured text, about."""
MIN_STEPS = 250
"""Fewest steps for an expectation: all measured runs made many more."""


def expected(dataset: Dataset, plan: Plan) -> dict[str, Any] | None:
    """Return the expected nats per token, an interval, and those of n-grams; None if unknown.

    On new texts, 80 % of runs should end between "low" and "high". The expectation is unknown
    without validation text, for cells and units that were not measured, for texts shorter and runs
    shorter or longer than the measured ones, and for learning rates of the user.
    """
    model, unit = plan.settings.model, dataset.vocabulary.unit
    if plan.steps < MIN_STEPS or "training.learning_rate" not in plan.reasons:
        return None
    if not (CELLS[model.cell].has_expectation and UNITS[unit].has_expectation):
        return None
    if dataset.valid is None or not len(dataset.valid.ids):
        return None
    tokens, vocab_size = len(dataset.train.ids), len(dataset.vocabulary)
    work = work_of(plan, vocab_size)
    if tokens < MIN_TOKENS or not MIN_WORK <= work <= MAX_WORK:
        return None
    ngrams = ngram_nats(dataset.train.ids, dataset.valid.ids, vocab_size)
    log_ratio = expected_log_ratio(work, tokens, vocab_size / (plan.passes * tokens))
    return {
        "nats": ngrams * math.exp(log_ratio),
        "low": ngrams * math.exp(log_ratio - SPREAD),
        "high": ngrams * math.exp(log_ratio + SPREAD),
        "ngram_nats": ngrams,
    }


def expected_log_ratio(work: float, tokens: int, rare: float) -> float:
    """Return ln(nats / n-gram nats) for log10 operations per token and entries per token read."""
    useful = min(work, USEFUL + math.log10(tokens))
    return INTERCEPT + SLOPE * (useful - 7.0) + RARE * rare


def work_of(plan: Plan, vocab_size: int) -> float:
    """Return log10 of the operations that a plan spends on each token of the text."""
    weights = count_parameters(plan.settings.model, vocab_size)
    return math.log10(max(OPERATIONS_PER_WEIGHT_AND_TOKEN * weights * plan.passes, 1.0))
