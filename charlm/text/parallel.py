"""Parallel text: a dataset of one document for each source text, with the translation of each."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from charlm.config.corpus import SPLIT_NAMES, CorpusSettings, VocabularySettings
from charlm.config.fields import MAX_COUNT
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.config.tasks import SHORT_TRANSLATION
from charlm.errors import CorpusError, RunError, named
from charlm.files.atomic import json_bytes
from charlm.files.safe_read import read_json
from charlm.phases import counted, phase
from charlm.text.corpus import collector
from charlm.text.dataset import Dataset, training_vocabulary
from charlm.text.documents import check_text
from charlm.text.encoded import EncodedText, read_encoded, write_encoded
from charlm.text.labelled import (
    MAX_SKIPPED,
    Texts,
    complete,
    encode_texts,
    expected_pair,
    finished_dataset,
    held_out_parts,
    parts_fingerprint,
    read_splits,
)
from charlm.text.labels import Labels
from charlm.text.pair_batches import pair_lengths
from charlm.text.parallel_files import Pair, read_pairs
from charlm.text.sources.names import find
from charlm.text.sources.rows import Rows
from charlm.text.sources.text_lines import FileRules
from charlm.text.task_text import NOTHING, Given, TaskText
from charlm.text.tokenizers.vocabulary import Vocabulary, load_vocabulary
from charlm.units import count_of

TARGET = "target.json"
"""File of the target's vocabulary in the folder of a run."""
MAX_SIDE = 250
"""Maximum number of tokens of a source or a translation; longer pairs are left out."""
TRANSLATION = "translation"
"""Noun of what a text has beside it, for messages."""
PAIRS, PAIRS_BYTES = "pairs.json", 1 << 28
"""File of the pairs of a held-out split as they were read, and its largest size."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Translations of the texts of a dataset."""

    vocabulary: Vocabulary
    """Vocabulary of the target."""
    texts: Mapping[str, EncodedText]
    """Translations by split, one document each."""
    pairs: Mapping[str, Sequence[tuple[str, str]]]
    """Sources and translations of held-out splits as they were read."""

    def total(self, split: str) -> int:
        """Return the number of target tokens of a split, with an EOS for each text."""
        return len(self.texts[split].ids)

    def record(self) -> dict[str, Any]:
        """Return what run.json says of the text beside its sizes."""
        return {"target_vocabulary": len(self.vocabulary)}

    def write(self, folder: Path, split: str) -> None:
        """Write the translations beside the folder of the sources of a split, and its pairs."""
        write_encoded(_beside(folder), self.texts[split])
        if split in self.pairs:
            pairs = [list(pair) for pair in self.pairs[split]]
            (folder / PAIRS).write_bytes(json_bytes({"pairs": pairs}))

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Return the vocabulary of the target by the name of its file."""
        return {TARGET: self.vocabulary}


class ParallelText:
    """Reader of texts with translations; see `TaskText`."""

    def load(self, settings: Settings, given: Given = NOTHING) -> Dataset:
        """Read pairs, hold some out, build both vocabularies (unless given) and encode.

        If no unit was given and translations are short, both texts are read by characters. Raises
        CorpusError for texts that cannot be read.
        """
        corpus, task = settings.corpus, settings.task
        warnings: list[str] = []
        rules = FileRules(settings=corpus, target=task.target, warn=collector(warnings))
        parts = _read(corpus, given.examples, rules)
        rule = settings.vocabulary
        unit_is_open = given.vocabulary is None and "vocabulary.unit" in given.open_settings
        if unit_is_open and _is_short(parts["train"]):
            rule = replace(rule, unit="char")
            warnings.append("Translations are short; both texts are read by characters.")
        built = training_vocabulary(parts["train"].split(), rule, given.vocabulary, grow=given.grow)
        target = training_vocabulary(
            _turned(parts["train"]).split(),
            _target_rule(rule, given.vocabulary, grow=given.grow, open_=given.open_settings),
            given.more.get(TARGET),
        )
        encoded = {
            name: _encode(part, built.vocabulary, target.vocabulary) for name, part in parts.items()
        }
        warnings += _long_advice(parts, encoded)
        return finished_dataset(
            parts,
            {name: each.sources for name, each in encoded.items()},
            built,
            settings,
            given,
            warnings=[*warnings, *built.warnings, *target.warnings],
            labelled=Parallel(
                vocabulary=target.vocabulary,
                texts={name: each.targets for name, each in encoded.items()},
                pairs={
                    name: list(zip(each.pairs.texts, each.pairs.labels, strict=True))
                    for name, each in encoded.items()
                    if name != "train"
                },
            ),
            columns=rules.columns,
        )

    def check_example(self, pair: Any) -> str:
        """Return what was expected of a pair of texts given in Python, or ""."""
        return expected_pair(pair, TRANSLATION)

    def fingerprint(self, corpus: CorpusSettings, task: TaskSettings) -> str:
        """Read pairs and return the fingerprint of their dataset."""
        return parts_fingerprint(
            _read(corpus, None, FileRules(settings=corpus, target=task.target))
        )

    def read(
        self, path: Path, config: Mapping[str, Any], splits: Mapping[str, EncodedText]
    ) -> Parallel:
        """Read the translations that are kept with a run. Raises CorpusError if damaged."""
        vocabulary = load_vocabulary(path / TARGET)
        if len(vocabulary) != config["task"]["target_size"]:
            raise CorpusError(
                f"{path / TARGET} has {len(vocabulary):,} entries; expected "
                f"{config['task']['target_size']:,}, as in config.json. Restore it from a copy"
            )
        texts, pairs = {}, {}
        for name, sources in splits.items():
            folder = path / "data" / name
            texts[name] = read_encoded(_beside(folder))
            if texts[name].documents != sources.documents or not texts[name].fits(len(vocabulary)):
                raise CorpusError(f"{_beside(folder)}: not the translations of {folder}; delete it")
            if name != "train":
                pairs[name] = _read_pairs(folder, sources.documents)
        return Parallel(vocabulary=vocabulary, texts=texts, pairs=pairs)


PARALLEL: TaskText = ParallelText()
"""Text of the task `translate`."""


def _read(
    corpus: CorpusSettings, examples: Sequence[tuple[str, str]] | None, rules: FileRules
) -> dict[str, Texts]:
    """Return the pairs of each split, with a held-out part."""
    like = _first_file(corpus) if examples is None else None
    parts = read_splits(
        corpus, examples, _given, lambda names: read_pairs(names, rules, like),
        partial(complete, warn=rules.warn, noun=TRANSLATION),
    )  # fmt: skip
    return held_out_parts(parts, Labels(()), corpus.valid_frac)  # at random: there are no labels


def _first_file(corpus: CorpusSettings) -> str | None:
    """Return the name of the first source if it is plain text, to which `--target` belongs."""
    first = find(corpus.sources, corpus, lambda _: None)[0]
    return None if isinstance(first, Rows) else first.label


def _given(examples: Sequence[tuple[str, str]]) -> Iterator[Pair]:
    for number, (source, target) in enumerate(examples, 1):
        place = f"example {number:,}"
        check_text(source, place)
        check_text(target, f"{place}: its translation")
        yield Pair(source if source.strip() else None, target if target.strip() else None, place)


def _turned(part: Texts) -> Texts:
    """Return the pairs with their sides exchanged."""
    return Texts(texts=part.labels, labels=part.texts)


def _is_short(train: Texts) -> bool:
    return median(map(len, train.labels)) < SHORT_TRANSLATION


def _target_rule(
    rule: VocabularySettings, source: Vocabulary | None, *, grow: bool, open_: Collection[str]
) -> VocabularySettings:
    """Return the settings of the target's vocabulary beside a given vocabulary of the source.

    The task limits the entries that a source gets when it grows; the target has no others.
    """
    if source is None:
        return rule
    if not grow:
        return source.settings
    if "vocabulary.max_size" in open_ and rule.max_size:
        return replace(rule, max_size=rule.max_size - len(source))
    return rule


# ------------------------------------------------------------------ encoding


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    """Pairs that are not too long, with both sides as ids."""

    pairs: Texts
    sources: EncodedText
    targets: EncodedText


def _encode(part: Texts, source: Vocabulary, target: Vocabulary) -> _Encoded:
    """Encode both sides of the pairs of which neither is longer than MAX_SIDE."""
    with phase("encoding the text", total=sum(map(len, [*part.texts, *part.labels]))):
        sources = encode_texts(counted(part.texts), source, MAX_COUNT, "start")
        targets = encode_texts(counted(part.labels), target, MAX_COUNT, "start")
    kept = np.flatnonzero(pair_lengths(sources, targets) <= MAX_SIDE + 1)
    if len(kept) < len(part.texts):
        return _encode(part.at(kept), source, target)
    return _Encoded(pairs=part, sources=sources, targets=targets)


def _long_advice(parts: Mapping[str, Texts], encoded: Mapping[str, _Encoded]) -> list[str]:
    """Advise about pairs that are too long. Raises CorpusError if they are more than half."""
    advice = []
    for name, part in parts.items():
        count, all_ = len(part.texts) - len(encoded[name].pairs.texts), len(part.texts)
        if count > MAX_SKIPPED * all_:
            raise CorpusError(
                f"{count:,} of {all_:,} {name} pairs have more than {MAX_SIDE} tokens on one side; "
                f"expected sentences or short texts. Cut them, or use {named('unit')} bpe"
            )
        if count:
            pairs = count_of(count, "pair")
            pairs += f" of the {SPLIT_NAMES[name]} text"
            advice.append(f"{pairs} left out: over {MAX_SIDE} tokens on a side.")
    return advice


# ------------------------------------------------------------------ files


def _beside(folder: Path) -> Path:
    """Return the folder of the translations of a split."""
    return folder.with_name(f"{folder.name}-target")


def _read_pairs(folder: Path, documents: int) -> list[tuple[str, str]]:
    path = folder / PAIRS
    try:
        pairs = read_json(path, PAIRS_BYTES)["pairs"]
        if len(pairs) != documents:
            raise ValueError(f"{len(pairs)} pairs for {documents} texts")
        if not all(isinstance(a, str) and isinstance(b, str) for a, b in pairs):
            raise ValueError("not all are texts")
    except (OSError, ValueError, TypeError, KeyError, RunError) as error:
        raise CorpusError(f"{path}: the pairs are damaged ({error}); delete {folder}") from error
    return [(source, target) for source, target in pairs]
