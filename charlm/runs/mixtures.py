"""Mixtures of runs: a run whose backend interpolates it with runs of the same vocabulary."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charlm.backends.mixed import MixedBackend
from charlm.commands import command, run_word
from charlm.errors import RunError, UsageError
from charlm.inference.adapt.calibration import sample_of
from charlm.inference.adapt.mixture import fitted_weights
from charlm.inference.likelihood import text_nats
from charlm.phases import phase
from charlm.runs.data import fit_command
from charlm.runs.layout import COMPANION
from charlm.runs.locate import find_run, is_run
from charlm.runs.run import Run, load_run

MIXTURE_WEIGHT = "mixture_weight"
"""Entry of a companion's config.json: its weight in the mixture with the run around it."""
FITTED_TOKENS = 200_000
"""Approximate limit of the validation tokens on which weights are fitted."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A run whose backend is a mixture, and the folders and weights of its members.

    `origin` says in words where the weights are from.
    """

    run: Run
    paths: tuple[Path, ...]
    weights: tuple[float, ...]
    origin: str

    def __str__(self) -> str:
        names = [self.run.path.name, *(member_name(self.run.path, path) for path in self.paths[1:])]
        pairs = zip(self.weights, names, strict=True)
        parts = " + ".join(f"{weight:.3f} {name}" for weight, name in pairs)
        return f"mixture: {parts} (weights {self.origin})"


def parse_member(text: str) -> tuple[str, float | None]:
    """Return the run and the weight in `RUN=WEIGHT`, or the run and None. Raises UsageError."""
    name, sign, number = text.rpartition("=")
    try:
        weight = float(number)
    except ValueError:
        return text, None
    if not sign:
        return text, None
    if not 0.0 < weight < 1.0:
        raise UsageError(f"--with {text}: weight {number}; expected a number between 0 and 1")
    return name, weight


def load_members(
    path: Path, with_: Sequence[str], folder: Path, **options: Any
) -> tuple[list[Run], list[float | None]]:
    """Load the runs to mix with the run in `path`; return them and their given weights.

    `with_` has `RUN` or `RUN=WEIGHT`, looked up in `folder`; `options` are as in `load_run`. Raises
    RunError if there is no such run, UsageError for a wrong weight.
    """
    members = [parse_member(text) for text in with_]
    paths = [_find_member(path, name, folder) for name, _ in members]
    return [load_run(each, **options) for each in paths], [weight for _, weight in members]


def _find_member(path: Path, name: str, folder: Path) -> Path:
    """Return the folder of a run to mix with the run in `path`; `ngram` is its companion."""
    if name == COMPANION and is_run(path / COMPANION):
        return path / COMPANION
    try:
        return find_run(name, folder)
    except RunError:
        if name != COMPANION:
            raise
        raise RunError(
            f"{path.name} has no n-grams beside it; expected those that train fits. Fit some with: "
            f"{fit_command(path)}, and mix them in: --with NAME"
        ) from None


def check_members(runs: Sequence[Run]) -> None:
    """Raise UsageError if a run has other tokens or another direction than the first run."""
    first, *others = runs
    for other in others:
        name = member_name(first.path, other.path)
        if other.backward != first.backward:
            direction = "backward" if other.backward else "forward"
            raise UsageError(
                f"{name} reads {direction}, and {first.path.name} does not; expected runs of one "
                "direction to mix"
            )
        if _entries(other) != _entries(first):
            raise UsageError(
                f"{name} has another vocabulary than {first.path.name}; expected runs with the "
                "same entries to mix. Train it with --vocab of the first one, or compare the two "
                f"with: {command('compare', run_word(first.path), run_word(other.path))}"
            )


def _entries(run: Run) -> tuple[object, ...]:
    vocabulary = run.vocabulary
    return vocabulary.unit, vocabulary.tokens, vocabulary.merges


def member_name(path: Path, other: Path) -> str:
    """Return the name of a run in a mixture with the run in `path`."""
    return COMPANION if other == path / COMPANION else other.name


def mix_runs(runs: Sequence[Run], given: Sequence[float | None] = ()) -> Mixture:
    """Return the mixture of a run with others.

    `given` has a weight or None for each of the others. A companion of the first run has its
    recorded weight; otherwise missing weights are fitted on the validation text that the first run
    keeps, or are equal without one. Raises UsageError if the runs do not fit together.
    """
    check_members(runs)
    first, *others = runs
    given, origin = list(given or [None] * len(others)), "given"
    if given == [None] and (recorded := _recorded_weight(first, others[0])) is not None:
        given, origin = [recorded], "recorded in training"
    weights = complete_weights(given)
    if weights is None:
        weights, origin = _missing_weights(runs, given)
    return Mixture(
        run=replace(first, backend=MixedBackend([run.backend for run in runs], weights)),
        paths=tuple(run.path for run in runs),
        weights=weights,
        origin=origin,
    )


def _recorded_weight(first: Run, other: Run) -> float | None:
    """Return the weight of the companion that training recorded, or None."""
    weight = other.config.get(MIXTURE_WEIGHT)
    is_companion = other.path == first.path / COMPANION
    return weight if is_companion and isinstance(weight, float) and 0.0 < weight < 1.0 else None


def complete_weights(given: Sequence[float | None]) -> tuple[float, ...] | None:
    """Return the weight of a run and those of the others, or None if one of those is missing.

    Raises UsageError if the given weights leave nothing for the run.
    """
    weights = [weight for weight in given if weight is not None]
    total = math.fsum(weights)
    if total >= 1.0:
        raise UsageError(f"the weights of --with sum to {total:g}; expected less than 1")
    return (1.0 - total, *weights) if len(weights) == len(given) else None


def _missing_weights(
    runs: Sequence[Run], given: Sequence[float | None]
) -> tuple[tuple[float, ...], str]:
    """Return all weights and their origin, where several are missing."""
    all_given = [None, *given]
    text = runs[0].kept("valid")
    if text is None:
        rest = 1.0 - math.fsum(weight for weight in given if weight is not None)
        equal = rest / all_given.count(None)
        weights = tuple(equal if weight is None else weight for weight in all_given)
        return weights, "equal, since there is no validation text to fit them on"
    text = sample_of(text, FITTED_TOKENS)
    with phase("fitting the mixture", total=len(runs) * len(text.ids)):
        nats = [text_nats(run.backend, text) for run in runs]
    return tuple(fitted_weights(nats, all_given)), "fitted on the validation text"
