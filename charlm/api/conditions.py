"""Evaluation of a run with conditions: its held-out text by condition, and posteriors."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from charlm.api.loading import load_model
from charlm.errors import UsageError
from charlm.inference.likelihood import evaluate
from charlm.inference.posteriors import Posteriors
from charlm.phases import phase
from charlm.runs import conditions
from charlm.runs.conditions import conditions_of
from charlm.runs.layout import CONDITIONS, read_config
from charlm.runs.run import Run, load_run
from charlm.text.encoded import read_encoded
from charlm.units import Tally


def usual_condition(path: Path) -> str | None:
    """Return the most frequent condition of the training texts of a run, None without any."""
    return conditions.usual_condition(read_config(path))


def posteriors(path: Path, texts: Sequence[str], **options: Any) -> Posteriors:
    """Return the probability of each text given each condition of a run, and the reverse.

    `options` are as in `load_run`. Raises UsageError for a run without conditions.
    """
    config = read_config(path)
    names = conditions_of(config)
    if not names:
        raise UsageError(
            f"run {path.name} has no conditions to compare; expected a run trained with "
            "--condition COLUMN. Name one with --run"
        )
    log_p = np.zeros((len(texts), len(names)))
    with phase("scoring", total=len(names) * len(texts), unit="texts"):
        for number, name in enumerate(names):
            scores = load_model(path, condition=name, **options).score(texts)
            log_p[:, number] = [score.log_probability for score in scores]
    return Posteriors.of(names, log_p, config[CONDITIONS]["documents"])


def evaluate_conditions(
    path: Path, parts: Sequence[str] = ("valid", "test"), **options: Any
) -> dict[str, dict[str | None, Tally]]:
    """Return the tallies of each held-out text by condition; that of None is their sum.

    Texts without a condition have the condition "". `options` are as in `load_run`. Raises
    UsageError if the run keeps no held-out text.
    """
    config = read_config(path)
    tallies: dict[str, dict[str | None, Tally]] = {}
    for name in (*conditions_of(config), None):
        run = load_run(path, condition=name, **options)
        for part in parts:
            if (tally := _tally(run, part)) is not None:
                tallies.setdefault(part, {})[name or ""] = tally
    if not tallies:
        raise UsageError("this run keeps no held-out text; expected one to evaluate. Use --file")
    for part, by_name in tallies.items():
        counts = read_encoded(path / "data" / part).counts
        total = replace(reduce(add, by_name.values()), **vars(counts))
        tallies[part] = {None: total, **by_name}
    return {part: tallies[part] for part in parts if part in tallies}


def _tally(run: Run, part: str) -> Tally | None:
    """Return the tally of the kept texts of the condition of a run, if it has some."""
    text = run.kept(part)
    if text is None:
        return None
    with phase(f"evaluating: {part}, {run.condition or 'others'}", total=len(text.ids)):
        return evaluate(run.backend, text)
