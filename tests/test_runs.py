"""Runs as a collection: the list, with every kind of damage in it, and what may be removed."""

import json
import os
import shutil
from pathlib import Path

import pytest
from helpers import Call, started
from test_floors import imported_after

from charlm import api
from charlm.errors import DivergenceError, EnvironmentFailure, RunError, UsageError
from charlm.files.atomic import write_json
from charlm.files.safe_read import read_json
from charlm.report.run_list import problem_lines, run_lines
from charlm.runs.built_in import BUILT_IN_RUNS, built_in_run
from charlm.runs.folders import is_training, lock_run
from charlm.runs.layout import (
    BEST,
    CARD,
    CONFIG,
    METRICS,
    RECORD,
    SEARCH,
    WEIGHTS,
    read_record,
    write_record,
)
from charlm.runs.overview import BROKEN, SORTS, RunInfo, list_runs
from charlm.runs.verify import verify_run
from charlm.training.trainer import Trainer

OLD_RUN = Path(__file__).parent / "fixtures" / "format-1"
SETTINGS = {"text": "abc abd\n" * 12, "steps": 6, "evals": 2, "save_minutes": 0.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of a few steps, with validation text and checkpoints."""
    session = started(tmp_path_factory.mktemp("trained"), "whole", **SETTINGS)
    list(session.records())
    return session.path


@pytest.fixture
def folder(trained: Path, here: Path) -> Path:
    """A folder of runs with one of them, which can be damaged."""
    shutil.copytree(trained, here / "checkpoints" / "whole")
    return here / "checkpoints"


def copied(trained: Path, path: Path) -> Path:
    return Path(shutil.copytree(trained, path))


def row(folder: Path, name: str) -> RunInfo:
    return {run.name: run for run in list_runs(folder)}[name]


def own(folder: Path) -> list[RunInfo]:
    return [run for run in list_runs(folder) if not run.built_in]


# The list


def test_a_row_has_the_facts_of_the_run(folder: Path) -> None:
    path = folder / "whole"
    record, info = read_record(path), row(folder, "whole")
    assert (info.status, info.kind, info.unit, info.text) == (
        "finished", "network", "char", record["corpus"]["name"],
    )  # fmt: skip
    assert info.size == record["parameters"]
    assert info.figures["bits_per_byte"] == record["results"]["valid"]["bits_per_byte"]
    assert info.bytes == sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    assert info.changed == max(path.joinpath(n).stat().st_mtime for n in (WEIGHTS, RECORD, METRICS))


def test_a_figure_of_a_part_of_the_validation_text_is_marked(folder: Path, call: Call) -> None:
    """In the list a star with its meaning, in JSON both numbers; of all of the text none."""
    record = read_record(copied(folder / "whole", folder / "part"))
    every = record["corpus"]["parts"]["valid"]["tokens"]
    record["results"]["valid"]["tokens"] = every - 1
    write_json(folder / "part" / RECORD, record)
    listed = {line.split()[0]: line for line in call("runs")[1].splitlines()}
    assert "*" in listed["part"] and "*" not in listed["whole"]
    assert "* on a part of the validation text" in call("runs")[1]
    rows = {each["name"]: each for each in json.loads(call("runs", "--json")[1])["runs"]}
    assert (rows["part"]["valid_read"], rows["part"]["valid_total"]) == (every - 1, every)
    assert (rows["whole"]["valid_read"], rows["whole"]["valid_total"]) == (every, every)
    del record["results"]  # as while it trains: the figures are those of its log
    write_json(folder / "part" / RECORD, record)
    assert row(folder, "part").valid_read == every
    (folder / "part" / RECORD).rename(folder / "record")
    shutil.rmtree(folder / "part")
    assert "on a part" not in call("runs")[1]


def test_runs_that_ship_are_last(folder: Path) -> None:
    """Also where their own folder is listed: once."""
    assert [run.name for run in list_runs(folder)][-len(BUILT_IN_RUNS) :] == list(BUILT_IN_RUNS)
    names = [run.name for run in list_runs(built_in_run("tales").parent)]
    assert sorted(name for name in names if name in BUILT_IN_RUNS) == sorted(BUILT_IN_RUNS)
    assert own(folder.parent / "nothing") == []


def test_the_status_follows_a_run_to_its_end(folder: Path) -> None:
    """A run is training while its lock is held, and interrupted if its process is gone.

    Its figures are those of the weights it keeps, which a task may choose by another figure.
    """
    session = started(folder, "new", **SETTINGS)
    records = session.records()
    while row(folder, "new").figures == {}:
        next(records)
    assert row(folder, "new").status == "training now"
    logged = [json.loads(line) for line in (folder / "new" / METRICS).read_text().splitlines()]
    values = [line["valid_nats_per_token"] for line in logged if line["kind"] == "evaluation"]
    assert row(folder, "new").figures["nats_per_token"] == min(values)
    records.close()
    assert row(folder, "new").status == "interrupted"
    chosen = logged[-1] | {
        "kind": "evaluation",
        "best": True,
        "valid_nats_per_token": 2 * max(values),
    }
    lines = [*logged, chosen, chosen | {"best": False, "valid_nats_per_token": 0.1}]
    (folder / "new" / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert row(folder, "new").figures["nats_per_token"] == 2 * max(values)


def test_a_run_that_is_about_to_begin_is_not_broken(folder: Path) -> None:
    """Its record is written last; without a process it never began."""
    (folder / "whole" / RECORD).unlink()
    lock = lock_run(folder / "whole")
    assert row(folder, "whole").status == "training now"
    lock.release()
    assert row(folder, "whole").status == BROKEN
    assert api.runs.remove_runs(["whole"]) == [Path("checkpoints/whole")]


def test_a_lock_of_a_process_that_has_ended_is_not_tried(folder: Path) -> None:
    """Since a process that takes it at that moment would fail."""
    path = folder / "whole"
    lock = lock_run(path)
    assert is_training(path)
    owner = (path / ".owner").read_text().split()
    (path / ".owner").write_text(" ".join([owner[0], str(2**22 + 1), *owner[2:]]))
    assert not is_training(path)
    lock.release()


def test_a_run_that_diverged_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Trainer) -> None:
        raise DivergenceError("the loss is nan", "nan")

    session = started(folder, "bad", **SETTINGS)
    monkeypatch.setattr(Trainer, "run", fail)
    with pytest.raises(DivergenceError):
        list(session.records())
    assert row(folder, "bad").status == "diverged"


DAMAGES = {
    "no config": lambda path: (path / CONFIG).unlink(),
    "no record": lambda path: (path / RECORD).unlink(),
    "cut": lambda path: os.truncate(path / RECORD, 50),
    "empty": lambda path: (path / CONFIG).write_bytes(b""),
    "other json": lambda path: write_json(path / RECORD, [1]),
    "other kind": lambda path: write_json(path / CONFIG, {"format": 1, "model": {"kind": "x"}}),
    "newer": lambda path: write_json(path / RECORD, {"format": 99}),
    "folder": lambda path: ((path / RECORD).unlink(), (path / RECORD).mkdir()),
    "pipe": lambda path: ((path / RECORD).unlink(), os.mkfifo(path / RECORD)),
    "no weights": lambda path: (path / WEIGHTS).unlink(),
    "loop": lambda path: ((path / CONFIG).unlink(), (path / CONFIG).symlink_to(CONFIG)),
    "bytes": lambda path: (path / CONFIG).write_bytes(b"\xff\x00{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_a_row_with_its_problem(folder: Path, damage: str) -> None:
    """The other rows are as before."""
    copied(folder / "whole", folder / "bad")
    before = row(folder, "whole")
    DAMAGES[damage](folder / "bad")
    bad = row(folder, "bad")
    assert (bad.status, bool(bad.problem)) == (BROKEN, True)
    assert str(folder) not in bad.problem
    assert row(folder, "whole") == before
    text = run_lines(list_runs(folder), 0.0, 80).plain
    assert sorted(line.split()[0] for line in text.splitlines()[1:3]) == ["bad", "whole"]
    assert problem_lines(list_runs(folder)) == [f"bad: {bad.problem}"]


def test_a_damaged_log_leaves_the_results(folder: Path) -> None:
    (folder / "whole" / METRICS).write_bytes(b'{"kind": "evaluation", "tally": 3}\n\xff\n{}\n[]\n')
    record = read_record(folder / "whole")
    for results in (record["results"], None):
        write_json(folder / "whole" / RECORD, {**record, "status": "training", "results": results})
        assert row(folder, "whole").status in ("interrupted", BROKEN)


def test_other_folders_are_left_out(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("x")
    (folder / ".tmp-trash-x").mkdir()
    shutil.copy(folder / "whole" / CONFIG, folder / ".tmp-trash-x" / CONFIG)
    (folder / "README.md").write_text("x")
    assert [run.name for run in own(folder)] == ["whole"]


@pytest.fixture
def searched(folder: Path) -> Path:
    """A search of two trials, the second of which is the best."""
    search = folder / "tuning"
    for number, bits in ((0, 2.5), (1, 1.5)):
        record = read_record(copied(folder / "whole", search / f"trial-{number:03d}"))
        record["results"]["valid"]["bits_per_byte"] = bits
        write_json(search / f"trial-{number:03d}" / RECORD, record)
    write_json(search / SEARCH, {"format": 1})
    write_json(search / BEST, {"format": 1, "trial": "trial-001", "nats_per_token": 1.0})
    return search


def test_trials_are_below_their_search(searched: Path) -> None:
    """The best trial is first, and its figures are those of the search."""
    search = row(searched.parent, "tuning")
    assert [trial.name for trial in search.trials] == ["trial-001", "trial-000"]
    assert (search.kind, search.figures["bits_per_byte"]) == ("search", 1.5)
    assert search.bytes > sum(trial.bytes for trial in search.trials)
    lines = run_lines([search], 0.0, 80).plain.splitlines()
    assert [line.split("  ")[0] or line[2:11] for line in lines] == [
        "run", "tuning", "trial-001", "trial-000",
    ]  # fmt: skip
    assert len(api.runs.Runs([search]).rows()) == 3


@pytest.mark.parametrize("sort", SORTS)
def test_every_order_keeps_missing_values_and_built_in_runs_last(searched: Path, sort: str) -> None:
    copied(searched.parent / "whole", searched.parent / "bad").joinpath(CONFIG).unlink()
    rows = api.runs.list_runs(sort=sort)
    assert [run.built_in for run in rows] == sorted(run.built_in for run in rows)
    assert {run.name for run in rows} == {"whole", "tuning", "bad", *BUILT_IN_RUNS}
    if sort in ("size", "figure", "unit", "text"):
        assert rows[2].name == "bad"
    if sort in ("disk", "size"):
        values = [getattr(run, {"disk": "bytes"}.get(sort, sort)) or 0 for run in rows[:3]]
        assert values == sorted(values, reverse=True)


def test_the_command_lists_runs(
    call: Call, searched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For people within the width of the terminal, for programs as JSON; `list` may be left out."""
    monkeypatch.setattr("charlm.report.run_list.age", lambda seconds: "3 h")
    status, out, _ = call("runs")
    assert status == 0
    assert out == call("runs", "list")[1]
    assert all(len(line) <= 100 for line in out.splitlines())
    content = json.loads(call("runs", "--json", "--sort", "name")[1])
    assert content["schema_version"] == 1
    assert [run["name"] for run in content["runs"]][:2] == ["tuning", "whole"]
    assert [trial["name"] for trial in content["runs"][0]["trials"]] == ["trial-001", "trial-000"]
    status, _, err = call("runs", "--sort", "sise")
    assert (status, "did you mean 'size'" in err) == (2, True)
    status, _, err = call("runs", "renam", "whole")
    assert (status, "'renam'" in err, "rename" in err.replace("'renam'", "")) == (2, True, True)


def test_names_cannot_write_to_the_terminal(folder: Path) -> None:
    (folder / "whole").rename(folder / "a\x1b[31mb\nc")
    text = run_lines(list_runs(folder), 0.0, 80).plain
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2 + len(BUILT_IN_RUNS)


def test_listing_imports_neither_torch_nor_numpy(trained: Path, tmp_path: Path) -> None:
    words = ["runs", "--checkpoints", str(trained.parent)]
    modules = imported_after(f"from charlm.cli import main; main({words})", 0, tmp_path)
    assert not modules & {"torch", "numpy", "tokenizers", "datasets", "huggingface_hub"}


# Remove and rename


def test_removed_runs_are_gone_and_others_stay(call: Call, searched: Path) -> None:
    folder = searched.parent
    copied(folder / "whole", folder / "old")
    copied(folder / "whole", folder / "broken").joinpath(CONFIG).unlink()
    names = ("old", "tuning", "tuning/trial-000", "broken")
    assert call("runs", "rm", *names, "--yes")[0] == 0
    assert sorted(entry.name for entry in folder.iterdir()) == ["whole"]


def test_rm_asks_only_on_a_terminal(call: Call, folder: Path) -> None:
    status, _, err = call("runs", "rm", "whole")
    assert (status, "--yes" in err, (folder / "whole").exists()) == (2, True, True)
    assert api.runs.remove_runs(["whole"], confirm=lambda paths, size: False) == []
    assert row(folder, "whole").status == "finished"


REFUSED = {
    "none": (lambda folder: None, "no run 'x'"),
    "a folder": (lambda folder: (folder / "x").mkdir(), "is not a run"),
    "a file": (lambda folder: (folder / "x").write_text("a"), "is not a run"),
    "a link": (lambda folder: (folder / "x").symlink_to("whole"), "is a link"),
    "a link away": (lambda folder: (folder / "x").symlink_to(folder.parent), "is a link"),
    "other files": (
        lambda folder: (copied(folder / "whole", folder / "x") / "thesis.tex").write_text("a"),
        "holds thesis.tex",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("change", ["rm", "rename"])
def test_what_is_not_a_run_is_refused(folder: Path, case: str, change: str) -> None:
    """And a run that was named beside it stays."""
    make, reason = REFUSED[case]
    make(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(RunError, match=reason):
        if change == "rm":
            api.runs.remove_runs(["whole", "x"])
        else:
            api.runs.rename("x", "y")
    assert sorted(folder.rglob("*")) == before


def test_a_run_through_a_linked_folder_is_refused(folder: Path) -> None:
    """The name leads out of the folder of runs."""
    copied(folder / "whole", folder.parent / "elsewhere" / "y")
    (folder / "link").symlink_to(folder.parent / "elsewhere")
    for name in ("link/y", "../elsewhere/y"):
        with pytest.raises(RunError, match="leads out of"):
            api.runs.remove_runs([name])


def test_a_folder_of_runs_is_no_run(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it is a search; and a run in which one stands has a name."""
    for name in ("", ".", "trial-000/.."):
        with pytest.raises(RunError, match=r"leads out of|is not a run"):
            api.runs.remove_runs([name], searched)
    with pytest.raises(RunError, match="no run"):
        api.runs.remove_runs(["x" * 300])
    monkeypatch.chdir(searched.parent / "whole")
    api.runs.remove_runs(["."])
    assert sorted(path.name for path in searched.parent.iterdir()) == ["tuning"]


def test_a_search_with_a_trial_that_is_being_trained_is_refused(searched: Path) -> None:
    lock = lock_run(searched / "trial-001")
    for change in (lambda: api.runs.remove_runs(["whole", "tuning"]),
                   lambda: api.runs.rename("tuning", "new")):  # fmt: skip
        with pytest.raises(EnvironmentFailure, match="trial-001 is being trained"):
            change()
    lock.release()
    assert sorted(run.name for run in own(searched.parent)) == ["tuning", "whole"]


@pytest.mark.parametrize("name", [*BUILT_IN_RUNS, str(built_in_run("tales"))])
def test_runs_that_ship_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(RunError, match="ships with charlm"):
        api.runs.remove_runs([name])
    with pytest.raises(RunError, match="ships with charlm"):
        api.runs.rename(name, "y")


def test_a_part_of_a_run_is_refused(folder: Path) -> None:
    copied(folder / "whole", folder / "whole" / "backward")
    with pytest.raises(RunError, match="part of run whole"):
        api.runs.remove_runs(["whole/backward"])
    assert [run.name for run in own(folder)] == ["whole"]


def test_a_run_that_is_being_trained_is_refused(folder: Path) -> None:
    copied(folder / "whole", folder / "other")
    lock = lock_run(folder / "whole")
    for change in (lambda: api.runs.remove_runs(["other", "whole"]),
                   lambda: api.runs.rename("whole", "new")):  # fmt: skip
        with pytest.raises(EnvironmentFailure, match="is being trained"):
            change()
    lock.release()
    assert sorted(run.name for run in own(folder)) == ["other", "whole"]


def test_a_renamed_run_is_the_same_run(call: Call, folder: Path) -> None:
    """Its record and its card have the new name, and it is whole."""
    before = read_record(folder / "whole")
    assert call("runs", "rename", "whole", "newer")[0] == 0
    assert read_record(folder / "newer") == before | {"name": "newer"}
    assert "# newer\n" in (folder / "newer" / CARD).read_text(encoding="utf-8")
    assert not any(check.problems for check in verify_run(folder / "newer"))
    (folder / "newer" / CARD).write_text("mine", encoding="utf-8")
    api.runs.rename("newer", "newest")
    assert (folder / "newest" / CARD).read_text(encoding="utf-8") == "mine"
    api.runs.rename("newest", "newer")
    assert [run.name for run in own(folder)] == ["newer"]


def test_a_name_that_is_taken_or_no_name_is_refused(searched: Path) -> None:
    folder = searched.parent
    with pytest.raises(RunError, match="already exists"):
        api.runs.rename("whole", "tuning")
    for name in ("", "..", "a/b", ".hidden", "x" * 300, "hf:x", "a\nb", "-rf", "\x1bc", " a"):
        with pytest.raises(UsageError, match="name"):
            api.runs.rename("whole", name)
    with pytest.raises(RunError, match="is a trial of search tuning"):
        api.runs.rename("tuning/trial-001", "best")
    assert read_json(folder / "whole" / RECORD)["name"] == "whole"


# Differences


def test_diff_shows_what_differs_and_its_origin(call: Call, folder: Path) -> None:
    """Both ways round; a run differs from itself in nothing."""
    record = read_record(copied(folder / "whole", folder / "other"))
    record["settings"]["training"]["learning_rate"] = 0.125
    record["origins"]["training.learning_rate"] = "flag"
    parent = dict.fromkeys(("id", "valid", "old_valid")) | {"run": "old", "entries": 3}
    record["from"] = parent | {"sha256": "2", "vocabulary": "keep"}
    write_record(folder / "other", record)
    content = json.loads(call("diff", "whole", "other", "--json")[1])
    before = read_record(folder / "whole")
    assert content["settings"] == [{
        "name": "training.learning_rate",
        "values": [before["settings"]["training"]["learning_rate"], 0.125],
        "origins": [before["origins"]["training.learning_rate"], "flag"],
    }]  # fmt: skip
    assert content["facts"] == {"fine-tuned from": [None, "old"]}
    nats = before["results"]["valid"]["nats_per_token"]
    assert content["results"]["valid_nats_per_token"] == [nats, nats]
    reverse = api.runs.diff_runs(folder / "other", folder / "whole")
    assert [s.values[::-1] for s in reverse.settings] == [tuple(content["settings"][0]["values"])]
    assert api.runs.diff_runs(folder / "other", folder / "other").settings == []


def test_diff_compares_runs_of_any_kind_and_age(call: Call, here: Path) -> None:
    """Settings that an older run does not record are those that it was trained with."""
    for names in (("tales", "prose"), ("tales", str(OLD_RUN))):
        status, out, err = call("diff", *names)
        assert (status, "different texts" in err) == (0, True)
        assert "model.hidden_size" in out
        assert "model.zoneout" not in out
    assert call("diff", "tales", "nothing")[0] == 4
    assert "OTHER is missing" in call("diff", "tales")[2]
