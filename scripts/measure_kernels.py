"""Check and time the compiled training kernels on this machine, and print a table for each part.

    python scripts/measure_kernels.py [TEXT] [--only errors speed parity goal] [--seconds 20]
    python scripts/measure_kernels.py --only speed --rows 1 4 8 16 --seconds 1
    CHARLM_TRAINING_KERNELS=emulated512 python scripts/measure_kernels.py --tiny

`errors` compares gradients with float32. `speed` makes whole steps in turn in one process, in
float32, in torch's bf16 and in the kernels; medians count, so keep the machine quiet. `parity`
trains 500 steps with the same seed in float32 and in the kernels. `goal` trains for 100 seconds and
prints when the validation loss reaches that of nanoGPT's recipe for tiny Shakespeare, 1.4697 nats
per character. TEXT is tiny Shakespeare, or the built-in text. `--tiny` runs all parts in seconds.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from charlm import train
from charlm.backends.processor import processor_name
from charlm.backends.training_library import chosen_variant
from charlm.benchmark import Program, alternating
from charlm.config.model import ModelSettings
from charlm.nn import heap
from charlm.nn.devices import Precision
from charlm.nn.heap import keep_freed_memory
from charlm.nn.model import RecurrentLanguageModel
from charlm.training.plan.speed import set_threads, training_step, training_threads
from charlm.training.records import EvaluationRecord, StepRecord

CPU = torch.device("cpu")
VOCAB = 65
SHAPES = [  # hidden units, rows, steps, and the ratio to torch's bf16 that a prototype reached
    (1024, 64, 64, 2.2), (512, 128, 128, 2.4), (512, 32, 64, 2.7), (384, 32, 64, 2.4),
    (128, 32, 64, 2.3),
]  # fmt: skip
TINY_SHAPES = [(40, 4, 8, 1.0)]
GOAL = 1.4697
PARTS = ("errors", "speed", "parity", "goal")


def main() -> None:
    """Run the parts that are chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="*")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each way and shape")
    parser.add_argument(
        "--rows", type=int, nargs="*", default=(), help="numbers of sequences, for `speed`"
    )
    parser.add_argument("--threads", type=int, help="by default those that training uses")
    parser.add_argument("--small-pages", action="store_true", help="ask for no large pages")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    variant = chosen_variant()
    if variant is None:
        parser.exit(1, "no training kernels run on this processor; name an emulation\n")
    if options.small_pages:
        heap.HEAP = 0
    keep_freed_memory()
    console = Console()
    console.print(f"{processor_name()}, torch {torch.__version__}, {variant} kernels")
    ways = {
        "torch fp32": Precision(name="fp32", reason="measured"),
        "torch bf16": Precision(name="bf16", reason="measured"),
        f"native {variant}": Precision(name="bf16", reason="measured", kernels=variant),
    }
    parts = {
        "errors": lambda: errors(ways, tiny=options.tiny),
        "speed": lambda: speed(ways, options),
        "parity": lambda: parity(options.text, tiny=options.tiny),
        "goal": lambda: goal(options.text, tiny=options.tiny),
    }
    for name in options.only:
        table: Table | None = None
        for row in parts[name]():
            if table is None:
                table = Table(*row, title=name, title_justify="left", box=None)
            table.add_row(*(shown(value) for value in row.values()))
        console.print(table)


def shown(value: object) -> str:
    """Format a figure with four digits."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000.0 else f"{value:.4g}"


def errors(ways: Mapping[str, Precision], *, tiny: bool) -> Iterator[dict[str, Any]]:
    """Yield the largest relative error of a gradient in each way; below 0.05 counts as right."""
    for hidden in [40] if tiny else [512, 1024, 2048]:
        settings = ModelSettings(num_layers=2, hidden_size=hidden, embedding_size=hidden)
        exact, *others = (gradients(settings, precision) for precision in ways.values())
        row: dict[str, Any] = {"hidden": hidden}
        for name, found in zip(list(ways)[1:], others, strict=True):
            pairs = zip(found, exact, strict=True)
            row[name] = max(float((a - b).norm() / b.norm()) for a, b in pairs)
        yield row


def gradients(settings: ModelSettings, precision: Precision) -> list[Tensor]:
    """Return the gradients of all weights for 32 sequences of 16 tokens."""
    generator = torch.Generator().manual_seed(0)
    model = RecurrentLanguageModel(settings, VOCAB)
    model.reset_parameters(generator)
    ids = torch.randint(VOCAB, (16, 32), generator=generator)
    with precision.autocast(CPU):
        logits, _ = model(ids)
    logits.float().log_softmax(-1)[..., 0].mean().backward()
    return [weight.grad for weight in model.parameters() if weight.grad is not None]


def speed(ways: Mapping[str, Precision], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield milliseconds a step, tokens a second in the kernels and the ratios to torch."""
    shapes = [(hidden, rows, 32, "") for rows in options.rows for hidden in (128, 256, 512)]
    for hidden, rows, steps, bar in TINY_SHAPES if options.tiny else shapes or SHAPES:
        settings = ModelSettings(num_layers=2, hidden_size=hidden, embedding_size=hidden)
        threads = set_threads(options.threads or training_threads(settings, VOCAB, rows, CPU))
        programs: dict[str, Program] = {
            name: training_step(settings, VOCAB, (steps, rows), CPU, precision)
            for name, precision in ways.items()
        }
        exact, rough, native = alternating(
            programs, 0.1 if options.tiny else options.seconds
        ).values()
        yield {
            "H, B, T": f"{hidden}, {rows}, {steps}", "threads": threads, "fp32 ms": 1e3 * exact,
            "bf16 ms": 1e3 * rough, "native ms": 1e3 * native, "tokens/s": rows * steps / native,
            "over fp32": exact / native, "over bf16": rough / native, "bar": bar,
        }  # fmt: skip


def parity(text: list[str], *, tiny: bool) -> Iterator[dict[str, Any]]:
    """Yield the training losses of one model in float32 and in the kernels, and held-out ones."""
    hidden, last = (40, 40) if tiny else (128, 500)
    shape: dict[str, Any] = {"hidden": hidden, "layers": 2, "batch": 32, "bptt": 64, "steps": last}
    rows: dict[int, dict[str, Any]] = {}
    for name, machine in {"fp32": {"precision": "fp32"}, "native": {"engine": "native"}}.items():
        with tempfile.TemporaryDirectory() as folder:
            for record in train(*text, checkpoints=folder, seed=1, **shape | machine):
                if isinstance(record, StepRecord) and record.step * 5 % last == 0:
                    row = rows.setdefault(record.step, {"step": record.step, "text": "training"})
                    row[name] = record.nats_per_token
                elif isinstance(record, EvaluationRecord) and record.step == last:
                    row = rows.setdefault(-1, {"step": record.step, "text": "validation"})
                    row[name] = record.tally.nats / record.tally.tokens
    for row in rows.values():
        yield row | {"difference": row["native"] - row["fp32"]}


def goal(text: list[str], *, tiny: bool) -> Iterator[dict[str, Any]]:
    """Yield the validations of a plain training of 100 seconds."""
    with tempfile.TemporaryDirectory() as folder:
        minutes = 0.05 if tiny else 100 / 60
        for record in train(*text, checkpoints=Path(folder), minutes=minutes, seed=1):
            if isinstance(record, EvaluationRecord):
                nats = record.tally.nats / record.tally.tokens
                yield {
                    "seconds": record.seconds, "nats": nats, "tokens": record.tokens,
                    "reached": nats <= GOAL,
                }  # fmt: skip


if __name__ == "__main__":
    main()
