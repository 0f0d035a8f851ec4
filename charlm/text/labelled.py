"""Labelled text: a dataset of one document for each text, with the label of each."""

import hashlib
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from charlm.config.corpus import SPLIT_NAMES, CorpusSettings
from charlm.config.settings import Settings
from charlm.config.task import TaskSettings
from charlm.errors import CorpusError, named
from charlm.phases import counted, phase
from charlm.text.advice import MIN_SHARED, coverage_advice
from charlm.text.boundaries import Boundaries
from charlm.text.corpus import chunked, collector
from charlm.text.dataset import SPLITS, Dataset, training_vocabulary
from charlm.text.documents import END, check_text
from charlm.text.encoded import EncodedText, encode_text, id_counts
from charlm.text.examples import Example, near_targets, read_examples
from charlm.text.label_doubts import doubts_of_labels
from charlm.text.labels import UNSEEN, Labelled, Labels, Targets, read_targets
from charlm.text.sources.files import shown
from charlm.text.sources.names import find, safe_name, short_name
from charlm.text.sources.rows import MISSING, Columns, Warn
from charlm.text.sources.text_lines import FileRules
from charlm.text.splits import HOLD_OUT_SEED, VALID_FRACTION, Split
from charlm.text.task_text import NOTHING, Given, Gold, TaskText
from charlm.text.tokenizers.building import BuiltVocabulary
from charlm.text.tokenizers.vocabulary import Ids, Vocabulary
from charlm.units import count_of, first_few

