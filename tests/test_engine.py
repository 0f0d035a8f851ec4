"""Runs that are trained in the compiled kernels: as good as in torch, resumed exactly, recorded."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import Call, started

from charlm.backends import training_library
from charlm.config.settings import settings_from
from charlm.config.training import precision_text
from charlm.errors import EnvironmentFailure, UsageError
from charlm.nn import devices, heap, kernel_layers, output
from charlm.report.repeating import repeat_command
from charlm.runs.layout import WEIGHTS, read_record
from charlm.runs.verify import verify_run
from charlm.training import machine
from charlm.training.records import StepRecord
from charlm.training.resume import resume
from charlm.training.session import Session

VARIANT = next((name for name in ("emulated512", "amx") if name in training_library.variants()), "")
LINES = "the cat sat on the mat\nthe dog ran to the log\na cat and a dog\n" * 12
SIZES = {"hidden_size": 33, "embedding_size": 33, "num_layers": 2, "batch_size": 8, "bptt": 16}


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> str:
    """Training kernels on this machine, which also emulates those of others."""
    if not VARIANT:
        pytest.skip("no training kernels run here; they need AVX-512 BF16 and a C++ compiler")
    monkeypatch.setenv(training_library.VARIABLE, VARIANT)
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: True)
    return VARIANT


def trained(session: Session) -> list[float]:
    """Train to the end; return the losses of the step records."""
    return [r.nats_per_token for r in session.records() if isinstance(r, StepRecord)]


def native(folder: Path, name: str = "x", **changes) -> Session:
    values = {"precision": "auto", "engine": "native", "learning_rate": 0.01, **SIZES}
    return started(folder, name, text=LINES, **values | changes)


@pytest.mark.parametrize(
    "changes",
    [{"weight_drop": 0.3, "tie_weights": True}, {"dropout": 0.2, "skip": True, "cell": "gru"}],
    ids=["weight drop, tied", "dropout, skip, GRU"],
)
def test_training_in_kernels_learns_as_much_as_in_float32(
    kernels: str, changes: dict, tmp_path: Path
) -> None:
    if changes.get("cell", "lstm") not in training_library.CELLS:
        pytest.skip("the kernels have no such cell")
    losses = {}
    for name, more in (("exact", {"engine": "torch", "precision": "fp32"}), ("rough", {})):
        session = native(tmp_path, name, steps=40, calibrate=False, **changes | more)
        losses[name] = trained(session)
        expected = kernels if name == "rough" else None
        assert session.record["precision"].get("kernels") == expected
    first, last = losses["exact"][0], losses["exact"][-1]
    assert last < first - 0.2
    for exact, rough in zip(*losses.values(), strict=True):
        assert rough == pytest.approx(exact, abs=0.02)


@pytest.mark.usefixtures("kernels")
def test_a_run_in_kernels_resumes_to_the_same_bits(tmp_path: Path) -> None:
    changes = {"weight_drop": 0.2, "dropout": 0.2, "document": "line"}
    whole = native(tmp_path, "whole", steps=6, **changes)
    trained(whole)
    half = native(tmp_path, "half", steps=3, **changes)
    trained(half)
    session = resume(half.path, {"training": {"steps": 6}})
    assert not [text for text in session.warnings if "precision" in text]
    trained(session)
    assert (half.path / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()
    assert not [check for check in verify_run(half.path) if check.problems]


def test_a_run_in_kernels_resumes_without_them_and_says_so(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without them, and if torch is asked for; back again too."""
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", 0)
    session = native(tmp_path, engine="auto", steps=2, batch_size=24, bptt=4)
    session.lock.release()
    for environment, changes, before, after in (
        ("none", {}, f"bf16 in {kernels} kernels", "bf16"),
        (kernels, {}, "", ""),  # a run keeps what it used
        (kernels, {"engine": "native"}, "bf16", f"bf16 in {kernels} kernels"),
        (kernels, {"engine": "torch"}, f"bf16 in {kernels} kernels", "bf16"),
    ):
        monkeypatch.setenv(training_library.VARIABLE, environment)
        session = resume(session.path, {"training": changes})
        new = session.warnings[session.warned :]
        notes = [text for text in new if "precision changed" in text]
        expected = f"the precision changed from {before} to {after} (gradients agree with fp32)"
        assert [note.partition(";")[0] for note in notes] == ([expected] if before else [])
        session.lock.release()
        assert after in ("", precision_text(session.record["precision"]))


