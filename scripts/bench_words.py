"""Measure the time of word surprisals beside that of scores alone.

    python scripts/bench_words.py [--sentences 10000] [--rounds 5] [--hidden 128]

Scores sentences of the built-in text by runs of each unit, as `charlm score --file` does, from the
file to the written lines: by text, by word and by token, in turns in one process. Prints the best
time of each and the ratio to that by text. The runs are trained for one step: speed does not depend
on what the weights are.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import charlm
from charlm.api.loading import load_model
from charlm.api.scoring import file_sentences, score_rows
from charlm.inference.scoring import PARTS
from charlm.report.formats import FORMATS
from charlm.report.scores import score_lines

TALES = Path(__file__).resolve().parent.parent / "corpora" / "tales.txt"
RUNS = {
    "char": ["--unit", "char"],
    "byte": ["--unit", "byte"],
    "word": ["--unit", "word"],
    "words": ["--unit", "word", "--words", "whitespace"],
    "bpe": ["--unit", "bpe"],
}
"""Options of `charlm train` for each run."""


def main() -> None:
    """Run the benchmark and print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=128)
    arguments = parser.parse_args()
    sentences = re.findall(r"\S[^.!?\n]*[.!?]", TALES.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sentences.txt"
        file.write_text("\n".join(sentences[: arguments.sentences]) + "\n", encoding="utf-8")
        print(f"{min(len(sentences), arguments.sentences):,} sentences")
        for name, options in RUNS.items():
            sizes = ["--hidden", str(arguments.hidden), "--layers", "1", "--steps", "1"]
            train = ["train", str(TALES), "--name", name, "--checkpoints", folder, *sizes]
            command = [sys.executable, "-m", "charlm", "-q", *train, *options]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            model = load_model(name, checkpoints=folder)
            times = best_times(model, file, arguments.rounds)
            ratios = "  ".join(
                f"{by} {seconds:6.2f} s ({seconds / times['text']:.2f})"
                for by, seconds in times.items()
            )
            print(f"{name:5} {model.run.backend.name}: {ratios}", flush=True)


def best_times(model: charlm.Model, file: Path, rounds: int) -> dict[str, float]:
    """Return the least processor time by part, measured in turns."""
    times: dict[str, list[float]] = {by: [] for by in PARTS}
    for _ in range(rounds):
        for by in PARTS:
            start = time.process_time()
            score_file(model, file, by)
            times[by].append(time.process_time() - start)
    return {by: min(values) for by, values in times.items()}


def score_file(model: charlm.Model, file: Path, by: str) -> int:
    """Score the lines of a file, format the result and return its length."""
    batches = file_sentences(file, {}, lambda _: None)
    rows = score_rows(model.scorer(), batches, by=by)
    writer = FORMATS["tsv"](by=by)
    return sum(map(len, score_lines(rows, writer, None, Counter[int](), lambda _: None)))


if __name__ == "__main__":
    main()
