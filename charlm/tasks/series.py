"""Series: forecast each number from the numbers before it, as a normal distribution."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from charlm.config.settings import Settings
from charlm.config.tasks import TASKS
from charlm.inference.series import evaluate_series
from charlm.inference.series_counts import SeriesCounts
from charlm.nn.devices import Precision
from charlm.nn.encoder import State, select_rows
from charlm.nn.series import SeriesModel, TorchSeries, normal_of
from charlm.phases import phase
from charlm.tasks.task import Sums, Task, real_rows, take_rows
from charlm.text.batches import Batch, BatchSpec
from charlm.text.dataset import Dataset
from charlm.text.series import Scales, Series
from charlm.text.series_batches import SeriesBatch, SeriesBatches
from charlm.text.series_floors import Recurrence, Values


def series_task(dataset: Dataset, series: Series, settings: Settings, precision: Precision) -> Task:
    """Return the task of a series under complete settings."""
    training = settings.training
    assert training.batch_size and training.bptt, "planned settings have sizes"
    spec = BatchSpec(
        batch_size=training.batch_size,
        bptt=training.bptt,
        stateless=training.stateless,
        seed=training.seed or 0,
    )
    train = series.values["train"]
    validation = None
    if dataset.valid is not None:
        validation = SeriesValidation(
            values=series.values["valid"],
            tokens=series.steps["valid"],
            scales=series.scales,
            window=training.bptt if training.stateless else None,
            recurrence=Recurrence.fit(train),
        )
    return Task(
        batches=SeriesBatches(dataset.train, train, series.scales, spec),
        loss=SeriesLoss(precision, math.log(series.scales.change)),
        evaluate=validation,
        target=TASKS[settings.task.task].target,
    )


@dataclass(frozen=True)
class SeriesLoss:
    """Negative log-likelihood of the next number, in its own unit.

    `log_change` is the logarithm of the unit in which the model counts.
    """

    precision: Precision
    log_change: float = 0.0

    def __call__(
        self,
        model: SeriesModel,
        batch: Batch,
        state: State | None,
        generator: torch.Generator,
    ) -> Sums:
        """Return the sums over the numbers (see `Loss`)."""
        assert isinstance(batch, SeriesBatch), "batches of a series"
        device = generator.device
        inputs, targets, kept = (
            torch.from_numpy(array).to(device)
            for array in (batch.inputs, batch.targets, batch.kept)
        )
        state = None if batch.first or state is None else select_rows(state, kept)
        with self.precision.autocast(device):
            outputs, after = model(inputs, state, generator)  # (T, B, 2)
        rows = real_rows(batch.real)
        mean, deviation = normal_of(take_rows(outputs, rows))
        loss = normal_nats(take_rows(targets, rows), mean, deviation).sum()
        loss = loss + self.log_change * batch.tokens
        after = tuple(tuple(tensor.detach().float() for tensor in layer) for layer in after)
        return Sums(loss, loss.detach(), after)


def normal_nats(x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the negative log-density of a normal distribution, elementwise."""
    return 0.5 * ((x - mean) / deviation) ** 2 + deviation.log() + 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, kw_only=True)
class SeriesValidation:
    """Figures of the last numbers of a series, after those before them."""

    values: Values = field(repr=False)
    tokens: int
    """Number of numbers that are forecast."""
    scales: Scales
    window: int | None = None
    recurrence: Recurrence | None = None

    def __call__(self, model: SeriesModel) -> SeriesCounts:
        """Return the figures of a model."""
        with phase("validating"):
            return evaluate_series(
                TorchSeries(model), self.values, self.tokens, self.scales,
                window=self.window, recurrence=self.recurrence,
            )  # fmt: skip
