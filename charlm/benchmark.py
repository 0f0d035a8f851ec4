"""Benchmarks: the peak speed of this machine, and the speed of charlm on it.

Compared programs run in turn in the same process, so that other load slows all of them; the median
round counts. Weights are random: speed does not depend on them.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from charlm.backends import training_library
from charlm.backends.interface import Backend
from charlm.backends.kernel_library import chosen_variant
from charlm.backends.processor import processor_name
from charlm.config.cells import CELLS
from charlm.config.corpus import VocabularySettings
from charlm.config.model import ModelSettings
from charlm.inference.generation import generate
from charlm.inference.likelihood import document_nats
from charlm.nn.devices import Precision, processor_has_bf16
from charlm.nn.heap import keep_freed_memory
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.runs.built_in import built_in_text
from charlm.runs.engines import engine_on
from charlm.runs.model_files import model_config, write_model_files, write_weights
from charlm.runs.run import load_run
from charlm.tasks.task import Task
from charlm.text.boundaries import STREAM
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.training.plan.speed import QUEUED_STEPS, finish_queued, training_step
from charlm.training.static_step import step_of
from charlm.training.step import Step
from charlm.training.train_state import TrainState

CPU = torch.device("cpu")

HIDDEN, EMBEDDING, ROWS, STEPS = 512, 128, 64, 64
SAMPLE_TOKENS = 192
STREAMS = 16
MIN_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured speed, its ratio to the first of its group, and its fraction of the peak speed."""

    group: str
    name: str
    value: float
    unit: str
    ratio: float | None = None
    share: float | None = None


Program = Callable[[], object]
StepClass = Callable[[TrainState, Task], Step]


def run_benchmarks(
    *, hidden: int = HIDDEN, seconds: float = 4.0, cells: bool = False, device: torch.device = CPU
) -> Iterator[Figure]:
    """Yield all figures, group by group; each program runs for about `seconds`.

    Training is measured on `device`, sampling and scoring there as well as on the processor. With
    `cells`, also measure training of every cell.
    """
    keep_freed_memory()
    ceilings = dict(_ceilings(seconds, device))
    for (group, name), (value, unit) in ceilings.items():
        yield Figure(group=group, name=name, value=value, unit=unit)
    with tempfile.TemporaryDirectory() as folder:
        path, vocabulary = temporary_run(Path(folder) / "bench", hidden)
        peak = max(v for (group, _), (v, _) in ceilings.items() if group == "products")
        yield from _training(hidden, len(vocabulary), peak, seconds, device)
        if cells:
            yield from _cells(hidden, len(vocabulary), seconds, device)
        backends = _backends(path, device)
        yield from _sampling(backends, vocabulary, seconds)
        yield from _scoring(backends, vocabulary, seconds)
        yield from _encoding(seconds)
        yield from _starting(path, seconds)


def machine_name(device: torch.device = CPU) -> str:
    """Return the names of device, processor, torch and kernels, and the number of threads."""
    card = f"{torch.cuda.get_device_name(device)}, " if device.type == "cuda" else ""
    return (
        f"{card}{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"kernels {chosen_variant() or 'none'}, for training "
        f"{training_library.chosen_variant() or 'none'}"
    )


