"""Tables and lines for people: figures checked by hand, and widths that fit the terminal."""

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from charlm.files.escapes import escape_controls
from charlm.inference.generation import NextToken
from charlm.inference.scores import Score, TokenScore
from charlm.report import progress
from charlm.report.formats import FORMATS, ScoredRow
from charlm.report.progress import (
    evaluation_line,
    plain_step_line,
    step_line,
    summary_table,
)
from charlm.report.scores import score_table, token_table
from charlm.report.tables import next_table, tally_table
from charlm.report.text import duration, number, shortened, sparkline, visible
from charlm.runs.built_in import shipped
from charlm.training.records import EvaluationRecord, FinishedRecord, Memory, Review, StepRecord
from charlm.units import Tally


def drawn(renderable: object, width: int = 80) -> str:
    """Return what a terminal of this width without colour shows."""
    out = io.StringIO()
    Console(file=out, width=width, markup=False, highlight=False, emoji=False).print(renderable)
    return out.getvalue()


def scored(text: str = "ab", nats: float = 2.0) -> Score:
    """Return a score of two tokens, one nat each by default."""
    tokens = tuple(TokenScore(token=t, id=2, nats=nats / 2, rank=1, oov=t == "b") for t in text[:2])
    return Score(text=text, tally=Tally(nats=nats, tokens=2, chars=2, oov=1), tokens=tokens)


def test_durations_are_written_as_people_say_them() -> None:
    """Seconds, minutes, hours."""
    durations = [duration(seconds) for seconds in (0.4, 59, 60, 187, 3723)]
    assert durations == ["0 s", "59 s", "1:00 min", "3:07 min", "1:02:03 h"]


def test_numbers_have_fixed_digits_and_missing_ones_a_dash() -> None:
    """Counts with thousands, figures with four digits, NaN and None as a dash.

    The perplexity of an impossible text is a power of ten, and infinite figures stay words.
    """
    assert number(-999_999_999.25, 1) == "-999,999,999.2"
    assert number(1e99) == "1.00e+99"
    assert number(float("inf")) == "inf"
    assert number(1234567) == "1,234,567"
    assert number(2.0) == "2.0000"
    assert number(None) == number(float("nan")) == "-"


def test_blanks_and_controls_are_visible() -> None:
    """A table never moves the cursor."""
    assert visible("\n") == "⏎"
    assert visible(" ") == "␣"
    assert visible("a\x1b[2Jb") == "a\\x1b[2Jb"
    assert visible("é") == "é"
    assert shortened("abcdef", 4) == "abc…"


def test_the_likeliest_of_several_is_marked() -> None:
    """Ranked by log-probability, in the order given."""
    pair = [scored("aa", 4.0), scored("bb", 2.0)]
    lines = drawn(score_table(pair, "e", 80, rank=True)).splitlines()
    assert lines[1].split()[:2] == ["2", "-4.000"]
    assert lines[2].split()[:3] == ["1", "*", "-2.000"]


def test_alternatives_differ_visibly_at_80_columns() -> None:
    """They may differ at their ends only, and then take several lines; others are cut."""
    pair = [scored("the king said that the castle was old and " + end, 2.0) for end in ("a", "b")]
    ranked = drawn(score_table(pair, "e", 80, rank=True, words=True))
    assert ranked.split()[-1] == "b"
    assert "…" not in ranked
    assert "…" in drawn(score_table(pair, "e", 60))


@pytest.mark.parametrize("width", [40, 80])
def test_tables_fit_the_terminal(width: int) -> None:
    """No line is wider than the terminal."""
    tables = [
        score_table([scored("word " * 40)], "e", width),
        token_table(scored(), "2"),
        tally_table({"valid": Tally(nats=2, tokens=2)}),
        next_table([NextToken(id=2, token="a", probability=0.5)]),
    ]
    for table in tables:
        assert max(len(line) for line in drawn(table, width).splitlines()) <= width


def test_figures_that_are_not_finite_are_null_in_json() -> None:
    """Figures that are not finite become null."""
    row = ScoredRow(number=1, score=scored("a", float("inf")))
    content = json.loads(FORMATS["jsonl"](by="token").lines(row))
    assert content["log_probability"] is None
    assert content["token_scores"][0]["token"] == "a"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("char", "1.443 bits/char (1.000 nats)"), ("word", "perplexity 2.718")],
)
def test_progress_has_the_usual_unit_of_each_vocabulary(unit: str, expected: str) -> None:
    """Bits for characters and bytes, perplexity for words."""
    place = {"step": 10, "epoch": 0, "tokens": 5, "seconds": 61.0, "progress": 0.5}
    step = StepRecord(
        **place, nats_per_token=1.0, learning_rate=0.1, gradient_norm=1.0, clipped=0.0,
        tokens_per_second=12345.6,
    )  # fmt: skip
    assert step_line(step, unit) == f"{expected}  12,346 tokens/s"
    evaluation = EvaluationRecord(**place, best=True, tally=Tally(nats=5, tokens=5, words=5))
    line = evaluation_line(evaluation, unit)
    beside = " (2.7 per word)" if unit == "word" else ""
    assert line == f" 50 % step 10: validation {expected}{beside}  1:01 min  best so far"


