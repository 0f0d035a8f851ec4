"""Finding units: masks, correlations, held-out halves, and patterns that cannot be used."""

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import vocabulary_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

import charlm
from charlm.errors import CorpusError, UsageError
from charlm.inspect import find_units as module
from charlm.inspect.find_units import auc, correlations, find_units, match_spans, pattern_values
from charlm.inspect.hidden import Hidden
from charlm.text.boundaries import Boundaries
from charlm.text.encoded import encode_text

QUOTED = r'"[^"]*"'


def hidden_of(text: str, h: np.ndarray | None = None, cuts: list[int] | None = None) -> Hidden:
    """Return values h (N, H) of one layer on a text whose tokens end at `cuts`."""
    cuts = list(range(len(text) + 1)) if cuts is None else cuts
    values = np.zeros((len(cuts) - 1, 1)) if h is None else h
    return Hidden(
        tokens=np.zeros(len(cuts) - 1, np.int64),
        pieces=[text[begin:end] for begin, end in pairwise(cuts)],
        cuts=np.array(cuts),
        signals={"h": values[None].astype(np.float32)},
        sizes=(values.shape[1],),
        start=None,
        after=None,
        run=None,
    )


@example('a "b"" "a\n" ba"')
@given(st.text('ab "\n', max_size=30))
@settings(max_examples=5)
def test_a_mask_is_the_characters_of_the_matches(text: str) -> None:
    """A token counts by its last character; of two tokens of one character both do."""
    spans = [match.span() for match in re.finditer(QUOTED, text)]
    inside = [any(start <= at < end for start, end in spans) for at in range(len(text))]
    assert pattern_values(hidden_of(text), QUOTED).tolist() == [float(each) for each in inside]
    cuts = [0, *range(2, len(text), 2), len(text), len(text)] if len(text) > 1 else [0, len(text)]
    values = pattern_values(hidden_of(text, cuts=cuts), QUOTED)
    assert values.tolist() == [float(bool(text) and inside[max(cut - 1, 0)]) for cut in cuts[1:]]


@given(st.text("aé\n", max_size=30))
@settings(max_examples=50)
def test_columns_count_from_the_line_start(text: str) -> None:
    columns = [at for line in text.splitlines(keepends=True) for at in range(len(line))]
    assert pattern_values(hidden_of(text), "column").tolist() == columns


@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), min_size=2, max_size=12))
def test_auc_counts_the_pairs_in_order(pairs: list[tuple[int, bool]]) -> None:
    values, inside = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    if inside.all() or not inside.any():
        return
    won = [(a > b) + 0.5 * (a == b) for a in values[inside] for b in values[~inside]]
    assert auc(values, inside) == pytest.approx(np.mean(won))


def test_correlations_are_pearsons() -> None:
    """A constant unit has none."""
    random = np.random.default_rng(2)
    x, y = random.normal(size=(40, 3)) * [1.0, 1e-3, 0.0] + 1e3, random.random(40) > 0.4
    expected = [np.corrcoef(x[:, unit], y)[0, 1] for unit in (0, 1)]
    np.testing.assert_allclose(correlations(x, y.astype(float)), [*expected, 0.0], atol=1e-9)


def test_the_second_half_does_not_rank_the_units() -> None:
    """Unit 0 follows the pattern in the first half only, unit 1 against it and less well."""
    text = "a b a b a b " * 20
    letters = np.array([letter == "b" for letter in text], float)
    noise = np.random.default_rng(1).normal(size=(len(text), 3))
    later = np.arange(len(text)) >= len(text) // 2
    h = np.stack([np.where(later, noise[:, 0], letters), noise[:, 1] - 2 * letters, noise[:, 2]], 1)
    first, second, *others = find_units(hidden_of(text, h), "b")
    assert (first.name, second.name, len(others)) == ("1:0", "1:1", 1)
    assert first.r == pytest.approx(1.0)
    assert abs(first.r_held_out) < 0.3
    assert second.r < -0.4
    assert second.r_held_out < -0.4
    assert second.auc > 0.8  # in the direction of r
    assert find_units(hidden_of(text, h), "b", top=1) == [first]
    assert re.fullmatch(r"UnitMatch\(1:0 h, r 1.000, held out \S+, auc 0.\d{3}\)", repr(first))
    assert re.search(r"held out \S+\d\)$", repr(find_units(hidden_of(text, h), "column")[0]))
    row = find_units(hidden_of(text, h), "column").rows()[0]
    assert list(row) == ["unit", "signal", "r", "r_held_out", "auc"]
    assert row["auc"] is None


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "is not a regular expression: missing"),
        ("z", "'z' is nowhere in a half of the text of 8 tokens"),
        ("(?s).", "is everywhere in a half"),
        ("c", "nowhere in a half"),
        ("x*", "nowhere in a half"),
    ],
)
def test_a_pattern_that_separates_nothing_is_refused(pattern: str, problem: str) -> None:
    with pytest.raises(UsageError, match=re.escape(problem)):
        find_units(hidden_of("abab\ncab"), pattern)
    with pytest.raises(UsageError, match="nowhere in a half of the text of 0 tokens"):
        find_units(hidden_of(""), "a")


def test_a_pattern_that_takes_forever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REGEX_SECONDS", 0.3)
    with pytest.raises(UsageError, match=r"was not found in 61 characters within 0.3 seconds"):
        match_spans("(a+)+$", "a" * 60 + "b")


def test_the_built_in_model_has_a_quote_unit() -> None:
    """Unit 2:8 in the text that the model was not trained on, which begins inside of a quote."""
    matches = charlm.load("tales", threads=1).find_units(QUOTED, top=3)
    best = matches[0]
    assert (best.name, best.signal) == ("2:8", "c")
    assert -0.85 < best.r < -0.7
    assert -0.85 < best.r_held_out < -0.7
    assert best.auc > 0.9


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("stream", "ne\ntwo three\n\nfour"),
        ("stream", "one"),
        ("line", "one\ntwo three\nfour\n"),
        ("paragraph", "one\ntwo\n\nthree\n\n"),
    ],
)
def test_the_text_of_a_search_is_the_kept_one(document: str, text: str) -> None:
    """Of a stream from the first whole line on, since it was cut anywhere."""
    vocabulary, rules = vocabulary_of("one two three four\n"), Boundaries(document=document)
    encoded = encode_text(lambda: [rules.mark(text)], vocabulary, document)
    run = SimpleNamespace(
        kept=lambda name: encoded if name == "valid" else None,
        vocabulary=vocabulary,
        boundaries=rules,
    )
    whole = text.partition("\n")[2] or text if document == "stream" else text
    assert module.search_text(run) == whole


def test_a_run_without_text_says_so() -> None:
    run = SimpleNamespace(kept=lambda _: None, path=Path("prose"))
    with pytest.raises(CorpusError, match="prose keeps no validation text to search units in"):
        module.search_text(run)
