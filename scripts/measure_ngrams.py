"""Compare n-gram models with KenLM: perplexities, every entry of golden files, and times.

    CHARLM_DATA=folder python scripts/measure_ngrams.py
    CHARLM_DATA=folder CHARLM_ORACLES=folder python scripts/measure_ngrams.py --beside kn.py
    CHARLM_DATA=folder python scripts/measure_ngrams.py --kenlm kenlm/build/bin

KenLM's perplexities are those of `lmplz -o N` and `query` (4cb443e), with another word for <unk>.
Times are those of reading, fitting and scoring, in turns in one process: beside the class KN of a
Python file (`--beside`), or beside KenLM's programs (`--kenlm`), which can be built from the source
of the PyPI package kenlm with cmake and Boost.
"""

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.ngrams.arpa_reader import read_arpa
from charlm.ngrams.kneser_ney import fit
from charlm.text.dataset import Dataset, load_dataset

DATA = Path(os.environ.get("CHARLM_DATA", "data"))
TEXTS = {
    "ptb": ("ptb/ptb.train.txt", "ptb/ptb.test.txt"),
    "wikitext2": ("wikitext2/train.txt", "wikitext2/test.txt"),
}
KENLM = {
    ("ptb", 2): 185.7049, ("ptb", 3): 148.2815, ("ptb", 4): 142.7156, ("ptb", 5): 141.1862,
    ("ptb", 6): 140.8369, ("wikitext2", 3): 226.0510, ("wikitext2", 5): 220.1386,
}  # fmt: skip
"""Perplexity of the test text by KenLM, for a text and an order."""
GOLDENS = {
    "tiny2.arpa": ("tiny.txt", 2),
    "tiny3.arpa": ("tiny.txt", 3),
    "tinychar4.arpa": ("tinychar.txt", 4),
    "small3.fallback.arpa": ("small.txt", 3),
}
"""Files by lmplz: the text and the order of each."""
TIMED_ORDER = 5
Program = Callable[[], float]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--beside", type=Path, help="Python file with a class KN and read_text")
    parser.add_argument("--kenlm", type=Path, help="folder of lmplz and query")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each program")
    options = parser.parse_args()
    print("text       order  perplexity  KenLM     relative difference")
    for name in TEXTS:
        dataset = read(name)
        for order in [order for text, order in KENLM if text == name]:
            found, expected = perplexity(dataset, order), KENLM[name, order]
            print(
                f"{name:10} {order:5}  {found:10.4f}  {expected:8.4f}  {found / expected - 1:+.1e}"
            )
    if oracles := os.environ.get("CHARLM_ORACLES"):
        compare_goldens(Path(oracles))
    for name in TEXTS:
        programs: dict[str, Program] = {"charlm": lambda name=name: score(name)}  # type: ignore[misc]
        if options.beside:
            programs[options.beside.name] = beside(options.beside, name)
        if options.kenlm:
            programs["lmplz + query"] = kenlm(options.kenlm, name)
        compare_times(name, programs, options.rounds)


def read(name: str) -> Dataset:
    """Read a training text and its test text as words between blanks."""
    train, test = (str(DATA / path) for path in TEXTS[name])
    return load_dataset(
        CorpusSettings(sources=(train,), test=(test,), document="stream", valid_frac=0.0),
        VocabularySettings(unit="word", words="whitespace", min_count=1),
    )


def perplexity(dataset: Dataset, order: int) -> float:
    """Return the perplexity of the test text."""
    assert dataset.test is not None
    model, _ = fit(np.asarray(dataset.train.ids), len(dataset.vocabulary), order)
    return float(np.exp(model.text_nats(np.asarray(dataset.test.ids)).mean()))


def score(name: str) -> float:
    """Read, fit and score."""
    return perplexity(read(name), TIMED_ORDER)


def beside(path: Path, name: str) -> Program:
    """Return a program that reads, fits and scores with the class KN of a Python file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    train, test = (DATA / part for part in TEXTS[name])

    def program() -> float:
        """Return the perplexity of the test text."""
        ids, starts, vocabulary = module.read_text(train)
        model = module.KN(len(vocabulary), TIMED_ORDER).fit(ids, starts, fallback=(0.5, 1.0, 1.5))
        other, other_starts, _ = module.read_text(test, vocabulary)
        return float(np.exp(-model.score(other, other_starts)[0].mean()))

    return program


def kenlm(folder: Path, name: str) -> Program:
    """Return a program that runs lmplz and query on texts in which <unk> is another word."""
    scratch = Path(tempfile.mkdtemp())
    for path in TEXTS[name]:
        text = (DATA / path).read_text(encoding="utf-8").replace("<unk>", "_unk_")
        (scratch / Path(path).name).write_text(text, encoding="utf-8")
    train, test = (scratch / Path(path).name for path in TEXTS[name])
    arpa = scratch / "model.arpa"
    lmplz: list[str | Path] = [folder / "lmplz", "-o", str(TIMED_ORDER), "-S", "1G", "-T", scratch]

    def program() -> float:
        """Return the perplexity of the test text."""
        with train.open() as text, arpa.open("w") as out:
            subprocess.run(lmplz, stdin=text, stdout=out, stderr=subprocess.DEVNULL, check=True)
        query: list[str | Path] = [folder / "query", "-v", "summary", arpa]
        with test.open() as text:
            done = subprocess.run(query, stdin=text, capture_output=True, check=True, text=True)
        return float(done.stdout.split()[3])

    return program


def compare_times(name: str, programs: dict[str, Program], rounds: int) -> None:
    """Run programs in turns and print median seconds, and ratios of charlm to each program."""
    perplexities: dict[str, float] = {}
    seconds: dict[str, list[tuple[float, float]]] = {program: [] for program in programs}
    for _ in range(rounds):
        for label, program in programs.items():
            begin = processor_seconds(), time.perf_counter()
            perplexities[label] = program()
            seconds[label].append((processor_seconds() - begin[0], time.perf_counter() - begin[1]))
    print(f"\n{name}, order {TIMED_ORDER}: read + fit + score; charlm takes ... times as long")
    print("                perplexity  processor         wall clock")
    for label, pairs in seconds.items():
        columns = [f"  {label:14}{perplexities[label]:10.4f}"]
        both = zip(zip(*seconds["charlm"], strict=True), zip(*pairs, strict=True), strict=True)
        for mine, values in both:
            ratio = statistics.median(own / value for own, value in zip(mine, values, strict=True))
            columns.append(f"{statistics.median(values):6.2f} s {ratio:5.2f}x")
        print("  ".join(columns))


def processor_seconds() -> float:
    """Return the seconds that this process and its children have computed."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compare_goldens(folder: Path) -> None:
    """Fit the texts of files by lmplz and print the largest difference of any entry in log10."""
    print("\ngolden file           entries  largest difference (log10)")
    for name, (text, order) in GOLDENS.items():
        golden = read_arpa(folder / name)
        ids = {word: number for number, word in enumerate(golden.names)}
        lines = (folder / text).read_text(encoding="utf-8").splitlines()
        stream = [ids[word] for line in lines for word in (*line.split(), "</s>")]
        model, _ = fit(np.array(stream), len(golden.names), order)
        pairs = [*zip(model.log_p, golden.model.log_p, strict=True)]
        pairs += zip(model.log_backoff, golden.model.log_backoff, strict=True)
        same = all(map(np.array_equal, model.keys, golden.model.keys))
        largest = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
        shown = f"{largest:.1e}" if same else "other n-grams"
        print(f"{name:20} {sum(golden.model.sizes):8}  {shown}")


if __name__ == "__main__":
    main()
