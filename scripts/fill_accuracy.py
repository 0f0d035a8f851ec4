"""Measure how often a removed word is recovered, with and without the words to its right.

    python scripts/fill_accuracy.py RUN TEXT [--gaps 1000] [--seed 1]

RUN was trained with --direction both; TEXT has a sentence on each line. Gaps are random words of
the vocabulary. Three methods are compared: the next word of the forward model, the forward model on
the whole sentence with each candidate, and both directions (charlm fill).
"""

import argparse
import random
from pathlib import Path

import numpy as np

from charlm.api.loading import load_model
from charlm.backends.interface import Backend
from charlm.inference.infill import SHORTLIST, Reader, rank
from charlm.runs.pair import backward_half
from charlm.text.tokenizers.tokenizer_json import EOS, UNK

WAYS = ("forward, left only", "forward, whole sentence", "both directions")


def main() -> None:
    """Choose gaps, fill each in three ways, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--gaps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    model, other = load_model(options.run), load_model(backward_half(options.run))
    end = model.run.boundaries.has_ends
    forward, backward = model.run.backend, other.run.backend
    lines = options.text.read_text(encoding="utf-8").splitlines()
    sentences = [model.vocabulary.encode(line.strip()).astype(np.int64) for line in lines]
    places = [
        (number, at)
        for number, ids in enumerate(sentences)
        for at, index in enumerate(ids)
        if index not in (UNK, EOS)
    ]
    chosen = random.Random(options.seed).sample(places, min(options.gaps, len(places)))
    hits = np.zeros((len(WAYS), 2), int)
    for number, at in chosen:
        ids = sentences[number]
        ranked = answers(forward, backward, ids[:at], ids[at + 1 :], end)
        for way, best in enumerate(ranked):
            hits[way] += [ids[at] in best[:1], ids[at] in best[:5]]
    print("| method | top 1 | top 5 |")
    print("|---|---:|---:|")
    for name, (first, five) in zip(WAYS, hits, strict=True):
        print(f"| {name} | {100 * first / len(chosen):.1f} % | {100 * five / len(chosen):.1f} % |")
    print(f"\n{len(chosen):,} of {len(places):,} known words, seed {options.seed}.")


def answers(
    forward: Backend, backward: Backend, left: np.ndarray, right: np.ndarray, end: bool
) -> list[np.ndarray]:
    """Return the candidates of each of WAYS, best first."""
    ahead = Reader(forward, left, end)
    ahead.next[[UNK, EOS]] = -np.inf
    nexts = np.argsort(-ahead.next, kind="stable")[:SHORTLIST]
    whole = nexts[np.argsort(-ahead.whole(nexts, right), kind="stable")]
    both, _ = rank(forward, backward, left, right, end=end)
    return [nexts, whole, both]


if __name__ == "__main__":
    main()
