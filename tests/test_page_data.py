"""Data of the page: its figures are those of the library, and thinned curves lose no extreme."""

import base64
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm.api import page
from charlm.api.loading import load
from charlm.api.model import Model
from charlm.api.plots import read_log
from charlm.report.page.run_data import MAX_POINTS, places_kept
from charlm.units import bits

RUN = Path(__file__).parent / "fixtures" / "format-1"
TEXT = 'She said "My urns!"\nand "how sad".\n'


@pytest.fixture(scope="module")
def tales() -> Model:
    return load("tales", threads=1)


def columns(answer: dict) -> dict[str, list]:
    """Return the figures of tokens by the names of their columns."""
    return dict(zip(answer["columns"], zip(*answer["tokens"], strict=True), strict=True))


def test_scores_are_those_of_the_library(tales: Model) -> None:
    answer = page.score(tales, TEXT, top=3)
    tokens = columns(answer)
    (score,) = tales.score([TEXT], by="token")
    assert "".join(tokens["text"]) == TEXT
    assert tokens["bits"] == pytest.approx([bits(token.nats) for token in score.tokens], abs=6e-5)
    assert list(tokens["rank"]) == [token.rank for token in score.tokens]
    assert answer["totals"]["log_probability"] == -score.tally.nats
    likeliest = [rank == 1 for rank in tokens["rank"]]
    assert answer["totals"]["first"] == sum(likeliest) / len(likeliest) < 1.0
    for top, name, own, rank in zip(
        tokens["top"], tokens["name"], tokens["bits"], tokens["rank"], strict=True
    ):
        chances = [chance for _, chance in top]
        assert len(top) == 3 and chances == sorted(chances, reverse=True)
        if rank <= 3:
            assert dict(top)[name] == pytest.approx(2**-own, abs=1e-4)
    json.dumps(answer, allow_nan=False)


