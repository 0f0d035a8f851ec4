"""Time one recurrent layer, or whole training steps: torch, the loop and the compiled kernels.

    python scripts/measure_layers.py [--threads 1] [--seconds 5] [SHAPE ...]
    python scripts/measure_layers.py --whole [--no-onednn] [--threads 1] [--seconds 5] [SHAPE ...]

A shape is cell,H,B,T (as lstm,512,32,64), with `--whole` cell,L,H,B,T: a model of L layers with a
vocabulary of 65 and the embedding of a plan. All ways run in turn in one process. With one thread
the time is that of the processor, so other work on the machine matters little, else that of the
wall. Prints the lowest times of forward and backward of a layer in ms, or the median of whole steps
in float32, and the time of torch in float32 divided by that of each other way. `--no-onednn` times
the LSTM as torch computes it on a Mac. To measure as on a processor with AVX2 alone, set
ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from charlm.backends import training_library
from charlm.config.model import ModelSettings
from charlm.nn.devices import Precision
from charlm.nn.heap import keep_freed_memory
from charlm.nn.kernel_layers import LOOP, LayerWeights, kernels_in_use, run_layer_kernel
from charlm.training.plan.basis import MAX_LETTER_EMBEDDING
from charlm.training.plan.speed import training_step

LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
SHAPES = [
    f"{cell},{sizes}"
    for cell in ("lstm", "gru", "rnn")
    for sizes in ("128,32,64", "256,32,64", "384,32,64", "512,32,64", "512,128,64", "1024,32,32")
]
WHOLE_SHAPES = [
    f"{cell},{sizes}"
    for cell in ("gru", "rnn", "lstm")
    for sizes in (
        "1,64,32,64", "1,128,16,32", "1,128,32,64", "1,128,64,128", "1,256,16,128", "1,256,32,64",
        "1,384,32,64", "2,128,32,64", "2,256,32,64", "2,512,16,32", "2,512,32,64", "2,512,64,128",
    )
]  # fmt: skip
VOCAB = 65
Layer = nn.LSTM | nn.GRU | nn.RNN
Run = Callable[[Tensor], Tensor]


def main() -> None:
    """Measure the shapes and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true", help="time whole training steps")
    parser.add_argument("--no-onednn", action="store_true", help="leave oneDNN out of torch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each shape")
    parser.add_argument("shapes", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.no_onednn:
        torch.backends.mkldnn.set_flags(False)  # type: ignore[no-untyped-call]
    keep_freed_memory()
    if arguments.whole:
        rows = whole_rows(arguments.shapes or WHOLE_SHAPES, arguments.threads, arguments.seconds)
    else:
        rows = layer_rows(arguments.shapes or SHAPES, arguments.threads, arguments.seconds)
    for row in rows:
        print(row, flush=True)


def layer_rows(shapes: list[str], threads: int, seconds: float) -> Iterator[str]:
    """Yield the title and a line for each shape of a layer."""
    names = ["float32", "loop", *["autocast", *training_library.variants()[:1]]]
    title = "".join(f"{name:>24}" for name in names)
    yield f"{'shape':18}{title}   float32 over: " + "  ".join(names[1:])
    for shape in shapes:
        cell, *sizes = shape.split(",")
        hidden, batch, steps = map(int, sizes)
        times = measure(cell, hidden, batch, steps, threads, seconds)
        cells = "".join(f"{f:9.1f} +{b:7.1f} ={f + b:6.1f}" for f, b in times.values())
        exact, *others = (sum(each) for each in times.values())
        yield f"{shape:18}{cells}" + "".join(f"{exact / other:14.2f}" for other in others)


def whole_rows(shapes: list[str], threads: int, seconds: float) -> Iterator[str]:
    """Yield the title and a line for each shape of a model."""
    yield f"{'shape':18}{'torch':>10}{'loop':>10}{'ratio':>10}"
    for shape in shapes:
        cell, *sizes = shape.split(",")
        layers, hidden, batch, steps = map(int, sizes)
        settings = ModelSettings(
            cell=cell, num_layers=layers, hidden_size=hidden,
            embedding_size=min(hidden, MAX_LETTER_EMBEDDING),
        )  # fmt: skip
        ways = [
            training_step(
                settings, VOCAB, (steps, batch), torch.device("cpu"),
                Precision(name="fp32", reason="measured", kernels=kernels),
            )
            for kernels in (None, LOOP)
        ]  # fmt: skip
        exact, loop = in_turn(ways, clock_of(threads), seconds)
        yield f"{shape:18}{exact:10.1f}{loop:10.1f}{exact / loop:10.2f}"


def in_turn(
    ways: list[Callable[[], None]], clock: Callable[[], float], seconds: float
) -> list[float]:
    """Return the median time of each function in ms; they run in turn for this long."""
    times: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way()
    end = time.perf_counter() + seconds
    while len(times[0]) < 4 or time.perf_counter() < end:
        for way, own in zip(ways, times, strict=True):
            start = clock()
            way()
            own.append(1e3 * (clock() - start))
    return [median(own) for own in times]


def clock_of(threads: int) -> Callable[[], float]:
    """Return the clock of the processor for one thread, else that of the wall."""
    return time.thread_time if threads == 1 else time.perf_counter


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
        "loop": (partial(run_kernels, LOOP, cell, layer), x, False),
        "autocast": (lambda x: layer(x)[0], x, True),
    }
    for variant in training_library.variants()[:1]:
        ways["kernels"] = (partial(run_kernels, variant, cell, layer), low, True)
    clock = clock_of(threads)
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


def run_kernels(variant: str, cell: str, layer: Layer, x: Tensor) -> Tensor:
    """Return the output of a variant of the kernels with the weights of a layer of torch."""
    parameters = dict(layer.named_parameters())
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    zero = torch.zeros(x.shape[1], layer.hidden_size)
    with kernels_in_use(variant):
        weights = LayerWeights(*(parameters[name] for name in names))
        return run_layer_kernel(cell, x, (zero, zero) if cell == "lstm" else (zero,), weights)[0]


if __name__ == "__main__":
    main()
