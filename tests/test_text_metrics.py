"""BLEU, chrF and the counts of translations: sacrebleu, laws, and cases worked by hand."""

import json
import os
import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from charlm.inference import text_metrics
from charlm.inference.bootstrap import fraction_interval
from charlm.inference.figures import figures_from
from charlm.inference.text_metrics import (
    bleu,
    bleu_stats,
    chrf2,
    chrf_stats,
    text_rows,
    tokenize_13a,
)
from charlm.inference.translation_counts import (
    DRAWN,
    TranslationCounts,
    copy_floor,
    drawn_figures,
    is_repetition,
)

LETTERS = "ab .,-1&\"'é<>(\n\u00a0"


def random_texts(seed: int, texts: int, longest: int = 14) -> list[str]:
    """Texts of letters, digits, punctuation and blanks; some are empty."""
    chosen = random.Random(seed)
    return ["".join(chosen.choices(LETTERS, k=chosen.randint(0, longest))) for _ in range(texts)]


def check_equal(outputs: list[str], references: list[str]) -> None:
    """BLEU and chrF of a corpus are those of sacrebleu."""
    metrics = pytest.importorskip("sacrebleu.metrics")
    sums = text_rows(outputs, references).sum(axis=0)
    expected = [kind().corpus_score(outputs, [references]).score for kind in
                (metrics.BLEU, metrics.CHRF)]  # fmt: skip
    assert [bleu(sums[1:11]), chrf2(sums[11:])] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("texts", [1, 2, 5])
def test_figures_equal_sacrebleu(texts: int) -> None:
    """Random corpora, with empty texts, single words and much punctuation."""
    for seed in range(80):
        check_equal(random_texts(seed, texts), random_texts(seed + 1000, texts))


