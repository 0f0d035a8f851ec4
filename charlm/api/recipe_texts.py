"""Texts that recipes make: splits of a list, and the made-up corpora of the textbooks."""

import math
import random
from collections.abc import Callable
from pathlib import Path

from charlm.errors import CorpusError
from charlm.files.atomic import explained
from charlm.text.corpus import Corpus

MAKEMORE_SEED, HELD_OUT = 3407, 1000
"""Seed of the permutation, and lines of the test, of github.com/karpathy/makemore."""


def made_texts(maker: str, source: Path | None, folder: Path) -> dict[str, Path]:
    """Write the texts of a maker, from the text of `source` if it has one, into a folder.

    Returns their paths by part. Raises CorpusError for a source that the maker cannot use.
    """
    sources = (str(source),) if source else ()
    texts = ["".join(Corpus(sources, document="stream").chunks())] if sources else []
    files = {name: "".join(f"{line}\n" for line in lines)
             for name, lines in MAKERS[maker](*texts).items()}  # fmt: skip
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return {Path(name).stem: folder / name for name in files}


def makemore_split(text: str) -> dict[str, list[str]]:
    """Return the lines of a list of names for training, validation and test.

    The last thousand of a permutation are the test, as in makemore.py (torch's generator, its
    seed); the thousand before them, which makemore trains on, choose the best weights here.
    Raises CorpusError if there are too few lines.
    """
    import torch

    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) <= 2 * HELD_OUT:
        raise CorpusError(
            f"the text has {len(lines):,} lines; expected more than {2 * HELD_OUT:,}, of "
            "which 1,000 are held out twice"
        )
    generator = torch.Generator().manual_seed(MAKEMORE_SEED)
    order = torch.randperm(len(lines), generator=generator).tolist()
    shuffled = [lines[index] for index in order]
    rest, test = shuffled[:-HELD_OUT], shuffled[-HELD_OUT:]
    return {"train.txt": rest[:-HELD_OUT], "valid.txt": rest[-HELD_OUT:], "test.txt": test}


def cosine() -> dict[str, list[str]]:
    """Return a decaying cosine, 100 cos(2 pi i / 1000) exp(-i / 10,000) for i < 50,000.

    The series of `stateful_lstm.py` in the examples of Keras.
    """
    values = (100 * math.cos(2 * math.pi * i / 1000) * math.exp(-i / 10_000) for i in range(50_000))
    return {"train.csv": ["value", *map(repr, values)]}


ADDITIONS, DIGITS = 50_000, 3
"""Number of sums, and greatest number of digits, of `addition_rnn.py`."""


def addition() -> dict[str, list[str]]:
    """Return sums such as `123+45` and their results, each pair of numbers once.

    The questions of `addition_rnn.py` in the examples of Keras: numbers of one to three digits;
    `45+123` counts as `123+45`. A twentieth each is held out for validation and test.
    """
    generator = random.Random(1)
    pairs: dict[tuple[int, ...], str] = {}
    while len(pairs) < ADDITIONS:
        digits = (range(generator.randint(1, DIGITS)) for _ in range(2))
        a, b = (int("".join(generator.choice("0123456789") for _ in places)) for places in digits)
        pairs.setdefault(tuple(sorted((a, b))), f"{a}+{b}\t{a + b}")
    rows, held_out = list(pairs.values()), ADDITIONS // 20
    parts = {
        "train": rows[: -2 * held_out],
        "valid": rows[-2 * held_out : -held_out],
        "test": rows[-held_out:],
    }
    return {f"{part}.tsv": ["sum\tresult", *lines] for part, lines in parts.items()}


MAKERS: dict[str, Callable[..., dict[str, list[str]]]] = {
    "makemore": makemore_split, "cosine": cosine, "addition": addition,
}  # fmt: skip
"""Functions that return the lines of files, from the text of the recipe's source if it has one."""
