"""Measure a model with conditions as a classifier: the questions of TREC, by the type of each.

    CHARLM_DATA=folder python scripts/measure_conditions.py [--seeds 1 2 3]

A language model of words is trained on the questions, each of which begins with its type. The
answer to a test question is the type with the highest P(type | question). The set lies in
`tasks/trec` below CHARLM_DATA. One JSON object a seed goes to stdout.
"""

import argparse
import csv
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import charlm
from charlm.api.conditions import posteriors

OPTIONS: dict[str, Any] = {
    "condition": "label", "unit": "word", "words": "bare", "lowercase": True, "hidden": 128,
    "layers": 1, "epochs": 8, "threads": 1,
}  # fmt: skip


def main() -> None:
    """Train with each seed and write the accuracy on the test questions."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    seeds = parser.parse_args().seeds
    data = Path(os.environ["CHARLM_DATA"]) / "tasks" / "trec"
    with (data / "test.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            begun = time.process_time()
            model = charlm.fit(
                data / "train.tsv", name=f"trec-{seed}", checkpoints=folder, seed=seed,
                progress=False, **OPTIONS,
            )  # fmt: skip
            seconds = time.process_time() - begun
            found = posteriors(model.path, [row["text"] for row in rows])
            answers = [found.labels[at] for at in found.probabilities.argmax(axis=1)]
            right = sum(a == row["label"] for a, row in zip(answers, rows, strict=True))
            result = {"seed": seed, "accuracy": right / len(rows), "processor_seconds": seconds}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
