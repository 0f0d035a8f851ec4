"""Check and time training on a GPU; print each result at once, and a table of each stage.

    python scripts/measure_gpu.py [TEXT] [--ptb FILE] [--only check speed ...] [--json FILE]
    python scripts/measure_gpu.py --only speed quality --rows "2x512|minutes"
    python scripts/measure_gpu.py --device cpu --seconds 0 [--apart]

`check` compares the GPU with the CPU, captured steps with the same steps uncaptured, and a resumed
training with one that never stopped, for every cell; reads a text; and fills the memory. `speed`
makes whole steps in turn in one process: plainly, on static tensors, and captured in CUDA graphs in
each number type; medians count. `quality` runs commands until tiny Shakespeare (TEXT) has a loss of
1.4697 nats per character, which nanoGPT reaches in three minutes on an A100. `ptb` makes one pass
of the preset awd-ptb. On a CPU everything is tiny: that shows that the script works, and no speed.

On a GPU, rows are measured in a process of their own (`row_worker`), which is replaced if it breaks
or takes longer than a row of the stage may. The file of results is written after each row.
"""

import argparse
import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from charlm.benchmark import alternating, finished
from charlm.config.cells import CELLS
from charlm.config.corpus import VocabularySettings
from charlm.config.model import ModelSettings
from charlm.config.presets import PRESETS
from charlm.config.settings import settings_from
from charlm.nn.devices import Precision, choose_device
from charlm.nn.encoder import Encoder
from charlm.nn.model import multiplied_weights
from charlm.runs.built_in import built_in_text
from charlm.tasks.task import Task
from charlm.text.tokenizers.building import build_vocabulary
from charlm.training.plan.speed import QUEUED_STEPS, set_threads, training_step
from charlm.training.static_step import StaticStep
from charlm.training.step import Step
from charlm.training.train_state import TrainState
from check_gpu import (
    ENTRIES,
    Captures,
    Measurement,
    Row,
    Setup,
    check,
    trainer_on_random_ids,
)
from row_worker import Find, Worker, measured