R = TypeVar("R")
P = TypeVar("P")
MIN_COVERAGE = 0.75
"""Fraction of training tokens in a vocabulary of their own below which there is a warning; words
that occur once are a tenth of all in short texts."""
MAX_LISTED = 5
"""Labels that a message names."""
MAX_SKIPPED = 0.5
"""Fraction of rows without text or label above which a source is refused."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts of a split, and the label of each."""

    texts: Sequence[str]
    labels: Sequence[str]

    def at(self, rows: NDArray[np.int64]) -> "Texts":
        """Return these texts, in this order."""
        return Texts(
            texts=[self.texts[row] for row in rows], labels=[self.labels[row] for row in rows]
        )

    @cached_property
    def key(self) -> str:
        """Hash of the texts and labels."""
        digest = hashlib.sha256()
        for pair in zip(self.texts, self.labels, strict=True):
            digest.update("".join(part + END for part in pair).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def split(self) -> Split:
        """Return the texts as documents of a corpus."""
        chars = sum(map(len, self.texts))
        return Split(
            read=lambda: chunked(text + END for text in self.texts),
            key=self.key,
            bytes=chars,
            chars=chars,
            check=lambda: None,
        )


def finished_dataset(
    parts: Mapping[str, Texts],
    encoded: Mapping[str, EncodedText],
    built: BuiltVocabulary,
    settings: Settings,
    given: Given,
    *,
    warnings: Sequence[str],
    labelled: Gold,
    columns: Columns,
) -> Dataset:
    """Return the dataset of encoded texts, with advice on repeated texts and on coverage."""
    train, unit = encoded["train"], built.vocabulary.unit
    kept = given.vocabulary is not None
    if kept:
        built = replace(built, counts=id_counts(train.ids, len(built.vocabulary)))
    advice = [*warnings, *shared_advice(parts)]
    if kept or built.coverage < MIN_COVERAGE:
        advice += coverage_advice(built.coverage, unit, built=not kept)
    return Dataset(
        name=run_name(settings.corpus, given.examples),
        vocabulary=built.vocabulary,
        train=train,
        valid=encoded.get("valid"),
        test=encoded.get("test"),
        fingerprint=parts_fingerprint(parts),
        boundaries=Boundaries.of_text(train, built.vocabulary, "line", crlf=False),
        coverage=built.coverage,
        unk_types=built.unk_types,
        warnings=advice,
        labelled=labelled,
        columns=columns,
    )


class LabelledText:
    """Texts with labels; see `TaskText`."""

    noun, unseen_are = "label", "counted as wrong"
    """Noun of a label, and what happens to those that training lacks."""

    def load(self, settings: Settings, given: Given = NOTHING) -> Dataset:
        """Read texts with labels, hold some of each out, build the vocabulary and encode.

        Raises CorpusError for texts that cannot be read, or whose labels cannot be learned.
        """
        task, warnings = settings.task, list[str]()
        rules = FileRules(settings=settings.corpus, warn=collector(warnings))
        parts, labels = self.parts(settings.corpus, task, given.examples, rules)
        splits = {name: part.split() for name, part in parts.items()}
        built = training_vocabulary(
            splits["train"], settings.vocabulary, given.vocabulary, grow=given.grow
        )
        with phase("encoding the text", total=sum(split.chars for split in splits.values())):
            encoded = {
                name: encode_texts(
                    counted(part.texts), built.vocabulary, task.max_tokens, task.kept_part
                )
                for name, part in parts.items()
            }
        targets = {name: labels.ids(part.labels) for name, part in parts.items()}
        advice = label_advice(parts, labels, self.noun, self.unseen_are)
        return finished_dataset(
            parts, encoded, built, settings, given,
            warnings=[*warnings, *built.warnings, *advice],
            labelled=Labelled(labels=labels, targets=targets),
            columns=rules.columns,
        )  # fmt: skip

    def parts(
        self,
        corpus: CorpusSettings,
        task: TaskSettings,
        examples: Sequence[tuple[str, str]] | None,
        rules: FileRules,
    ) -> tuple[dict[str, Texts], Labels]:
        """Return the texts of each split, with a held-out part, and the labels of training."""
        rules = replace(rules, target=task.target)
        parts = read_splits(
            corpus, examples, given_examples, lambda names: read_examples(names, rules),
            partial(complete, warn=rules.warn),
        )  # fmt: skip
        try:
            labels = Labels.of(parts["train"].labels)
        except CorpusError as error:
            other = near_targets(corpus.sources, corpus, task.target) if examples is None else ""
            raise CorpusError(f"{error}{other}") from error
        return held_out_parts(parts, labels, corpus.valid_frac), labels

    def check_example(self, pair: Any) -> str:
        """Return what is wrong with a pair of a text and its label, or ""."""
        return expected_pair(pair, "label")

    def fingerprint(self, corpus: CorpusSettings, task: TaskSettings) -> str:
        """Read the texts and return the fingerprint of their dataset."""
        return parts_fingerprint(self.parts(corpus, task, None, FileRules(settings=corpus))[0])

    def read(
        self, path: Path, config: Mapping[str, Any], splits: Mapping[str, EncodedText]
    ) -> Labelled:
        """Return the labels of the kept texts of a run. Raises CorpusError if they are damaged."""
        labels = Labels(tuple(config["task"]["labels"]))
        return Labelled(
            labels=labels,
            targets={
                name: read_targets(path / "data" / name, split.documents, len(labels))
                for name, split in splits.items()
            },
        )


LABELLED: TaskText = LabelledText()


def expected_pair(pair: Any, noun: str) -> str:
    """Return what was expected of a pair of a text and its `noun`, or "" for a good one."""
    good = isinstance(pair, tuple | list) and [type(part) for part in pair] == [str, str]
    return "" if good else f"expected a text and its {noun}, two strings"


def parts_fingerprint(parts: Mapping[str, Texts]) -> str:
    """Return a hash of the texts of all splits, and of what lies beside them."""
    keys = "".join(f"{name}:{part.key}" for name, part in parts.items())
    return hashlib.sha256(keys.encode()).hexdigest()


def run_name(corpus: CorpusSettings, examples: Sequence[tuple[str, str]] | None) -> str:
    """Return a short name for a run of these texts."""
    if examples is not None:
        return safe_name("examples")
    first = corpus.sources[0]
    is_pattern = not Path(first).exists()  # only then its files give the name
    return short_name(first, find(corpus.sources, corpus, lambda _: None) if is_pattern else [])


def read_splits(
    corpus: CorpusSettings,
    examples: Sequence[Any] | None,
    given: Callable[[Sequence[Any]], Iterable[R]],
    read: Callable[[Sequence[str]], Iterable[R]],
    kept: Callable[[Iterable[R], str], P],
    unit: str = "texts",
) -> dict[str, P]:
    """Return what `kept` makes of the rows of each split that has sources, and of their name.

    `read` yields the rows of sources, and `given` those of `examples`, which replace the sources
    of the training text.
    """
    parts: dict[str, P] = {}
    for name, names in zip(SPLITS, (corpus.sources, corpus.valid, corpus.test), strict=True):
        if name == "train" and examples is not None:
            parts[name] = kept(given(examples), "The examples")
        elif names:
            with phase(f"reading the {name} text", unit=unit):
                parts[name] = kept(read(names), ", ".join(names))
    return parts


def given_examples(examples: Sequence[tuple[str, str]]) -> Iterable[Example]:
    """Yield pairs given in Python as examples. Raises CorpusError for a lone surrogate."""
    for number, (text, label) in enumerate(examples, 1):
        place = f"example {number:,}"
        check_text(text, place)
        check_text(label, f"{place}: its label")
        yield Example(text or None, label.strip() or None, place)


def complete(
    examples: Iterable[tuple[str | None, str | None, str]],
    label: str,
    warn: Warn,
    noun: str = "label",
) -> Texts:
    """Return the texts that have a label, or another `noun`, and warn of others.

    Examples are a text, its label and their place; `label` names all of them in messages.
    Raises CorpusError if these are more than half, or if there is none.
    """
    texts: list[str] = []
    labels: list[str] = []
    skipped, first = 0, ""
    for text, name, place in examples:
        if text is None or name is None or not text.strip():
            skipped += 1
            first = first or f"{place} has no {noun if name is None else 'text'}"
        else:
            texts.append(text)
            labels.append(name)
    if skipped > MAX_SKIPPED * (skipped + len(texts)):
        raise CorpusError(
            f"{label}: {skipped:,} of {skipped + len(texts):,} rows lack a text or a {noun} "
            f"({first}); expected both in most rows. Complete them, or choose the columns with "
            f"{named('column')} and {named('target')}"
        )
    if not texts:
        raise CorpusError(f"{label} has no texts with {noun}s; expected some. Give other files")
    if skipped:
        warn(f"{label}: {count_of(skipped, 'row')} without a text or a {noun} skipped ({first}).")
    missing = [name for name in labels if name in MISSING]
    if missing and noun != "label":  # see `doubts_of_labels`
        warn(
            f"{label}: {count_of(len(missing), noun)} such as {missing[0]}, read as it is written. "
            f"Leave the cells empty if there is none."
        )
    return Texts(texts=texts, labels=labels)


def label_advice(
    parts: Mapping[str, Texts],
    labels: Labels,
    noun: str,
    unseen_are: str,
) -> list[str]:
    """Advise about labels with one training text, doubtful ones, and those that training lacks.

    A text without a label has the label "".
    """
    counts = Counter(parts["train"].labels)
    single = [name for name in labels.names if counts[name] == 1]
    advice = []
    if single:
        words = f"{noun} has" if len(single) == 1 else f"{noun}s have"
        advice.append(
            f"{len(single):,} {words} only one training text, too few to learn: {listed(single)}"
        )
    owned = {name: part.labels for name, part in parts.items()}
    others = [label for name, own in owned.items() if name != "train" for label in own]
    advice += doubts_of_labels(parts["train"].labels, others, noun)
    return advice + unseen_advice(owned, {*counts, ""}, noun, "text", unseen_are)


def unseen_advice(
    labels: Mapping[str, Iterable[str]],
    known: Container[str],
    noun: str,
    unit: str,
    unseen_are: str = "counted as wrong",
) -> list[str]:
    """Advise about labels of a split that are not `known`; each is that of one `unit`."""
    advice = []
    for name, own in labels.items():
        unseen = Counter(label for label in own if label not in known)
        if unseen:
            names = [label for label, _ in unseen.most_common()]
            advice.append(
                f"{noun.capitalize()}s of the {SPLIT_NAMES[name]} text that training lacks: "
                f"{listed(names)} ({count_of(unseen.total(), unit)}, {unseen_are})"
            )
    return advice


def listed(names: Sequence[str], most: int = MAX_LISTED) -> str:
    """Return the first names for a message, at most this number, and the number of others."""
    return first_few(map(shown, names), most)


def shared_advice(parts: Mapping[str, Texts]) -> list[str]:
    """Advise if many texts of a split are in the training text too."""
    known = set(parts["train"].texts)
    advice = []
    for name, part in parts.items():
        count = sum(text in known for text in part.texts) if name != "train" else 0
        if count >= max(2, MIN_SHARED * len(part.texts)):
            advice.append(
                f"{count:,} of {len(part.texts):,} {SPLIT_NAMES[name]} texts are in the training "
                f"text too, so the {SPLIT_NAMES[name]} figures look better than they are. Remove "
                "the repeats"
            )
    return advice


def held_out_parts(
    parts: Mapping[str, Texts], labels: Labels, fraction: float | None
) -> dict[str, Texts]:
    """Return the texts of each split; without validation text, random ones of each label are it.

    Each label keeps at least one text for training. Texts without a label are one more group.
    """
    parts = dict(parts)
    if "valid" not in parts:
        train, fraction = parts["train"], VALID_FRACTION if fraction is None else fraction
        ids = labels.ids(train.labels)
        groups: Targets = np.where(ids == UNSEEN, len(labels), ids)
        held_out = held_out_rows(groups, len(labels) + 1, fraction)
        if held_out.any():
            parts["train"] = train.at(np.flatnonzero(~held_out))
            parts["valid"] = train.at(np.flatnonzero(held_out))
    return {name: parts[name] for name in SPLITS if name in parts}


def held_out_rows(targets: Targets, labels: int, fraction: float) -> NDArray[np.bool_]:
    """Return which texts are held out for validation: about `fraction` of each label, at random.

    At least one text of each label is left, and at least one text is held out if `fraction` is
    positive and a label has two.
    """
    counts = np.bincount(targets, minlength=labels)
    numbers = np.minimum(np.rint(fraction * counts).astype(np.int64), np.maximum(counts - 1, 0))
    most = int(counts.argmax())
    if fraction > 0 and not numbers.any() and counts[most] > 1:
        numbers[most] = 1
    order = np.random.default_rng(HOLD_OUT_SEED).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]  # by label, random within
    begins = np.cumsum(counts) - counts
    place = np.arange(len(targets)) - begins[targets[order]]
    held_out = np.zeros(len(targets), np.bool_)
    held_out[order[place < numbers[targets[order]]]] = True
    return held_out


