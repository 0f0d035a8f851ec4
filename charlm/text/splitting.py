"""Splitting of plain sentences into blank-separated words, as a training text has them.

WikiText and the Penn Treebank have a blank before punctuation marks and inside contractions. Under
a model of such words, each "word." of a plain sentence is unknown. The rules are those of the Moses
tokenizer (Koehn et al. 2007), by the package sacremoses.
"""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from charlm.errors import EnvironmentFailure, check_choice
from charlm.text.sources.rows import Warn
from charlm.text.tokenizers.vocabulary import Vocabulary

SPLITS = ("auto", "moses", "none")
SAMPLE = 1000
"""Number of sentences by which `auto` decides."""


def splitter(
    rule: str, vocabulary: Vocabulary, texts: Sequence[str], warn: Warn
) -> Callable[[str], str]:
    """Return the function that splits a sentence for a vocabulary.

    "auto" splits if the vocabulary is of blank-separated words and fewer words of the texts are
    unknown then; `warn` gets the decision. Raises EnvironmentFailure if "moses" is not installed.
    """
    check_choice("split", rule, SPLITS)
    if rule == "moses":
        return moses(vocabulary)
    sample = texts[:SAMPLE]
    if rule == "none" or not vocabulary.line_ends_are_eos or not _unknown(vocabulary, sample):
        return str
    if find_spec("sacremoses") is None:
        if _are_joined(vocabulary, sample):
            warn(
                "most sentences end with an unknown word, since a punctuation mark is part of it; "
                "to split them off: pip install 'charlm[moses]'"
            )
        return str
    split = moses(vocabulary)
    before, after = (
        _unknown(vocabulary, each) for each in (sample, [split(text) for text in sample])
    )
    if after >= before:
        return str
    warn(
        f"sentences are split as by Moses: {after:,} unknown words in place of {before:,} in the "
        f"first {len(sample):,}; --split none leaves them as they are"
    )
    return split


def _are_joined(vocabulary: Vocabulary, texts: Sequence[str]) -> bool:
    """Return whether most texts end with an unknown word that ends with a punctuation mark."""
    words = [text.split()[-1] for text in texts if text.strip()]
    joined = [word for word in words if len(word) > 1 and word[-1] in ".?!"]
    return 2 * sum(bool(vocabulary.unknown(word)) for word in joined) > len(texts)


def _unknown(vocabulary: Vocabulary, texts: Sequence[str]) -> int:
    """Return the number of unknown tokens of texts."""
    return sum(int((vocabulary.encode(text) == vocabulary.unk).sum()) for text in texts)


def moses(vocabulary: Vocabulary) -> Callable[[str], str]:
    """Return a function that splits an English sentence as Moses does.

    What the vocabulary has is written in its way: "@-@", "@,@" and "@.@" of WikiText for marks
    inside words and numbers, "n't" of the Penn Treebank. Raises EnvironmentFailure if sacremoses is
    not installed.
    """
    try:
        package: Any = import_module("sacremoses")
    except ImportError as error:
        raise EnvironmentFailure(
            "sacremoses is not installed, and --split moses needs it; install it with: "
            "pip install 'charlm[moses]'"
        ) from error
    tokenizer = package.MosesTokenizer(lang="en")
    marks = "".join(mark for mark in ",." if f"@{mark}@" in vocabulary.ids)
    dashes, negations = "@-@" in vocabulary.ids, "n't" in vocabulary.ids

    def split(text: str) -> str:
        """Return the sentence with a blank between its words."""
        words: str = tokenizer.tokenize(
            text, aggressive_dash_splits=dashes, return_str=True, escape=False
        )
        if marks:
            words = re.sub(rf"(?<=\d)([{marks}])(?=\d)", r" @\1@ ", words)
        return re.sub(r"n 't\b", " n't", words) if negations else words

    return split
