"""Search: values in their ranges reach the runs, bad trials stop early, any stop can resume."""

import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import nested
from waiting import Ticking

from charlm.config.settings import Settings, merge, settings_from
from charlm.errors import EnvironmentFailure, RunError, UsageError
from charlm.runs.layout import read_record, write_record
from charlm.runs.locate import find_run
from charlm.training import search as search_module
from charlm.training.records import EvaluationRecord
from charlm.training.search import KNOBS, TrialRecord, results
from charlm.training.study import Study
from charlm.training.trainer import Trainer

TEXT = "the quick brown fox jumps over the lazy dog. " * 60


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "text.txt"
    file.write_text(TEXT, encoding="utf-8")
    return settings_from({
        "corpus": {"sources": [str(file)]},
        "model": {"hidden_size": 4, "num_layers": 1},
        "training": {"seed": 1, "batch_size": 4, "bptt": 8, "precision": "fp32", "threads": 1},
    })  # fmt: skip


def search(settings: Settings, folder: Path, *, tick: float = 0.01, **options):
    """Search with a clock that counts its readings, one or two for each step."""
    return search_module.search(settings, folder, clock=Ticking(tick), **options)


TINY = {"trial_minutes": 0.004, "minutes": 1.0}
"""Trials of 24 readings of the clock."""


def first_trial(settings: Settings, folder: Path, **options) -> TrialRecord:
    """Return the first trial of a search; the search ends there."""
    return next(iter(search(settings, folder, **{"knobs": ("dropout",)} | TINY | options)))


def test_values_are_in_their_ranges_and_reach_the_runs(settings: Settings, tmp_path: Path) -> None:
    """Each trial is a run of its own, with the random values and the rest as given."""
    folder = tmp_path / "s"
    knobs = ("hidden_size", "dropout", "learning_rate")
    records = list(
        itertools.islice(search(settings, folder, knobs=knobs, minutes=9.0, trial_minutes=0.004), 3)
    )
    assert [record.number for record in records] == [0, 1, 2]
    assert len({record.values["hidden_size"] for record in records}) > 1
    for record in records:
        assert set(record.values) == set(knobs)
        assert 64 <= record.values["hidden_size"] <= 1024
        kept = read_record(folder / f"trial-{record.number:03d}")["settings"]
        assert kept["model"]["hidden_size"] == record.values["hidden_size"]
        assert kept["training"]["learning_rate"] == record.values["learning_rate"]
        assert kept["training"]["batch_size"] == 4
    assert records[0].state == "complete"


def test_bad_trials_are_stopped_early(settings: Settings, tmp_path: Path, monkeypatch) -> None:
    """A rate near 0 never gets to the end if another one learns; the best is listed first."""
    draws = itertools.cycle([0.02, 1e-9])
    monkeypatch.setitem(
        KNOBS, "learning_rate",
        lambda trial: trial.suggest_float("learning_rate", *[next(draws)] * 2),
    )  # fmt: skip
    folder = tmp_path / "s"
    trials = search(settings, folder, knobs=("learning_rate",), minutes=9.0, trial_minutes=0.05)
    records = list(itertools.islice(trials, 4))
    states = {record.values["learning_rate"]: set() for record in records}
    for record in records:
        states[record.values["learning_rate"]].add(record.state)
    assert states[1e-9] == {"pruned"}
    assert "complete" in states[0.02]
    rows = results(folder)
    assert rows[0]["state"] == "complete"
    assert rows[0]["values"]["learning_rate"] == 0.02
    assert [row["nats_per_token"] for row in rows if row["state"] == "pruned"]


def test_a_trial_that_was_interrupted_is_resumed(settings: Settings, tmp_path: Path) -> None:
    """The next search resumes the same trial with the same values."""
    folder = tmp_path / "s"
    one = {"knobs": ("dropout",), "trial_minutes": 0.02}
    (first,) = search(settings, folder, minutes=0.01, **one)
    assert (first.number, first.state) == (0, "paused")
    before = read_record(folder / "trial-000")["results"]["step"]
    second = first_trial(settings, folder, minutes=9.0, **one)
    assert (second.number, second.values) == (0, first.values)
    assert second.state == "complete"
    assert read_record(folder / "trial-000")["results"]["step"] > before
    third = first_trial(settings, folder, minutes=9.0, **one)
    assert third.number == 1


def test_an_impossible_trial_is_skipped(settings: Settings, tmp_path: Path, monkeypatch) -> None:
    """It is reported with its problem; the search continues."""
    draws = itertools.cycle([0.5, 0.0])
    monkeypatch.setitem(
        KNOBS, "weight_drop", lambda trial: trial.suggest_float("weight_drop", *[next(draws)] * 2)
    )
    nested = settings.to_dict()
    nested["model"]["cell"] = "qrnn"  # has no recurrent weights
    trials = search(
        settings_from(nested), tmp_path / "s", knobs=("weight_drop",), minutes=9.0,
        trial_minutes=0.004,
    )  # fmt: skip
    first, second = itertools.islice(trials, 2)
    assert first.state == "failed"
    assert "weight_drop with cell qrnn" in first.problem
    assert second.state == "complete"