# ------------------------------------------------------------------ encoding


def encode_texts(
    texts: Iterable[str], vocabulary: Vocabulary, max_tokens: int, part: str
) -> EncodedText:
    """Encode texts as one document each, with its EOS; long ones are cut as in `shortened`.

    The counts are those of the whole texts. Raises CorpusError for a lone surrogate.
    """

    def documents() -> Iterator[str]:
        for text in texts:
            check_text(text)
            yield text + END

    encoded = encode_text(lambda: chunked(documents()), vocabulary, "line")
    lengths = np.diff(encoded.ends, prepend=0)
    long = np.flatnonzero(lengths > max_tokens + 1)
    if not len(long):
        return encoded
    pieces: list[Ids] = []
    done = 0
    for begin, end in zip((encoded.ends - lengths)[long], encoded.ends[long], strict=True):
        pieces += [
            encoded.ids[done:begin],
            shortened(encoded.ids[begin : end - 1], max_tokens, part),
        ]
        done = end - 1
    pieces.append(encoded.ids[done:])
    return replace(
        encoded,
        ids=np.concatenate(pieces),
        ends=np.cumsum(np.minimum(lengths, max_tokens + 1), dtype=np.int64),
    )


def shortened(ids: Ids, max_tokens: int, part: str) -> Ids:
    """Return at most `max_tokens` ids of a text: its start, its end, or both ends.

    Of "ends", the start has one id more if the number is odd.
    """
    if len(ids) <= max_tokens:
        return ids
    first = {"start": max_tokens, "end": 0, "ends": max_tokens - max_tokens // 2}[part]
    return np.concatenate([ids[:first], ids[len(ids) - (max_tokens - first) :]])
