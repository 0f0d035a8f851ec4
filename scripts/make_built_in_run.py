"""Train the small run that ships in checkpoints/tales, on the built-in corpus.

    python scripts/make_built_in_run.py

It keeps what a finished run needs to be read (weights, vocabulary, settings, log, card) and leaves
out the encoded text and the states for going on.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from charlm.config.settings import settings_from
from charlm.files.atomic import MANIFEST, write_json
from charlm.files.safe_read import read_json
from charlm.runs.layout import write_record
from charlm.training.opening import start

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "checkpoints" / "tales"
LEFT_OUT = ("data", "states", ".lock", ".owner", "metrics.jsonl")
MAX_BYTES = 2_000_000


def main() -> None:
    """Train, copy what ships, check its size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=176)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    settings = settings_from(
        {
            "corpus": {"sources": [str(ROOT / "corpora" / "tales.txt")]},
            "model": {"hidden_size": arguments.hidden, "embedding_size": 64},
            "training": {"epochs": 4, "seed": arguments.seed, "threads": arguments.threads},
        }
    )
    command = "python scripts/make_built_in_run.py"
    with tempfile.TemporaryDirectory() as folder:
        session = start(settings, Path(folder), name="tales", command=command)
        for record in session.records():
            if record.kind != "step":
                print(json.dumps(record.to_dict()))
        session.record["corpus"]["sources"] = ["corpora/tales.txt"]
        session.record["settings"]["corpus"]["sources"] = ["corpora/tales.txt"]
        write_record(session.path, session.record)
        shutil.rmtree(SHIPPED, ignore_errors=True)
        shutil.copytree(session.path, SHIPPED, ignore=lambda _, __: LEFT_OUT)
        manifest = read_json(SHIPPED / MANIFEST)
        listed = {name: e for name, e in manifest["files"].items() if (SHIPPED / name).exists()}
        write_json(SHIPPED / MANIFEST, manifest | {"files": listed})
    size = sum(path.stat().st_size for path in SHIPPED.rglob("*"))
    print(f"{SHIPPED}: {size:,} bytes")
    if size > MAX_BYTES:
        raise SystemExit(f"{size:,} bytes; expected at most {MAX_BYTES:,}")


if __name__ == "__main__":
    main()