def test_another_search_in_the_same_folder_is_refused(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    first_trial(settings, folder)
    with pytest.raises(RunError, match="holds a search over other texts, settings or knobs"):
        first_trial(settings, folder, knobs=("bptt",))


def test_a_search_of_an_older_version_is_resumed(settings: Settings, tmp_path: Path) -> None:
    """It lacks settings that came later; its texts are read as they were."""
    folder = tmp_path / "s"
    first_trial(settings, folder)
    content = json.loads((folder / "search.json").read_text())
    del content["settings"]["corpus"]["keep_cr"], content["settings"]["corpus"]["glue"]
    del content["settings"]["model"]["mixture"]
    (folder / "search.json").write_text(json.dumps(content))
    trial = first_trial(settings, folder)
    assert trial.number == 1
    corpus = read_record(folder / "trial-001")["settings"]["corpus"]
    assert (corpus["keep_cr"], corpus["glue"]) == (True, True)


@pytest.mark.parametrize(
    ("values", "knobs", "problem"),
    [
        ({}, ("rate",), "unknown setting 'rate'; expected some of num"),
        ({}, ("",), "knobs is empty"),
        ({"sources": ["-"]}, ("hidden_size",), "stdin can be read only once"),
        ({"valid_frac": 0.0}, ("hidden_size",), r"without validation text.*--valid"),
        ({"task": "classify"}, ("hidden_size",), "task classify with a search"),
        ({"steps": 9}, ("hidden_size",), "steps with a search"),
        ({"evals": 20}, ("hidden_size",), "evals is 20"),
        (
            {"parameters": 9000, "hidden_size": None},
            ("hidden_size",),
            "parameters with the knob hidden_size",
        ),
    ],
)
def test_a_search_that_cannot_work_is_refused(
    values, knobs, problem: str, settings: Settings, tmp_path: Path
) -> None:
    """Before the first trial, and nothing is left behind under its name.

    Story: without validation text, an hour of trials all counted as failed, without any message.
    """
    changed = settings_from(merge(settings.to_dict(), nested(**values)))
    with pytest.raises(UsageError, match=problem):
        first_trial(changed, tmp_path / "s", knobs=knobs)
    assert first_trial(settings, tmp_path / "s").number == 0


def test_without_optuna_the_extra_is_named(settings: Settings, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'charlm\[search\]'"):
        first_trial(settings, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_an_error_of_every_trial_is_raised_at_once(tmp_path: Path) -> None:
    """A missing text leaves no folder of failed trials."""
    missing = settings_from({"corpus": {"sources": [str(tmp_path / "no.txt")]}})
    with pytest.raises(Exception, match=r"no\.txt"):
        first_trial(missing, tmp_path / "s")


def test_trials_that_all_fail_end_the_search(settings: Settings, tmp_path: Path) -> None:
    """Story: the text was deleted before the second search; thirty trials failed each second."""
    folder = tmp_path / "s"
    first_trial(settings, folder)
    Path(settings.corpus.sources[0]).unlink()
    with pytest.raises(RunError, match=r"5 trials in a row failed, the last because: .*text\.txt"):
        list(search(settings, folder, knobs=("dropout",), minutes=9.0, trial_minutes=0.004))


def test_two_searches_in_one_folder_exclude_each_other(settings: Settings, tmp_path: Path) -> None:
    """The second one is refused while the first one runs, and accepted afterwards."""
    folder = tmp_path / "s"
    first = search(settings, folder, knobs=("dropout",), **TINY)
    next(first)
    with pytest.raises(EnvironmentFailure, match="is being trained by"):
        first_trial(settings, folder)
    first.close()
    assert first_trial(settings, folder).number == 1


def test_a_pruned_trial_is_listed_with_its_best(settings: Settings, tmp_path: Path) -> None:
    """Optuna keeps the last figure of a pruned trial; the table shows the best."""
    folder = tmp_path / "s"
    first_trial(settings, folder)
    study = Study(folder, 0)
    trial = study.next_trial()
    for step, nats in ((1, 2.05), (2, 2.3)):
        trial.report(nats, step)
    study.end(trial, "pruned", 2.05)
    assert results(folder)[1]["nats_per_token"] == 2.05


def test_trials_are_judged_on_a_part_of_a_long_text(
    settings: Settings, tmp_path: Path, monkeypatch
) -> None:
    """Otherwise validations would take all of its time; the part is the same for every trial."""
    monkeypatch.setattr(search_module, "JUDGED_TOKENS", 50)
    trial = first_trial(settings, tmp_path / "s")
    kept = read_record(tmp_path / "s" / "trial-000")["results"]
    assert (trial.state, kept["valid"]["tokens"]) == ("complete", 50)
    card = (tmp_path / "s" / "trial-000" / "README.md").read_text()
    assert "charlm sample --run s/trial-000" in card
    assert find_run("s/trial-000", tmp_path).name == "trial-000"


def test_a_trial_of_an_older_version_is_judged_on_a_part_too(
    settings: Settings, tmp_path: Path, monkeypatch
) -> None:
    """Its record has no number of tokens; resumed, it was judged on all of the text."""
    monkeypatch.setattr(search_module, "JUDGED_TOKENS", 50)
    first_trial(settings, tmp_path / "s")
    path = tmp_path / "s" / "trial-000"
    record = read_record(path)
    del record["settings"]["training"]["valid_tokens"]
    write_record(path, record)
    session = search_module._session(path, {}, {})
    assert len(session.dataset.valid.ids) == 50
    session.lock.release()


def test_a_trial_is_judged_by_how_long_it_was_trained(
    settings: Settings, tmp_path: Path, monkeypatch
) -> None:
    """Story: a trial with slow validations was compared with the second ones of others."""
    validate, marks = Trainer._evaluation_record, []

    def slowly(trainer: Trainer) -> EvaluationRecord:
        trainer.clock = lambda before=trainer.clock: before() + 0.75
        record = validate(trainer)
        marks.append((trainer.counters.last_progress, record.progress))
        return record

    monkeypatch.setattr(Trainer, "_evaluation_record", slowly)
    folder = tmp_path / "s"
    first_trial(settings, folder, trial_minutes=0.05)
    study = Study(folder, 0).study
    trained, with_validation = marks[0]
    reported = sorted(study.trials[0].intermediate_values)
    assert reported[0] == round(8 * trained) < round(8 * with_validation)


def test_a_trial_that_kills_its_process_is_given_up(settings: Settings, tmp_path: Path) -> None:
    """After three kills in a row; a pause does not count."""
    folder = tmp_path / "s"
    first_trial(settings, folder)
    study = Study(folder, 0)
    trial = study.next_trial()
    study.set_starts(trial, 2)
    study.end(trial, "paused", None)
    assert study.starts(study.next_trial()) == 0
    study.set_starts(trial, 2)
    assert study.next_trial().number == trial.number
    study.set_starts(trial, 3)
    assert study.next_trial().number == trial.number + 1
    assert {row["number"]: row["state"] for row in results(folder)}[trial.number] == "fail"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), MemoryError()])
