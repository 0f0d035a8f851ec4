"""Validation of a part of a long validation text: what is read, recorded and said."""

import shlex
from pathlib import Path

import numpy as np
import pytest
from helpers import Call

from charlm.inference.adapt.calibration import sample_of
from charlm.inference.likelihood import evaluate
from charlm.report import repeating
from charlm.runs.layout import read_record
from charlm.runs.run import load_run
from charlm.training.opening import PIECES
from charlm.training.plan import constants

TEXT = "".join(f"{number} is {number * number % 97}, " for number in range(1_200))
SHORT = [
    "--hidden", "4", "--layers", "1", "--batch", "2", "--bptt", "4", "--seed", "1",
    "--precision", "fp32", "--threads", "1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def long_text(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work beside a text whose validation part is longer than what a short run reads."""
    monkeypatch.setattr(constants, "MIN_VALID_TOKENS", 200)
    Path("text.txt").write_text(TEXT, encoding="utf-8")


@pytest.fixture
def short_run(here: Path, call: Call) -> tuple[Path, str]:
    """Train ten steps; return the run and the output."""
    code, out, err = call("train", "text.txt", "--name", "x", "--steps", "10", *SHORT)
    assert code == 0, err
    return here / "checkpoints" / "x", " ".join((out + err).split())


def test_a_short_run_reads_a_part_and_says_so(short_run: tuple[Path, str]) -> None:
    path, output = short_run
    record, run = read_record(path), load_run(path)
    valid = run.kept("valid")
    tally = record["results"]["valid"]
    assert record["settings"]["training"]["valid_tokens"] == 200
    assert len(valid.ids) == record["corpus"]["parts"]["valid"]["tokens"] > 1_000
    assert tally["tokens"] == 200
    assert tally["chars"] == 200
    assert f"valid {len(valid.ids):,} (200 read)" in output
    assert f"on 200 of {len(valid.ids):,} validation tokens; charlm eval reads all" in output
    own = evaluate(run.backend, sample_of(valid, 200, PIECES))
    assert tally["nats"] == pytest.approx(own.nats, rel=1e-5)
    assert not np.isclose(evaluate(run.backend, valid).nats_per_token, own.nats_per_token, 1e-4)


def test_the_card_and_info_say_that_a_part_was_read(
    short_run: tuple[Path, str], call: Call
) -> None:
    path, _ = short_run
    every = read_record(path)["corpus"]["parts"]["valid"]["tokens"]
    part = f"200 of {every:,} validation tokens"
    assert f"counted; only {part} were read." in (path / "README.md").read_text()
    assert f"on {part}; charlm eval reads all" in " ".join(call("info", "--run", "x")[1].split())


@pytest.mark.parametrize(("document", "about"), [("stream", ""), ("line", "about ")])
def test_the_number_is_beside_the_text_that_it_is_about(
    call: Call, document: str, about: str
) -> None:
    """With a test text it stood behind the size of that."""
    Path("lines.txt").write_text(TEXT.replace(", ", "\n"), encoding="utf-8")
    code, out, err = call(
        "train", "lines.txt", "--document", document, "--test", "text.txt", "--name", "t",
        "--steps", "1", "--valid-tokens", "90", *SHORT,
    )  # fmt: skip
    assert code == 0, err
    valid = read_record(Path("checkpoints/t"))["corpus"]["parts"]["valid"]["tokens"]
    assert f"valid {valid:,} ({about}90 read), test " in " ".join((out + err).split())


def test_a_longer_run_reads_the_same_part(short_run: tuple[Path, str], call: Call) -> None:
    """Its validations are compared with those before."""
    path, _ = short_run
    assert call("train", "--resume", "--run", "x", "--steps", "400")[0] == 0
    assert read_record(path)["results"]["valid"]["tokens"] == 200


def test_the_number_of_tokens_can_be_chosen(call: Call) -> None:
    code, _, err = call(
        "train", "text.txt", "--name", "y", "--steps", "10", "--valid-tokens", "300", *SHORT
    )
    assert code == 0, err
    assert read_record(Path("checkpoints/y"))["results"]["valid"]["tokens"] == 300


@pytest.mark.parametrize("older", [False, True])
def test_a_repeated_run_reads_the_whole_text_again(
    call: Call, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    """The command of a run that read all, as older versions did, says so: a plan might not."""
    monkeypatch.setattr(repeating, "MIN_VALID_TOKENS", 200)
    every = ["--valid-tokens", "99999"]
    code, out, err = call("train", "text.txt", "--name", "w", "--steps", "10", *every, *SHORT)
    assert code == 0, err
    assert " read)" not in out + err
    for text in (out + err, Path("checkpoints/w/README.md").read_text()):
        assert "validation tokens" not in text
    record = read_record(Path("checkpoints/w"))
    if older:
        del record["settings"]["training"]["valid_tokens"]
    words = shlex.split(repeating.repeat_command(Path("checkpoints/w"), record) or "")
    assert call(*words[1:], "--name", "again")[0] == 0
    again = read_record(Path("checkpoints/again"))
    assert again["results"]["valid"] == record["results"]["valid"]
    assert again["results"]["valid"]["tokens"] == again["corpus"]["parts"]["valid"]["tokens"]


def test_the_command_that_repeats_a_short_run_names_its_part(short_run: tuple[Path, str]) -> None:
    path, _ = short_run
    words = shlex.split(repeating.repeat_command(path, read_record(path)) or "")
    assert words[words.index("--valid-tokens") + 1] == "200"


def test_without_validation_text_the_number_is_refused(call: Call) -> None:
    code, _, err = call(
        "train", "text.txt", "--valid-fraction", "0", "--valid-tokens", "9", "--steps", "1", *SHORT
    )
    assert code == 2
    assert "--valid-tokens" in err
