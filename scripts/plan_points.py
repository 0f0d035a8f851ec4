"""Points of the planner's experiments: the settings that `measure_plans.py` tries on each text."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.settings import Settings

DATA = Path(os.environ.get("CHARLM_DATA", "data"))

Point = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """Corpus of the experiments: its settings, and the point around which others are tried."""

    files: tuple[str, ...]
    valid: str | None = None
    document: str | None = None
    unit: str = "char"
    words: str = "text"
    column: str | None = None
    centre: tuple[int, int, int, float] = (256, 16, 64, 4e-3)  # hidden, rows, batch, rate
    judged_on: tuple[int, int] = (100_000, 40_000)  # tokens, and how many of them calibrate

    def settings(self) -> Settings:
        """Return the settings of `charlm train` for this corpus."""
        chosen = {"document": self.document, "column": self.column}
        corpus: dict[str, Any] = {key: value for key, value in chosen.items() if value}
        if self.valid:
            corpus["valid"] = (str(DATA / self.valid),)
        return Settings(
            corpus=CorpusSettings(sources=tuple(str(DATA / f) for f in self.files), **corpus),
            vocabulary=VocabularySettings(unit=self.unit, words=self.words),
        )


TEXTS = {
    "shakespeare": Text(("tinyshakespeare/input.txt",)),
    "ptb-char": Text(
        ("ptb/ptb.char.train.txt",), "ptb/ptb.char.valid.txt", "stream", "word", "whitespace"
    ),
    "ptb-word": Text(
        ("ptb/ptb.train.txt",), "ptb/ptb.valid.txt", "stream", "word", "whitespace",
        centre=(200, 16, 35, 4e-3),
    ),
    "names": Text(("names/names.txt",), document="line", centre=(192, 64, 16, 4e-3)),
    "japanese": Text(("multilingual/ja_soseki.txt",)),
    "english": Text(("multilingual/en.txt",)),
    "arabic": Text(("multilingual/ar.txt",)),
    "russian": Text(("multilingual/ru.txt",)),
    "prose": Text(("prose20/prose20.valid.txt",)),
    "wikitext2": Text(
        ("wikitext2/train.txt",), "wikitext2/valid.txt", "stream", "word", "whitespace",
        judged_on=(20_000, 5_000),
    ),
    "korean": Text(("multilingual/ko.txt",)),
    "chinese": Text(("multilingual/zh.txt",)),
    "enwik8": Text(("enwik8/enwik8.prefix4M.xml",)),
    "captions": Text(("tasks/multi30k/train.tsv.gz",), column="en", document="line"),
    "tweets": Text(("tasks/tweets/train.tsv.gz",), column="text", document="line"),
    "prose-word": Text(("prose20/prose20.valid.txt",), unit="word"),
    "prose20-word": Text(("prose20/prose20.train.txt",), "prose20/prose20.valid.txt", unit="word"),
    "reviews-word": Text(("tasks/imdb/unsup.sample.txt.gz",), unit="word", document="line"),
}  # fmt: skip

SMALL = ("english", "arabic")

SMALL_PASSES = ((15, 0.3), (25, 0.4), (35, 0.4), (50, 0.4), (100, 0.4))
"""Passes over the small texts, with the planner's dropout for that number of passes."""

LEFT_OUT = ("russian", "prose", "wikitext2")

FURTHER = ("korean", "chinese", "enwik8", "captions", "tweets", "prose-word", "reviews-word")
"""Texts on which only plans are measured, for the expectation."""

RANDOM_POINTS = 8


