"""Mixtures of runs: a run whose backend interpolates it with runs of the same vocabulary."""

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from charlm.backends.mixed import MixedBackend
from charlm.backends.ngram_backend import NgramBackend
from charlm.commands import command, run_word
from charlm.errors import RunError, UsageError, named
from charlm.inference.adapt.calibration import sample_of, sample_to_fit, text_logits
from charlm.inference.adapt.mixture import Mixing, fit_to_ngrams, fitted_weights
from charlm.inference.likelihood import text_nats
from charlm.phases import phase
from charlm.runs.conditions import check_condition, conditions_of
from charlm.runs.layout import COMPANION, LOGIT_SCALE, WEIGHTS, read_config
from charlm.runs.locate import find_run, is_run
from charlm.runs.run import Run, load_run
from charlm.runs.weights import old_logit_scale
from charlm.text.encoded import EncodedText

MIXTURE_WEIGHT = "mixture_weight"
"""Entry of a companion's config.json: its weight in the mixture with the run around it."""
MIXTURE_BY_LENGTH, MIXTURE_SCALE = "mixture_by_length", "mixture_scale"
"""Further entries: see `Mixing`. Runs of older versions have the weight only."""
FITTED_TOKENS = 200_000
"""Approximate limit of the validation tokens on which weights are fitted."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A run whose backend is a mixture, and the folders and weights of its members.

    `origin` says in words where the weights are from.
    """

    run: Run
    paths: tuple[Path, ...]
    mixing: Mixing
    origin: str

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the members, or their means."""
        return self.mixing.weights

    def __str__(self) -> str:
        names = [self.run.path.name, *(member_name(self.run.path, path) for path in self.paths[1:])]
        return self.described(names)

    def described(self, names: Sequence[str]) -> str:
        """Return the mixture in words, with names for its members."""
        parts = weighted_names(self.weights, names)
        details = ""
        if self.mixing.by_length:
            details = (
                f"; means over lengths of context; logits of {names[0]} times "
                f"{self.mixing.scale:.2f}"
            )
        return f"mixture: {parts} (weights {self.origin}{details})"


def weighted_names(weights: Sequence[float], names: Sequence[str]) -> str:
    """Return "0.700 a + 0.300 b"."""
    pairs = zip(weights, names, strict=True)
    return " + ".join(f"{weight:.3f} {name}" for weight, name in pairs)


def member_texts(with_: str | Path | Iterable[str | Path]) -> list[str]:
    """Return the runs to mix, `RUN` or `RUN=WEIGHT`. Raises UsageError for other values."""
    several = isinstance(with_, Iterable) and not isinstance(with_, (str, Mapping))
    members = list(cast(Iterable[str | Path], with_)) if several else [with_]
    if not all(isinstance(member, (str, Path)) for member in members):
        raise UsageError(
            f"{named('with_')} is {members if several else with_!r:.80}; expected a run or a list "
            "of runs, each with its weight if any: ['second', 'third=0.3']"
        )
    return [str(member) for member in members]


def find_member(text: str, find: Callable[[str], Path]) -> tuple[Path, float | None]:
    """Return the folder and the weight of `RUN=WEIGHT`, or the folder of `RUN` and None.

    `find` returns the folder of a name. A run may have a name that ends like a weight. Raises
    RunError if there is no such run, UsageError for a wrong weight.
    """
    name, _, number = text.rpartition("=")
    weight = _weight(number) if name else None
    try:
        return (find(text), None) if weight is None else (find(name), weight)
    except RunError:
        with contextlib.suppress(RunError):
            if weight is not None:
                return find(text), None
            if name and find(name):
                raise UsageError(
                    f"{named('with_')} {text}: the weight is {number or 'missing'}; expected a "
                    f"number above 0 and below 1. Write for example {name}=0.3"
                ) from None
        raise


def _weight(number: str) -> float | None:
    """Return a weight, or None for anything but a number above 0 and below 1."""
    try:
        weight = float(number)
    except ValueError:
        return None
    return weight if 0.0 < weight < 1.0 else None


def load_members(
    path: Path, with_: Sequence[str], folder: Path, **options: Any
) -> tuple[list[Run], list[float | None]]:
    """Load the runs to mix with the run in `path`; return them and their given weights.

    `with_` has `RUN` or `RUN=WEIGHT`, looked up in `folder`; `options` are as in `load_run`, a
    condition for the runs that have some. Raises RunError if there is no such run, UsageError for a
    wrong weight.
    """
    members = [find_member(text, lambda name: _member_folder(path, name, folder)) for text in with_]
    runs = []
    for each, _ in members:
        config = read_config(each)
        own = options | ({} if conditions_of(config) else {"condition": None})
        check_condition(each, config, own.get("condition"))
        runs.append(load_run(each, **own))
    return runs, [weight for _, weight in members]


def _member_folder(path: Path, name: str, folder: Path) -> Path:
    """Return the folder of a run to mix with the run in `path`; `ngram` is its companion."""
    if name == COMPANION and is_run(path / COMPANION):
        return path / COMPANION
    try:
        return find_run(name, folder)
    except RunError:
        if name != COMPANION:
            raise
        from charlm.runs.data import fit_command

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


def mix_runs(
    runs: Sequence[Run],
    given: Sequence[float | None] = (),
    text: EncodedText | None = None,
    origin: str = "fitted on the validation text",
) -> Mixture:
    """Return the mixture of a run with others.

    `given` has a weight or None for each of the others. Missing weights are fitted on a `text`,
    which `origin` names in words. Without a text, a companion of the first run has its recorded
    weights; otherwise they are fitted on the validation text that the first run keeps, or are equal
    without one. Raises UsageError if the runs do not fit together.
    """
    check_members(runs)
    first, *others = runs
    given = list(given or [None] * len(others))
    recorded = _recorded(first, others[0]) if text is None and given == [None] else None
    if (weights := complete_weights(given)) is not None:
        mixing, origin = Mixing(weights=weights), "given"
    elif recorded is not None:
        mixing, origin = recorded, "recorded in training"
    elif text := text or first.kept("valid"):
        mixing = _fitted(runs, given, sample_of(text, FITTED_TOKENS))
    else:
        mixing = Mixing(weights=equal_weights(given))
        origin = "equal, since there is no validation text to fit them on"
    first = scaled(first, mixing.scale)
    backend = MixedBackend(
        [run.backend for run in (first, *others)], mixing.weights, mixing.by_length
    )
    return Mixture(
        run=replace(first, backend=backend),
        paths=tuple(run.path for run in runs),
        mixing=mixing,
        origin=origin,
    )


def scaled(run: Run, factor: float) -> Run:
    """Return a run with the logits of its network multiplied by a factor."""
    if factor == 1.0 or run.load_scaled is None:
        return run
    scale = run.config.get(LOGIT_SCALE) or old_logit_scale(run.path / WEIGHTS)
    return replace(run, backend=run.load_scaled(factor * scale))


def mixing_config(mixing: Mixing) -> dict[str, Any]:
    """Return the entries of a companion's config.json about its mixture with the run around it."""
    return {
        MIXTURE_WEIGHT: mixing.weights[1],
        MIXTURE_BY_LENGTH: list(mixing.by_length),
        MIXTURE_SCALE: mixing.scale,
    }


