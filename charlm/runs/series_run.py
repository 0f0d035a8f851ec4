"""A run on a series of numbers, in memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from charlm.backends.series_weights import series_weights
from charlm.errors import UsageError, assigned, named
from charlm.inference.series import ArraySeries, SeriesReader, evaluate_series, forecast
from charlm.inference.series_counts import SeriesCounts
from charlm.runs import layout
from charlm.runs.engines import uses_torch
from charlm.runs.task_run import TaskRun
from charlm.runs.task_weights import TaskWeights
from charlm.text.encoded import EncodedText
from charlm.text.series import Scales, read_values
from charlm.text.series_floors import Recurrence, Values


@dataclass(frozen=True, kw_only=True)
class SeriesRun(TaskRun[tuple[Values, int]]):
    """A model of a series with its scales, in memory."""

    reader: SeriesReader

    @property
    def scales(self) -> Scales:
        """Scales of the training numbers."""
        task = self.config[layout.TASK]
        return Scales(task["mean"], task["scale"], task["change"])

    @property
    def window(self) -> int | None:
        """Length of the windows that begin in a fresh state; None if the state is carried."""
        task = self.config[layout.TASK]
        return int(task["window"]) if task["stateless"] else None

    def beside(self, name: str, text: EncodedText) -> tuple[Values, int]:
        """Return the kept numbers of a split, and its steps."""
        return read_values(self.path / "data" / name, len(text.ids)), len(text.ids)

    @cached_property
    def recurrence(self) -> Recurrence | None:
        """The linear recurrence of the training numbers; None if the run keeps none."""
        train = self.kept("train")
        return Recurrence.fit(train[0]) if train else None

    @cached_property
    def series(self) -> Values:
        """The numbers that the run was trained on, and those held out after them; maybe none."""
        train, valid = self.kept("train"), self.kept("valid")
        if train is None or valid is None:
            return np.empty(0) if train is None else train[0]
        values, steps = valid
        before = len(values) - steps
        follows = np.array_equal(train[0][-before:], values[:before])
        return np.append(train[0], values[before:]) if follows else train[0]

    def evaluate(self, values: Values, steps: int) -> SeriesCounts:
        """Return the figures of the last `steps` of a series, after those before them."""
        return evaluate_series(
            self.reader, values, steps, self.scales, window=self.window, recurrence=self.recurrence
        )

    def forecasts(self, values: Values, length: int, **options: Any) -> Iterator[Values]:
        """Yield samples of the numbers after a series; options as in `inference.series`."""
        return forecast(self.reader, values, length, self.scales, window=self.window, **options)


def load_series_run(path: Path, *, engine: str = "auto", threads: int | None = None) -> SeriesRun:
    """Load the run in a folder. Raises RunError if files are missing, damaged or do not match.

    `engine` is numpy, torch or auto: numpy unless only torch computes the cell. Raises UsageError
    for others.
    """
    weights = TaskWeights.load(path, engine, threads)
    if engine == "native":
        raise UsageError(
            f"{assigned('engine', 'native')} with run {path.name}, which gives numbers; expected "
            f"numpy, torch or auto. Leave out {named('engine')}"
        )
    reader: SeriesReader
    if uses_torch(weights.engine):
        from charlm.nn.series import SeriesModel, TorchSeries

        reader = TorchSeries(cast(SeriesModel, weights.torch_model()))
    else:
        reader = ArraySeries(series_weights(weights.settings, weights.arrays))
    return SeriesRun(path=path, config=weights.config, vocabulary=weights.vocabulary, reader=reader)
