"""Damaged or forged runs: refused in one line, quickly, and without executing their content."""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import (
    READERS,
    Liar,
    begin,
    finish,
    mend_manifests,
    problems,
    read_all,
    read_weights,
    refuses,
    train_a_little,
)
from safetensors.torch import load_file, save_file
from waiting import bounded

from charlm.errors import CharlmError, CorpusError, RunError
from charlm.files.atomic import write_json
from charlm.runs.checkpoints import checkpoint_folders

DAMAGES = 300
"""Damaged files to try; `scripts/torture` tries many more."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy of the run to damage."""
    return Path(shutil.copytree(whole, tmp_path / "x"))


def newest(path: Path) -> Path:
    return checkpoint_folders(path)[0]


def with_value(path: Path, *way: str | int, to: Any) -> dict:
    """Return the content of a JSON file with one value replaced, or removed if `to` is KeyError."""
    content = json.loads(path.read_bytes())
    inner = content
    for key in way[:-1]:
        inner = inner[key]
    if to is KeyError:
        del inner[way[-1]]
    else:
        inner[way[-1]] = to
    return content


def change_json(path: Path, file: str, *way: str | int, to: Any) -> None:
    """Replace a value in a JSON file, and make the checksums match."""
    (path / file).write_text(json.dumps(with_value(path / file, *way, to=to)))
    mend_manifests(path)


def assert_refused(path: Path, reader: str, match: str | None = None) -> None:
    """Check that a reader refuses the run as damaged, in few words and with little work."""
    with bounded(), pytest.raises((RunError, CorpusError), match=match) as caught:
        READERS[reader](path)
    assert len(str(caught.value)) < 2000