def test_a_resumed_run_is_compared_again_on_another_processor(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one with AMX, torch's bf16 may be wrong that was right on another."""
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", 0)
    session = native(tmp_path, engine="torch", steps=2)
    session.lock.release()
    monkeypatch.setattr(machine, "processor_name", lambda: "another")
    for problems, expected in (({}, None), ({None: "33 % off"}, kernels)):
        monkeypatch.setattr(devices, "gradient_problem", lambda *a, p=problems: p.get(a[3]))
        session = resume(session.path, {"training": {"engine": "auto"}})
        session.lock.release()
        assert session.record["precision"]["name"] == "bf16"
        assert session.record["precision"].get("kernels") == expected
    assert "bf16 in" in session.warnings[-1] and "in torch, 33 % off" in session.warnings[-1]


def test_a_run_whose_kernels_cannot_be_opened_resumes_in_torch(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may not permit tiles; the run ended with an error at its first step."""
    monkeypatch.setattr(devices, "MIN_BF16_WEIGHTS", 0)
    session = native(tmp_path, engine="auto", steps=2, batch_size=24, bptt=4)
    session.lock.release()
    assert session.record["precision"]["kernels"] == kernels

    def refused(variant: str) -> None:
        raise EnvironmentFailure(f"the {variant} training kernels need tiles")

    monkeypatch.setattr(machine, "open_library", refused)
    monkeypatch.setattr(kernel_layers, "open_library", refused)
    session = resume(session.path, {})
    session.lock.release()
    assert "kernels" not in session.record["precision"]
    assert f"in {kernels} kernels, the {kernels} training kernels need tiles" in "".join(
        session.warnings
    )


def test_a_machine_without_kernels_refuses_a_request_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(training_library.VARIABLE, "none")
    with pytest.raises(EnvironmentFailure, match=r"Unset CHARLM_.*, or use engine='torch'$"):
        native(tmp_path)


@pytest.mark.parametrize("name", ["zoneout", "zoneout_cell", "state_dropout"])
def test_what_kernels_do_not_compute_is_refused_beside_them(
    name: str, kernels: str, tmp_path: Path
) -> None:
    """Else torch would compute it, and run.json would name the kernels all the same."""
    with pytest.raises(UsageError, match=rf"engine='native' with {name}, .* leave out {name}$"):
        native(tmp_path, **{name: 0.1})
    session = native(
        tmp_path, engine="auto", precision="bf16", batch_size=24, steps=1, **{name: 0.1}
    )
    session.lock.release()
    assert "kernels" not in session.record["precision"], kernels


def with_softmax(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "x", **changes
) -> Session:
    """Start a run with layers in torch and, where kernels compute it, a large softmax."""
    monkeypatch.setattr(output, "MIN_CHUNKED", 2)
    return native(folder, name, engine="auto", precision="bf16", **changes)


def test_a_resumed_run_keeps_what_computed_its_softmax(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch too, where there are kernels now, and to the same bits; else it says so."""
    for name, environment, variant in (("kernels", kernels, kernels), ("torch", "none", None)):
        monkeypatch.setenv(training_library.VARIABLE, environment)
        whole = with_softmax(tmp_path, monkeypatch, f"{name}-whole", steps=6, document="line")
        half = with_softmax(tmp_path, monkeypatch, f"{name}-half", steps=3, document="line")
        trained(whole), trained(half)
        monkeypatch.setenv(training_library.VARIABLE, kernels)
        session = resume(half.path, {"training": {"steps": 6}})
        assert not [text for text in session.warnings if "precision" in text]
        assert session.record["precision"].get("softmax") == variant
        assert "kernels" not in session.record["precision"]
        trained(session)
        assert (half.path / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()
    monkeypatch.setenv(training_library.VARIABLE, "none")
    session = resume(tmp_path / "kernels-half", {"training": {"steps": 7}})
    session.lock.release()
    before = f"bf16, its softmax in {kernels} kernels"
    assert f"the precision changed from {before} to bf16 (" in "".join(session.warnings)


def test_only_a_large_softmax_of_a_language_model_is_recorded(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = with_softmax(tmp_path, monkeypatch)
    mixture = with_softmax(tmp_path, monkeypatch, "mixture", mixture=2)
    large.lock.release(), mixture.lock.release()
    assert large.record["precision"]["softmax"] == kernels
    assert "softmax" not in mixture.record["precision"]
    kept = devices.Precision(name="bf16", reason="", kernels=kernels, softmax=kernels)
    settings = settings_from({"task": {"task": "classify"}, "corpus": {"sources": ("a",)}})
    assert machine.as_used(kept, settings) == replace(kept, softmax=None)


def test_an_unknown_name_of_kernels_is_refused_for_every_cell(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else torch would compute the softmax without a word."""
    monkeypatch.setenv(training_library.VARIABLE, f"{kernels}x")
    with pytest.raises(EnvironmentFailure, match=f"is '{kernels}x'; expected none, or a variant"):
        with_softmax(tmp_path, monkeypatch, cell="mingru")


def test_the_command_repeats_what_computed_the_softmax(
    kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variant, engine in ((kernels, "auto"), ("none", "torch")):
        monkeypatch.setenv(training_library.VARIABLE, variant)
        session = with_softmax(tmp_path, monkeypatch, variant)
        session.lock.release()
        session.record["settings"]["corpus"]["sources"] = ["a.txt"]
        words = repeat_command(session.path, session.record) or ""
        assert "--precision bf16" in words
        assert ("--engine torch" in words) == (engine == "torch")


def test_float32_and_kernels_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"engine='native' with precision='fp32'; its kernels"):
        native(tmp_path, precision="fp32")


def test_the_command_line_names_what_computed_a_run(kernels: str, here: Path, call: Call) -> None:
    """In the plan, in `info` and in the command that repeats the run."""
    Path("a.txt").write_text(LINES, encoding="utf-8")
    flags = ["--engine", "native", "--hidden", "33", "--steps", "2", "--name", "a"]
    code, _, err = call("train", "a.txt", *flags)
    assert code == 0, err
    assert f"device cpu, bf16 in {kernels} kernels (gradients agree with fp32)" in err
    assert read_record(Path("checkpoints/a"))["precision"]["kernels"] == kernels
    out = call("info", "--run", "a")[1]
    assert f"bf16 in {kernels} kernels" in out
    assert "--engine native" in out


def test_kernels_are_off_outside_of_the_forward_pass(kernels: str) -> None:
    """Validation is in float32, so it does not depend on what trains."""
    from charlm.nn.kernel_layers import _variant

    precision = devices.Precision(name="bf16", reason="test", kernels=kernels)
    with precision.autocast(torch.device("cpu")):
        assert _variant.get() == kernels
    assert _variant.get() is None
    with devices.Precision(name="fp32", reason="test").autocast(torch.device("cpu")):
        assert _variant.get() is None
