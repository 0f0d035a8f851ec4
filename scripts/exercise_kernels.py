"""Run every function of the compiled kernels over many shapes, beside numpy.

    python scripts/exercise_kernels.py [--folder DIR] [--rounds 60] [--calls 10000]

With --folder, use the libraries of that folder (as `scripts/sanitize` builds them). Prints the
largest difference, and the growth of the process's memory over many calls of one backend.
"""

import argparse
import gc
import resource
from pathlib import Path

import numpy as np

from charlm.backends import kernel_library
from charlm.backends.interface import State
from charlm.backends.native import NativeBackend
from charlm.backends.numpy_backend import NumpyBackend
from charlm.backends.weights import Weights, expected_shapes, weights_from
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings


def main() -> None:
    """Run all variants and print their differences and memory growth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.folder:
        kernel_library.FOLDER = arguments.folder
    for variant in kernel_library.variants():
        worst = max(difference(variant, seed) for seed in range(arguments.rounds))
        grown = growth(variant, arguments.calls)
        print(
            f"{variant:8} {arguments.rounds} shapes, largest difference {worst:.1e}; "
            f"{grown} KB more after {arguments.calls} calls",
            flush=True,
        )
        assert worst < 1e-4, "the kernels do not compute what numpy computes"


def random_weights(random: np.random.Generator) -> Weights:
    """Return weights of a random shape, small enough that rounding errors do not grow."""
    settings = ModelSettings(
        cell=str(random.choice([name for name, spec in CELLS.items() if spec.numpy_step])),
        num_layers=int(random.integers(1, 4)),
        hidden_size=int(random.integers(1, 70)),
        embedding_size=int(random.integers(1, 40)),
        tie_weights=False,
    )
    shapes = expected_shapes(settings, int(random.integers(2, 90)))
    arrays = {
        name: random.normal(0, 0.9 / shape[-1] ** 0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    return weights_from(settings, arrays)


def difference(variant: str, seed: int) -> float:
    """Return the largest difference from numpy over all calls for one random model."""
    random = np.random.default_rng(seed)
    weights = random_weights(random)
    native = NativeBackend(weights, variant, threads=int(random.integers(1, 5)))
    reference = NumpyBackend(weights)
    steps, rows = int(random.integers(1, 40)), int(random.integers(1, 40))
    inputs, targets = (random.integers(0, weights.vocab_size, (steps, rows)) for _ in range(2))
    state = native.initial_state(rows)
    nats, after = native.nats(inputs, targets, state)
    other, _, expected = reference.ranks(inputs, targets, state)
    worst = max(float(np.abs(nats - other).max()), _apart(after, expected))
    _, ranks, _ = native.ranks(inputs, targets, state)
    assert ranks.min() >= 1
    entries = random.random(weights.vocab_size) < 0.4
    _, masses, _ = native.masses(inputs, targets, entries, state)
    _, expected_masses, _ = reference.masses(inputs, targets, entries, state)
    if entries.any():
        worst = max(worst, float(np.abs(masses - expected_masses).max()))
    logits, after = native.logits(inputs, state)
    others, _ = reference.logits(inputs, state)
    uniform = random.random((steps, rows))
    temperatures, kept = (
        random.random(rows),
        np.empty((steps, rows, weights.vocab_size), np.float32),
    )
    native.sample(logits, after, uniform, temperature=temperatures, barred=0, restart=1, kept=kept)
    worst = max(
        worst, float(np.abs(np.exp(native.log_probabilities(kept)).sum(axis=2) - 1.0).max())
    )
    for kind in ("bf16", "int8"):
        NativeBackend(weights, variant, kind, threads=2).nats(inputs, targets, state)
    return max(worst, float(np.abs(logits - others).max()))


def growth(variant: str, calls: int) -> int:
    """Return the growth of peak memory over many calls after a warm-up, in KB."""
    weights = random_weights(np.random.default_rng(0))
    backend = NativeBackend(weights, variant, threads=2)
    ids = np.zeros((3, 2), np.int64)
    state = backend.initial_state(2)
    for number in range(calls + 200):
        if number == 200:
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        backend.nats(ids, ids, state)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before


def _apart(left: State, right: State) -> float:
    return max(
        float(np.abs(a - b).max())
        for layer, other in zip(left, right, strict=True)
        for a, b in zip(layer, other, strict=True)
    )


if __name__ == "__main__":
    main()