@pytest.mark.parametrize(
    ("progress", "hint"), [(0.0, None), (0.25, "1:00 min left"), (0.8, "5 s left"), (1.0, None)]
)
def test_a_plain_line_shows_the_time_left(progress: float, hint: str | None) -> None:
    """At the speed so far; no time at the beginning and at the end."""
    record = StepRecord(
        step=1234, epoch=1, tokens=9, seconds=20.0, progress=progress, nats_per_token=math.log(2),
        learning_rate=0.1, gradient_norm=1.0, clipped=0.0, tokens_per_second=1000.0,
    )  # fmt: skip
    line = plain_step_line(record, "char")
    assert line.startswith(f"{100 * progress:3.0f} % step 1,234: 1.000 bits/char")
    assert line.endswith(hint or "tokens/s")


def test_a_sparkline_spans_the_values() -> None:
    """One bar for each, from the least to the greatest; of many values the last is shown too."""
    assert sparkline([3.0, 2.0, 1.0]) == "█▅▁"
    assert sparkline([1.0]) == "▁" and sparkline([]) == ""
    assert sparkline([*range(100), -100], 5)[-1] == "▁" and len(sparkline([1.0] * 100)) == 12


def test_the_review_has_rows_of_advice_and_memory() -> None:
    """Advice and memory have a heading each; unknown figures are left out."""
    memory = Memory(overlap=12, text="to be or not", novel=0.25, novel_held_out=0.5)
    review = Review(train={}, advice=["well fitted", "more text"], memory=memory)
    rows = progress.review_pairs(review, "char")
    assert rows[0] == ("review", "well fitted")
    assert rows[1] == ("", "more text")
    assert rows[2][1] == "longest passage copied from the training text: 12 characters"
    assert rows[3] == ("", "'to be or not'")
    assert (
        rows[4][1] == "25 % of the 8-character sequences in samples are new (held-out text: 50 %)"
    )
    alone = replace(memory, novel=None, novel_held_out=None)
    assert len(progress.review_pairs(replace(review, memory=alone), "char")) == 4
    assert len(progress.review_pairs(replace(review, memory=None), "char")) == 2


@pytest.mark.parametrize(
    ("unit", "nats", "hint"),
    [("word", 5.0, "perplexity 148 (134 to 164)"), ("char", 1.5, "1.50 nats/token (1.40 to 1.60)"),
     ("word", 1.5, "1.50 nats/token (1.40 to 1.60)")],
)  # fmt: skip
def test_an_expectation_has_the_usual_unit_of_each_vocabulary(unit: str, nats: float, hint) -> None:
    """Perplexity for words, except for symbols between blanks; nothing if nothing is known."""
    expected = {"nats": nats, "low": nats - 0.1, "high": nats + 0.1}
    planned = {"passes": 2.25, "memory_bytes": 1.26e9, "expected": expected}
    record = {"planned": planned, "settings": {"vocabulary": {"unit": unit}}}
    first, second = progress._outlook(record)
    assert first == "plan   about 2.2 passes over the text, 1.3 GB of memory"
    assert hint in second
    planned["expected"] = None
    assert progress._outlook(record) == [first]
    assert progress._outlook({}) == []


BUILT_IN = {"valid_frac": None, "valid": (), "sources": [str(shipped("corpora", "tales.txt"))]}


@pytest.mark.parametrize(
    ("vocabulary", "oov", "known"),
    [
        ({}, 0, True),
        ({"unit": "word"}, 0, True),
        ({"unit": "word", "words": "whitespace"}, 0, False),
        ({"lowercase": True}, 0, False),
        ({"normalize": "nfkc"}, 0, False),
        ({}, 1, False),
    ],
)
def test_the_source_is_shown_beside_complete_models_only(vocabulary, oov: int, known: bool) -> None:
    """Omitted or unknown text costs almost nothing, so the model would seem to beat its source."""
    whole = {"unit": "char", "words": "text", "lowercase": False, "normalize": "none"}
    record = {
        "name": "a",
        "settings": {"corpus": BUILT_IN, "vocabulary": whole | vocabulary},
        "corpus": {"document": "stream", "parts": {}},
    }
    valid = Tally(nats=2.0, tokens=2, chars=2, oov=oov)
    finished = FinishedRecord(
        step=1, epoch=0, tokens=2, seconds=1.0, reason="complete", best_step=1, valid=valid
    )
    assert ("entropy of source" in drawn(summary_table(record, finished))) == known


@pytest.mark.parametrize(("best", "later"), [(1, True), (9, False)])
def test_a_run_whose_last_steps_did_not_help_says_so(best: int, later: bool) -> None:
    """The story: a series was best after 119 of 1,030 steps, and nothing said it was over-fitted.

    A language model has a review, which says it.
    """
    record = {
        "name": "a",
        "settings": {"corpus": BUILT_IN, "vocabulary": {"unit": "word"}},
        "corpus": {"document": "line", "parts": {}},
    }
    finished = FinishedRecord(
        step=9, epoch=0, tokens=2, seconds=1.0, reason="complete", best_step=best,
        valid=Tally(nats=2.0, tokens=2, chars=2),
    )  # fmt: skip
    words = "of 9; later ones were no better"
    assert (words in " ".join(drawn(summary_table(record, finished)).split())) == later
    reviewed = replace(finished, review=Review(train={}, advice=["over-fitted"]))
    assert words not in drawn(summary_table(record, reviewed))


@pytest.mark.parametrize(
    "text", ["\u3000\u8eca", "a\u00a0b", "\u0645\u06cc\u200c\u062e", "\ue000", "a\n\tb"]
)
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    """Though Python does not call wide blanks, joiners and private letters printable."""
    assert escape_controls(text) == text


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b", "\r", "\x07", "\u202e", "\u2066", "\u2028"])
def test_control_and_direction_characters_are_escaped(text: str) -> None:
    assert escape_controls(text).isprintable()
    assert escape_controls(text).startswith("\\")