GOAL = 1.4697
"""Validation loss of nanoGPT's recipe for tiny Shakespeare, in nats per character."""
PTB_WORDS, PTB_TOKENS = 10_000, 929_589
"""Entries and tokens of the training text of Penn Treebank."""
COMMAND_SECONDS = 110.0
"""Seconds after which a command is ended."""
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
"""Variable without which a second command imports as fast as on the machine of a user."""
ROW_SECONDS = {"check": 60.0, "speed": 60.0, "quality": 120.0, "ptb": 120.0}
"""Seconds after which a row is given up, by stage: more than a command may take, if it runs one."""
SHAPES = [  # hidden units, embedding, entries, rows, steps
    (512, 128, 65, 64, 128), (512, 128, 65, 128, 128), (1024, 128, 65, 128, 128),
    (2048, 128, 65, 128, 128), (650, 650, 10_000, 64, 70), (650, 650, 10_000, 20, 35),
]  # fmt: skip
TINY_SHAPES = [(8, 4, 11, 3, 5)]
TINY_RUN = ["--steps=20", "--hidden=8", "--layers=1", "--batch=2", "--bptt=4"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the stages that are chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", type=Path, default=built_in_text())
    parser.add_argument("--ptb", type=Path, help="training text of Penn Treebank, or random words")
    parser.add_argument("--only", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--rows", default="", help="regular expression for names of measurements")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each way and shape")
    parser.add_argument(
        "--limit", type=float, default=450.0, help="seconds after which nothing is started"
    )
    parser.add_argument(
        "--row-seconds",
        type=float,
        help="seconds after which a row is given up, by default by stage",
    )
    parser.add_argument(
        "--apart", action="store_true", help="measure in another process, as on a GPU"
    )
    parser.add_argument("--json", type=Path, help="file, written after each result")
    options = parser.parse_args(arguments)
    console = Console(width=160, highlight=False)
    device = choose_device(options.device)
    results = Results(console, options.json, device)
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(
            device=device, seconds=options.seconds, text=options.text, ptb=options.ptb,
            folder=Path(folder),
        )  # fmt: skip
        find = partial(measurement, setup)
        worker = Worker(find) if options.apart or not setup.tiny else None
        try:
            run_rows(options, setup, results, partial(row_of, find, worker))
        finally:
            if worker:
                worker.close()
    for stage, rows in results.stages.items():
        console.print("", *tables_of(stage, rows))


class Results:
    """Rows by stage and name; each is shown and written when it is added."""

    def __init__(self, console: Console, path: Path | None, device: torch.device) -> None:
        self.console, self.path = console, path
        self.card = torch.cuda.get_device_name() if device.type == "cuda" else "cpu, tiny"
        self.stages: dict[str, dict[str, Row]] = {}
        console.print(f"{self.card}, torch {torch.__version__}")

    def add(self, stage: str, name: str, row: Row) -> None:
        """Add a row; the file has either all rows before it or this one too."""
        self.stages.setdefault(stage, {})[name] = row
        figures = ", ".join(f"{key} {shown(value)}" for key, value in row.items())
        self.console.print(f"{stage}: {name}: {figures}")
        if self.path:
            content = {"device": self.card, "torch": torch.__version__, "stages": self.stages}
            new = self.path.with_name(f"{self.path.name}.new")
            new.write_text(json.dumps(content, indent=1), encoding="utf-8")
            new.replace(self.path)


def run_rows(
    options: argparse.Namespace,
    setup: Setup,
    results: Results,
    row: Callable[[str, str, float], Row],
) -> None:
    """Measure the rows that are chosen, until there is no time left to start one."""
    begin = time.perf_counter()
    for stage in options.only:
        for name, _ in STAGES[stage](setup):
            if not re.search(options.rows, name):
                continue
            start = time.perf_counter()
            late = start - begin > options.limit
            seconds = options.row_seconds or ROW_SECONDS[stage]
            figures: Row = {"error": "no time was left"} if late else row(stage, name, seconds)
            figures["took s"] = time.perf_counter() - start
            results.add(stage, name, figures)


def measurement(setup: Setup, stage: str, name: str) -> Callable[[], Row]:
    """Return the measurement of a row."""
    return dict(STAGES[stage](setup))[name]


def row_of(find: Find, worker: Worker | None, stage: str, name: str, seconds: float) -> Row:
    """Measure a row, in another process if there is one."""
    return worker.measured(stage, name, seconds) if worker else measured(find(stage, name))


def shown(value: object) -> str:
    """Format a figure with three digits."""
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def tables_of(stage: str, rows: Mapping[str, Row]) -> Iterator[Table]:
    """Yield the results of a stage, those in a row with the same columns in one table."""
    for columns, group in itertools.groupby(rows.items(), key=lambda item: tuple(item[1])):
        table = Table(stage, *columns, box=None)
        for name, row in group:
            table.add_row(name, *map(shown, row.values()))
        yield table


def speed(setup: Setup) -> Iterator[Measurement]:
    """Yield the speed of a product, of steps in each way, and of all cells."""
    yield "product in bf16", lambda: {"TFLOP/s": peak(setup) / 1e12}
    for shape in TINY_SHAPES if setup.tiny else SHAPES:
        hidden, _, entries, rows, steps = shape
        yield f"2x{hidden}, V {entries}, {rows} x {steps}", partial(ways, shape, setup)
    for cell in CELLS:
        yield cell, partial(cell_speed, cell, setup)


def peak(setup: Setup) -> float:
    """Return the operations per second of one large product in bfloat16."""
    size = 64 if setup.tiny else 8192
    a = torch.randn(size, size, device=setup.device).bfloat16()
    return 2.0 * size**3 / timed({"product": lambda: a @ a}, setup)["product"]


def ways(shape: tuple[int, int, int, int, int], setup: Setup) -> Row:
    """Return milliseconds of a step in each way, and figures of the fastest.

    Plain steps are those before CUDA graphs: each layer is a call. With dropout it still is.
    """
    hidden, embedding, entries, rows, steps = shape
    settings = ModelSettings(num_layers=2, hidden_size=hidden, embedding_size=embedding)
    captures = Captures()
    make = partial(new_step, vocab_size=entries, shape=(steps, rows), setup=setup)
    with layer_by_layer():
        plain = make(settings, precision="fp32", step_class=Step)
    programs = {"plain fp32": as_before(plain)} | {
        name: make(settings, precision=name.split()[-1], step_class=step_class)
        for name, step_class in {
            "static fp32": StaticStep, "captured fp32": captures.step,
            "captured bf16": captures.step, "captured fp16": captures.step,
        }.items()
    }  # fmt: skip
    dropped = replace(settings, dropout=0.2)
    programs["dropout bf16"] = make(dropped, precision="bf16", step_class=captures.step)
    times = timed(programs, setup)
    with_dropout = times.pop("dropout bf16")
    least, tokens = min(times.values()), steps * rows
    operations = 6.0 * multiplied_weights(settings, entries) * tokens
    return {
        **{f"{name} ms": 1e3 * seconds for name, seconds in times.items()},
        "dropout bf16 ms": 1e3 * with_dropout,
        "Mtokens/s": tokens / least / 1e6, "gain": times["plain fp32"] / least,
        "of the peak": operations / least / peak(setup), **captures.failures(),
    }  # fmt: skip


@contextlib.contextmanager
def layer_by_layer() -> Iterator[None]:
    """Compute each layer in a call of its own, as all models did before CUDA graphs."""
    with mock.patch.object(Encoder, "_are_one_call", lambda *_: False):
        yield


def as_before(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step that computes layer by layer."""

    def train() -> None:
        """Make one training step."""
        with layer_by_layer():
            step()

    return train


def cell_speed(cell: str, setup: Setup) -> Row:
    """Return milliseconds of a step of a cell, plainly in fp32 and captured in bf16."""
    hidden, rows, steps = (8, 3, 5) if setup.tiny else (512, 64, 64)
    settings = ModelSettings(cell=cell, num_layers=2, hidden_size=hidden, embedding_size=128)
    captures, shape = Captures(), (steps, rows)
    with layer_by_layer():
        plain = new_step(settings, ENTRIES, shape, "fp32", Step, setup)
    programs = {
        "plain fp32": as_before(plain),
        "captured bf16": new_step(settings, ENTRIES, shape, "bf16", captures.step, setup),
    }
    times = timed(programs, setup)
    gain = times["plain fp32"] / times["captured bf16"]
    figures = {f"{name} ms": 1e3 * seconds for name, seconds in times.items()}
    return figures | {"gain": gain} | captures.failures()


def new_step(
    settings: ModelSettings, vocab_size: int, shape: tuple[int, int], precision: str,
    step_class: Callable[[TrainState, Task], Step], setup: Setup,
) -> Callable[[], None]:  # fmt: skip
    """Return a training step that has been made often enough to be captured."""
    chosen = Precision(name=precision, reason="measured")
    step = training_step(settings, vocab_size, shape, setup.device, chosen, step_class)
    for _ in range(2):
        step()
    return step


def timed(programs: Mapping[str, Callable[[], object]], setup: Setup) -> dict[str, float]:
    """Return the median seconds of programs, several times in a row until the device is done."""
    count = QUEUED_STEPS.get(setup.device.type, 1)
    waiting = finished(programs, setup.device, count)
    threads = torch.get_num_threads()
    set_threads(1)  # as in training; models are made with all
    times = alternating(waiting, setup.seconds)
    set_threads(threads)
    return {name: seconds / count for name, seconds in times.items()}


def quality(setup: Setup) -> Iterator[Measurement]:
    """Yield the phases of the shortest plan, eight passes of one model, runs of a given time."""
    yield "phases of a command", partial(phases_of_a_command, setup)
    model = ["--layers=2", "--hidden=512", "--batch=64", "--bptt=64", "--evals=16"]
    for seconds in (3,) if setup.tiny else (60, 3):
        length = [f"--minutes={seconds / 60}"]
        yield f"--minutes for {seconds} s", partial(trained, [], length, setup)
    for name in ("fp32",) if setup.tiny else ("bf16", "fp16", "fp32"):
        arguments = [*model, f"--precision={name}"]
        yield f"2x512, 8 passes, {name}", partial(trained, arguments, ["--epochs=8"], setup)


def phases_of_a_command(setup: Setup) -> Row:
    """Return the seconds of each phase of a command that trains for three seconds."""
    target = setup.folder / "phases.json"
    program = [sys.executable, str(Path(__file__).with_name("time_phases.py")), str(target)]
    arguments = [str(setup.text), *TINY_RUN] if setup.tiny else [str(setup.text), "--minutes=0.05"]
    options = [f"--device={setup.device.type}", f"--checkpoints={setup.folder}", "--name=phases"]
    run_program([*program, "train", *arguments, "--seed=1", *options])
    seconds: Row = json.loads(target.read_text(encoding="utf-8"))
    return seconds


def trained(arguments: Sequence[str], length: Sequence[str], setup: Setup) -> Row:
    """Return the figures of a training command on the text."""
    wall, run, log = run_training([str(setup.text), *arguments], length, setup)
    validations = [entry for entry in log if entry["kind"] == "evaluation"]
    nats = [entry["valid_nats_per_token"] for entry in validations]
    reached = [entry["seconds"] for entry in validations if entry["valid_nats_per_token"] <= GOAL]
    model, training = run["settings"]["model"], run["settings"]["training"]
    return {
        "best nats": min(nats), "last nats": nats[-1],
        "calibrated": run["results"]["valid"]["nats_per_token"],
        f"s to {GOAL}": reached[0] if reached else "not reached",
        "training s": run["results"]["seconds"], "wall s": wall,
        "model": f"{model['num_layers']}x{model['hidden_size']}, dropout {model['dropout']}",
        "batch": f"{training['batch_size']} x {training['bptt']}",
        "precision": run["precision"]["name"], "epochs": log[-1]["epoch"] + 1,
    }  # fmt: skip


def ptb(setup: Setup) -> Iterator[Measurement]:
    """Yield the steps of awd-ptb, one pass of it, and the first steps of the slowest preset."""
    yield "awd-ptb, steps", partial(preset_steps, "awd-ptb", setup)
    lengths = {"awd-ptb": "--epochs=1", "mogrifier-ptb": "--steps=60"}
    for preset, length in list(lengths.items())[: 1 if setup.tiny else 2]:
        yield f"{preset} {length}", partial(word_pass, preset, length, setup)


def preset_steps(preset: str, setup: Setup) -> Row:
    """Return milliseconds of captured steps of a preset in bf16, all of its usual length.

    Its tokens are random: no step is made in a shape that has not been captured.
    """
    settings = settings_from(PRESETS[preset].settings)
    model = settings.model
    training = replace(settings.training, random_bptt=False, epochs=None, steps=10**6)
    if setup.tiny:
        model = replace(model, hidden_size=12, last_hidden_size=8, embedding_size=8)
        training = replace(training, bptt=5, batch_size=3)
    words = " ".join(f"w{number}" for number in range(50 if setup.tiny else PTB_WORDS))
    chosen = VocabularySettings(unit="word", max_size=PTB_WORDS)
    vocabulary, captures = build_vocabulary(lambda: [words], chosen).vocabulary, Captures()
    name = "fp32" if setup.tiny else "bf16"
    trainer = trainer_on_random_ids(vocabulary, model, training, name, captures.step, setup)
    batches = trainer._batches_of_steps()

    def step() -> None:
        """Make one step."""
        trainer.step(next(batches))

    for _ in range(3):
        step()
    seconds = timed({preset: step}, setup)[preset]
    tokens = cast(int, training.bptt) * cast(int, training.batch_size)
    return {
        "ms": 1e3 * seconds, "pass s": PTB_TOKENS / tokens * seconds, **captures.failures(),
    }  # fmt: skip


def word_pass(preset: str, length: str, setup: Setup) -> Row:
    """Return the seconds of a pass over Penn Treebank, by all steps and by the second half."""
    source = str(setup.ptb or random_words(setup))
    wall, run, log = run_training([source, f"--preset={preset}", "--evals=7"], [length], setup)
    steps = [entry for entry in log if entry["kind"] == "step"]
    first, middle, last = steps[0], steps[(len(steps) - 1) // 2], steps[-1]
    early, late = (entry["tokens"] / entry["tokens_per_second"] for entry in (middle, last))
    tokens = last["tokens"] - middle["tokens"]
    return {
        "pass s": late / last["tokens"] * PTB_TOKENS,
        "second half": (late - early) / tokens * PTB_TOKENS if tokens else "too few steps",
        "first nats": first["nats_per_token"], "last nats": last["nats_per_token"],
        "steps": last["step"], "precision": run["precision"]["name"], "wall s": wall,
    }  # fmt: skip


def random_words(setup: Setup) -> Path:
    """Write a text of as many words as Penn Treebank has, in frequencies of Zipf."""
    path = setup.folder / "words.txt"
    if not path.exists():
        count = 2_000 if setup.tiny else PTB_TOKENS
        odds = 1.0 / np.arange(1, PTB_WORDS + 1)
        ids = np.random.default_rng(0).choice(PTB_WORDS, count, p=odds / odds.sum())
        lines = (" ".join(f"w{word}" for word in ids[k : k + 20]) for k in range(0, count, 20))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_training(
    arguments: Sequence[str], length: Sequence[str], setup: Setup
) -> tuple[float, Row, list[Row]]:
    """Train by a command; return its wall-clock seconds, run.json and the lines of its log."""
    name = f"run-{len(list(setup.folder.iterdir()))}"
    options = [f"--device={setup.device.type}", f"--name={name}", f"--checkpoints={setup.folder}"]
    if setup.tiny:
        length = TINY_RUN
    start = time.perf_counter()
    run_command(["-q", "train", *arguments, *length, "--seed=1", *options])
    wall, path = time.perf_counter() - start, setup.folder / name
    log, run = ((path / name).read_text(encoding="utf-8") for name in ("metrics.jsonl", "run.json"))
    return wall, json.loads(run), [json.loads(line) for line in log.splitlines()]


def run_command(arguments: Sequence[str]) -> None:
    """Run a charlm command in a process of its own. Raises RuntimeError if it fails."""
    run_program([sys.executable, "-c", "from charlm.cli import main; main()", *arguments])


def run_program(program: Sequence[str]) -> None:
    """Run a program, which may keep the bytecode of what it imports. Raises RuntimeError."""
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False,
        env={name: value for name, value in os.environ.items() if name != NO_BYTECODE},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}: {done.stderr.strip()[-300:]!r}")


STAGES = {"check": check, "speed": speed, "quality": quality, "ptb": ptb}

if __name__ == "__main__":
    main()
