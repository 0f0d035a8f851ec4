"""Regenerate measured results: train as a user would, and print a table row for each task.

    CHARLM_DATA=folder python scripts/reproduce.py [NAME ...]

NAME is one of the tasks below; without a name all are run. The corpora are not part of charlm;
their folder is CHARLM_DATA. Runs are kept under --checkpoints; finished tasks are not repeated.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import charlm
from charlm.api.loading import load_model


@dataclass(frozen=True)
class Task:
    """Training command, with `{data}` for the folder of corpora, and the figure to show."""

    arguments: str
    shown: str = "nats_per_token"
    homophones: str = ""
    notes: str = ""
    part: str = field(default="valid")


PTB = "{data}/ptb/ptb.train.txt --valid {data}/ptb/ptb.valid.txt --test {data}/ptb/ptb.test.txt"
WIKI = "{data}/wikitext2/train.txt --valid {data}/wikitext2/valid.txt"
WORDS = "--unit word --words whitespace --document line --layers 2 --hidden 200"
AWD = (
    "--unit word --words whitespace --document stream --layers 3 --hidden 300 --embedding 300 "
    "--tie --optimizer nt-asgd --learning-rate 30 --clip-norm 0.25 --batch 20 --bptt 70 "
    "--set random_bptt=true --variational --dropout 0.25 --input-dropout 0.4 --output-dropout 0.4 "
    "--embedding-dropout 0.1 --weight-drop 0.5 --activation-penalty 2 --slowness-penalty 1 "
    "--weight-decay 1.2e-6 --evals 20 --minutes 22"
)
"""Settings of AWD-LSTM (Merity et al. 2018) on a smaller model."""
LANGUAGES = ("ar", "en", "hi", "ko", "ru", "th", "zh", "ja_soseki")

TASKS = {
    "tales": Task("", "bits_per_char", notes="default run on the built-in text"),
    "shakespeare": Task("{data}/tinyshakespeare/input.txt --valid-frac 0.1 --minutes 10"),
    "ptb": Task(f"{PTB} {WORDS} --minutes 10", "perplexity", homophones="ptb_test", part="test"),
    "ptb-both": Task(f"{PTB} {WORDS} --direction both --minutes 20", "perplexity", part="test"),
    "ptb-awd": Task(f"{PTB} {AWD}", "perplexity", part="test"),
    "wikitext2": Task(f"{WIKI} {WORDS} --minutes 10", "perplexity", homophones="wikitext2_test"),
    "names": Task("{data}/names/names.txt --document line"),
} | {
    f"language-{name}": Task(f"{{data}}/multilingual/{name}.txt --minutes 1", "bits_per_byte")
    for name in LANGUAGES
}


def main() -> None:
    """Run the named tasks and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*TASKS, []], metavar="NAME")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CHARLM_DATA", "data")))
    arguments = parser.parse_args()
    print("| task | command | text | measured | training |")
    print("|---|---|---|---|---|")
    for name in arguments.names or TASKS:
        print(row(name, arguments.data, arguments.checkpoints, arguments.seed), flush=True)
    print(f"\nSeed {arguments.seed}, {date.today().isoformat()}, {machine(arguments.checkpoints)}.")


def row(name: str, data: Path, checkpoints: Path, seed: int) -> str:
    """Train a task unless it is finished, and return its result as a row of Markdown."""
    task = TASKS[name]
    path = checkpoints / f"reproduce-{name}"
    if not (path / "model.safetensors").exists() or record(path)["status"] != "finished":
        command = ["train", *shlex.split(task.arguments.format(data=data))]
        options = ["--seed", str(seed), "--name", path.name, "--checkpoints", str(checkpoints)]
        program = [sys.executable, "-c", "from charlm.cli import main; main()"]
        subprocess.run([*program, "-q", *command, *options], check=True)
    run = record(path)
    tally = run["results"][task.part]
    measured = f"{tally[task.shown]:.4g} {task.shown.replace('_', ' ')}"
    if task.homophones:
        right, pairs = homophones(path, data / "homophones", task.homophones)
        measured += (
            f"; prefers the true sentence in {right} of {pairs} ({100 * right / pairs:.1f} %)"
        )
    length = f"{run['results']['seconds'] / 60:.1f} min, {model_name(run)}"
    shown = shlex.join(["charlm", "train", *shlex.split(task.arguments.format(data="data"))])
    return (
        f"| {name} | `{shown}` | {task.part}, {tally['tokens']:,} tokens | {measured} | {length} |"
    )


def homophones(path: Path, folder: Path, name: str) -> tuple[int, int]:
    """Return the number of pairs in which the true sentence is likelier, and of all pairs."""
    file = folder / f"homophone_pairs.{name}.tsv"
    total = charlm.pairs(load_model(path), file, split="none", unk_penalty=0.0).total
    return total.correct, total.pairs


def record(path: Path) -> dict[str, Any]:
    """Return the content of run.json."""
    content: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))
    return content


def model_name(run: dict[str, Any]) -> str:
    """Return layers, size and cell."""
    model = run["settings"]["model"]
    return f"{model['num_layers']}x{model['hidden_size']} {model['cell'].upper()}"


def machine(checkpoints: Path) -> str:
    """Return the machine of the newest run."""
    newest = max(checkpoints.glob("reproduce-*/run.json"), key=lambda path: path.stat().st_mtime)
    run = record(newest.parent)
    return (
        f"{run['machine']['device_name']}, {run['machine']['threads']} threads, "
        f"torch {run['machine']['torch']}, {run['precision']['name']}"
    )


if __name__ == "__main__":
    main()
