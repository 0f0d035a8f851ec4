"""Training on a series of numbers: the object of the task `series`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from charlm.config.settings import Settings
from charlm.errors import UsageError, named
from charlm.inference.series import evaluate_series
from charlm.inference.series_counts import SeriesCounts
from charlm.nn.devices import Precision
from charlm.nn.encoder import Encoder
from charlm.nn.series import SeriesModel, TorchSeries
from charlm.tasks.series import series_task
from charlm.tasks.task import Task
from charlm.text.dataset import Dataset
from charlm.text.series import Series
from charlm.text.series_floors import Recurrence
from charlm.text.task_text import Given, gold_of
from charlm.training.fit import Course, Fit, Floor, Limits
from charlm.training.labelled import REVIEWED_TOKENS, LabelledTraining, last_split
from charlm.training.plan.planner import Plan
from charlm.training.plan.series import plan_series
from charlm.training.plan.speed import PlanInputs
from charlm.training.task_training import TaskTraining

if TYPE_CHECKING:
    from charlm.training.session import Session

LIMITS = Limits(small_gap=0.1, large_gap=0.5, almost_nothing=0.01, noisy=True)
"""Limits of a `Fit`, for squared errors."""
EQUAL = 0.02
"""Fraction by which errors must differ to be called better or worse."""
CONSTANT = 1e-3
"""Fraction of the squared error of the last value below which a part of a series is constant."""


class SeriesTraining(LabelledTraining):
    """Training of a model that forecasts the next number; see `TaskTraining`."""

    def dataset(self, settings: Settings, given: Given) -> Dataset:
        """Read the series. Raises UsageError for a vocabulary."""
        if given.vocabulary is not None:
            raise UsageError(
                f"{named('vocab')} with {named('task')} {settings.task.task}, which has no "
                f"vocabulary. Leave out {named('vocab')}"
            )
        return super().dataset(settings, given)

    def outputs(self, settings: Settings, dataset: Dataset) -> int:
        """Return the number of outputs: mean and deviation."""
        return 2

    def plan(self, settings: Settings, dataset: Dataset, inputs: PlanInputs) -> Plan:
        """Decide every setting that is open."""
        return plan_series(settings, dataset, inputs)

    def table(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the column, the scales of the training numbers, and how series are read."""
        series, training = gold_of(dataset, Series), settings.training
        return {
            "column": series.column,
            **series.scales._asdict(),
            "stateless": training.stateless,
            "window": training.bptt,
        }

    def record(self, settings: Settings, dataset: Dataset) -> dict[str, Any]:
        """Return the mean squared errors of the floors."""
        series = gold_of(dataset, Series)
        recurrence = Recurrence.fit(series.values["train"])
        counts = {
            name: SeriesCounts.of(
                values, values[:-1], np.ones(len(values) - 1),
                steps=series.steps[name], mean=series.scales.mean, recurrence=recurrence,
            )
            for name, values in series.values.items()
            if name != "train"
        }  # fmt: skip
        return {
            "floors": {
                "last_value": {name: each.last_value_mse for name, each in counts.items()},
                "recurrence": {name: each.recurrence_mse for name, each in counts.items()},
            }
        }

    def task(
        self, dataset: Dataset, model: Encoder, settings: Settings, precision: Precision
    ) -> Task:
        """Return batches of steps, the loss of the next number, and the figures."""
        return series_task(dataset, gold_of(dataset, Series), settings, precision)

    def answers(self, session: "Session", model: Encoder, split: str) -> SeriesCounts:
        """Return the figures of the best weights on a split."""
        series, training = gold_of(session.dataset, Series), session.trainer.settings
        return evaluate_series(
            TorchSeries(cast(SeriesModel, model)),
            series.values[split],
            series.steps[split],
            series.scales,
            window=training.bptt if training.stateless else None,
            recurrence=Recurrence.fit(series.values["train"]),
        )

    def fit(
        self,
        session: "Session",
        model: Encoder,
        answers: Mapping[str, SeriesCounts],
        course: Course,
    ) -> Fit:
        """Return errors as multiples of that of the last value, and both floors beside the run.

        Parts of a series may be harder than others; so is the forecast by the last value there.
        """
        series, training = gold_of(session.dataset, Series), session.trainer.settings
        values = series.values["train"][-REVIEWED_TOKENS:]
        train = evaluate_series(
            TorchSeries(cast(SeriesModel, model)), values, len(values) - 1, series.scales,
            window=training.bptt if training.stateless else None,
        )  # fmt: skip
        own, new = _relative(train, answers["valid"])
        return Fit(
            key="mse_of_last_value",
            figure="{} times the squared error of the last value",
            train=own,
            new=new,
            limits=LIMITS,
            noun="numbers",
            floors=_floors(answers[last_split(answers)]),
            course=replace(course, can_start=False),
        )


def _relative(train: SeriesCounts, new: SeriesCounts) -> tuple[float, float]:
    """Return both mean squared errors as multiples of that of the last value.

    Each is a multiple of the error on the same numbers; of the larger one if one part is constant,
    or nearly so, where the last value is right. Without any change, they are 0.
    """
    least, most = sorted((train.last_value_mse, new.last_value_mse))
    if least < CONSTANT * most:
        return train.mse / most, new.mse / most
    if not most:
        return 0.0, 0.0
    return train.mse / train.last_value_mse, new.mse / new.last_value_mse


def _floors(counts: SeriesCounts) -> list[Floor]:
    """Return the last value and the linear recurrence beside the figures of a run."""
    return [
        Floor(
            name=name,
            figures=f"MSE {mse:.3g}, this run {counts.mse:.3g}",
            low=(1.0 - EQUAL) * mse - counts.mse,
            high=(1.0 + EQUAL) * mse - counts.mse,
        )
        for name, mse in (
            ("the last value", counts.last_value_mse),
            ("a linear recurrence", counts.recurrence_mse),
        )
    ]


SERIES: TaskTraining = SeriesTraining()
