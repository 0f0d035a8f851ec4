"""Word error rates against hand cases and an independent implementation of the recursion."""

import numpy as np
import pytest

from charlm.errors import CorpusError
from charlm.inference.word_errors import edit_counts, edit_distances, error_change, error_rate

HAND = [
    ("a b c", "a b c", (0, 0, 0)),
    ("a b c", "a c", (0, 1, 0)),
    ("a c", "a b c", (1, 0, 0)),
    ("a b c", "a x c", (0, 0, 1)),
    ("a b", "", (0, 2, 0)),
    ("", "a b", (2, 0, 0)),
    ("", "", (0, 0, 0)),
    ("a b", "b a", (1, 1, 0)),  # two substitutions cost as much; Kaldi prefers an insertion
    ("the cat sat", "cat sat down", (1, 1, 0)),
    ("a b c d", "x y", (0, 2, 2)),
]


@pytest.mark.parametrize(("reference", "hypothesis", "counts"), HAND)
def test_errors_of_hand_cases(
    reference: str, hypothesis: str, counts: tuple[int, int, int]
) -> None:
    assert edit_counts(reference.split(), hypothesis.split()) == counts
    distances = edit_distances(reference.split(), [hypothesis.split(), ["z"] * 9])
    assert distances[0] == sum(counts)


def kaldi_counts(reference: list[str], hypothesis: list[str]) -> tuple[int, int, int]:
    """Return insertions, deletions, substitutions by the recursion of compute-wer."""
    row = [(0, at, 0) for at in range(len(reference) + 1)]
    for word in hypothesis:
        before, row = row, [(row[0][0] + 1, 0, 0)]
        for at, other in enumerate(reference, start=1):
            replaced = sum(before[at - 1]) + (word != other)
            deleted, inserted = sum(row[at - 1]) + 1, sum(before[at]) + 1
            if replaced < inserted and replaced < deleted:
                i, d, s = before[at - 1]
                row.append((i, d, s + (word != other)))
            elif deleted < inserted:
                i, d, s = row[at - 1]
                row.append((i, d + 1, s))
            else:
                i, d, s = before[at]
                row.append((i + 1, d, s))
    return row[-1]


def random_texts(count: int, longest: int, seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [list(random.choice(list("abc"), random.integers(0, longest))) for _ in range(count)]


def test_counts_are_those_of_the_recursion_of_kaldi() -> None:
    for reference in random_texts(30, 9, seed=1):
        hypotheses = random_texts(20, 9, seed=2)
        expected = [kaldi_counts(reference, hypothesis) for hypothesis in hypotheses]
        assert [edit_counts(reference, hypothesis) for hypothesis in hypotheses] == expected
        assert edit_distances(reference, hypotheses).tolist() == [sum(each) for each in expected]


def test_rates_agree_with_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    references = [" ".join(["z", *text]) for text in random_texts(30, 9, seed=3)]
    hypotheses = [" ".join(text) for text in random_texts(30, 9, seed=4)]
    assert error_rate(references, hypotheses).rate == pytest.approx(
        jiwer.wer(references, hypotheses)
    )


def test_a_rate_is_printed_as_by_kaldi() -> None:
    references = ["a b c d e f g h"] * 45 + ["a b c d e f"]
    hypotheses = ["a b c d e f g h"] * 40 + ["a b c d e f g x"] * 5 + ["a b c d e f y"]
    rate = error_rate(references, hypotheses)
    assert str(rate) == "%WER 1.64 [ 6 / 366, 1 ins, 0 del, 5 sub ]"
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < rate.rate < rate.high


def test_few_utterances_have_no_interval() -> None:
    rate = error_rate(["a b"] * 19, ["a c"] * 19)
    assert (rate.rate, rate.low, rate.high) == (0.5, None, None)


def test_characters_count_one_blank_between_words() -> None:
    rate = error_rate(["the  cat"], ["the cats"], chars=True)
    assert str(rate) == "%CER 14.29 [ 1 / 7, 1 ins, 0 del, 0 sub ]"


def test_references_without_words_have_no_rate() -> None:
    with pytest.raises(CorpusError, match="no words"):
        error_rate(["", " "], ["a", "b"])


def test_a_change_is_of_the_same_utterances() -> None:
    """Its interval is narrower than those of the rates: both have the same hard utterances."""
    random = np.random.default_rng(3)
    references = ["a b c d e f g h"] * 60
    hard = random.random(60) < 0.3
    before = ["x y z" if each else "a b c d e f g x" for each in hard]
    after = ["x y z" if each else "a b c d e f g h" for each in hard]
    change = error_change(references, before, after, seed=1)
    first, second = (error_rate(references, texts) for texts in (before, after))
    assert change.rate == pytest.approx(second.rate - first.rate) == -(~hard).sum() / (8 * 60)
    assert change.low < change.rate < change.high < 0.0
    assert first.low < second.high  # the intervals of the rates overlap
    means = [  # an independent bootstrap of the mean change
        -(~hard)[random.integers(0, 60, 60)].mean() / 8 for _ in range(4000)
    ]
    assert [change.low, change.high] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.002)


def test_a_change_of_few_utterances_has_no_interval() -> None:
    change = error_change(["a b", "c"], ["a", "d"], ["a b", "d d"])
    assert change.summary() == {"rate": 0.0, "low": None, "high": None}
    assert error_change(["ab"], ["x"], ["ax"], chars=True).rate == -0.5
    with pytest.raises(CorpusError, match="no words"):
        error_change([""], ["a"], ["b"])
