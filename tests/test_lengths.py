"""Lengths of resumed runs, results of `charlm train`, --overwrite and --continue."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from helpers import Call

from charlm.api import sessions
from charlm.config.model import ModelSettings
from charlm.config.training import counted_length
from charlm.errors import UsageError
from charlm.files import atomic
from charlm.runs import data
from charlm.runs.layout import read_metrics, read_record
from charlm.runs.locate import own_runs
from charlm.training import resume as resuming
from charlm.training.lengths import (
    check_not_shorter,
    trained_so_far,
    with_more,
)
from charlm.training.session import Session
from charlm.units import flat_figures

TEXT = "the cat sat on the mat.\n" * 60
NAMES = "".join(f"{name}\n" for name in ("anna", "bob", "carl", "dora")) * 40
SIZES = ["--layers", "1", "--hidden", "4", "--batch", "2", "--bptt", "8", "--seed", "1"]
SIZES += ["--threads", "1", "--precision", "fp32", "--checkpoints", "c"]


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("steps", 1, "1 step"),
        ("steps", 2_345_678, "2,345,678 steps"),
        ("epochs", 2.5, "2.5 passes"),
        ("minutes", 1_000_000, "1,000,000 minutes"),
    ],
)
def test_a_length_has_all_its_digits(unit: str, value: float, text: str) -> None:
    """A million steps were 1e+06 steps."""
    assert counted_length(unit, value) == text


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    Path("names.txt").write_text(NAMES, encoding="utf-8")
    return tmp_path


def train(call: Call, *more: str) -> tuple[int, str, str]:
    steps = [] if {"--steps", "--minutes", "--epochs"} & set(more) else ["--steps", "12"]
    return call("train", "text.txt", "--name", "r", *SIZES, *steps, *more)


def resume(call: Call, *more: str) -> tuple[int, str, str]:
    return call("train", "--resume", "--run", "r", "--checkpoints", "c", *more)


def training(**lengths: float) -> dict[str, float | None]:
    return {"epochs": None, "steps": None, "minutes": None} | lengths


# Lengths


COUNTERS = {"tokens": 4000, "step": 40, "seconds": 30.5}
TRAINED = trained_so_far(COUNTERS, 1000)
ONE = ModelSettings()
PAIR = ModelSettings(direction="both")


def test_the_trained_length_is_known_in_every_unit() -> None:
    assert TRAINED == {"epochs": 4.0, "steps": 40.0, "minutes": 30.5 / 60.0}
    assert trained_so_far({}, 1000) == {"epochs": 0.0, "steps": 0.0, "minutes": 0.0}


@pytest.mark.parametrize(
    ("more", "recorded", "total"),
    [
        ({"steps": 30}, training(steps=40), {"steps": 70}),
        ({"steps": 30}, training(steps=60), {"steps": 70}),  # interrupted: from where it is
        ({"steps": 30}, training(minutes=0.5), {"steps": 70}),  # another unit
        ({"epochs": 1.5}, training(steps=40), {"epochs": 5.5}),
        ({"minutes": 2}, training(minutes=0.5), {"minutes": 2.5}),  # not 2.50833
    ],
)
def test_more_is_added_to_the_trained_length(more: dict, recorded: dict, total: dict) -> None:
    assert with_more(more, recorded, TRAINED, ONE) == total


def test_minutes_include_both_directions() -> None:
    assert with_more({"minutes": 2}, training(minutes=0.5), TRAINED, PAIR) == {"minutes": 3}
    assert with_more({"steps": 2}, training(steps=40), TRAINED, PAIR) == {"steps": 42}


@pytest.mark.parametrize("more", [{"steps": 0}, {"minutes": -1.0}, {"steps": 1, "epochs": 1.0}])
def test_more_must_be_one_length_above_zero(more: dict) -> None:
    with pytest.raises(UsageError, match=r"--more-(steps|minutes) .*; expected .* number above 0"):
        with_more(more, training(steps=40), TRAINED, ONE)


def test_a_length_below_the_trained_length_is_refused() -> None:
    """A run of 60 steps was once called complete after 30."""
    with pytest.raises(UsageError, match="use --more-steps 30"):
        check_not_shorter(training(steps=30), training(steps=40), TRAINED, ONE)
    with pytest.raises(UsageError, match=r"--epochs 3 .* which already has 4 passes"):
        check_not_shorter(training(epochs=3), training(steps=40), TRAINED, ONE)
    with pytest.raises(UsageError, match=r"^--steps 2345678 sets .* use --more-steps 2345678$"):
        check_not_shorter(
            training(steps=2_345_678), training(steps=4e6), TRAINED | {"steps": 3e6}, ONE
        )
    more = TRAINED | {"steps": 1234.0}
    with pytest.raises(UsageError, match=r"^--steps 1232 .* already has 1,234 steps; .* than that"):
        check_not_shorter(training(steps=1232), training(steps=4000), more, ONE)  # it had 1,230
    check_not_shorter(training(steps=50), training(steps=60), TRAINED, ONE)  # of an interrupted run
    half = training(minutes=0.5)
    check_not_shorter(half, half, TRAINED, ONE)  # ended a bit later


def test_a_complete_run_is_trained_longer_by_the_command_that_it_names(call: Call) -> None:
    assert train(call)[0] == 0
    status, out, err = resume(call)
    assert (status, out) == (0, "c/r\n")
    assert "complete after 12 steps, so nothing was changed" in err
    words = shlex.split(err[err.index("charlm train --resume") :])
    assert words[3:5] == ["--more-steps", "12"]
    assert call(*words[1:])[0] == 0
    assert read_record(Path("c/r"))["results"]["step"] == 24
    assert read_record(Path("c/r"))["settings"]["training"]["steps"] == 24


def test_a_run_can_be_made_longer_in_another_unit_but_not_shorter(call: Call) -> None:
    assert train(call)[0] == 0
    status, _, err = resume(call, "--steps", "6")
    assert status == 2
    assert "which already has 12 steps" in err and "--more-steps 6" in err
    assert read_record(Path("c/r"))["settings"]["training"]["steps"] == 12
    assert resume(call, "--more-steps", "3", "--steps", "20")[0] == 2
    before = read_record(Path("c/r"))["results"]["tokens"]
    assert resume(call, "--more-epochs", "1")[0] == 0
    record = read_record(Path("c/r"))
    tokens = record["corpus"]["parts"]["train"]["tokens"]
    assert tokens <= record["results"]["tokens"] - before <= tokens + 16
    assert train(call, "--name", "s", "--more-steps", "3")[0] == 2  # needs --resume


def test_a_sudden_rise_of_the_rate_is_reported(call: Call) -> None:
    """A finished cosine schedule once jumped from 0.00017 to 0.0033 silently."""
    assert train(call, "--steps", "40", "--schedule", "cosine")[0] == 0
    _, _, err = resume(call, "--more-steps", "40")
    old, new = map(float, re.findall(r"rate goes from (\S+) to (\S+) at once", err)[0])
    rate = float(re.findall(r"To keep \S+, add --learning-rate (\S+)", err)[0])
    rates = [r["learning_rate"] for r in read_metrics(Path("c/r")) if r["kind"] == "step"]
    assert old < rates[3] < new  # the rate of step 40, just before the schedule's end
    assert rates[4] < new < 10 * rates[4]
    _, _, err = resume(call, "--more-steps", "40", "--learning-rate", str(rate))
    assert "at once" not in err
    assert train(call, "--name", "s", "--schedule", "constant")[0] == 0
    more = ["--more-steps", "10", "--checkpoints", "c"]
    assert "at once" not in call("train", "--resume", "--run", "s", *more)[2]


# Results


def test_json_is_the_final_record(call: Call) -> None:
    """Also if there is nothing left to train."""
    status, out, _ = train(call, "--json")
    record = json.loads(out)
    assert (status, record["path"], record["name"], record["status"]) == (0, "c/r", "r", "finished")
    assert (record["step"], record["reason"]) == (12, "complete")
    assert record["valid_nats_per_token"] > 0
    assert json.loads(resume(call, "--json")[1]) == record


def test_json_of_a_plan(call: Call) -> None:
    status, out, _ = train(call, "--plan", "--json")
    record = json.loads(out)
    assert status == 0
    assert record["settings"]["model"]["hidden_size"] == 4
    assert record["origins"]["model.hidden_size"] == "flag"
    assert not Path("c").exists()


def test_figures_of_a_validation_are_flat_in_the_log(call: Call) -> None:
    train(call)
    records = read_metrics(Path("c/r"))
    lines = Path("c/r/metrics.jsonl").read_text("utf-8").splitlines()
    assert records == [json.loads(line) for line in lines]
    for kind in ("evaluation", "finished"):
        (record, *_) = [one for one in records if one["kind"] == kind]
        assert record["valid_nats_per_token"] > 0 and record["valid_bits_per_char"] > 0
        tables = {key for key, value in record.items() if isinstance(value, dict)}
        assert tables <= {"review", "companion"}


def test_a_log_of_an_older_version_is_read_in_the_new_form() -> None:
    records = read_metrics(Path(__file__).parent / "fixtures" / "format-1")
    evaluations = [record for record in records if record["kind"] == "evaluation"]
    assert evaluations
    assert all(record["valid_nats_per_token"] > 0 for record in evaluations)
    assert not any("tally" in record for record in evaluations)


def test_flattening_figures_twice_changes_nothing() -> None:
    record = {"kind": "finished", "valid": {"nats": 1.0}, "test": None, "tally": {"oov": 2}}
    flat = {"kind": "finished", "valid_nats": 1.0, "valid_oov": 2}
    assert flat_figures(record) == flat == flat_figures(flat)


# A name that is taken


def test_a_run_is_overwritten_only_on_request(call: Call) -> None:
    train(call)
    before = read_record(Path("c/r"))
    assert train(call)[0] == 4
    assert read_record(Path("c/r")) == before
    assert train(call, "--overwrite", "--unit", "byte")[0] == 0
    record = read_record(Path("c/r"))
    assert record["id"] != before["id"]
    assert record["settings"]["vocabulary"]["unit"] == "byte"
    assert train(call, "--overwrite", "--hidden", "0")[0] == 2  # and nothing is lost
    assert read_record(Path("c/r")) == record


def test_files_of_others_are_not_overwritten(call: Call) -> None:
    train(call)
    Path("c/r/notes.txt").write_text("mine")
    status, _, err = train(call, "--overwrite")
    assert status == 4 and "notes.txt" in err
    Path("c/other").mkdir()
    Path("c/other/thesis.txt").write_text("mine")
    assert train(call, "--name", "other", "--overwrite")[0] == 4
    assert Path("c/other/thesis.txt").exists() and Path("c/r/model.safetensors").exists()


def test_continue_starts_or_resumes_a_run_or_changes_nothing(call: Call) -> None:
    """One command for a Makefile."""
    status, out, _ = train(call, "--continue")
    assert (status, out) == (0, "c/r\n")
    log = Path("c/r/metrics.jsonl").read_bytes()
    status, out, err = train(call, "--continue")
    assert (status, out) == (0, "c/r\n") and "nothing was changed" in err
    assert Path("c/r/metrics.jsonl").read_bytes() == log
    assert train(call, "--continue", "--steps", "20")[0] == 0
    assert read_record(Path("c/r"))["results"]["step"] == 20
    assert "nothing was changed" in train(call, "--continue")[2]  # 12 steps are fewer
    status, _, err = train(call, "--continue", "--dropout", "0.5")
    assert status == 2 and "made with dropout" in err and "--overwrite" in err


def test_a_process_may_die_removing_a_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is renamed first; the next process removes what is left."""
    train(call)

    def die(label: str) -> None:
        if label == "run r set aside":
            raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "reached", die)
        train(call, "--overwrite")
    assert [path.name for path in Path("c").iterdir()] != ["r"]
    assert not own_runs(Path("c"))
    assert train(call)[0] == 0
    assert train(call, "--overwrite")[0] == 0
    assert [path.name for path in Path("c").iterdir()] == ["r"]


