"""Finding a run: the newest, by name, by path, or the built-in one."""

import os
import sys
from pathlib import Path

import pytest

from charlm.errors import RunError
from charlm.files.atomic import MANIFEST, write_json
from charlm.runs import built_in
from charlm.runs.built_in import BUILT_IN_RUNS, DEFAULT_RUN, is_built_in, shipped_sources
from charlm.runs.layout import CONFIG, FORMAT, NEWEST, RECORD, WEIGHTS, read_config
from charlm.runs.locate import (
    checkpoints_folder,
    find_run,
    fresh_run_folder,
    own_runs,
)


def make_run(folder: Path, name: str, *, time: int, trained: bool = True) -> Path:
    path = folder / name
    path.mkdir(parents=True)
    for file in (CONFIG, RECORD, *([WEIGHTS] if trained else [])):
        (path / file).write_text("{}")
        os.utime(path / file, (time, time))
    return path


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for the model that ships with charlm."""
    path = make_run(tmp_path / "package" / "checkpoints", DEFAULT_RUN, time=10**9)
    monkeypatch.setattr(built_in, "shipped", lambda kind, name: tmp_path / "package" / kind / name)
    return path


def test_the_newest_run_is_the_default(tmp_path: Path, shipped: Path) -> None:
    """The times of files decide; the built-in run is found only if it is alone."""
    folder = tmp_path / "checkpoints"
    assert find_run(None, folder) == shipped
    a = make_run(folder, "a", time=300)
    make_run(folder, "z", time=200)
    assert find_run(None, folder) == a
    assert [path.name for path in own_runs(folder)] == ["a", "z"]
    os.utime(folder / "z" / WEIGHTS, (400, 400))
    assert find_run(None, folder).name == "z"


def test_a_run_without_weights_is_found_only_to_resume_it(tmp_path: Path, shipped: Path) -> None:
    folder = tmp_path / "checkpoints"
    make_run(folder, "done", time=100)
    make_run(folder, "begun", time=200, trained=False)
    assert find_run(None, folder).name == "done"
    assert find_run(None, folder, trained=False).name == "begun"


def test_other_files_and_folders_are_skipped(tmp_path: Path, shipped: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "README.md").write_text("x")
    (folder / "empty").mkdir()
    assert own_runs(folder) == []
    assert find_run(None, folder) == shipped
    assert own_runs(tmp_path / "nothing") == []


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path, shipped: Path) -> None:
    """A name in the folder wins over a path, and a path over the built-in name."""
    folder = tmp_path / "checkpoints"
    a = make_run(folder, "a", time=1)
    elsewhere = make_run(tmp_path / "other", "b", time=1)
    assert find_run("a", folder) == a
    assert find_run(str(elsewhere), folder) == elsewhere
    assert find_run(f"{elsewhere}/", folder) == elsewhere
    assert find_run(DEFAULT_RUN, folder) == shipped
    own = make_run(folder, DEFAULT_RUN, time=1)
    assert find_run(DEFAULT_RUN, folder) == own


def test_a_message_counts_the_runs_that_it_does_not_name(tmp_path: Path, shipped: Path) -> None:
    """Ten names looked like all of them."""
    for number in range(9):
        make_run(tmp_path, f"run{number}", time=number)
    with pytest.raises(RunError, match=f"run1 and {1 + len(BUILT_IN_RUNS)} more.$"):
        find_run("xyz", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shakspeare", "Did you mean shakespeare?"),
        ("tails", "Did you mean tales?"),
        ("xyz", f"Known runs: shakespeare, {', '.join(BUILT_IN_RUNS)}"),
    ],
)
def test_an_unknown_name_is_answered_with_similar_ones(
    name: str, message: str, tmp_path: Path, shipped: Path
) -> None:
    folder = tmp_path / "checkpoints"
    make_run(folder, "shakespeare", time=1)
    with pytest.raises(RunError, match=f"no run '{name}'") as caught:
        find_run(name, folder)
    assert message in str(caught.value)


def test_the_built_in_run_is_not_one_of_the_users(tmp_path: Path, shipped: Path) -> None:
    """Even if the folder of runs is the built-in one."""
    make_run(shipped.parent, "mine", time=1)
    assert is_built_in(shipped)
    assert not is_built_in(shipped.parent / "mine")
    assert [path.name for path in own_runs(shipped.parent)] == ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")
def test_a_built_in_run_behind_a_link_has_its_text(shipped: Path) -> None:
    """Package stores link to folders that have names of their own."""
    run = shipped.with_name("tales")
    run.symlink_to(make_run(shipped.parent.parent, "stored", time=1))
    assert is_built_in(run)
    assert shipped_sources(run) == [str(built_in.built_in_text())]
    assert shipped_sources(shipped.with_name("prose")) is None


def test_a_copy_of_a_built_in_run_is_not_one_of_the_users(tmp_path: Path, shipped: Path) -> None:
    """A checkout holds one beside the installed one, and was found as the newest run."""
    folder = tmp_path / "checkpoints"
    copy = make_run(folder, DEFAULT_RUN, time=2)
    assert own_runs(folder) == [copy]  # nothing is sealed, so nothing is known to be equal
    (shipped / MANIFEST).write_text('{"files": {"model.safetensors": 1}}')
    (copy / MANIFEST).write_text('{"files": {"model.safetensors": 2}}')
    assert own_runs(folder) == [copy]
    (copy / MANIFEST).write_bytes((shipped / MANIFEST).read_bytes())
    assert is_built_in(copy)
    assert own_runs(folder) == []
    assert find_run(None, folder) == shipped
    renamed = copy.rename(folder / "mine")
    assert own_runs(folder) == [renamed]


def test_the_built_in_text_exists_in_a_checkout() -> None:
    assert built_in.built_in_text().is_file()


def test_the_folder_of_runs_may_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """./checkpoints is the default."""
    monkeypatch.delenv("CHARLM_CHECKPOINTS", raising=False)
    assert checkpoints_folder() == Path("checkpoints")
    monkeypatch.setenv("CHARLM_CHECKPOINTS", "/elsewhere")
    assert checkpoints_folder() == Path("/elsewhere")
    assert checkpoints_folder(Path("given")) == Path("given")
    monkeypatch.setenv("CHARLM_CHECKPOINTS", "")
    assert checkpoints_folder() == Path("checkpoints")


def test_runs_of_one_name_get_numbers(tmp_path: Path) -> None:
    names = [fresh_run_folder(tmp_path / "checkpoints", "x").name for _ in range(3)]
    assert names == ["x", "x-2", "x-3"]


GOOD = {
    "format": FORMAT, "vocab_size": 5, "document": "stream", "charlm": "9.9",
    "model": {"cell": "rnn", "num_layers": 1, "hidden_size": 2, "embedding_size": 2},
    "vocabulary": {"unit": "char", "words": "text"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": NEWEST + 1}, "newer.*charlm 9.9.*[Uu]pgrade"),
        ({"format": 0}, "format is 0"),
        ({"format": None}, "format is None"),
        ({"format": True}, "format is True"),
        ({"format": "1"}, "format is '1'"),
        ({"format": 1.5}, "format is 1.5"),
        ({"vocab_size": -1}, "vocab_size is -1"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000"),
        ({"vocab_size": "5"}, "vocab_size is str '5'; expected int"),
        ({"logit_scale": 0}, "logit_scale is 0; expected a number above 0"),
        ({"document": None}, "document is None"),
        ({"model": None}, "model is NoneType"),
        ({"vocabulary": [1]}, "vocabulary is list"),
    ],
)
def test_a_config_of_another_format_is_refused(changes, message: str, tmp_path: Path) -> None:
    """A newer format names its version and says to upgrade."""
    write_json(tmp_path / CONFIG, GOOD)
    assert read_config(tmp_path) == GOOD
    write_json(tmp_path / CONFIG, GOOD | changes)
    with pytest.raises(RunError, match=message):
        read_config(tmp_path)


LABELS = {
    "name": "classify", "labels": ["neg", "pos"], "pooling": "concat", "both_ways": True,
    "max_tokens": 1000, "kept_part": "ends",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, ""),
        ({"labels": ["neg"]}, "task classify with 1 labels"),
        ({"labels": ["neg", "neg"]}, "2 labels, 1 of them different"),
        ({"labels": ["neg", 1]}, "labels.1 is int 1; expected str"),
        ({"name": "language-model"}, "task is 'language-model'; expected one of classify"),
        ({"name": "parse"}, "task is 'parse'; expected one of classify.*Upgrade"),
        ({"pooling": "sum"}, "pooling is 'sum'; expected"),
        ({"kept_part": "middle"}, "kept_part is 'middle'; expected"),
        ({"max_tokens": 0}, "max_tokens is 0; expected"),
        ({"both_ways": 1}, "both_ways is int 1; expected bool"),
    ],
)
def test_the_table_of_labels_in_a_config_is_checked(changes, message: str, tmp_path: Path) -> None:
    config = GOOD | {"format": NEWEST, "document": "line", "task": LABELS | changes}
    write_json(tmp_path / CONFIG, config)
    if not message:
        assert read_config(tmp_path) == config
        return
    with pytest.raises(RunError, match=message):
        read_config(tmp_path)


@pytest.mark.parametrize("changes", [{"format": NEWEST}, {"task": LABELS}])
def test_labels_and_their_format_number_come_together(changes, tmp_path: Path) -> None:
    """Older versions refuse the run of a task that they do not know by its number."""
    write_json(tmp_path / CONFIG, GOOD | changes)
    with pytest.raises(RunError, match="table task; expected format"):
        read_config(tmp_path)


def test_a_missing_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        read_config(tmp_path / "nothing")
