"""The model of a series of numbers: its forecasts and figures. Nothing is printed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from charlm.api.task_api import TaskApi, TaskModel, file_rules, held_out
from charlm.commands import command
from charlm.errors import CorpusError, UsageError, check_count, named
from charlm.inference.figures import TaskEvaluation
from charlm.inference.samplers import Sampling, fresh_seed
from charlm.inference.series_counts import SeriesCounts
from charlm.phases import phase
from charlm.runs.columns import run_columns
from charlm.runs.layout import TASK
from charlm.runs.series_run import SeriesRun
from charlm.text.series import MAX_VALUE, read_numbers
from charlm.text.series_floors import Values

FROM_FILES = "series"
"""Name of the series of a file."""


class SeriesForecaster(TaskModel):
    """Trained model of a series, made by `charlm.load`."""

    run: SeriesRun

    def __repr__(self) -> str:
        column = self.config[TASK]["column"]
        return f"SeriesForecaster({str(self.path)!r}, column {column!r})"

    def forecast(
        self,
        length: int = 48,
        *,
        values: ArrayLike | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Values:
        """Return the next numbers of a series, shape (length,); by default of the run's own.

        See `samples`.
        """
        return next(self.samples(1, length, values=values, temperature=temperature, seed=seed))

    def samples(
        self,
        count: int,
        length: int = 48,
        *,
        values: ArrayLike | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Iterator[Values]:
        """Yield samples of the next numbers of a series, each of shape (length,).

        Each number is fed back. At temperature 0 it is the mean of its forecast, so all samples are
        equal; at 1 it is sampled from the forecast. A sample depends on the seed and its own number
        alone. Raises UsageError for values that cannot be continued.
        """
        check_count("samples", count, 1)
        check_count("length", length, 0)
        Sampling(temperature=temperature)
        seed = fresh_seed() if seed is None else seed
        check_count("seed", seed, 0)
        known = self.run.series if values is None else checked_values(values)
        if not len(known):
            values_of = f"run {self.path.name} keeps" if values is None else "the series has"
            raise UsageError(
                f"{values_of} no numbers to continue; expected some. Give them with "
                f"{named('values')}"
            )
        for numbers in self.run.forecasts(
            known, length, temperature=temperature, seed=seed, samples=count
        ):
            if not np.isfinite(numbers).all():
                raise UsageError(
                    f"the forecast leaves the range of numbers after "
                    f"{int(np.isfinite(numbers).sum()):,} steps; expected a shorter "
                    f"{named('length')}, or a model that was trained for longer"
                )
            yield numbers

    def predict_each(self, texts: object) -> NoReturn:
        """Raise UsageError: a series has forecasts, not answers to texts."""
        raise UsageError(
            f"predict was called on run {self.name}, a model of a series; expected a model that "
            "answers texts. Use forecast or samples"
        )

    def evaluate(self, values: ArrayLike | None = None) -> SeriesCounts:
        """Return the figures of the forecasts of each number but the first of a series.

        Without an argument, the forecasts of all validation numbers of the run are evaluated.
        Raises CorpusError if the run keeps none.
        """
        if values is None:
            return self.run.evaluate(*self.kept_validation())
        known = checked_values(values)
        if len(known) < 2:
            raise UsageError(f"{len(known)} numbers; expected at least 2, to forecast the second")
        return self.run.evaluate(known, len(known) - 1)


def checked_values(values: ArrayLike) -> Values:
    """Return numbers as an array of shape (N,). Raises UsageError for anything else."""
    try:
        if np.asarray(values).dtype.kind in "mM":
            raise TypeError("times")  # float64 would count them from 1970
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"values are {values!r:.80}; expected numbers") from error
    if numbers.ndim != 1:
        raise UsageError(f"values have shape {numbers.shape}; expected (N,), one series")
    broken = np.flatnonzero(~(np.abs(numbers) <= MAX_VALUE))
    if len(broken):
        raise UsageError(
            f"{named('values')}[{broken[0]}] is {numbers[broken[0]]}; expected a number of at most "
            f"{MAX_VALUE:g}"
        )
    return numbers


class SeriesApi(TaskApi):
    """Functions for runs on series; see `TaskApi`."""

    model = SeriesForecaster

    def evaluate(
        self,
        run: SeriesRun,
        files: Sequence[str] | None = None,
        *,
        reading: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> TaskEvaluation:
        """Return the figures of a file, or of the series that the run held out.

        The held-out end is forecast after what comes before it. Raises UsageError if the run keeps
        none, CorpusError for a file that is not a series of numbers.
        """
        notes: list[str] = []
        if files:
            rules = file_rules(reading, None, notes.append, run_columns(run.path))
            _, values = read_numbers(files, rules)
            if len(values) < 2:
                raise CorpusError(
                    f"{files[0]} has {len(values)} numbers; expected at least 2. Give a longer "
                    "series"
                )
            parts = {FROM_FILES: (values, len(values) - 1)}
        else:
            parts = held_out(run, "series")
        counts = {}
        for name, (values, steps) in parts.items():
            with phase(f"evaluating: {name}"):
                counts[name] = run.evaluate(values, steps)
        return TaskEvaluation(counts=counts, notes=notes)

    def compare(self, runs: Sequence[SeriesRun], *_: Any, **__: Any) -> NoReturn:
        """Raise UsageError: errors on different series are not paired."""
        raise UsageError(
            f"runs {' and '.join(run.path.name for run in runs)} give numbers, which charlm "
            "compare does not pair; expected runs of texts. Compare the figures of: charlm eval"
        )

    def inputs(self, *_: Any, **__: Any) -> NoReturn:
        """Raise UsageError: there is nothing to predict from texts."""
        raise UsageError(
            "a run on a series gives numbers, not answers to texts. Use: " + command("sample")
        )


SERIES_API = SeriesApi()
