"""Runs that were damaged or made up: refused with one line, soon, and nothing of them executed."""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import (
    READERS,
    Liar,
    begin,
    finish,
    go_on_a_little,
    judge,
    mend_manifests,
    problems,
    read_all,
    read_weights,
)
from safetensors.torch import load_file, save_file
from waiting import bounded

from charlm.errors import CharlmError, CorpusError, RunError, UsageError
from charlm.files.atomic import write_json
from charlm.runs.checkpoints import checkpoint_folders
from charlm.training import start as starting

LIES = 300
"""Lies told in a run of the tests; `scripts/torture` tells many more."""


@pytest.fixture(autouse=True)
def quiet_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(starting, "keep_freed_memory", lambda: True)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(starting, "keep_freed_memory", lambda: True)
        return finish(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "x"))


def newest(path: Path) -> Path:
    return checkpoint_folders(path)[0]


def replaced(path: Path, *way: str | int, to: Any) -> dict:
    """What a JSON file holds with one value replaced, or left out where it is to be KeyError."""
    content = json.loads(path.read_bytes())
    inner = content
    for key in way[:-1]:
        inner = inner[key]
    if to is KeyError:
        del inner[way[-1]]
    else:
        inner[way[-1]] = to
    return content


def changed(path: Path, file: str, *way: str | int, to: Any) -> None:
    """Replace a value in a JSON file, and make the sums fit."""
    (path / file).write_text(json.dumps(replaced(path / file, *way, to=to)))
    mend_manifests(path)


def refused(path: Path, reader: str, match: str | None = None) -> None:
    """One reader refuses, as a damaged run or text, with little work, in few words."""
    with bounded(), pytest.raises((RunError, CorpusError), match=match) as caught:
        READERS[reader](path)
    assert len(str(caught.value)) < 2000


def test_a_whole_run_is_read_every_way(path: Path) -> None:
    """The readers of these tests find nothing wrong with it."""
    for reader in READERS:
        assert not judge(path, reader).refused
    assert problems(path) == []


