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
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from charlm.backends import training_library
from charlm.backends.interface import Backend
from charlm.backends.kernel_library import chosen_variant
from charlm.config.cells import CELLS
from charlm.config.corpus import VocabularySettings
from charlm.config.model import ModelSettings
from charlm.inference.generation import generate
from charlm.inference.likelihood import document_nats
from charlm.nn.devices import (
    Precision,
    keep_freed_memory,
    processor_has_bf16,
    processor_name,
)
from charlm.nn.model import RecurrentLanguageModel, multiplied_weights
from charlm.runs.built_in import built_in_text
from charlm.runs.run import load_run, model_config, write_model_files, write_weights
from charlm.text.boundaries import STREAM
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary

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


def run_benchmarks(
    *, hidden: int = HIDDEN, seconds: float = 4.0, cells: bool = False
) -> Iterator[Figure]:
    """Yield all figures, group by group; each program runs for about `seconds`.

    With `cells`, also measure training of every cell.
    """
    keep_freed_memory()
    ceilings = dict(_ceilings(seconds))
    for (group, name), (value, unit) in ceilings.items():
        yield Figure(group=group, name=name, value=value, unit=unit)
    with tempfile.TemporaryDirectory() as folder:
        path, vocabulary = temporary_run(Path(folder) / "bench", hidden)
        peak = max(v for (group, _), (v, _) in ceilings.items() if group == "products")
        yield from _training(hidden, len(vocabulary), peak, seconds)
        if cells:
            yield from _cells(hidden, len(vocabulary), seconds)
        backends = _backends(path)
        yield from _sampling(backends, vocabulary, seconds)
        yield from _scoring(backends, vocabulary, seconds)
        yield from _encoding(seconds)
        yield from _starting(path, seconds)


def machine_name() -> str:
    """Return the names of the processor, torch and kernels, and the number of threads."""
    return (
        f"{processor_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
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


def _ceilings(seconds: float) -> Iterator[tuple[tuple[str, str], tuple[float, str]]]:
    """Yield the speed of one large product in fp32 and bf16, and of copying memory."""
    size = 2048
    exact = torch.randn(size, size)
    rough = exact.bfloat16()
    products: dict[str, Program] = {"fp32": lambda: exact @ exact}
    if processor_has_bf16():
        products["bf16"] = lambda: rough @ rough
    for name, median in alternating(products, seconds / 4).items():
        yield ("products", name), (2e-9 * size**3 / median, "GFLOP/s")
    large = np.ones(1 << 26, np.float32)
    other = np.empty_like(large)
    median = alternating({"copy": lambda: np.copyto(other, large)}, seconds / 4)["copy"]
    yield ("memory", "copy, one thread"), (2e-9 * large.nbytes / median, "GB/s")


def _training(hidden: int, vocab_size: int, peak: float, seconds: float) -> Iterator[Figure]:
    """Measure optimiser steps of a 2-layer LSTM: forward, backward, clip, AdamW."""
    settings = ModelSettings(num_layers=2, hidden_size=hidden, embedding_size=EMBEDDING)
    programs = {
        name: training_step(settings, vocab_size, precision)
        for name, precision in _precisions().items()
    }
    medians = alternating(programs, seconds)
    peak_tokens = peak / (6e-9 * multiplied_weights(settings, vocab_size))  # GFLOP for each token
    group = f"training 2x{hidden}"
    yield from _figures(group, "tokens/s", ROWS * STEPS, medians, peak_tokens)


def _precisions() -> dict[str, Precision]:
    """Return the ways to train on this processor, by name, the fastest last."""
    names, kernels = ["fp32"], training_library.chosen_variant()
    if processor_has_bf16():
        names.append("bf16")
    ways = {f"torch {name}": Precision(name=name, reason="benchmark") for name in names}
    if kernels:
        fastest = Precision(name="bf16", reason="benchmark", kernels=kernels)
        ways[f"native {kernels}"] = fastest
    return ways


def _cells(hidden: int, vocab_size: int, seconds: float) -> Iterator[Figure]:
    """Measure optimiser steps of every cell in the faster number type, the LSTM first."""
    sizes = ModelSettings(num_layers=2, hidden_size=hidden, embedding_size=EMBEDDING)
    others = [cell for cell in CELLS if cell != "lstm"]
    *_, fastest = _precisions().values()
    programs = {
        cell: training_step(replace(sizes, cell=cell), vocab_size, fastest)
        for cell in ("lstm", *others)
    }
    medians = alternating(programs, seconds)
    yield from _figures(f"cells 2x{hidden}", "tokens/s", ROWS * STEPS, medians)


def training_step(
    settings: ModelSettings,
    vocab_size: int,
    precision: Precision,
    shape: tuple[int, int] | None = None,
) -> Program:
    """Return a program that makes one optimiser step on random tokens of a shape (T, B)."""
    steps, rows = shape or (STEPS, ROWS)
    model = RecurrentLanguageModel(settings, vocab_size)
    generator = torch.Generator().manual_seed(0)
    model.reset_parameters(generator)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.randint(vocab_size, (steps + 1, rows), generator=generator)
    device = torch.device("cpu")

    def step() -> None:
        """Forward, backward, clip, update."""
        optimizer.zero_grad()
        with precision.autocast(device):
            logits, _ = model(ids[:-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), ids[1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


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


def _backends(path: Path) -> dict[str, Backend]:
    backends: dict[str, Backend] = {}
    for name in ("torch", "numpy"):
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
