"""Figures of tagged words: they add, and are those of seqeval and scikit-learn."""

import json

import numpy as np
import pytest

from charlm.backends.softmax import log_softmax
from charlm.config.corpus import VocabularySettings
from charlm.inference.bootstrap import fraction_interval
from charlm.inference.crf import Answers, tag_nats
from charlm.inference.figures import TaskDifference, figures_from
from charlm.inference.tag_counts import (
    SPAN_FIGURES,
    Known,
    TagCounts,
    paired_difference,
    span_types,
)
from charlm.text.labels import UNSEEN
from charlm.text.sentences import Sentences, encode_sentences
from charlm.text.tokenizers.building import build_vocabulary

NAMES = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")
WORDS = build_vocabulary(
    lambda: ["a b c d e f"], VocabularySettings(unit="word", words="whitespace")
).vocabulary


def case(seed: int, sentences: int = 40) -> tuple[Sentences, np.ndarray, Answers]:
    """Return sentences with random gold tags, and answers that are right about half of the time."""
    random = np.random.default_rng(seed)
    words = [
        random.choice(list("abcdef"), size).tolist() for size in random.integers(0, 9, sentences)
    ]
    made = encode_sentences(words, WORDS)
    targets = random.choice(5, len(made.spelling), p=(0.15, 0.1, 0.2, 0.15, 0.4)).astype(np.int32)
    emissions = random.normal(size=(len(targets), 5))
    emissions[np.arange(len(targets)), targets] += 1.5
    logs = log_softmax(emissions)
    nats = tag_nats(emissions, targets, made.ends, None)
    return made, targets, Answers(logs.argmax(axis=1).astype(np.int32), logs, nats)


def counted(seed: int = 1, names=NAMES, **options) -> TagCounts:
    made, targets, answers = case(seed)
    return TagCounts.of_sentences(answers, targets, made, names, **options)


def as_tags(ids: np.ndarray, ends: np.ndarray) -> list[list[str]]:
    return [[NAMES[i] for i in part] for part in np.split(ids, ends[:-1])]


@pytest.mark.parametrize("seed", range(4))
def test_spans_are_counted_as_seqeval_does(seed: int):
    metrics = pytest.importorskip("seqeval.metrics")
    made, targets, answers = case(seed)
    counts = TagCounts.of_sentences(answers, targets, made, NAMES)
    gold, found = as_tags(targets, made.ends), as_tags(answers.tags, made.ends)
    assert counts.f1 == pytest.approx(metrics.f1_score(gold, found), abs=1e-12)
    assert counts.precision == pytest.approx(metrics.precision_score(gold, found), abs=1e-12)
    assert counts.recall == pytest.approx(metrics.recall_score(gold, found), abs=1e-12)
    report = metrics.classification_report(gold, found, output_dict=True)
    for name, figures in zip(span_types(NAMES), counts.per_type()[:-1], strict=True):
        assert figures.f1 == pytest.approx(report[name]["f1-score"], abs=1e-12)
        assert figures.texts == report[name]["support"]


def test_words_are_counted_as_scikit_learn_does():
    metrics = pytest.importorskip("sklearn.metrics")
    made, targets, answers = case(1)
    counts = TagCounts.of_sentences(answers, targets, made, NAMES)
    assert counts.tags == len(targets) == counts.tokens
    parts = np.split(targets == answers.tags, made.ends[:-1])
    assert counts.rows[:, :2].tolist() == [[len(part), part.sum()] for part in parts]
    assert counts.accuracy == pytest.approx(metrics.accuracy_score(targets, answers.tags))
    assert counts.macro_f1 == pytest.approx(
        metrics.f1_score(targets, answers.tags, average="macro")
    )
    assert counts.nats_per_tag == pytest.approx(
        metrics.log_loss(targets, np.exp(answers.log_probabilities))
    )


def joined(cases) -> tuple[Sentences, np.ndarray, Answers]:
    words = [made.words_of(row) for made, _, _ in cases for row in range(made.documents)]
    return (
        encode_sentences(words, WORDS),
        np.concatenate([targets for _, targets, _ in cases]),
        Answers(*(np.concatenate(parts) for parts in zip(*(c[2] for c in cases), strict=True))),
    )


def test_counts_of_two_texts_add_up_to_those_of_both():
    cases = [case(1), case(2)]
    known = Known(frozenset("abc"), frozenset(("a", "b c")))
    one, other, both = (
        TagCounts.of_sentences(answers, targets, made, NAMES, known=known, raw_nats=3.0)
        for made, targets, answers in (*cases, joined(cases))
    )
    total = one + other
    assert total.raw_nats == 6.0 and total.rows.tolist() == both.rows.tolist()
    for name in (
        "confusion",
        "spans",
        "seen_words",
        "new_words",
        "seen_spans",
        "new_spans",
        "sure",
    ):
        assert getattr(total, name) == getattr(both, name), name
    assert total.nats == pytest.approx(both.nats)
    assert total.f1 == both.f1 and total.intervals() == both.intervals()