def test_figures_equal_sacrebleu_on_real_text() -> None:
    """Multi30k: English as if it were German, the wrong sentence, half of it, and the right one."""
    folder = Path(os.environ.get("CHARLM_DATA", "")) / "tasks" / "multi30k" / "test.tsv.gz"
    if not folder.is_file():
        pytest.skip("needs CHARLM_DATA, a folder with tasks/multi30k")
    import gzip

    with gzip.open(folder, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    english, german = map(list, zip(*rows[1:], strict=True))
    halves = [" ".join(text.split()[: len(text) // 10]) for text in german]
    for outputs in (english, german[1:] + german[:1], halves, german):
        check_equal(outputs, german)


def test_tokens_of_mteval() -> None:
    """Punctuation is cut off, but not inside of numbers."""
    assert tokenize_13a('He said: "1,000.5 is-it?" a.b 5-6&quot; ') == [
        "He", "said", ":", '"', "1,000.5", "is-it", "?", '"', "a", ".", "b", "5", "-", "6", '"',
    ]  # fmt: skip
    assert tokenize_13a(" \n ") == []


def test_sums_by_hand() -> None:
    """Three words, two of which match, and the n-grams of three letters."""
    assert bleu_stats("a b c", "a b d e") == [3, 4, 2, 1, 0, 0, 3, 2, 1, 0]
    assert chrf_stats("a b c", "ab d")[:9] == [3, 3, 2, 2, 2, 1, 1, 1, 0]
    assert bleu(bleu_stats("a b c", "a b c")) == 0.0  # no n-gram of order 4, as in sacrebleu
    assert bleu(bleu_stats("a b c d", "a b c d")) == pytest.approx(100.0)
    assert chrf2(chrf_stats("", "")) == 0.0 and chrf2(chrf_stats("a", "a")) == pytest.approx(100.0)


def test_signature_is_that_of_sacrebleu() -> None:
    """Only the version differs."""
    metrics = pytest.importorskip("sacrebleu.metrics")
    metric = metrics.BLEU()
    metric.corpus_score(["a"], [["a"]])
    theirs = str(metric.get_signature()).rpartition("|version:")[0]
    assert theirs + "|charlm" == text_metrics.SIGNATURE


@pytest.mark.parametrize("cut", [0, 1, 7])
def test_counts_of_parts_add_up(cut: int) -> None:
    """counts(A) + counts(B) = counts(A and B), with equal intervals; sums survive JSON."""
    outputs, references = random_texts(1, 20), random_texts(2, 20)
    outputs[5:9] = references[5:9]
    known = [{"nats": 2.0, "tokens": 3}, {"nats": 4.0, "tokens": 5, "copied": 1}]
    parts = [
        TranslationCounts.of(outputs[part], references[part], outputs[part], **more)
        for part, more in zip((slice(cut), slice(cut, None)), known, strict=True)
    ]
    total = parts[0] + parts[1]
    whole = TranslationCounts.of(outputs, references, outputs, nats=6.0, tokens=8, copied=1)
    for each in fields(whole):
        if each.name not in ("rows", "shared"):
            assert getattr(total, each.name) == getattr(whole, each.name)
    assert total.intervals() == whole.intervals()
    again = figures_from(json.loads(json.dumps(whole.sums())))
    assert again == whole and again.intervals() == {}
    assert {**again.summary(), "intervals": 0} == {**whole.summary(), "intervals": 0}
    assert whole.exact == sum(a == b for a, b in zip(outputs, references, strict=True)) / 20


def test_counts_while_training() -> None:
    """Without outputs there are only nats; all other figures are None."""
    counts = TranslationCounts(nats=3.0, tokens=2) + TranslationCounts(nats=1.0, tokens=2)
    summary = counts.summary()
    assert counts.nats_per_token == summary["nats_per_token"] == 1.0
    assert {summary[name] for name in ("exact", "chrf", "bleu", "length_ratio")} == {None}
    assert summary["texts"] == 0 and summary["intervals"] == {}


def test_texts_that_are_all_right_are_not_certain() -> None:
    """The story: 12 dates of 12 were exact with the interval 1.000 to 1.000."""
    references = random_texts(1, 12, 10)
    intervals = TranslationCounts.of(references, references).intervals()
    low, high = fraction_interval(12, 12)
    assert intervals["exact"] == (low, high) == (pytest.approx(0.757, abs=1e-3), 1.0)
    assert intervals["chrf"] == intervals["bleu"] == (100 * low, 100.0)
    wrong = TranslationCounts.of(["x"] * 12, references).intervals()
    assert wrong["exact"] == fraction_interval(0, 12)


def test_intervals_hold_the_figure_and_are_paired() -> None:
    """A run differs from itself by nothing, in every sample of texts."""
    outputs, references = random_texts(3, 60, 40), random_texts(4, 60, 40)
    outputs[:20] = references[:20]
    counts = TranslationCounts.of(outputs, references)
    for name in DRAWN:
        low, high = counts.intervals()[name]
        assert low < getattr(counts, name) < high
    rows = text_rows(outputs, references)
    samples = drawn_figures(rows, 3)
    assert np.array_equal(samples, drawn_figures(rows, 3))
    assert not np.array_equal(samples, drawn_figures(rows, 4))
    one = drawn_figures(rows[:1])
    assert (one == one[:, :1]).all()


def test_repeated_and_shared_outputs() -> None:
    """Loops of four tokens, and one output for several texts."""
    assert is_repetition("abcdabcdabcd") and is_repetition("xx" + "la" * 6)
    assert not is_repetition("abcdabcdabc") and not is_repetition("abcdabcd" + "x" + "abcd")
    assert not is_repetition("") and is_repetition([5] * 12) and not is_repetition([5] * 11)
    counts = TranslationCounts.of(
        ["17", "17", "9", "9", "", ""], ["17", "17", "9", "8", "5", "6"], ["a" * 12, *["b"] * 5]
    )
    assert (counts.shared, counts.repeated, counts.right) == (2, 1, 3)


def test_floor_is_a_copy_of_the_source() -> None:
    """One of two sources is its own translation; blanks at the ends do not count."""
    floor = copy_floor([(" one two three four", "one two three four "), ("a", "b")])
    chrf, bleu_ = 100 * (5 + 15 / 16) / 6, 100 * 0.8**0.25  # 15 of 16 letters, 4 of 5 words
    letters = (15 + 1) / 2
    assert floor == pytest.approx(
        {"exact": 0.5, "chrf": chrf, "bleu": bleu_, "reference_letters": letters}
    )