@pytest.mark.parametrize("flags", [[], ["--continue"], ["--overwrite"]])
def test_overwriting_is_not_advised_for_other_folders(call: Call, flags: list[str]) -> None:
    for name, kind in (("search.json", "a search"), ("notes.txt", "no run")):
        shutil.rmtree("c", ignore_errors=True)
        Path("c/r").mkdir(parents=True)
        (Path("c/r") / name).write_text("{}")
        status, _, err = train(call, *flags)
        assert status == 4 and "--resume" not in err and "with --overwrite" not in err
        assert f"is {kind}" in err if flags != ["--overwrite"] else "is not a run" in err


def test_continue_ignores_settings_of_the_machine(call: Call) -> None:
    assert train(call, "--continue")[0] == 0
    log = Path("c/r/run.json").read_bytes()
    for other in (["--save-minutes", "9"], ["--device", "cpu"], ["--set", "keep=1"]):
        assert train(call, "--continue", *other)[0] == 0
    words = ["--name", "r", *SIZES, "--steps", "12", "--continue"]
    assert call("train", str(Path("text.txt").resolve()), *words)[0] == 0
    assert Path("c/r/run.json").read_bytes() == log


def test_continue_refuses_another_text_or_vocabulary(call: Call) -> None:
    """Exit 0 would leave the old model."""
    assert train(call, "--continue")[0] == 0
    for text, flag in ((TEXT, []), (NAMES, ["--vocab", "other.json"])):
        Path("other.txt").write_text(text, encoding="utf-8")
        assert call("vocab", "other.txt", "--out", "other.json")[0] == 0
        status, _, err = train(call, "--continue", *flag)
        assert (status, "another vocabulary than other.json" in err) == ((2, True) if flag else
                                                                         (0, False))  # fmt: skip
    Path("text.txt").write_text(TEXT + "a new line.\n", encoding="utf-8")
    status, _, err = train(call, "--continue")
    assert status == 2 and "it has changed" in err and "--overwrite" in err
    status, _, err = call("train", "--name", "r", "--checkpoints", "c", "--continue")
    assert status == 0 and "nothing was changed" in err  # no text was given
    Path("text.txt").unlink()
    assert train(call, "--continue")[0] == 0


