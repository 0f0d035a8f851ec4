"""Print a hash of everything that a few tiny, fixed-seed runs compute.

    python scripts/fingerprint.py > before.txt
    ... change the structure of the code ...
    python scripts/fingerprint.py | diff before.txt -

A change of structure must leave every line the same: each line holds the hashes of the trained
weights, of the losses in the log, of a sample and of the scores of one run. The hashes hold for one
machine and one version of torch only.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parent.parent
TEXT = ROOT / "corpora" / "tales.txt"
CHARS = 12_000
COMMON = ("--steps", "40", "--seed", "5", "--threads", "1", "--precision", "fp32", "--evals", "8")
SMALL = ("--hidden", "24", "--layers", "2", "--embedding", "12", "--batch", "4", "--bptt", "16")
RUNS = {
    "lstm-char": SMALL,
    "gru-stateless": ("--cell", "gru", "--stateless", "--set", "accumulate=2", *SMALL),
    "rnn-byte-lines": ("--cell", "rnn", "--unit", "byte", "--document", "line", *SMALL),
    "word-tied-dropout": (
        "--unit", "word", "--dropout", "0.3", "--hidden", "24", "--embedding", "24",
        "--layers", "1", "--batch", "4", "--bptt", "8", "--optimizer", "sgd",
    ),
    "bpe-average": ("--unit", "bpe", "--max-size", "300", "--average", "0.9", "--hidden", "16",
                    "--batch", "4", "--bptt", "8"),
    "both-mogrifier": ("--cell", "mogrifier", "--direction", "both", *SMALL),
    "mos-nt-asgd": ("--mos", "2", "--optimizer", "nt-asgd", "--learning-rate", "1", *SMALL),
}  # fmt: skip
"""Options of `charlm train` for each run: every unit, and most other kinds once."""


def main() -> None:
    """Train, hash and print each run."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text(TEXT.read_text(encoding="utf-8")[:CHARS], encoding="utf-8")
        for name, options in RUNS.items():
            charlm(folder, "train", str(text), "--name", name, *COMMON, *options)
            print(f"{name:20} {' '.join(hashes(Path(folder), name))}", flush=True)


def hashes(folder: Path, name: str) -> list[str]:
    """Return the hashes of the weights, the log, a sample and the scores of a run."""
    run = folder / "checkpoints" / name
    weights: dict[str, bytes] = {}
    for path in sorted(run.rglob("model.safetensors")):
        tensors = load_file(path)
        tensors.pop("output.scale", None)  # older commits kept the calibration factor here
        weights |= {f"{path.parent.name}/{key}": tensors[key].tobytes() for key in sorted(tensors)}
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [[row.get("step"), row.get("nats_per_token"), row.get("tally")] for row in log]
    sample = charlm(str(folder), "sample", "--run", name, "--len", "200", "--seed", "3")
    scores = charlm(str(folder), "score", "--run", name, "--format", "jsonl", "The old dog sat.")
    parts = [repr(sorted(weights.items())), json.dumps(losses), sample, scores]
    return [hashlib.sha256(part.encode()).hexdigest()[:12] for part in parts]


def charlm(folder: str, *arguments: str) -> str:
    """Run a command in the folder and return its standard output."""
    command = [sys.executable, "-m", "charlm", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} exited {done.returncode}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
