"""Reading series: forecasts of the next number, their figures, and longer forecasts.

Whatever the engine, the outputs of a step are mean and deviation of the next change, in the root
mean square of training changes; the number itself is computed in float64.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from charlm.backends.numpy_backend import run_layers
from charlm.backends.series_weights import MIN_DEVIATION, UNIT, SeriesWeights
from charlm.inference.series_counts import SeriesCounts
from charlm.products import product
from charlm.text.series import CONTEXT, Scales, inputs_of
from charlm.text.series_floors import Recurrence, Values

READ_AT_ONCE = 4096
"""Steps of a series that are read in one call."""


class SeriesReader(Protocol):
    """Computes with the weights of a series model."""

    name: str

    def read(
        self, inputs: NDArray[np.float32], state: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Any]:
        """Return mean and deviation (T, B) of the changes after inputs (T, B, 2), and the state.

        None is the state in which series begin.
        """


class ArraySeries:
    """Reader in numpy, without torch."""

    name = "numpy"

    def __init__(self, weights: SeriesWeights) -> None:
        self.weights, self.bias = weights

    def read(
        self, inputs: NDArray[np.float32], state: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], Any]:
        """See `SeriesReader.read`."""
        weights = self.weights
        if state is None:
            depth, tensors, hidden = weights.state_shape
            state = np.zeros((depth, tensors, inputs.shape[1], hidden), np.float32)
        x = product(inputs, weights.embedding) + self.bias  # (T, B, E)
        layers, after = run_layers(weights.cell, weights.layers, x, state)
        read = product(layers[-1][:, 0], weights.output.T) + weights.output_bias
        outputs = read.astype(np.float64)
        return outputs[..., 0], MIN_DEVIATION + np.logaddexp(0.0, outputs[..., 1] + UNIT), after


def forecasts(
    reader: SeriesReader, values: Values, scales: Scales, window: int | None = None
) -> tuple[Values, Values]:
    """Return mean and deviation of the forecast of each number but the first, shape (N - 1,).

    The state is carried through the series; with a `window`, each window of that many steps
    begins in a fresh state.
    """
    changes, widths = _read(reader, inputs_of(values[:-1], scales), window)
    return values[:-1] + scales.change * changes, scales.change * widths


def _read(
    reader: SeriesReader, inputs: NDArray[np.float32], window: int | None
) -> tuple[Values, Values]:
    """Return mean and deviation of the changes after inputs (N, 2), in usual changes."""
    steps = len(inputs)
    if window is None:
        state: Any = None
        means, deviations = [], []
        for begin in range(0, steps, READ_AT_ONCE):
            mean, deviation, state = reader.read(inputs[begin : begin + READ_AT_ONCE, None], state)
            means.append(mean[:, 0])
            deviations.append(deviation[:, 0])
        return np.concatenate(means), np.concatenate(deviations)
    columns = -(-steps // window)
    padded = np.zeros((columns * window, 2), np.float32)
    padded[:steps] = inputs
    padded[::window, 1] = 0.0
    mean, deviation, _ = reader.read(
        np.ascontiguousarray(padded.reshape(columns, window, 2).swapaxes(0, 1)), None
    )
    return mean.T.ravel()[:steps], deviation.T.ravel()[:steps]


def evaluate_series(
    reader: SeriesReader,
    values: Values,
    steps: int,
    scales: Scales,
    *,
    window: int | None = None,
    recurrence: Recurrence | None = None,
) -> SeriesCounts:
    """Return the figures of the last `steps` of a series, after those before them."""
    read = values if window is None else values[-steps - 1 :]  # windows tile the steps
    means, deviations = forecasts(reader, read, scales, window)
    before = np.full(len(values) - len(read), np.nan)
    return SeriesCounts.of(
        values,
        np.append(before, means),
        np.append(before, deviations),
        steps=steps,
        mean=scales.mean,
        recurrence=recurrence,
    )


def forecast(
    reader: SeriesReader,
    values: Values,
    length: int,
    scales: Scales,
    *,
    window: int | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    samples: int = 1,
) -> Iterator[Values]:
    """Yield samples of the `length` numbers after a series; each number is fed back.

    At temperature 0 a number is the mean of its forecast, else it is sampled from the normal
    distribution whose deviation is multiplied by the temperature. Random numbers depend on `seed`
    and the number of the sample alone. The last `CONTEXT` numbers are read, or the last
    `window`.
    """
    size = window or CONTEXT
    before = values[-size:]
    first = reader.read(inputs_of(before, scales)[:, None], None)
    for sample in range(samples):
        noise = np.random.default_rng([seed, sample]).standard_normal(length) * temperature
        known, (means, deviations, state) = before, first
        for number in range(length):
            change = scales.change * (means[-1, 0] + noise[number] * deviations[-1, 0])
            known = np.append(known, known[-1] + change)
            if number == length - 1:
                break
            if window is None:
                inputs = inputs_of(known[-2:], scales)[-1:]
            else:
                inputs, state = inputs_of(known[-size:], scales), None
            means, deviations, state = reader.read(inputs[:, None], state)
        yield known[len(before) :]
