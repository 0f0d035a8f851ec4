"""Judgement of a fit: the right sentence for each kind of run, whatever the task."""

from dataclasses import replace

import pytest

from charlm.training.fit import Course, Fit, Floor, Limits, judged
from charlm.training.labels import LIMITS as LABEL_LIMITS
from charlm.training.tags import LIMITS as TAG_LIMITS

COURSE = Course(passes=5.0, best_at=1.0, validations=[9.0, 7.0, 6.0, 5.9], dropout=0.4)
FIT = Fit(
    key="accuracy", figure="accuracy {}", train=0.95, new=0.9, perfect=1.0, noun="texts",
    examples=1234, limits=Limits(small_gap=0.25, large_gap=0.75, almost_nothing=0.005, far=0.2),
    course=COURSE,
)  # fmt: skip
EARLY = replace(COURSE, best_at=0.2)
WORSE = replace(EARLY, validations=[9.0, 7.0, 7.2])


@pytest.mark.parametrize(
    ("train", "new", "course", "verdict", "advice"),
    [
        (0.95, 0.9, COURSE, "well fitted (accuracy 0.950 on training texts, 0.900 on new texts)",
         "more time (minutes), or more texts"),
        (0.91, 0.9, COURSE, "under-fitted: the network is hardly better on training texts than",
         "less dropout, then more time (minutes), and a larger model"),
        (0.99, 0.9, COURSE, "over-fitted: the network does much better on training texts than on",
         "more texts than 1,234, then more dropout (dropout 0.5)"),
        (0.99, 0.9, replace(COURSE, passes=1.4), "the training texts, read only 1.4 times (",
         "more time (minutes), and new texts of the same kind to compare on"),
        (0.67, 0.27, COURSE, "over-fitted: the network does much better on training texts than on",
         "more texts"),
        (0.99, 0.9, EARLY, "over-fitted: validation was best after 20 % of the run and was no",
         "more texts than 1,234, then more dropout (dropout 0.5); 1.0 of 5.0 passes were enough"),
        (0.95, 0.9, WORSE, "over-fitted: validation was best after 20 % of the run and got worse",
         "1.0 of 5.0 passes were enough"),
        (0.95, 0.9, replace(WORSE, validations=[7.0, 9.0]), "over-fitted: validation was best",
         "1.0 of 5.0 passes or fewer were enough"),
        (0.95, 0.9, EARLY, "well fitted", "most: more texts"),
        (0.872, 0.842, replace(EARLY, validations=[0.4, 0.354, 0.356]), "under-fitted: ", "larger"),
        (0.91, 0.9, EARLY, "under-fitted: ", "less dropout, then a larger model"),
        (0.95, 0.9, replace(WORSE, passes=0.5), "under-fitted: the run has read 50 % of its", "mo"),
        (1.0, 0.999, WORSE, "learned: almost no errors are left", "check that training and new te"),
        (0.9, 0.95, COURSE, "under-fitted: the network is no better on training texts than on",
         "larger model"),
    ],
)  # fmt: skip
def test_each_kind_of_run_has_its_verdict(train, new, course, verdict, advice) -> None:
    *before, first, second = judged(replace(FIT, train=train, new=new, course=course))
    assert not before
    assert verdict in first
    assert advice in second


@pytest.mark.parametrize("limits", [LABEL_LIMITS, TAG_LIMITS])
def test_a_gap_of_many_points_is_over_fitting(limits: Limits) -> None:
    """The story: 0.865 of the training tweets and 0.687 of new ones were "well fitted"."""

    def verdict(train: float, new: float) -> str:
        return judged(replace(FIT, train=train, new=new, limits=limits))[0]

    assert verdict(0.865, 0.687).startswith("over-fitted: the network does much better")
    assert verdict(0.93, 0.86).startswith("well fitted")


def test_a_run_without_a_parent_is_advised_to_start_from_one() -> None:
    """More dropout than 0.45 is not advised."""
    course = replace(EARLY, can_start=True, dropout=0.5)
    *_, advice = judged(replace(FIT, train=0.99, course=course))
    assert "then a language model to start from (start_from), then a smaller model; " in advice