@pytest.mark.parametrize("seed", range(3))
def test_lies_are_refused_or_make_no_difference(whole: Path, seed: int) -> None:
    """Random damage to random files: a refusal of the right kind, or the same model as before.

    What verify finds nothing wrong with has the weights and the facts of the whole run.
    """
    liar = Liar(whole, seed)
    told = 0
    try:
        for _ in range(LIES // 3):
            file, mended = liar.lie()
            told += sum(judge(liar.path, reader).refused for reader in ("load", "info", "verify"))
            if not mended and not judge(liar.path, "verify").refused:
                assert read_weights(liar.path) == liar.weights, file
                assert read_all(liar.path) == liar.told, file
            if liar.draws.random() < 0.2:
                judge(liar.path, "resume")
            liar.fresh()
    finally:
        liar.close()
    assert told > LIES / 10


def test_info_of_a_run_with_an_unknown_unit_is_no_bug(path: Path) -> None:
    """It reads no text, so it may show the run or refuse it, but not fail."""
    changed(path, "config.json", "vocabulary", "unit", to="../../x")
    judge(path, "info")


WRONG_RECORDS = [
    (("format",), 99), (("format",), None), (("name",), KeyError), (("name",), 5),
    (("origins",), "x"), (("status",), KeyError), (("parameters",), "x"), (("command",), 5),
    (("machine", "threads"), "x"), (("machine", "device_name"), KeyError),
    (("corpus", "name"), KeyError), (("corpus", "parts", "train"), 5),
    (("corpus", "parts"), {}), (("corpus", "parts", "train", "tokens"), "x"),
    (("results", "step"), "x"), (("results", "valid"), 3), (("precision",), "x"),
    (("settings", "training", "batch_size"), None), (("settings", "training", "bptt"), None),
    (("settings", "training", "batch_size"), 10**18), (("settings", "training", "seed"), -1),
    (("settings", "training", "learning_rate"), None), (("settings", "training", "x"), 1),
    (("settings", "model", "hidden_size"), 65536), (("settings", "model", "mixture"), 256),
    (("settings", "model", "num_layers"), 200), (("settings", "model", "num_layers"), 65536),
    (("settings", "model", "direction"), "backward"), (("settings", "model", "dropout"), None),
    (("settings", "bogus"), [1]), (("settings", "model", "cell"), "gru"),
    (("corpus", "sources"), None),
]  # fmt: skip


@pytest.mark.parametrize(("way", "to"), WRONG_RECORDS, ids=str)
def test_a_record_that_makes_no_sense_is_refused_on_resume(way, to, path: Path) -> None:
    """Before anything of the size that it claims is built, and before anything is written."""
    changed(path, "run.json", *way, to=to)
    before = (newest(path) / "state.safetensors").read_bytes()
    refused(path, "resume")
    assert (newest(path) / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["run.json", "MANIFEST.json", "states/step-12/MANIFEST.json"])
def test_files_that_hold_sums_are_as_they_were_written(name: str, path: Path) -> None:
    """To the last line end: nothing is cut off or changed unnoticed."""
    data = (path / name).read_bytes()
    for wrong in (data[:-1], data + b" ", data.replace(b"  ", b"\t", 1)):
        (path / name).write_bytes(wrong)
        assert any("not as charlm wrote it" in problem for problem in problems(path))


def test_a_record_is_sealed(path: Path) -> None:
    """A number changed by somebody who knows JSON but not the sum."""
    content = json.loads((path / "run.json").read_bytes())
    content["results"]["valid"]["perplexity"] = 1.01
    write_json(path / "run.json", content)
    refused(path, "info", "not as written")
    assert any("not as written" in problem for problem in problems(path))


@pytest.mark.parametrize("key", ["cell", "hidden_size", "num_layers"])
def test_a_config_without_what_people_are_told_is_refused(key: str, path: Path) -> None:
    """By info too, which builds no model."""
    changed(path, "config.json", "model", key, to=KeyError)
    refused(path, "info", f"model.{key} is missing")


WRONG_COUNTERS = [
    ("group", 10**9), ("offset", 10**9), ("offset", "x"), ("step", "x"), ("step", -1),
    ("tokens", None), ("seconds", "x"), ("epoch", -1), ("parts", 0), ("log_bytes", "x"),
    ("log_bytes", -1), ("best_nats", "x"), ("best_tally", {"nats": "x"}), ("best_tally", 3),
    ("validation_nats", None), ("validation_nats", ["x"]), ("plateau", "x"), ("plateau", -1.0),
    ("plateau", 0.0), ("plateau", 1.5),
    ("sum_nats", "x"), ("finished", 3), ("step", 99), ("unknown", 1), ("warnings", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_COUNTERS, ids=str)
def test_counters_that_make_no_sense_are_refused(name: str, value: Any, path: Path) -> None:
    """A position outside of the text would be waited for without end."""
    for folder in checkpoint_folders(path):
        changed(path, f"states/{folder.name}/state.json", name, to=value)
    refused(path, "resume")


def retold(path: Path, change: Callable[[dict], None]) -> None:
    """Other tensors in all states, with sums that fit."""
    for folder in checkpoint_folders(path):
        tensors = load_file(folder / "state.safetensors")
        change(tensors)
        save_file(tensors, folder / "state.safetensors", metadata={"format": "pt"})
    mend_manifests(path)


def each(prefix: str, function: Callable) -> Callable[[dict], None]:
    """Change every tensor whose name begins so."""

    def change(tensors: dict) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            tensors[name] = function(tensors[name])

    return change


def without(prefix: str) -> Callable[[dict], None]:
    def change(tensors: dict) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


WRONG_TENSORS = {
    "moments of another shape": each("optimizer.", lambda t: torch.zeros(3) if t.dim() else t),
    "moments as bytes": each("optimizer.", lambda t: t.to(torch.int8)),
    "moments that are no numbers": each("optimizer.", lambda t: t * float("nan")),
    "no moments": without("optimizer."),
    "some moments": without("optimizer.0.exp_avg_sq"),
    "moments of no weight": lambda t: t.update({"optimizer.99.exp_avg": torch.zeros(3)}),
    "weights of another type": each("model.", lambda t: t.double()),
    "weights of bytes": each("model.", lambda t: t.to(torch.int8)),
    "weights that are no numbers": each("model.", lambda t: t * float("nan")),
    "no weights": without("model."),
    "a narrower state": each("hidden.", lambda t: t[:, :1].clone()),
    "a state of another depth": lambda t: t.update({"hidden.1.0": torch.zeros(2, 3)}),
    "a state that is no number": each("hidden.", lambda t: t * float("inf")),
    "no generator": without("generator"),
    "another generator": lambda t: t.update({"generator": torch.zeros(8)}),
}


@pytest.mark.parametrize("what", WRONG_TENSORS)
def test_states_that_fit_no_model_are_refused(what: str, path: Path) -> None:
    """torch itself writes outside of its memory when a moment is too short."""
    retold(path, WRONG_TENSORS[what])
    refused(path, "resume", "does not fit")


def test_a_state_of_another_run_is_refused(path: Path, tmp_path: Path) -> None:
    """Same text, same shapes, another seed; a state under another number."""
    other = finish(tmp_path, "other", seed=2)
    shutil.rmtree(path / "states")
    shutil.copytree(other / "states", path / "states")
    assert "another run" in problems(path)[0]
    refused(path, "resume", "another run.*no other checkpoint is intact")
    newest(other).rename(other / "states" / "step-99")
    assert any("step 12" in problem and "99" in problem for problem in problems(other))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int8, torch.bool])
