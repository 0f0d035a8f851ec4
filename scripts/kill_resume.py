"""Kill training at random moments, resume each time, and compare with an undisturbed run.

    python scripts/kill_resume.py TEXT [--kills 10] [--epochs 3] [more flags of charlm train]

Prints the number of kills and whether weights, last checkpoint and log are identical.
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = [sys.executable, "-c", "from charlm.cli import main; main()", "-q", "train"]


def main() -> None:
    """Run both and compare. Exits with 1 if they differ."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seed", type=int, default=1)
    arguments, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        common = ["--checkpoints", folder, "--save-minutes", "0.02"]
        new = [*PROGRAM, arguments.text, *common, "--epochs", str(arguments.epochs),
               "--seed", str(arguments.seed), *more]  # fmt: skip
        start = time.monotonic()
        subprocess.run([*new, "--name", "quiet"], check=True)
        seconds = time.monotonic() - start
        print(f"quiet run: {seconds:.0f} s")
        resume = [*PROGRAM, "--resume", "--run", "killed", *common]
        generator = random.Random(arguments.seed)
        kills = 0
        command = [*new, "--name", "killed"]
        while True:
            process = subprocess.Popen(command)
            wait = 4.0 + generator.random() * 1.5 * seconds / arguments.kills
            try:
                status = process.wait(wait if kills < arguments.kills else None)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                if (Path(folder) / "killed" / "run.json").exists():
                    command = resume
                continue
            if status:
                raise SystemExit(f"charlm ended with {status}")
            break
        compare(Path(folder) / "quiet", Path(folder) / "killed", kills)


def compare(quiet: Path, killed: Path, kills: int) -> None:
    """Compare best weights, last checkpoint and log. Exits with 1 if any differs."""
    same = {
        "model.safetensors": digest(quiet / "model.safetensors")
        == digest(killed / "model.safetensors"),
        "last checkpoint": digest(last_checkpoint(quiet)) == digest(last_checkpoint(killed)),
        "log": log(quiet) == log(killed),
    }
    for name, equal in same.items():
        print(f"{name}: {'identical' if equal else 'DIFFERENT'} after {kills} kills")
    if not all(same.values()):
        raise SystemExit(1)


def last_checkpoint(run: Path) -> Path:
    """Return the file of tensors of the newest checkpoint."""
    folders = sorted((run / "states").glob("step-*"), key=lambda p: int(p.name.split("-")[1]))
    return folders[-1] / "state.safetensors"


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def log(run: Path) -> list[dict[str, object]]:
    """Return the step and evaluation records without values that depend on the clock."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    timed = ("seconds", "tokens_per_second")
    return [
        {key: value for key, value in record.items() if key not in timed}
        for record in records
        if record["kind"] in ("step", "evaluation")
    ]


if __name__ == "__main__":
    main()