def test_seen_and_new_words_and_spans_cover_all():
    made, targets, answers = case(3)
    known = Known.of(made, targets, NAMES)
    counts = TagCounts.of_sentences(answers, targets, made, NAMES, known=known)
    gold, _, right = np.sum(counts.spans, axis=0).tolist()
    assert counts.seen_words == (counts.tags, round(counts.accuracy * counts.tags))
    assert counts.seen_spans == (gold, right) and counts.new_spans == counts.new_words == (0, 0)
    nothing = Known(frozenset(), frozenset())
    counts = TagCounts.of_sentences(answers, targets, made, NAMES, known=nothing)
    assert counts.new_spans == (gold, right) and counts.seen_words == (0, 0)


def test_spans_are_known_by_their_words():
    made = encode_sentences([["a", "b", "c"], ["d"], []], WORDS)
    targets = np.array([NAMES.index(tag) for tag in ("B-PER", "I-PER", "O", "B-LOC")], np.int32)
    assert Known.of(made, targets, NAMES) == (frozenset("abcd"), frozenset(("a b", "d")))


def test_words_with_an_unseen_tag_are_wrong_and_their_spans_are_never_found():
    made, targets, answers = case(1)
    hidden = np.where(np.isin(targets, (0, 2)), UNSEEN, targets).astype(np.int32)
    counts = TagCounts.of_sentences(answers, hidden, made, NAMES)
    assert counts.unseen == int((hidden == UNSEEN).sum()) > 0
    assert counts.tokens == len(targets) and counts.known == len(targets) - counts.unseen
    assert counts.accuracy == (answers.tags == hidden).mean()
    *_, other = counts.spans
    assert other[0] > 0 and other[1:] == (0, 0)


def test_tags_that_are_no_spans_have_accuracy_alone():
    counts = counted(names=("ADJ", "ADV", "NOUN", "O", "VERB"))
    assert counts.spans == () and counts.headline == "accuracy" and np.isnan(counts.f1)
    assert not set(SPAN_FIGURES) & set(counts.summary()) and set(counts.intervals()) == {"accuracy"}


def test_sums_and_summaries_rebuild_the_counts():
    counts = counted(known=Known(frozenset("ab"), frozenset()))
    sums = json.loads(json.dumps(counts.sums()))
    assert sums["kind"] == "tag" and figures_from(sums) == counts
    summary = json.loads(json.dumps(counts.summary()))
    assert {"tags", "nats_per_tag", "raw_nats_per_tag", "f1"} < set(summary)
    assert not any("text" in key for key in summary)
    again = TagCounts.from_summary(summary)
    assert again.per_type() == counts.per_type() and again.confusion == counts.confusion
    assert again.seen_words == counts.seen_words


def test_intervals_hold_their_figures_and_shrink_with_more_sentences():
    counts = counted()
    intervals = counts.intervals()
    for name in ("accuracy", *SPAN_FIGURES):
        low, high = intervals[name]
        assert low < getattr(counts, name) < high
    low, high = (counts + counts + counts + counts).intervals()["f1"]
    assert 0.4 < (high - low) / (intervals["f1"][1] - intervals["f1"][0]) < 0.6
    assert figures_from(counts.sums()).intervals() == {}


@pytest.mark.parametrize(("shift", "figure"), [(0, 1.0), (1, 0.0)])
def test_sentences_that_are_all_right_are_not_certain(shift: int, figure: float) -> None:
    """The story: an F1 of 1.000 had the interval 1.000 to 1.000.

    The cases of Wilson's interval are the sentences, here 12, of which 8 have a span.
    """
    made = encode_sentences([["a", "b"]] * 12, WORDS)
    targets = np.array([1, 4] * 8 + [4, 4] * 4, np.int32)
    tags = np.where(targets == 1, 1 - shift, targets).astype(np.int32)
    answers = Answers(tags, np.zeros((24, 5)), np.zeros(12))
    intervals = TagCounts.of_sentences(answers, targets, made, NAMES).intervals()
    assert intervals["f1"] == intervals["precision"] == fraction_interval(8 * (1 - shift), 8)
    assert intervals["f1"][1 - shift] == figure
    if not shift:
        assert intervals["accuracy"] == fraction_interval(12, 12)


def test_a_run_does_not_differ_from_itself_and_a_worse_one_does():
    made, targets, answers = case(1, 200)
    worse = answers._replace(tags=np.roll(answers.tags, 1))
    one, other = (
        TagCounts.of_sentences(each, targets, made, NAMES).rows for each in (answers, worse)
    )
    assert paired_difference(one, one, "f1") == TaskDifference("f1", 0.0, 0.0, 0.0, 1.0)
    change = paired_difference(one, other, "f1")
    assert change.low < change.value < change.high < 0 < change.p < 0.01