def test_every_reader_accepts_an_intact_run(path: Path) -> None:
    for reader in READERS:
        assert not refuses(path, reader)
    assert problems(path) == []


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_refused_or_makes_no_difference(whole: Path, seed: int) -> None:
    """A run that verify accepts has the weights and facts of the intact run."""
    liar = Liar(whole, seed)
    refusals = 0
    try:
        for _ in range(DAMAGES // 3):
            file, mended = liar.lie()
            refused = [refuses(liar.path, reader) for reader in ("load", "info", "verify")]
            refusals += sum(refused)
            if not mended and not refused[-1]:
                assert read_weights(liar.path) == liar.weights, file
                assert read_all(liar.path) == liar.facts, file
            if liar.draws.random() < 0.2:
                refuses(liar.path, "resume")
            liar.fresh()
    finally:
        liar.close()
    assert refusals > DAMAGES / 10


def test_info_survives_an_unknown_unit(path: Path) -> None:
    """It reads no text, so it may show or refuse the run, but not fail."""
    change_json(path, "config.json", "vocabulary", "unit", to="../../x")
    refuses(path, "info")


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
def test_resume_refuses_an_invalid_record(way, to, path: Path) -> None:
    """Before anything of the claimed size is built, and before anything is written."""
    change_json(path, "run.json", *way, to=to)
    before = (newest(path) / "state.safetensors").read_bytes()
    assert_refused(path, "resume")
    assert (newest(path) / "state.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["run.json", "MANIFEST.json", "states/step-12/MANIFEST.json"])
def test_files_without_a_checksum_must_be_byte_identical(name: str, path: Path) -> None:
    data = (path / name).read_bytes()
    for wrong in (data[:-1], data + b" ", data.replace(b"  ", b"\t", 1)):
        (path / name).write_bytes(wrong)
        assert any("not as charlm wrote it" in problem for problem in problems(path))


def test_a_changed_figure_breaks_the_seal_of_a_record(path: Path) -> None:
    content = json.loads((path / "run.json").read_bytes())
    content["results"]["valid"]["perplexity"] = 1.01
    write_json(path / "run.json", content)
    assert_refused(path, "info", "not as written")
    assert any("not as written" in problem for problem in problems(path))


@pytest.mark.parametrize("key", ["cell", "hidden_size", "num_layers"])
def test_info_refuses_a_config_without_sizes(key: str, path: Path) -> None:
    """Although it builds no model."""
    change_json(path, "config.json", "model", key, to=KeyError)
    assert_refused(path, "info", f"model.{key} is missing")


WRONG_COUNTERS = [
    ("group", 10**9), ("offset", 10**9), ("offset", "x"), ("step", "x"), ("step", -1),
    ("tokens", None), ("seconds", "x"), ("epoch", -1), ("parts", 0), ("log_bytes", "x"),
    ("log_bytes", -1), ("best_nats", "x"), ("best_tally", {"nats": "x"}), ("best_tally", 3),
    ("validation_nats", None), ("validation_nats", ["x"]), ("plateau", "x"), ("plateau", -1.0),
    ("plateau", 0.0), ("plateau", 1.5),
    ("sum_nats", "x"), ("finished", 3), ("step", 99), ("unknown", 1), ("warnings", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_COUNTERS, ids=str)
def test_resume_refuses_invalid_counters(name: str, value: Any, path: Path) -> None:
    """A position outside of the text would never be reached."""
    for folder in checkpoint_folders(path):
        change_json(path, f"states/{folder.name}/state.json", name, to=value)
    assert_refused(path, "resume")


def change_checkpoints(path: Path, change: Callable[[dict], None]) -> None:
    """Change the tensors of all checkpoints, and make the checksums match."""
    for folder in checkpoint_folders(path):
        tensors = load_file(folder / "state.safetensors")
        change(tensors)
        save_file(tensors, folder / "state.safetensors", metadata={"format": "pt"})
    mend_manifests(path)


def each_tensor(prefix: str, function: Callable) -> Callable[[dict], None]:
    """Apply a function to every tensor whose name begins with the prefix."""

    def change(tensors: dict) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            tensors[name] = function(tensors[name])

    return change


def without_tensors(prefix: str) -> Callable[[dict], None]:
    def change(tensors: dict) -> None:
        for name in [name for name in tensors if name.startswith(prefix)]:
            del tensors[name]

    return change


WRONG_TENSORS = {
    "moments of another shape": each_tensor(
        "optimizer.", lambda t: torch.zeros(3) if t.dim() else t
    ),
    "moments as bytes": each_tensor("optimizer.", lambda t: t.to(torch.int8)),
    "moments that are no numbers": each_tensor("optimizer.", lambda t: t * float("nan")),
    "no moments": without_tensors("optimizer."),
    "some moments": without_tensors("optimizer.0.exp_avg_sq"),
    "moments of no weight": lambda t: t.update({"optimizer.99.exp_avg": torch.zeros(3)}),
    "weights of another type": each_tensor("model.", lambda t: t.double()),
    "weights of bytes": each_tensor("model.", lambda t: t.to(torch.int8)),
    "weights that are no numbers": each_tensor("model.", lambda t: t * float("nan")),
    "no weights": without_tensors("model."),
    "a narrower state": each_tensor("hidden.", lambda t: t[:, :1].clone()),
    "a state of another depth": lambda t: t.update({"hidden.1.0": torch.zeros(2, 3)}),
    "a state that is no number": each_tensor("hidden.", lambda t: t * float("inf")),
    "no generator": without_tensors("generator"),
    "another generator": lambda t: t.update({"generator": torch.zeros(8)}),
}


@pytest.mark.parametrize("what", WRONG_TENSORS)
def test_resume_refuses_tensors_that_do_not_fit_the_model(what: str, path: Path) -> None:
    """torch writes outside of its memory if a moment is too short."""
    change_checkpoints(path, WRONG_TENSORS[what])
    assert_refused(path, "resume", "does not fit")


def test_a_checkpoint_of_another_run_is_refused(path: Path, tmp_path: Path) -> None:
    """One with another seed, and one under another step number."""
    other = finish(tmp_path, "other", seed=2)
    shutil.rmtree(path / "states")
    shutil.copytree(other / "states", path / "states")
    assert "another run" in problems(path)[0]
    assert_refused(path, "resume", "another run.*no other checkpoint is intact")
    newest(other).rename(other / "states" / "step-99")
    assert any("step 12" in problem and "99" in problem for problem in problems(other))


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int8, torch.bool])
def test_weights_of_another_type_are_refused(kind: torch.dtype, path: Path) -> None:
    """Checking for finite numbers is useless if the type is cast later."""
    tensors = {k: t.to(kind) for k, t in load_file(path / "model.safetensors").items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    mend_manifests(path)
    assert_refused(path, "load", "expected F32")


@pytest.mark.parametrize("wrong", [lambda t: t * float("nan"), lambda t: t.to(torch.int8)])
def test_resume_refuses_averages_that_do_not_fit_the_model(wrong, tmp_path: Path) -> None:
    """They would replace the best weights."""
    path = finish(tmp_path, average=0.9, valid_frac=0.0)
    before = (path / "model.safetensors").read_bytes()
    change_checkpoints(path, each_tensor("average.", wrong))
    assert_refused(path, "resume", "does not fit")
    assert (path / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("other", ["seed", "size"])
def test_checkpoints_of_other_runs_are_not_averaged(other: str, path: Path, tmp_path: Path) -> None:
    from charlm.runs.checkpoints import mean_weights

    chosen = {"seed": 2} if other == "seed" else {"learning_rate": 0.01}
    weights, steps = mean_weights(path)
    more = finish(tmp_path, "more", **chosen)
    shutil.copytree(newest(more), path / "states" / "step-13")
    again, same = mean_weights(path)
    assert same == steps
    assert all(torch.equal(weights[name], again[name]) for name in weights)


@pytest.mark.parametrize("value", [3e38, float("nan"), float("-inf")])
def test_weights_that_are_too_large_are_refused(value: float, path: Path) -> None:
    """Their sums overflow."""
    tensors = load_file(path / "model.safetensors")
    tensors["output.weight"][0, 0] = value
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert_refused(path, "load", "not finite or beyond")


def test_bytes_after_the_tensors_are_refused(path: Path) -> None:
    """A sparse file of a terabyte is not read to its end."""
    with (path / "model.safetensors").open("ab") as file:
        file.truncate(1 << 40)
    assert_refused(path, "load", "by its header")
    with bounded():
        assert any("not as written" in problem for problem in problems(path))


FILES = (
    "config.json", "tokenizer.json", "run.json", "MANIFEST.json", "model.safetensors",
    "data/train/counts.json", "data/train/ends.bin", "data/train/ids.bin",
)  # fmt: skip


@pytest.mark.parametrize("name", [*FILES, "metrics.jsonl", ".owner"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
def test_no_reader_waits_for_a_pipe_or_device(name: str, kind: str, path: Path) -> None:
    """The same holds for a folder and for a link to itself."""
    file = path / name
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "device" else file.name)
    refusals = [refuses(path, reader) for reader in READERS]
    assert any(refusals)
    if name != ".owner":
        assert refuses(path, "verify")


@pytest.mark.parametrize("part", [".owner", "metrics.jsonl", "states", "backward"])
def test_training_does_not_write_through_links(part: str, path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    if part in ("states", "backward"):
        outside.mkdir()
        (outside / ".tmp-mine").write_text("mine")
        shutil.rmtree(path / part, ignore_errors=True)
    else:
        outside.write_text("mine" * 99)
        (path / part).unlink(missing_ok=True)
    (path / part).symlink_to(outside)
    assert_refused(path, "resume", "is a link")
    assert outside.is_dir() or outside.read_text() == "mine" * 99
    assert not outside.is_dir() or [f.name for f in outside.iterdir()] == [".tmp-mine"]


WRONG_MANIFESTS = [
    (("files",), [1]), (("files",), "x"), (("files",), {}), (("format",), 99),
    (("files", "config.json"), KeyError), (("files", "model.safetensors"), KeyError),
    (("files", "data/train/ids.bin"), KeyError),
]  # fmt: skip


@pytest.mark.parametrize(("way", "to"), WRONG_MANIFESTS, ids=str)
def test_an_incomplete_manifest_is_reported(way, to, path: Path) -> None:
    """A list with fewer names would check fewer files."""
    write_json(path / "MANIFEST.json", with_value(path / "MANIFEST.json", *way, to=to))
    assert any("MANIFEST.json" in problem for problem in problems(path))


@pytest.mark.parametrize("name", ["../x/config.json", "/etc/passwd", "a" * 300, ""])
def test_a_manifest_names_no_file_outside_the_run(name: str, path: Path) -> None:
    content = json.loads((path / "MANIFEST.json").read_bytes())
    content["files"][name] = content["files"]["config.json"]
    write_json(path / "MANIFEST.json", content)
    assert any("expected a name inside" in problem for problem in problems(path))


WRONG_COUNTS = [("dtype", "( ,u1"), ("dtype", "u1," * 50000), ("dtype", "int8"), ("dtype", None),
                ("chars", "x"), ("chars", -5), ("bytes", None), ("closed", 1)]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG_COUNTS, ids=lambda v: str(v)[:20])
def test_resume_refuses_invalid_counts_of_a_text(name: str, value: Any, path: Path) -> None:
    """numpy would accept a type of a million parts."""
    change_json(path, "data/train/counts.json", name, to=value)
    assert_refused(path, "resume")
    assert any("data/train" in problem for problem in problems(path))


def test_resume_refuses_ids_outside_of_the_vocabulary(path: Path) -> None:
    data = bytearray((path / "data/train/ids.bin").read_bytes())
    data[7] = 250
    (path / "data/train/ids.bin").write_bytes(data)
    mend_manifests(path)
    assert_refused(path, "resume", "not the text")


DEEP = "[" * 100_000
LONG = {
    "deep": DEEP, "huge number": '{"format": 1e400}', "not a number": '{"format": NaN}',
    "many digits": '{"format": ' + "9" * 5000 + "}", "twice": '{"format": 1, "format": 1}',
    "mark": "\ufeff{}", "half a pair": '"\\ud800"', "blank": " " * (20 << 20), "empty": "",
    "long text": json.dumps({"format": "x" * (10 << 20)}),
}  # fmt: skip


@pytest.mark.parametrize("what", LONG)
@pytest.mark.parametrize("name", [n for n in FILES if n.endswith(".json")])
def test_invalid_json_is_refused(name: str, what: str, path: Path) -> None:
    (path / name).write_text(LONG[what], encoding="utf-8")
    assert refuses(path, "verify")
    for reader in READERS:
        refuses(path, reader)


def test_reading_a_run_executes_nothing(path: Path) -> None:
    """No process, no import from the run, no pickle."""
    read_weights(path)
    train_a_little(path)
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
            refuses(path, reader)
        shutil.copy(path / "evil", path / "model.safetensors")
        for reader in READERS:
            refuses(path, reader)
    finally:
        listening[0] = False
    assert seen == []


def test_a_name_that_is_too_long_for_a_file_is_no_run() -> None:
    from charlm.runs.locate import find_run

    with pytest.raises(RunError, match="no run"):
        find_run("x" * 300, Path("nowhere"))


def test_a_run_that_never_began_leaves_its_name_free(tmp_path: Path) -> None:
    dead = begin(tmp_path, "x")
    dead.lock.release()
    (dead.path / "run.json").unlink()
    session = begin(tmp_path, "x")
    session.lock.release()
    (session.path / "run.json").unlink()
    (session.path / "mine.txt").write_text("mine")
    with pytest.raises(CharlmError, match="already exists"):
        begin(tmp_path, "x")


def test_the_comparison_of_these_tests_can_fail(whole: Path) -> None:
    liar = Liar(whole, 1)
    try:
        tensors = load_file(liar.path / "model.safetensors")
        tensors["output.bias"] += random.Random(1).random()
        save_file(tensors, liar.path / "model.safetensors", metadata={"format": "pt"})
        assert read_weights(liar.path) != liar.weights
    finally:
        liar.close()