def test_a_large_text_is_read_again_if_newer(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    assert train(call, "--continue")[0] == 0
    monkeypatch.setattr(data, "READ_AGAIN_BYTES", 10)
    os.utime("text.txt", (1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(data, "text_fingerprint", lambda *_: "not called")
        assert train(call, "--continue")[0] == 0
    os.utime("text.txt")
    assert train(call, "--continue")[0] == 0
    monkeypatch.setattr(data, "text_fingerprint", lambda *_: "called")
    assert train(call, "--continue")[0] == 2


def test_continue_compares_steps_with_a_length_in_passes(call: Call) -> None:
    assert train(call, "--continue")[0] == 0
    assert resume(call, "--more-epochs", "0.05")[0] == 0
    assert "nothing was changed" in train(call, "--continue")[2]
    assert train(call, "--continue", "--steps", "999")[0] == 2


@pytest.mark.parametrize(("minutes", "total"), [("0.001", 0.002), ("0.002", 0.002), ("4", 4.0)])
def test_continue_counts_the_minutes_of_both_directions(
    minutes: str, total: float, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """A smaller number changes nothing, a larger one is used."""
    assert train(call, "--direction", "both", "--minutes", "0.002")[0] == 0
    lengths: list[float] = []
    real = resuming.resume

    def first(path: Path, changes: dict, **options: object) -> Session:
        lengths.append(changes.get("training", {}).get("minutes", 0.002))
        return real(path, {}, **options)

    monkeypatch.setattr(resuming, "resume", first)
    assert train(call, "--direction", "both", "--minutes", minutes, "--continue")[0] == 0
    assert lengths[0] == total


def test_a_half_that_is_longer_keeps_its_length(call: Call) -> None:
    """Halves that were trained for minutes have different numbers of steps."""
    assert train(call, "--direction", "both", "--steps", "6")[0] == 0
    assert call("train", "--resume", "--run", "c/r/backward", "--more-steps", "9")[0] == 0
    for _ in range(2):
        assert resume(call, "--more-steps", "3")[0] == 0
    steps = [read_record(Path("c/r") / half)["results"]["step"] for half in ("", "backward")]
    assert steps == [12, 15]
    assert resume(call, "--more-steps", "8")[0] == 0
    steps = [read_record(Path("c/r") / half)["results"]["step"] for half in ("", "backward")]
    assert steps == [20, 20]
    assert "nothing was changed" in resume(call)[2]


def test_a_change_of_threads_is_reported_once(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert train(call)[0] == 0
    note = "the number of threads changed"
    assert note in resume(call, "--threads", "2", "--more-steps", "2")[2]
    assert note not in resume(call, "--more-steps", "2")[2]
    torch.set_num_threads(1)


def test_validations_are_spread_over_the_new_length(call: Call) -> None:
    """Patience once ended the run at the first step."""
    status, _, _ = train(
        call, "--steps", "100", "--evals", "10", "--patience", "1", "--learning-rate", "9"
    )
    assert status == 0
    results = read_record(Path("c/r"))["results"]
    stopped = results["step"]  # depends on the rounding of the machine
    assert results["reason"] == "patience" and stopped < 100
    assert resume(call, "--more-steps", "40")[0] == 0
    assert read_record(Path("c/r"))["results"]["step"] >= stopped + 4


def test_continue_resumes_a_run_just_started(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sessions.start_run

    def second(request: sessions.Request, *, command: str) -> Session:
        monkeypatch.setattr(sessions, "start_run", real)
        assert train(call, "--continue")[0] == 0  # the first recipe
        return real(request, command=command)

    monkeypatch.setattr(sessions, "start_run", second)
    status, out, err = train(call, "--continue")
    assert (status, out) == (0, "c/r\n")
    assert "nothing was changed" in err


@pytest.mark.parametrize(
    "flags",
    [
        ["--continue", "--overwrite"], ["--continue", "--resume"], ["--overwrite", "--plan"],
        ["--resume", "--plan"],
    ],
)  # fmt: skip
def test_ways_to_begin_exclude_each_other(call: Call, flags: list[str]) -> None:
    status, _, err = train(call, *flags)
    assert status == 2 and "give one of them" in err
    assert call("train", "text.txt", "--continue")[0] == 2  # needs --name


# Advice


KINDS = {
    "stream": (["text.txt"], "sample --len 500"),
    "words": (["text.txt", "--unit", "word"], "sample --len 100"),
    "lines": (["names.txt", "--document", "line"], "sample --n 10"),
    "paragraphs": (
        ["text.txt", "--document", "paragraph", "--valid-frac", "0"],
        "sample --n 3 --until-eos",
    ),
    "both": (["text.txt", "--direction", "both"], "fill 'some ___ of yours'"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_advice_fits_the_kind_of_model_and_shows_a_sample(call: Call, kind: str) -> None:
    arguments, expected = KINDS[kind]
    status, _, err = call("train", *arguments, "--name", "k", "--steps", "12", *SIZES)
    assert status == 0, err
    assert f"charlm {expected}" in err
    assert err.count("a sample:\n  ") == 1 and err.count("next:") == 1
    for line in err.splitlines():
        if line.startswith("  charlm "):
            assert call(*shlex.split(line)[1:])[0] == 0, line