def alternating(programs: Mapping[str, Program], seconds: float) -> dict[str, float]:
    """Run programs in turn, each for about `seconds` in total; return median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        program()  # the first time allocates and compiles
    begin = time.perf_counter()
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() - begin < seconds * len(programs):
        rounds += 1
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds_of) for name, seconds_of in times.items()}


def _figures(
    group: str, unit: str, amount: float, medians: Mapping[str, float], peak: float | None = None
) -> Iterator[Figure]:
    """Yield speeds with ratios to the first and, given a `peak` speed, fractions of it."""
    first = next(iter(medians.values()))
    for name, median in medians.items():
        value = amount / median
        share = None if peak is None else value / peak
        yield Figure(
            group=group, name=name, value=value, unit=unit, ratio=first / median, share=share
        )


def _ceilings(
    seconds: float, device: torch.device
) -> Iterator[tuple[tuple[str, str], tuple[float, str]]]:
    """Yield the speed of one large product in each number type, and of copying memory."""
    on_gpu = device.type == "cuda"
    size = 8192 if on_gpu else 2048
    exact = torch.randn(size, size, device=device)
    types = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    names = list(types) if on_gpu else ["fp32", "bf16"][: 1 + processor_has_bf16()]
    products = {name: partial(torch.matmul, *2 * [exact.to(types[name])]) for name in names}
    for name, median in alternating(finished(products, device), seconds / 4).items():
        yield ("products", name), (2e-9 * size**3 / median, "GFLOP/s")
    copies: dict[str, Program] = {}
    if on_gpu:
        large, other = torch.ones(2, 1 << 26, device=device)
        copies["copy"] = lambda: other.copy_(large)
    else:
        source = np.ones(1 << 26, np.float32)
        target = np.empty_like(source)
        copies["copy, one thread"] = lambda: np.copyto(target, source)
    for name, median in alternating(finished(copies, device), seconds / 4).items():
        yield ("memory", name), (8e-9 * (1 << 26) / median, "GB/s")


def _training(
    hidden: int, vocab_size: int, peak: float, seconds: float, device: torch.device
) -> Iterator[Figure]:
    """Measure optimiser steps of a 2-layer LSTM: forward, backward, clip, AdamW."""
    settings = ModelSettings(num_layers=2, hidden_size=hidden, embedding_size=EMBEDDING)
    programs = {
        name: training_step(settings, vocab_size, (STEPS, ROWS), device, precision, step_class)
        for name, (precision, step_class) in ways_to_train(device).items()
    }
    count = QUEUED_STEPS.get(device.type, 1)
    medians = alternating(finished(programs, device, count), seconds)
    peak_tokens = peak / (6e-9 * multiplied_weights(settings, vocab_size))  # GFLOP for each token
    group = f"training 2x{hidden}"
    yield from _figures(group, "tokens/s", ROWS * STEPS * count, medians, peak_tokens)


def ways_to_train(device: torch.device) -> dict[str, tuple[Precision, StepClass]]:
    """Return the ways to train on a device, by name, the fastest last."""
    if device.type == "cuda":
        captured: dict[str, tuple[Precision, StepClass]] = {
            f"captured {name}": (Precision(name=name, reason="benchmark"), step_of)
            for name in ("fp32", "fp16", "bf16")
        }
        return {"plain fp32": (Precision(name="fp32", reason="benchmark"), Step), **captured}
    names, kernels = ["fp32"], training_library.chosen_variant()
    if device.type == "cpu" and processor_has_bf16():
        names.append("bf16")
    ways = {f"torch {name}": Precision(name=name, reason="benchmark") for name in names}
    if device.type == "cpu" and kernels:
        fastest = Precision(name="bf16", reason="benchmark", kernels=kernels, softmax=kernels)
        ways[f"native {kernels}"] = fastest
    return {name: (precision, step_of) for name, precision in ways.items()}


def _cells(hidden: int, vocab_size: int, seconds: float, device: torch.device) -> Iterator[Figure]:
    """Measure optimiser steps of every cell in the faster number type, the LSTM first."""
    sizes = ModelSettings(num_layers=2, hidden_size=hidden, embedding_size=EMBEDDING)
    others = [cell for cell in CELLS if cell != "lstm"]
    *_, (fastest, step_class) = ways_to_train(device).values()
    programs = {
        cell: training_step(
            replace(sizes, cell=cell), vocab_size, (STEPS, ROWS), device, fastest, step_class
        )
        for cell in ("lstm", *others)
    }
    count = QUEUED_STEPS.get(device.type, 1)
    medians = alternating(finished(programs, device, count), seconds)
    yield from _figures(f"cells 2x{hidden}", "tokens/s", ROWS * STEPS * count, medians)


def finished(
    programs: Mapping[str, Program], device: torch.device, count: int = 1
) -> dict[str, Program]:
    """Return programs that run others `count` times and end when the device is done."""

    def whole(program: Program) -> None:
        """Run a program and wait for the device."""
        for _ in range(count):
            program()
        finish_queued(device)

    return {name: partial(whole, program) for name, program in programs.items()}


def temporary_run(path: Path, hidden: int) -> tuple[Path, Vocabulary]:
    """Write a run with random weights for the built-in text; return its path and vocabulary."""
    text = built_in_text().read_text(encoding="utf-8")
    vocabulary = build_vocabulary(lambda: [text[:200_000]], VocabularySettings()).vocabulary
    settings = ModelSettings(
        num_layers=2, hidden_size=hidden, embedding_size=EMBEDDING, tie_weights=False
    )
    model = RecurrentLanguageModel(settings, len(vocabulary))
    model.reset_parameters(torch.Generator().manual_seed(0))
    path.mkdir(parents=True)
    write_model_files(path, model_config(settings, vocabulary, STREAM), vocabulary)
    write_weights(path, model)
    return path, vocabulary


def _backends(path: Path, device: torch.device) -> dict[str, Backend]:
    backends: dict[str, Backend] = {}
    for name in dict.fromkeys(("torch", "numpy", engine_on(device.type, "torch"))):
        backends[name] = load_run(path, engine=name).backend
    if chosen_variant() is not None:
        for weights in ("fp32", "bf16", "int8"):
            backends[f"native {weights}"] = load_run(path, weights=weights).backend
    return backends


def _sampling(
    backends: Mapping[str, Backend], vocabulary: Vocabulary, seconds: float
) -> Iterator[Figure]:
    """Measure generation of one sample, and of several side by side."""
    for samples in (1, STREAMS):

        def generating(backend: Backend, count: int = samples) -> Program:
            """Return a program that generates samples."""
            return lambda: list(generate(backend, vocabulary, length=SAMPLE_TOKENS, samples=count))

        medians = alternating(
            {name: generating(backend) for name, backend in backends.items()}, seconds
        )
        group = "sampling" if samples == 1 else f"sampling {samples} at once"
        yield from _figures(group, "tokens/s", SAMPLE_TOKENS * samples, medians)


def _scoring(
    backends: Mapping[str, Backend], vocabulary: Vocabulary, seconds: float
) -> Iterator[Figure]:
    """Measure the likelihood of many sentences."""
    text = built_in_text().read_text(encoding="utf-8")
    lines = [line for line in text[:60_000].split("\n") if line][:256]
    documents = [vocabulary.encode(line).astype(np.int64) for line in lines]

    def scoring(backend: Backend) -> Program:
        """Return a program that scores the sentences."""
        return lambda: document_nats(backend, documents)

    medians = alternating({name: scoring(backend) for name, backend in backends.items()}, seconds)
    tokens = sum(len(document) for document in documents)
    yield from _figures("scoring", "tokens/s", tokens, medians)


def _encoding(seconds: float) -> Iterator[Figure]:
    """Measure encoding of text to ids in memory, by unit."""
    text = built_in_text().read_text(encoding="utf-8")
    size = len(text.encode("utf-8")) / 1e6
    programs: dict[str, Program] = {}
    for unit in ("char", "byte", "word"):
        built = build_vocabulary(lambda: [text], VocabularySettings(unit=unit)).vocabulary
        programs[unit] = lambda v=built: v.encode(text)  # type: ignore[misc]
    for name, median in alternating(programs, seconds / 4).items():
        yield Figure(group="encoding", name=name, value=size / median, unit="MB/s")


def _starting(path: Path, seconds: float) -> Iterator[Figure]:
    """Measure whole processes, from start to exit."""
    run = ["--run", str(path)]
    commands = {
        "--help": ["--help"],
        "sample --len 1": ["-q", "sample", "--len", "1", "--seed", "1", *run],
        "score, one sentence": ["-q", "score", "the fox", "--format", "scores", *run],
        "next": ["-q", "next", "the fox", *run],
        "sample --len 1 --engine torch": [
            "-q", "sample", "--len", "1", "--seed", "1", "--engine", "torch", *run,
        ],
    }  # fmt: skip
    programs = {name: _process(arguments) for name, arguments in commands.items()}
    for name, median in alternating(programs, seconds / 4).items():
        yield Figure(group="start-up", name=name, value=median, unit="s")


def _process(arguments: list[str]) -> Program:
    program = [sys.executable, "-c", "from charlm.cli import main; main()", *arguments]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return lambda: subprocess.run(program, check=True, env=dict(os.environ), **quiet)  # type: ignore[call-overload]
