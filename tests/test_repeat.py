"""Repeated runs: the load of the machine changes nothing."""

import json
import shlex
from pathlib import Path

import pytest
from helpers import SHORT_TEXT as TEXT
from helpers import Call, started

from charlm.nn import devices, heap
from charlm.nn.devices import Precision
from charlm.report.repeating import repeat_command, repeat_note
from charlm.runs.layout import read_record
from charlm.training.resume import resume

CHOSEN = Precision(name="bf16", reason="gradients agree")
UNSERVED = "this processor has no bfloat16 arithmetic"


@pytest.fixture(autouse=True)
def usual_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the process's memory rules as they are."""
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: True)


def begun_in_bf16(folder: Path, monkeypatch: pytest.MonkeyPatch, **training) -> Path:
    """Return a run of three steps that `auto` or `bf16` began in bf16."""
    with monkeypatch.context() as patch:
        patch.setattr(devices, "choose_precision", lambda *_, **__: CHOSEN)
        patch.setattr(devices, "missing_bf16", lambda _: None)
        session = started(folder, **{"precision": "auto"} | training)
    list(session.records())
    return session.path


def refused(*_: object, **__: object) -> Precision:
    raise AssertionError("the precision was chosen again")


@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_a_resumed_run_keeps_its_precision(
    asked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without another probe, as long as the processor computes in bfloat16."""
    path = begun_in_bf16(tmp_path, monkeypatch, precision=asked)
    monkeypatch.setattr(devices, "choose_precision", refused)
    monkeypatch.setattr(devices, "processor_has_bf16", lambda: True)
    for changes in ({"steps": 4}, {"steps": 4, "precision": asked}):
        session = resume(path, {"training": changes})
        assert session.trainer.task.loss.precision == CHOSEN
        assert session.record["precision"] == CHOSEN.record()
        assert not any("precision" in note for note in session.warnings)
        session.lock.release()


@pytest.mark.parametrize(
    ("changes", "why"), [({"steps": 4}, UNSERVED), ({"precision": "fp32"}, "as set")]
)
def test_a_change_of_precision_is_reported(
    changes: dict[str, object], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor without bfloat16, and if the user asks for another precision."""
    path = begun_in_bf16(tmp_path, monkeypatch)
    monkeypatch.setattr(devices, "processor_has_bf16", lambda: False)
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", 0)
    session = resume(path, {"training": changes})
    assert session.trainer.task.loss.precision == Precision(name="fp32", reason=why)
    assert [note for note in session.warnings if "precision" in note] == [
        f"the precision changed from bf16 to fp32 ({why}); the weights will differ from those "
        "of an uninterrupted run"
    ]
    session.lock.release()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--unit", "word", "--min-count", "2", "--cell", "gru", "--tie"],
        ["--embedding", "one-hot", "--document", "line", "--hold-out", "random"],
        ["--vocab", "v.json", "--preset", "torch-rnn", "--epochs", "0.5", "--hidden", "5"],
        ["--set", "recurrent_init=uniform:0.2", "--no-calibrate", "--valid", "my text.txt"],
        ["--direction", "both", "--skip", "--layers", "2", "--optimizer", "sgd"],
    ],
)
def test_the_command_that_info_names_gives_the_same_weights(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """To the bit, whatever was left to rules and to the machine."""
    monkeypatch.chdir(tmp_path)
    Path("my text.txt").write_text(TEXT * 4, encoding="utf-8")
    if "--vocab" in flags:
        assert call("vocab", "my text.txt", "--out", "v.json")[0] == 0
    size = [] if "--preset" in flags else ["--hidden", "6", "--steps", "4"]
    assert call("train", "my text.txt", *size, *flags, "--name", "a")[0] == 0
    again = json.loads(call("info", "--run", "a", "--json")[1])["repeat"]
    assert again in call("info", "--run", "a")[1].splitlines()
    assert call(*shlex.split(again)[1:], "--name", "b")[0] == 0
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (Path("checkpoints/a") / name).read_bytes() == (
            Path("checkpoints/b") / name
        ).read_bytes()


@pytest.mark.parametrize("loops", [True, False])
def test_the_command_repeats_what_computed_the_layers(
    loops: bool, here: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """The loop, or torch in a run of an earlier version that had no loop."""
    Path("a.txt").write_text(TEXT * 4, encoding="utf-8")
    size = ["--cell", "gru", "--hidden", "24", "--steps", "4", "--bptt", "16", "--batch", "4"]
    with monkeypatch.context() as patch:
        if not loops:
            patch.setattr(devices, "loop_pays", lambda _: False)
        assert call("train", "a.txt", *size, "--name", "a")[0] == 0
    again = json.loads(call("info", "--run", "a", "--json")[1])["repeat"]
    assert call(*shlex.split(again)[1:], "--name", "b")[0] == 0
    paths = [here / "checkpoints" / name for name in "ab"]
    kernels = [read_record(path)["precision"].get("kernels") for path in paths]
    assert kernels == ["loop" if loops else None] * 2
    first, second = ((path / "model.safetensors").read_bytes() for path in paths)
    assert first == second


@pytest.mark.parametrize(
    ("name", "lines", "flags"),
    [
        ("a.csv", "text;n\nthe cat;1\n" + "a dog sat;2\n" * 20, ["--header", "--column", "text"]),
        ("a.csv", "the cat;1\n" + "a dog sat;2\n" * 20, ["--no-header", "--column", "1"]),
        ("a.tsv", 'text\tn\n"the cat"\t1\n' + "a\t2\n" * 20, ["--quoting", "csv", "--header"]),
        ("-a.txt", TEXT, ["--keep-cr", "--document", "line"]),
    ],
)
def test_the_command_reads_the_text_as_the_run_did(
    name: str, lines: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    call: Call,
) -> None:  # fmt: skip
    """Tables with and without a header, and a file whose name begins like a flag."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text(lines, encoding="utf-8")
    size = ["--hidden", "3", "--layers", "1", "--steps", "1", "--batch", "2", "--bptt", "4"]
    assert call("train", *flags, *size, "--name", "a", "--", name)[0] == 0
    again = json.loads(call("info", "--run", "a", "--json")[1])["repeat"]
    assert call(*shlex.split(again)[1:], "--name", "b")[0] == 0
    first, second = (Path("checkpoints") / run / "data" for run in "ab")
    parts = [part.relative_to(first) for part in first.rglob("*.bin")]
    assert parts
    assert all((first / part).read_bytes() == (second / part).read_bytes() for part in parts)
    assert (
        read_record(first.parent)["corpus"]["parts"]
        == (read_record(second.parent)["corpus"]["parts"])
    )


def test_a_run_whose_settings_changed_is_not_called_the_same(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first steps had other rates, so no command repeats them; a stop changes no settings.

    A run of the clock cannot be repeated to the bit either.
    """
    monkeypatch.chdir(tmp_path)
    path = started(tmp_path, precision="auto").path
    source = tmp_path / "a.txt"
    record = read_record(path)
    record["settings"]["corpus"]["sources"] = [str(source)]
    assert repeat_note(record) == "To train it again, bit for bit on this machine:"
    old = {name: value for name, value in record.items() if name != "planned"}
    assert repeat_note(old) == "To train one with these settings:"
    clock = {**record["settings"], "training": {**record["settings"]["training"], "minutes": 1.0}}
    assert repeat_note(record | {"settings": clock}).startswith("The run was limited by minutes")

    source.write_text(TEXT, encoding="utf-8")
    folder = str(tmp_path / "runs")
    size = ["--hidden", "3", "--layers", "1", "--batch", "2", "--bptt", "4", "--steps", "3"]
    assert call("train", str(source), *size, "--name", "a", "--checkpoints", folder)[0] == 0
    same, changed = "bit for bit", "Settings changed when the run was resumed"
    assert same in call("info", "--run", f"{folder}/a")[1]
    assert call("train", "--resume", "--run", f"{folder}/a")[0] == 0
    assert same in call("info", "--run", f"{folder}/a")[1]
    assert call("train", "--resume", "--run", f"{folder}/a", "--more-steps", "2")[0] == 0
    shown = call("info", "--run", f"{folder}/a")[1]
    assert changed in shown
    assert same not in shown


def test_a_run_of_some_minutes_names_its_steps(tmp_path: Path) -> None:
    """The clock decided its length; text that was not kept cannot be read again."""
    session = started(tmp_path, precision="auto")
    list(session.records())
    record = dict(session.record)
    assert repeat_command(session.path, record) is None
    other = {**record["settings"], "training": {"of_a_later_version": 1}}
    assert repeat_command(session.path, record | {"settings": other}) is None
    record["settings"]["corpus"]["sources"] = ["a.txt"]
    record["settings"]["training"] |= {"steps": None, "minutes": 2.0}
    again = repeat_command(session.path, record)
    assert again
    assert "--steps 3" in again
    assert "--minutes" not in again
