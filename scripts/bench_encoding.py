"""Measure the speed and memory of encoding a large text.

    python scripts/bench_encoding.py [--megabytes 100]

Repeats the built-in corpus to a text of that size and encodes its characters as `charlm train` does
(scan, split, count, encode into the memory-mapped cache). Prints MB/s of all passes and of the
encoding pass alone, and the peak memory of the process.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.text.corpus import Corpus
from charlm.text.dataset import load_dataset
from charlm.text.encoded import encode_text

TALES = Path(__file__).resolve().parent.parent / "corpora" / "tales.txt"


def main() -> None:
    """Run the benchmark and print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100)
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.txt"
        tales = TALES.read_bytes()
        with path.open("wb") as file:
            while file.tell() < megabytes * 1_000_000:
                file.write(tales)
        size = path.stat().st_size / 1e6
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        dataset = load_dataset(
            CorpusSettings(sources=(str(path),)), VocabularySettings(), cache=Path(folder) / "c"
        )
        whole = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        start = time.perf_counter()
        encode_text(Corpus([str(path)]).chunks, dataset.vocabulary, "stream")
        once = time.perf_counter() - start
    print(f"text                   {size:.0f} MB, {len(dataset.train.ids):,} training tokens")
    print(f"whole (several passes) {size / whole:.0f} MB/s")
    print(f"encoding pass alone    {size / once:.0f} MB/s")
    print(f"peak memory            {peak:.0f} MB, {peak - before:.0f} MB above the start")


if __name__ == "__main__":
    main()
