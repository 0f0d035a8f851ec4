"""Products of matrices do not warn of numbers beyond their edges; results are unchanged."""

import ast
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import test_floors
from test_backends import model_of, weights_of
from test_cache import random_contexts
from test_series import SCALES, WAVE, arrays_of
from test_series import model_of as series_model
from test_translating import TEXTS, encoded, steps_of
from test_translating import model_of as translator

from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.series_weights import series_weights
from charlm.inference.adapt.cache import Cache, cached_nats
from charlm.inference.series import ArraySeries, forecasts
from charlm.products import product, quiet_products
from charlm.text.series_floors import Recurrence
from charlm.text.vectors import nearest


class Stray(np.ndarray):
    """An array whose products set the processor's flag of an invalid value, as OpenBLAS may do.

    The products are right. Results of operations on such arrays are such arrays.
    """

    products = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        """Apply a function to the plain arrays."""
        if out is not None:
            options["out"] = tuple(np.asarray(array) for array in out)
        result = getattr(ufunc, method)(*map(np.asarray, inputs), **options)
        if ufunc is np.matmul:
            Stray.products += 1
            np.subtract(np.inf, np.inf)  # warns unless the caller ignores it
        return out[0] if out is not None else np.asarray(result).view(Stray)


def stray(value: Any) -> Any:
    """Return weights whose arrays are Stray ones."""
    if isinstance(value, np.ndarray):
        return value.view(Stray)
    if is_dataclass(value):
        changed = {field.name: stray(getattr(value, field.name)) for field in fields(value)}
        return replace(value, **changed)
    if isinstance(value, tuple):
        parts = map(stray, value)
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, NumpyBackend):
        return NumpyBackend(stray(value.weights))
    return value


def read_by_backend(wrap: Any) -> Any:
    backend = NumpyBackend(wrap(weights_of(model_of("gru", num_layers=2))))
    ids = np.arange(12).reshape(6, 2) % 7
    state = backend.initial_state(2)
    return backend.ranks(ids, ids[::-1], state)[0], backend.distribution(ids, state)[0]


def read_as_series(wrap: Any) -> Any:
    model = series_model()
    reader = ArraySeries(wrap(series_weights(model.settings, arrays_of(model))))
    return forecasts(reader, WAVE, SCALES)


def translate(wrap: Any) -> Any:
    steps = wrap(steps_of("numpy", translator()))
    vectors, lengths, state = steps.begin(encoded(TEXTS), np.arange(2))
    ids = np.array([[3], [4]])
    return steps.step(ids, state, wrap(vectors), lengths)[:2]


def read_with_cache(wrap: Any) -> Any:
    return (cached_nats(wrap(random_contexts()), Cache(size=7, weight=0.3, theta=0.5)),)


def follow(wrap: Any) -> Any:
    fitted = Recurrence.fit(WAVE, 3)
    return (wrap(fitted).forecasts(WAVE),)


def neighbours(wrap: Any) -> Any:
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    return (np.array(nearest(wrap(rows), 2, 3)),)


READERS = [
    read_by_backend, read_as_series, translate, read_with_cache, follow, neighbours,
]  # fmt: skip


def test_the_flag_of_a_stray_value_is_a_warning_elsewhere() -> None:
    """Else the next test could not fail."""
    with pytest.raises(RuntimeWarning, match="invalid value"):
        np.ones((2, 3)).view(Stray) @ np.ones((3, 2))


@pytest.mark.parametrize("read", READERS)
def test_a_product_does_not_warn_and_its_result_is_the_usual_one(read: Any) -> None:
    before = Stray.products
    results = read(stray)
    assert Stray.products > before
    for one, other in zip(results, read(lambda value: value), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6)


def test_an_undefined_result_is_kept_and_other_functions_warn() -> None:
    """Only the warning of the product is ignored, also by a function that calls itself."""
    row = np.array([[np.inf, 1.0]])
    assert np.isnan(product(row, np.array([[0.0], [1.0]]))).all()
    assert np.isposinf(product(row, np.ones((2, 1)))).all()

    @quiet_products
    def countdown(count: int) -> float:
        return countdown(count - 1) if count else float(np.subtract(np.inf, np.inf))

    assert np.isnan(countdown(2))
    with pytest.raises(RuntimeWarning, match="invalid value"):
        np.subtract(np.inf, np.inf)


WHOLE_NUMBERS = {"charlm.inference.bootstrap"}
"""Modules whose products are of integers, which OpenBLAS does not compute."""


def test_numpy_multiplies_matrices_in_products_alone() -> None:
    """The numpy backend ignores the warning for all products of a call.

    Modules that import torch can have products of its tensors; they are not looked at.
    """
    found = {
        f"{module}.{function.name}"
        for module in test_floors.FILES
        if module not in WHOLE_NUMBERS
        and "import torch" not in test_floors.FILES[module].read_text()
        for function in ast.walk(test_floors.tree_of(module))
        if isinstance(function, ast.FunctionDef)
        and any(isinstance(node, ast.MatMult) for node in ast.walk(function))
    }
    numpy_backend = ("run_layers", "rnn_step", "lstm_step", "gru_step")
    own = {f"charlm.backends.numpy_backend.{name}" for name in numpy_backend}
    assert found == {"charlm.products.product"} | own