def test_a_trial_that_runs_out_of_memory_fails(
    error: Exception, settings: Settings, tmp_path: Path, monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(search_module, "_follow", fail)
    trial = first_trial(settings, tmp_path / "s")
    assert (trial.state, bool(trial.problem)) == ("failed", True)


def test_a_trial_that_the_user_stops_was_not_killed(
    settings: Settings, tmp_path: Path, monkeypatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search_module, "_follow", stop)
    with pytest.raises(KeyboardInterrupt):
        first_trial(settings, tmp_path / "s")
    study = Study(tmp_path / "s", 0)
    assert study.starts(study.next_trial()) == 0


def test_warnings_of_trials_are_reported(settings: Settings, tmp_path: Path) -> None:
    """Such as that bytes were replaced."""
    file = tmp_path / "bad.txt"
    file.write_bytes(b"the quick brown fox \xff jumps " * 60)
    corpus = replace(settings.corpus, sources=(str(file),), errors="replace")
    bad = replace(settings, corpus=corpus)
    trial = first_trial(bad, tmp_path / "s")
    assert any("U+FFFD" in note for note in trial.warnings)


def test_a_resumed_search_tries_new_values(settings: Settings, tmp_path: Path) -> None:
    """An equal search with the same seed tries the same values."""
    one = {"knobs": ("learning_rate",)}
    values = [first_trial(settings, tmp_path / "s", **one).values for _ in range(2)]
    assert values[0] != values[1]
    assert first_trial(settings, tmp_path / "other", **one).values == values[0]


def test_searches_that_share_a_storage_are_one_search(settings: Settings, tmp_path: Path) -> None:
    """Trials are numbered together; one that another machine trains is left to it."""
    storage = str(tmp_path / "shared.log")
    here, there = (tmp_path / name / "s" for name in ("here", "there"))
    options = {"knobs": ("dropout",), "storage": storage, **TINY}
    first = search(settings, here, **options)
    assert next(first).number == 0
    unfinished = Study(there, 0, storage).next_trial()
    second = search(settings, there, **options)
    assert next(second).number == unfinished.number + 1 == 2
    assert next(first).number == 3
    assert sorted(path.name for path in here.glob("trial-*")) == ["trial-000", "trial-003"]
    assert len(search_module.results(here, storage)) == 4
    (there / "trial-001").mkdir()  # now it was begun there, and nothing trains it
    assert next(second).number == 1
    values = {row["values"]["dropout"] for row in search_module.results(there, storage)}
    assert len(values) > 1
    other = settings_from(settings.to_dict() | {"model": {"hidden_size": 5, "num_layers": 1}})
    with pytest.raises(RunError, match="storage holds a search s over other texts"):
        first_trial(other, tmp_path / "third" / "s", storage=storage)


@pytest.mark.parametrize("storage", ["nowhere/shared.log", "nonsense://secret@host/name"])
def test_a_storage_that_cannot_be_opened_is_explained(
    storage: str, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFailure, match="storage cannot be opened") as raised:
        first_trial(settings, tmp_path / "s", storage=storage)
    assert "secret" not in str(raised.value)