def test_a_model_is_described_with_its_size(tales: Model, tmp_path: Path) -> None:
    assert (
        "2 × 176 LSTM, embedding 64, 431,875 weights · 51 characters" in page.facts(tales)["facts"]
    )
    shutil.copytree(RUN, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    assert "LSTM · " in page.facts(load(tmp_path / "run"))["facts"]


def test_compare_names_a_run_as_its_facts_do(tales: Model, tmp_path: Path) -> None:
    """A trial is named after its search: two searches have a trial of one name."""
    shutil.copytree(RUN, tmp_path / "search" / "trial-000")
    (tmp_path / "search" / "search.json").touch()
    trial = load(tmp_path / "search" / "trial-000")
    assert page.compare(tales, "the sea", trial)["other"] == page.facts(trial)["id"]


def test_some_units_have_the_values_of_all_units(tales: Model) -> None:
    every = page.inside(tales, TEXT)
    some = page.inside(tales, TEXT, ["2:8", "1:3"], ["c"])
    assert list(every["signals"]) == ["c", "h"] and some["units"] == ["2:8", "1:3"]
    assert [each["id"] for each in some["names"]] == list("chifog")
    rows = np.array([every["units"].index(name) for name in some["units"]])

    def values(answer: dict) -> np.ndarray:
        data = np.frombuffer(base64.b64decode(answer["signals"]["c"]["data"]), np.int8)
        return data.reshape(len(answer["units"]), -1)

    assert (values(every)[rows] == values(some)).all()
    assert some["unit"] in some["units"]


@pytest.mark.parametrize(
    ("text", "example"),
    [
        ("a cat\nan \ufffd\nthe hat\nsat\n\ufffd", "the hat\nsat"),
        ("\ufffd\n\ufffd", "\ufffd\n\ufffd"),
        (50 * "ten chars\n", (30 * "ten chars\n").rstrip()),
        (400 * "a", 300 * "a"),
        ("", ""),
    ],
)
def test_the_example_is_known_lines(
    tales: Model, monkeypatch: pytest.MonkeyPatch, text: str, example: str
) -> None:
    """Whole ones, from the longest part of the validation text without unknown tokens."""
    monkeypatch.setattr(page, "search_text", lambda _: text)
    assert page.facts(tales)["example"] == example


def test_a_damaged_text_is_no_example(tmp_path: Path) -> None:
    """The page can begin without one."""
    shutil.copytree(RUN, tmp_path / "run")
    (tmp_path / "run" / "data" / "valid" / "counts.json").write_text("{")
    assert page.facts(load(tmp_path / "run"))["example"] == ""


def test_signals_that_do_not_fit_are_left_out(
    tales: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of all units; by default as many are given as fit."""
    monkeypatch.setattr("charlm.report.page.data.MAX_SIGNAL_BYTES", 352 * len(TEXT))
    assert list(page.inside(tales, TEXT)["signals"]) == ["c"]
    assert list(page.inside(tales, TEXT, signals=["o", "h"])["signals"]) == ["o"]
    assert list(page.inside(tales, TEXT, ["1:0"], ["h", "o"])["signals"]) == ["h", "o"]


def test_units_are_found_in_the_text_that_is_kept(tales: Model) -> None:
    """The quote cell of the built-in model; a run that keeps no text is searched in this one."""
    answer = page.find(tales, '"[^"]*"', "nothing in quotes", top=1)
    assert answer["units"][0]["unit"] == "2:8" and answer["source"] == "validation text"
    assert 0.1 < answer["fraction"] < 0.9 and answer["characters"] > 9000
    text = 4 * TEXT + 40 * "a"
    own = page.find(load("prose", threads=1), '"[^"]*"', text, top=1)
    assert (own["source"], own["characters"]) == ("this text", len(text))
    assert own["fraction"] == pytest.approx(np.mean([inside(text, k) for k in range(len(text))]))


def inside(text: str, place: int) -> bool:
    """Return whether a character is between quotation marks, or is one."""
    return text[: place + 1].count('"') % 2 == 1 or text[place] == '"'


def test_runs_have_the_curves_of_their_logs(tmp_path: Path) -> None:
    """A damaged log and a folder without one are listed with a note."""
    for name in ("whole", "bare", "torn"):
        shutil.copytree(RUN, tmp_path / name)
    (tmp_path / "bare" / "metrics.jsonl").unlink()
    (tmp_path / "torn" / "metrics.jsonl").write_text('{"kind": "step"}\n{}\n')
    rows = {row["id"]: row for row in page.runs(tmp_path)["runs"]}
    assert set(rows) == {"whole", "bare", "torn", "tales", "prose"}
    records = read_log(tmp_path / "whole").records
    steps = [record for record in records if record["kind"] == "step"]
    training, validation = rows["whole"]["training"], rows["whole"]["validation"]
    assert training["tokens"] == [record["tokens"] for record in steps]
    assert training["bits/token"] == pytest.approx(
        [record["nats_per_token"] / math.log(2) for record in steps], rel=1e-5
    )
    assert validation["bits/byte"] == pytest.approx(
        [r["valid_bits_per_byte"] for r in records if r["kind"] == "evaluation"], rel=1e-5
    )
    assert rows["whole"]["best"]["bits/byte"] == pytest.approx(min(validation["bits/byte"]))
    assert rows["torn"]["note"].startswith("metrics.jsonl, line 2: not a record")
    for name in ("bare", "torn", "tales"):
        assert rows[name]["note"] and rows[name]["training"] is None
    json.dumps(list(rows.values()), allow_nan=False)


values = st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=1, max_size=60)


@given(values, st.integers(40, 50))
def test_a_thinned_curve_keeps_its_extremes(numbers: list[float], most: int) -> None:
    kept = places_kept(numbers, most)
    assert len(kept) <= most and kept == sorted(set(kept))
    known = [at for at, value in enumerate(numbers) if math.isfinite(value)]
    if known:
        chosen = [numbers[at] for at in kept if math.isfinite(numbers[at])]
        assert min(chosen) == min(numbers[at] for at in known)
        assert max(chosen) == max(numbers[at] for at in known)
        assert known[0] in kept and known[-1] in kept


def test_a_thinned_curve_keeps_its_gap() -> None:
    """And the spikes of each column: 5,000 values, a spike of each sign in every 200."""
    numbers = np.zeros(5000)
    numbers[50::200], numbers[150::200] = 1.0, -1.0
    numbers[2510] = math.nan
    kept = places_kept(numbers.tolist())
    assert 2510 in kept and len(kept) <= MAX_POINTS
    assert set(np.flatnonzero(np.abs(numbers) == 1.0)) <= set(kept)