def _recorded(first: Run, other: Run) -> Mixing | None:
    """Return the weights of the companion that training recorded, or None."""
    config = other.config
    weight, by_length = config.get(MIXTURE_WEIGHT), config.get(MIXTURE_BY_LENGTH, [])
    scale, order = config.get(MIXTURE_SCALE, 1.0), config["model"].get("order")
    if other.path != first.path / COMPANION or not isinstance(weight, float):
        return None
    if not isinstance(by_length, list) or len(by_length) not in (0, order):
        return None
    if not all(isinstance(each, float) and 0.0 < each < 1.0 for each in (weight, *by_length)):
        return None
    if not isinstance(scale, float) or not 0.1 < scale < 10.0:
        return None
    return Mixing(weights=(1.0 - weight, weight), by_length=tuple(by_length), scale=scale)


def complete_weights(given: Sequence[float | None]) -> tuple[float, ...] | None:
    """Return the weight of a run and those of the others, or None if one of those is missing.

    Raises UsageError if the given weights leave nothing for the run.
    """
    weights = [weight for weight in given if weight is not None]
    total = math.fsum(weights)
    if total >= 1.0:
        raise UsageError(
            f"the weights of {named('with_')} sum to {total:g}; expected less than 1, since the "
            "first run has the rest. Give smaller weights"
        )
    return (1.0 - total, *weights) if len(weights) == len(given) else None


def _fitted(runs: Sequence[Run], given: Sequence[float | None], text: EncodedText) -> Mixing:
    """Return the weights that are best on a text; those of a network with n-grams vary."""
    first, *others = runs
    ngrams = others[0].backend
    with phase("fitting the mixture", total=len(runs) * len(text.ids)):
        if first.load_scaled and isinstance(ngrams, NgramBackend) and list(given) == [None]:
            sample = text_logits(first.backend, sample_to_fit(text, ngrams.vocab_size))
            mixing, *_ = fit_to_ngrams(
                lambda factor: scaled(first, factor).backend, ngrams.model, text, sample
            )
            return mixing
        nats = [text_nats(run.backend, text) for run in runs]
    return Mixing(weights=tuple(fitted_weights(nats, [None, *given])))


def equal_weights(given: Sequence[float | None]) -> tuple[float, ...]:
    """Return the weight of a run and those of the others; those that are not given are equal."""
    all_given = [None, *given]
    rest = 1.0 - math.fsum(weight for weight in given if weight is not None)
    equal = rest / all_given.count(None)
    return tuple(equal if weight is None else weight for weight in all_given)
