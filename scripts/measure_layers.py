"""Time a step of one recurrent layer: torch in float32, torch under autocast, and the kernels.

    python scripts/measure_layers.py [--threads 1] [--seconds 5] [SHAPE ...]

A shape is cell,H,B,T (as lstm,512,32,64). The three run in turn in one process; with one thread the
time is that of the processor, so other work on the machine matters little, else that of the wall.
Prints the lowest times of forward and backward in ms, and by how much the kernels are faster.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from charlm.backends import training_library
from charlm.nn.devices import keep_freed_memory
from charlm.nn.kernel_layers import LayerWeights, kernels_in_use, run_layer_kernel

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SHAPES = [
    f"{cell},{sizes}"
    for cell in ("lstm", "gru", "rnn")
    for sizes in ("128,32,64", "256,32,64", "384,32,64", "512,32,64", "512,128,64", "1024,32,32")
]
Layer = nn.LSTM | nn.GRU | nn.RNN
Run = Callable[[Tensor], Tensor]


def main() -> None:
    """Measure the shapes and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each shape")
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    names = ("float32", "autocast", *training_library.variants()[:1])
    print(f"{'shape':18}" + "".join(f"{name:>24}" for name in names) + "   over float32  autocast")
    for shape in arguments.shapes:
        cell, *sizes = shape.split(",")
        hidden, batch, steps = map(int, sizes)
        times = measure(cell, hidden, batch, steps, arguments.threads, arguments.seconds)
        cells = "".join(f"{f:9.1f} +{b:7.1f} ={f + b:6.1f}" for f, b in times.values())
        totals = [sum(each) for each in times.values()]
        ratios = "".join(f"{total / totals[2]:14.2f}" for total in totals[:2])
        print(f"{shape:18}{cells}{ratios}", flush=True)


def measure(
    cell: str, hidden: int, batch: int, steps: int, threads: int, seconds: float
) -> dict[str, tuple[float, float]]:
    """Return the lowest times of forward and backward, in ms, by way of computing."""
    torch.manual_seed(0)
    layer = LAYERS[cell](hidden, hidden)
    x = torch.randn(steps, batch, hidden, requires_grad=True)
    low = x.detach().bfloat16().requires_grad_()
    ways: dict[str, tuple[Run, Tensor, bool]] = {
        "float32": (lambda x: layer(x)[0], x, False),
        "autocast": (lambda x: layer(x)[0], x, True),
        "kernels": (partial(run_kernels, cell, layer), low, True),
    }
    clock = time.thread_time if threads == 1 else time.perf_counter
    lowest = dict.fromkeys(ways, (1e9, 1e9))
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 4 or time.perf_counter() < end:
        for name, (run, inputs, autocast) in ways.items():
            start = clock()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                y = run(inputs)
            middle = clock()
            y.backward(torch.ones_like(y))  # type: ignore[no-untyped-call]
            forward, backward = 1e3 * (middle - start), 1e3 * (clock() - middle)
            lowest[name] = min(lowest[name][0], forward), min(lowest[name][1], backward)
            layer.zero_grad()
        rounds += 1
    return lowest


def run_kernels(cell: str, layer: Layer, x: Tensor) -> Tensor:
    """Return the output of the kernels with the weights of a layer of torch."""
    parameters = dict(layer.named_parameters())
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    zero = torch.zeros(x.shape[1], layer.hidden_size)
    with kernels_in_use(training_library.variants()[0]):
        weights = LayerWeights(*(parameters[name] for name in names))
        return run_layer_kernel(cell, x, (zero, zero) if cell == "lstm" else (zero,), weights)[0]


if __name__ == "__main__":
    main()