@pytest.mark.parametrize(
    ("low", "high", "trivial", "sentence"),
    [
        (0.01, 0.03, False, ""),
        (-0.01, 0.03, False, "not shown to be better than a rule (0.9)"),
        (-0.03, -0.01, False, "worse than a rule (0.9)"),
        (-0.01, 0.03, True, "not learned: not shown to be better than a rule (0.9)"),
        (0.01, 0.03, True, ""),
    ],
)
def test_a_rule_is_named_unless_the_run_is_better(low, high, trivial, sentence) -> None:
    """One that is clearly better, or trivial, makes a run that has not memorised under-fitted."""
    floor = Floor(name="a rule", figures="0.9", low=low, high=high, trivial=trivial)
    *floors, verdict, advice = judged(replace(FIT, floors=[floor]))
    check = "check that what is to be learned follows from the texts; then "
    assert (check in advice) == (trivial and low < 0)
    assert floors == [sentence] * bool(sentence)
    assert verdict.startswith("under-fitted (" if sentence and (high < 0 or trivial) else "well")
    *_, memorised, _ = judged(replace(FIT, train=1.0, floors=[floor]))
    assert memorised.startswith("over-fitted")
    lines = judged(replace(FIT, new=1.0, floors=[floor]))  # not learned, and learned, at once
    is_unlearned = bool(sentence) and trivial
    assert lines[0].startswith("not learned: ") == is_unlearned
    assert any(line.startswith("learned: ") for line in lines) != is_unlearned
    assert ("more new texts to compare on" in lines[-1]) == is_unlearned


def test_errors_that_may_be_chance_need_not_be_under_fitting() -> None:
    """The story: a series model with the error of the noise was told to be larger."""
    noisy = replace(FIT, new=0.945, limits=FIT.limits._replace(noisy=True))
    first, _ = judged(noisy)
    assert first.startswith("under-fitted, or as good as the texts allow: the network is hardly")


def test_a_better_part_of_the_run_shows_that_texts_allow_more() -> None:
    """The story: a network of two units was "as good as the texts allow" beside a bag of words
    that was mixed in and had twice its accuracy."""
    bag = Floor(name="the bag", figures="0.99", low=0.0, high=0.0, over_network=True)
    noisy = replace(FIT, new=0.945, limits=FIT.limits._replace(noisy=True), floors=[bag])
    _, verdict, _ = judged(noisy)
    assert verdict.startswith("under-fitted: the network is hardly")
    _, verdict, _ = judged(replace(noisy, floors=[replace(bag, over_network=False)]))
    assert verdict.startswith("under-fitted, or as good as the texts allow")


@pytest.mark.parametrize(
    ("validations", "best_at", "improves"),
    [
        ([9.0, 7.0, 6.0, 5.9], 1.0, True), ([9.0, 7.0, 6.0, 5.99], 1.0, False),
        ([9.0, 7.0, 6.0, 5.0], 0.5, False), ([9.0], 1.0, True), ([6.0, 5.0], 1.0, True),
        ([-1.0, -3.0, -4.0, -4.5], 1.0, True), ([-1.0, -3.0, -4.0, -4.001], 1.0, False),
    ],
)  # fmt: skip
def test_more_time_is_advised_only_while_validation_improves(
    validations: list[float], best_at: float, improves: bool
) -> None:
    """The story: the best weights of a flat curve were the last ones, so more time was advised."""
    course = replace(COURSE, validations=validations, best_at=best_at)
    assert course.improves == improves
    for new in (0.95, 0.9, 0.6):  # under-fitted, well fitted, over-fitted
        advice = judged(replace(FIT, new=new, course=course))[-1]
        assert ("more time (minutes)" in advice) == improves


def test_a_few_passes_are_too_few_for_a_larger_model() -> None:
    """The story: a tagger with an accuracy of 0.19 after 12 steps was to become larger."""
    course = replace(COURSE, passes=1.0, validations=[2.468, 2.435, 2.415, 2.408, 2.402, 2.401])
    assert course.improves and not replace(course, passes=5.0).improves
    assert not replace(course, best_at=0.5).improves
    assert "more time (minutes), and a larger" in judged(replace(FIT, new=0.95, course=course))[-1]


def test_losses_below_zero_can_get_worse() -> None:
    """Nats of numbers are negative where forecasts are narrow."""
    falling = replace(COURSE, best_at=0.5, validations=[-1.0, -5.0, -5.001])
    assert not falling.got_worse(0.002)
    worse = replace(falling, validations=[-1.0, -5.0, -4.95])
    assert worse.got_worse(0.002) and not worse.got_worse(0.02)
    assert not replace(falling, validations=[]).got_worse(0.002)