def test_weights_of_another_type_are_refused(kind: torch.dtype, path: Path) -> None:
    """A check for numbers that are not finite means little for a type that is cast later."""
    tensors = {k: t.to(kind) for k, t in load_file(path / "model.safetensors").items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    mend_manifests(path)
    refused(path, "load", "expected F32")


@pytest.mark.parametrize("wrong", [lambda t: t * float("nan"), lambda t: t.to(torch.int8)])
def test_averages_that_fit_no_model_are_refused(wrong, tmp_path: Path) -> None:
    """They would be written over the best weights."""
    path = finish(tmp_path, average=0.9, valid_frac=0.0)
    before = (path / "model.safetensors").read_bytes()
    retold(path, each("average.", wrong))
    refused(path, "resume", "does not fit")
    assert (path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("other", ["seed", "size"])
def test_states_of_other_runs_are_not_averaged(other: str, path: Path, tmp_path: Path) -> None:
    """Neither of the same shape nor of another one."""
    from charlm.runs.checkpoints import mean_weights

    chosen = {"seed": 2} if other == "seed" else {"learning_rate": 0.01}
    weights, steps = mean_weights(path)
    more = finish(tmp_path, "more", **chosen)
    shutil.copytree(newest(more), path / "states" / "step-13")
    again, same = mean_weights(path)
    assert same == steps
    assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.parametrize("value", [3e38, float("nan"), float("-inf")])
def test_weights_beyond_all_bounds_are_refused(value: float, path: Path) -> None:
    """Their sums overflow, and what is computed with them is no number."""
    tensors = load_file(path / "model.safetensors")
    tensors["output.weight"][0, 0] = value
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    refused(path, "load", "not finite or beyond")


def test_bytes_behind_the_tensors_are_refused(path: Path) -> None:
    """Also where they would be many: a sparse file is not read to its end."""
    with (path / "model.safetensors").open("ab") as file:
        file.truncate(1 << 40)
    refused(path, "load", "by its header")
    with bounded():
        assert any("not as written" in problem for problem in problems(path))


FILES = (
    "config.json", "tokenizer.json", "run.json", "MANIFEST.json", "model.safetensors",
    "data/train/counts.json", "data/train/ends.bin", "data/train/ids.bin",
)  # fmt: skip


@pytest.mark.parametrize("name", [*FILES, "metrics.jsonl", ".owner"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
def test_what_is_no_file_is_not_waited_for(name: str, kind: str, path: Path) -> None:
    """A named pipe, an endless device, a folder or a link to itself: every reader comes back."""
    file = path / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "device" else file.name)
    refusals = [judge(path, reader).refused for reader in READERS]
    assert any(refusals)
    if name != ".owner":
        assert judge(path, "verify").refused


@pytest.mark.parametrize("part", [".owner", "metrics.jsonl", "states", "backward"])
def test_training_writes_through_no_link(part: str, path: Path, tmp_path: Path) -> None:
    """What a link in a run leads to is not written, cut or deleted."""
    outside = tmp_path / "outside"
    if part in ("states", "backward"):
        outside.mkdir()
        (outside / ".tmp-mine").write_text("mine")
        shutil.rmtree(path / part, ignore_errors=True)
    else:
        outside.write_text("mine" * 99)
        (path / part).unlink(missing_ok=True)
    (path / part).symlink_to(outside)
    refused(path, "resume", "is a link")
    assert outside.is_dir() or outside.read_text() == "mine" * 99
    assert not outside.is_dir() or [f.name for f in outside.iterdir()] == [".tmp-mine"]


WRONG_MANIFESTS = [
    (("files",), [1]), (("files",), "x"), (("files",), {}), (("format",), 99),
    (("files", "config.json"), KeyError), (("files", "model.safetensors"), KeyError),
    (("files", "data/train/ids.bin"), KeyError),
]  # fmt: skip


@pytest.mark.parametrize(("way", "to"), WRONG_MANIFESTS, ids=str)
def test_a_manifest_that_leaves_something_out_is_told(way, to, path: Path) -> None:
    """A list with fewer names checks fewer files."""
    write_json(path / "MANIFEST.json", replaced(path / "MANIFEST.json", *way, to=to))
    assert any("MANIFEST.json" in problem for problem in problems(path))


@pytest.mark.parametrize("name", ["../x/config.json", "/etc/passwd", "a" * 300, ""])
def test_a_manifest_names_nothing_outside(name: str, path: Path) -> None:
    """Nor what no file can be called."""
    content = json.loads((path / "MANIFEST.json").read_bytes())
    content["files"][name] = content["files"]["config.json"]
    write_json(path / "MANIFEST.json", content)
    assert any("expected a name inside" in problem for problem in problems(path))


WRONG_COUNTS = [("dtype", "( ,u1"), ("dtype", "u1," * 50000), ("dtype", "int8"), ("dtype", None),
                ("chars", "x"), ("chars", -5), ("bytes", None), ("closed", 1)]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_COUNTS, ids=lambda v: str(v)[:20])
def test_counts_that_are_none_are_refused(name: str, value: Any, path: Path) -> None:
    """numpy would read a type of a million parts."""
    changed(path, "data/train/counts.json", name, to=value)
    refused(path, "resume")
    assert any("data/train" in problem for problem in problems(path))


def test_ids_outside_of_the_vocabulary_are_refused(path: Path) -> None:
    """Before they are looked up in an embedding that ends before them."""
    data = bytearray((path / "data/train/ids.bin").read_bytes())
    data[7] = 250
    (path / "data/train/ids.bin").write_bytes(data)
    mend_manifests(path)
    refused(path, "resume", "not the text")


DEEP = "[" * 100_000
LONG = {
    "deep": DEEP, "huge number": '{"format": 1e400}', "not a number": '{"format": NaN}',
    "many digits": '{"format": ' + "9" * 5000 + "}", "twice": '{"format": 1, "format": 1}',
    "mark": "\ufeff{}", "half a pair": '"\\ud800"', "blank": " " * (20 << 20), "empty": "",
    "long text": json.dumps({"format": "x" * (10 << 20)}),
}  # fmt: skip


@pytest.mark.parametrize("what", LONG)
@pytest.mark.parametrize("name", [n for n in FILES if n.endswith(".json")])
def test_json_that_is_none_is_refused(name: str, what: str, path: Path) -> None:
    """Deep, long, doubled, without bounds."""
    (path / name).write_text(LONG[what], encoding="utf-8")
    assert judge(path, "verify").refused
    for reader in READERS:
        judge(path, reader)


def test_nothing_of_a_run_is_executed(path: Path) -> None:
    """No process, no import of a new module from the run, no pickle, while it is read."""
    read_weights(path)
    go_on_a_little(path)
    torch.save({"x": torch.zeros(1)}, path / "evil")
    seen: list[str] = []

    def listen(event: str, arguments: tuple) -> None:
        if event.startswith(("os.exec", "os.system", "subprocess.", "pickle.", "marshal.")):
            seen.append(event)
        if event in ("exec", "compile") and "<string>" in str(arguments):
            seen.append(event)

    listening = [True]
    sys.addaudithook(lambda event, arguments: listen(event, arguments) if listening[0] else None)
    try:
        for reader in READERS:
            judge(path, reader)
        shutil.copy(path / "evil", path / "model.safetensors")
        for reader in READERS:
            judge(path, reader)
    finally:
        listening[0] = False
    assert seen == []


def test_names_too_long_for_a_file_are_no_run() -> None:
    """A refusal with the known names, and no word of the operating system."""
    from charlm.runs.locate import find_run

    with pytest.raises(RunError, match="no run"):
        find_run("x" * 300, Path("nowhere"))


def test_numbers_too_long_for_a_setting() -> None:
    """An integer of 400 digits where a number is expected."""
    from charlm.config.settings import settings_from

    with pytest.raises(UsageError, match="expected a number"):
        settings_from({"model": {"dropout": 10**400}})


def test_what_never_began_is_in_nobodys_way(tmp_path: Path) -> None:
    """A process that died before its run began leaves a name that can be taken again."""
    dead = begin(tmp_path, "x")
    dead.lock.release()
    (dead.path / "run.json").unlink()
    session = begin(tmp_path, "x")
    session.lock.release()
    (session.path / "run.json").unlink()
    (session.path / "mine.txt").write_text("mine")
    with pytest.raises(CharlmError, match="already exists"):
        begin(tmp_path, "x")


def test_the_comparison_can_fail(whole: Path) -> None:
    """A lie that nothing finds would be found: the sums of two models differ."""
    liar = Liar(whole, 1)
    try:
        tensors = load_file(liar.path / "model.safetensors")
        tensors["output.bias"] += random.Random(1).random()
        save_file(tensors, liar.path / "model.safetensors", metadata={"format": "pt"})
        assert read_weights(liar.path) != liar.weights
    finally:
        liar.close()
