"""Tagged text: a dataset of one document for each sentence, with the tag of every word."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.config.text_units import UNITS
from charlm.errors import CorpusError
from charlm.phases import advance, phase
from charlm.text.corpus import collector
from charlm.text.dataset import SPLITS, Dataset, training_vocabulary
from charlm.text.documents import check_text
from charlm.text.encoded import EncodedText
from charlm.text.labelled import (
    Texts,
    finished_dataset,
    held_out_rows,
    listed,
    parts_fingerprint,
    read_splits,
    unseen_advice,
)
from charlm.text.labels import (
    MAX_LABELS,
    Labels,
    Targets,
    natural_order,
    read_targets,
    write_targets,
)
from charlm.text.sentence_files import read_kept, write_sentences
from charlm.text.sentences import Sentences, encode_sentences, is_word
from charlm.text.sources.text_lines import FileRules
from charlm.text.spans import OUTSIDE, as_iob2, is_span_tag, scheme_of, stray_inner
from charlm.text.splits import VALID_FRACTION
from charlm.text.tagged_files import read_sentences
from charlm.text.tagged_tables import Sentence
from charlm.text.task_text import NOTHING, Given, TaskText
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary, load_vocabulary
from charlm.units import count_of

LETTERS = "letters.json"
"""File of the vocabulary of letters in a run."""


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """Tags of a dataset, its sentences, and the letters of words; see `Gold`."""

    labels: Labels
    """Tags: IOB2 if they are spans."""
    spans: bool
    """True if the tags mark spans of words."""
    targets: Mapping[str, Targets]
    """Ids of the tags by split, each of shape (W,); UNSEEN for tags that training lacks."""
    sentences: Mapping[str, Sentences]
    letters: Vocabulary | None = None
    """Vocabulary of the letters of words; None if they are not read."""

    def total(self, split: str) -> int:
        """Return the number of words of a split."""
        return len(self.targets[split])

    def record(self) -> dict[str, Any]:
        """Return the number of words with each tag, by split."""
        return {"labels": {name: self.labels.counts(own) for name, own in self.targets.items()}}

    def write(self, folder: Path, split: str) -> None:
        """Write the words, their places and tags beside the encoded text of a split."""
        write_sentences(folder, self.sentences[split])
        write_targets(folder, self.targets[split])

    def tokenizers(self) -> dict[str, Vocabulary]:
        """Return the vocabulary of letters by the name of its file."""
        return {LETTERS: self.letters} if self.letters is not None else {}


class TaggedText:
    """Sentences of tagged words; see `TaskText`."""

    def load(self, settings: Settings, given: Given = NOTHING) -> Dataset:
        """Read the sentences, hold some out, build the vocabularies (unless given) and encode."""
        corpus, task = settings.corpus, settings.task
        warnings: list[str] = []
        warn = collector(warnings)
        rules = FileRules(settings=corpus, target=task.target, warn=warn)
        parts = _held_out(_read(corpus, given.examples, rules), corpus.valid_frac)
        tags = {name: [list(each.tags or ()) for each in part] for name, part in parts.items()}
        if scheme := scheme_of(tags["train"]):
            warn(_scheme_note(scheme, tags["train"]))
            tags = {name: [as_iob2(own) for own in part] for name, part in tags.items()}
        elif note := _no_spans_note(tags["train"]):
            warn(note)
        own_tags = {name: list(chain.from_iterable(part)) for name, part in tags.items()}
        labels = _labels(Counter(own_tags["train"]))
        texts = _texts(parts)
        built = training_vocabulary(
            texts["train"].split(), settings.vocabulary, given.vocabulary, grow=given.grow
        )
        sentences = {}
        total = sum(map(len, parts.values()))
        with phase("encoding the text", total=total, unit="sentences"):
            for name, part in parts.items():
                sentences[name] = encode_sentences(_words(part), built.vocabulary)
        letters = given.more.get(LETTERS)
        if letters is None and _reads_letters(
            task, built.vocabulary, given=given.vocabulary is not None
        ):
            letters = _letters_of(sentences["train"])
        return finished_dataset(
            texts,
            {name: made.text for name, made in sentences.items()},
            built,
            settings,
            given,
            warnings=[
                *warnings,
                *built.warnings,
                *unseen_advice(own_tags, set(labels.names), "tag", "word"),
            ],
            labelled=Tagged(
                labels=labels,
                spans=bool(scheme),
                targets={name: labels.ids(own) for name, own in own_tags.items()},
                sentences=sentences,
                letters=letters,
            ),
            columns=rules.columns,
        )

    def check_example(self, pair: Any) -> str:
        """Return what is wrong with a pair of the words of a sentence and their tags, or ""."""
        expected = "expected the words of a sentence and their tags, two lists of strings"
        words, tags = pair or ("", "")
        if any(isinstance(part, str) or not isinstance(part, Sequence) for part in (words, tags)):
            return expected
        if not all(isinstance(each, str) for each in (*words, *tags)):
            return expected
        if len(words) != len(tags) or not words:
            return f"expected a tag for each of its {count_of(len(words), 'word')}"
        bad = next((each for each in (*words, *tags) if not is_word(each)), None)
        if bad is None:
            return ""
        return f"expected words and tags that are not blank, without line ends, not {bad!r:.40}"

    def fingerprint(self, corpus: CorpusSettings, task: TaskSettings) -> str:
        """Read the sentences and return the fingerprint of their dataset."""
        rules = FileRules(settings=corpus, target=task.target)
        return parts_fingerprint(_texts(_held_out(_read(corpus, None, rules), corpus.valid_frac)))

    def read(
        self, path: Path, config: Mapping[str, Any], splits: Mapping[str, EncodedText]
    ) -> Tagged:
        """Return the tagged words of a run. Raises CorpusError if they are damaged."""
        labels = Labels(tuple(config["task"]["labels"]))
        sentences = {name: read_kept(path / "data" / name, t) for name, t in splits.items()}
        return Tagged(
            labels=labels,
            spans=config["task"]["spans"],
            targets={
                name: read_targets(path / "data" / name, len(made.spelling), len(labels))
                for name, made in sentences.items()
            },
            sentences=sentences,
            letters=load_vocabulary(path / LETTERS) if config["task"]["letters"] else None,
        )


TAGGED: TaskText = TaggedText()

# ------------------------------------------------------------------ reading

Parts = dict[str, list[Sentence]]


def _read(corpus: CorpusSettings, examples: Any, rules: FileRules) -> Parts:
    """Return the sentences of each split that has sources."""
    parts = read_splits(
        corpus, examples, _given, lambda names: read_sentences(names, rules),
        lambda sentences, _: list(sentences), unit="sentences",
    )  # fmt: skip
    if not parts["train"]:
        raise CorpusError("the training text has no sentences; expected some. Give other examples")
    return parts


def _given(examples: Iterable[tuple[Sequence[str], Sequence[str]]]) -> Iterator[Sentence]:
    for number, (words, tags) in enumerate(examples, 1):
        place = f"example {number:,}"
        for each in (*words, *tags):
            check_text(each, place)
        yield Sentence(tuple(words), tuple(tags), place)


def _held_out(parts: Parts, fraction: float | None) -> Parts:
    """Return the sentences of each split; without validation text, random ones are held out.

    Training keeps a sentence with each tag.
    """
    if "valid" not in parts:
        train = parts["train"]
        fraction = VALID_FRACTION if fraction is None else fraction
        held_out = held_out_rows(np.zeros(len(train), np.int32), 1, fraction)
        known = {tag for row in np.flatnonzero(~held_out) for tag in train[row].tags or ()}
        for row in np.flatnonzero(held_out):
            if own := set(train[row].tags or ()) - known:
                held_out[row] = False
                known |= own
        if held_out.any():
            both = list(zip(train, held_out, strict=True))
            parts = parts | {
                name: [sentence for sentence, is_held in both if is_held == own]
                for name, own in (("train", False), ("valid", True))
            }
    return {name: parts[name] for name in SPLITS if name in parts}


def _words(part: Iterable[Sentence]) -> Iterator[Sequence[str]]:
    """Pass the words of sentences on and advance the phase."""
    for each in part:
        yield each.words
        advance(1)


def _texts(parts: Parts) -> dict[str, Texts]:
    """Return the words of each sentence as one text, and its tags as one label."""
    return {
        name: Texts(
            texts=[" ".join(each.words) for each in part],
            labels=[" ".join(each.tags or ()) for each in part],
        )
        for name, part in parts.items()
    }


def _labels(counts: Counter[str]) -> Labels:
    """Return the tags that training has, in natural order.

    Raises CorpusError if there is one only, or more than `MAX_LABELS`.
    """
    if len(counts) < 2:
        raise CorpusError(
            f"all training words have the tag {next(iter(counts), '')!r:.80}; expected two or more "
            "tags. Choose another column of tags, or add sentences"
        )
    if len(counts) > MAX_LABELS:
        raise CorpusError(
            f"the training words have {len(counts):,} tags; expected at most {MAX_LABELS}. Choose "
            "another column of tags, or join rare ones into one"
        )
    return Labels(tuple(sorted(counts, key=natural_order)))


def _scheme_note(scheme: str, tags: Sequence[Sequence[str]]) -> str:
    """Return a sentence about the scheme of tags, and about those that break its rules."""
    stray = sum(map(stray_inner, tags)) if scheme == "IOB2" else 0
    broken = (
        f" {count_of(stray, 'span')} of training that begin with I- are read too." if stray else ""
    )
    return f"Tags are {scheme}: they are read as spans, and learned as IOB2.{broken}"


def _no_spans_note(tags: Sequence[Sequence[str]]) -> str:
    """Return a sentence about tags that are no spans although most of them look so, or ""."""
    counts = Counter(tag for own in tags for tag in own)
    others = [tag for tag in counts if not is_span_tag(tag)]
    if 2 * len(others) > len(counts):
        return ""
    few = listed(others) if others else ""
    reason = f"these have no prefix and type: {few}" if few else f"none is {OUTSIDE}"
    return f"Tags are not read as spans, since {reason}. Correct them if tags mark spans."


def _reads_letters(task: TaskSettings, vocabulary: Vocabulary, *, given: bool) -> bool:
    """Return True if the letters of words are read: by default those of a new word vocabulary."""
    if task.characters is not None:
        return task.characters
    return UNITS[vocabulary.unit].whole_words and not given


def _letters_of(sentences: Sentences) -> Vocabulary:
    """Return the vocabulary of all letters of training words."""
    settings = VocabularySettings(unit="char", min_count=1)
    return build_vocabulary(lambda: ["".join(sentences.words)], settings).vocabulary