def around(text: Text) -> Iterator[Point]:
    """Yield the centre of a text and the points that differ from it in one setting."""
    hidden, rows, batch, rate = text.centre
    centre = make_point(2, hidden, rows, batch, rate)
    yield centre
    yield centre | {"hidden_size": hidden * 3 // 2}
    yield centre | {"hidden_size": hidden // 2}
    yield centre | {"dropout": 0.2}
    yield centre | {"learning_rate": rate * 2}
    yield centre | {"learning_rate": rate / 2}
    yield centre | {"batch_size": rows * 2}
    yield centre | {"batch_size": rows // 2}
    yield centre | {"bptt": batch * 2}
    yield centre | {"num_layers": 1, "hidden_size": hidden * 3 // 2}


def make_point(
    layers: int, hidden: int, rows: int, batch: int, rate: float, dropout: float = 0.0
) -> Point:
    """Return a point."""
    return {
        "num_layers": layers, "hidden_size": hidden, "batch_size": rows, "bptt": batch,
        "learning_rate": rate, "dropout": dropout,
    }  # fmt: skip


CLOSER: dict[tuple[str, float], list[tuple[int, int, int, int, float, float]]] = {
    ("shakespeare", 1.0): [
        (1, 384, 16, 64, 8e-3, 0.0), (1, 512, 16, 64, 8e-3, 0.0), (1, 384, 16, 32, 8e-3, 0.0),
        (1, 256, 16, 64, 8e-3, 0.0), (1, 384, 16, 32, 16e-3, 0.0), (1, 384, 16, 16, 8e-3, 0.0),
        (1, 384, 8, 32, 8e-3, 0.0), (2, 256, 16, 32, 8e-3, 0.0), (1, 256, 16, 32, 8e-3, 0.0),
        (1, 512, 16, 32, 8e-3, 0.0),
    ],
    ("ptb-word", 1.0): [
        (2, 200, 16, 35, 4e-3, 0.0), (1, 200, 16, 35, 8e-3, 0.0), (1, 300, 16, 20, 8e-3, 0.0),
        (1, 200, 16, 20, 4e-3, 0.0), (1, 300, 32, 35, 8e-3, 0.0),
    ],
    ("names", 1.0): [
        (2, 192, 64, 16, 4e-3, 0.0), (1, 256, 64, 16, 8e-3, 0.0), (1, 256, 32, 16, 8e-3, 0.0),
        (1, 128, 64, 16, 8e-3, 0.0),
    ],
    ("japanese", 1.0): [
        (2, 256, 16, 64, 4e-3, 0.0), (1, 384, 16, 32, 8e-3, 0.0), (1, 256, 16, 32, 8e-3, 0.0),
        (1, 384, 16, 32, 4e-3, 0.0),
    ],
    ("ptb-char", 1.0): [
        (1, 384, 16, 32, 8e-3, 0.0), (1, 256, 16, 32, 8e-3, 0.0), (1, 384, 16, 64, 8e-3, 0.0),
    ],
    ("shakespeare", 3.0): [
        (1, 512, 16, 32, 8e-3, 0.1), (2, 384, 16, 32, 8e-3, 0.1), (1, 512, 32, 64, 8e-3, 0.1),
        (1, 512, 16, 64, 8e-3, 0.1), (2, 384, 32, 64, 8e-3, 0.1), (2, 384, 32, 64, 4e-3, 0.1),
        (2, 384, 32, 64, 8e-3, 0.25), (2, 384, 32, 128, 8e-3, 0.1),
    ],
    ("ptb-word", 3.0): [
        (1, 300, 16, 35, 8e-3, 0.1), (1, 300, 32, 70, 8e-3, 0.1), (1, 300, 32, 70, 4e-3, 0.1),
        (1, 300, 32, 70, 8e-3, 0.25), (1, 200, 32, 70, 8e-3, 0.1),
    ],
    ("ptb-char", 3.0): [
        (1, 512, 32, 64, 8e-3, 0.0), (1, 512, 32, 64, 8e-3, 0.05), (2, 384, 32, 64, 8e-3, 0.0),
        (1, 512, 32, 64, 4e-3, 0.0), (1, 512, 16, 64, 8e-3, 0.0), (1, 512, 32, 128, 8e-3, 0.0),
    ],
    ("japanese", 3.0): [
        (1, 320, 32, 64, 8e-3, 0.05), (1, 448, 32, 64, 8e-3, 0.05), (1, 320, 32, 64, 4e-3, 0.05),
        (1, 320, 32, 64, 8e-3, 0.15), (1, 320, 16, 64, 8e-3, 0.05), (1, 320, 32, 32, 8e-3, 0.05),
    ],
    ("names", 3.0): [
        (2, 192, 64, 16, 4e-3, 0.3), (2, 128, 64, 16, 4e-3, 0.3), (2, 192, 64, 16, 8e-3, 0.3),
        (2, 192, 64, 16, 4e-3, 0.1), (2, 192, 32, 16, 4e-3, 0.3), (2, 192, 64, 8, 4e-3, 0.3),
    ],
    ("ptb-char", 10.0): [
        (2, 448, 32, 64, 8e-3, 0.05), (2, 320, 32, 64, 8e-3, 0.1), (2, 448, 32, 64, 4e-3, 0.05),
        (2, 448, 64, 64, 8e-3, 0.05),
    ],
    ("shakespeare", 10.0): [
        (2, 448, 32, 64, 8e-3, 0.15), (2, 384, 32, 64, 4e-3, 0.2), (2, 448, 32, 64, 4e-3, 0.15),
        (2, 448, 32, 64, 8e-3, 0.3), (2, 320, 32, 64, 8e-3, 0.15), (2, 448, 64, 64, 8e-3, 0.15),
        (2, 448, 32, 128, 8e-3, 0.15),
    ],
    ("ptb-word", 10.0): [
        (2, 448, 32, 70, 8e-3, 0.1), (1, 448, 32, 70, 8e-3, 0.1), (2, 448, 32, 70, 4e-3, 0.1),
        (2, 448, 32, 70, 8e-3, 0.3), (2, 256, 32, 70, 8e-3, 0.2),
    ],
    ("japanese", 10.0): [
        (2, 320, 32, 64, 8e-3, 0.15), (1, 448, 32, 64, 8e-3, 0.15), (2, 320, 32, 64, 4e-3, 0.15),
        (2, 320, 32, 64, 8e-3, 0.3),
    ],
    ("names", 10.0): [(2, 256, 72, 16, 4e-3, 0.5)],
}  # fmt: skip
"""Points by text and minutes: layers, hidden size, rows, batch, rate, dropout."""

UNIGRAMS: list[tuple[str, tuple[int, int, int, int, float, float]]] = [
    ("japanese", (1, 256, 16, 32, 8e-3, 0.0)), ("japanese", (1, 384, 16, 32, 8e-3, 0.0)),
    ("ptb-word", (1, 200, 16, 35, 8e-3, 0.0)), ("shakespeare", (1, 384, 16, 32, 8e-3, 0.0)),
]  # fmt: skip
"""Points that are repeated with the output bias at the log frequencies of the tokens."""


def design() -> Iterator[tuple[str, float, Point]]:
    """Yield text, minutes and point of every run behind the planner's constants."""
    for one in around(TEXTS["shakespeare"]):
        yield "shakespeare", 1.0, one
    for name, values in UNIGRAMS:
        yield name, 1.0, make_point(*values) | {"unigrams": True}
    for (name, minutes), points in CLOSER.items():
        for values in points:  # runs of one minute were measured without
            yield name, minutes, make_point(*values) | ({"unigrams": True} if minutes > 1 else {})


def small() -> Iterator[tuple[str, float, Point]]:
    """Yield points that vary the passes over small texts. 0 minutes: not limited by time."""
    for name in SMALL:
        for passes, dropout in SMALL_PASSES:
            more = {"unigrams": True, "passes": passes}
            yield name, 0.0, make_point(1, 192, 16, 32, 8e-3, dropout) | more


def random_point(number: int) -> Point:
    """Return a random point from the ranges of `charlm search`."""
    generator = np.random.default_rng([5, number])
    low, high = np.log(1e-3), np.log(2e-2)
    return make_point(
        int(generator.integers(1, 3)),
        round(float(np.exp(generator.uniform(np.log(64), np.log(768))))),
        int(generator.choice([8, 16, 32, 64])),
        int(generator.choice([16, 32, 64, 128])),
        round(float(np.exp(generator.uniform(low, high))), 5),
        round(0.05 * int(generator.integers(0, 9)), 2),
    ) | {"unigrams": True}
