"""A run on disk: written and read back, whole at every moment, every damage found by verify."""

import contextlib
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import engine, seeded, started, tiny_model, vocabulary_of

from charlm.errors import RunError
from charlm.files.atomic import MANIFEST, manifest_problems, write_json
from charlm.files.safe_read import read_json
from charlm.runs import model_files
from charlm.runs.layout import CONFIG, RECORD, TOKENIZER, WEIGHTS
from charlm.runs.model_files import model_config, write_model_files, write_weights
from charlm.runs.run import load_run
from charlm.runs.verify import verify_run
from charlm.text.boundaries import Boundaries


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of a few steps, with validation text and two states."""
    session = started(
        tmp_path_factory.mktemp("checkpoints"), text="abc abd\n" * 12, document="line", steps=12,
        save_minutes=0.0, evals=4,
    )  # fmt: skip
    list(session.records())
    return session.path


@pytest.fixture
def path(trained: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "x"))


def fresh_run(path: Path, model) -> Path:
    vocabulary = vocabulary_of("abc")
    path.mkdir()
    write_model_files(
        path, model_config(model.settings, vocabulary, Boundaries(document="line")), vocabulary
    )
    return path


def output_of(path: Path) -> np.ndarray:
    """The output matrix that a loaded run computes with."""
    return load_run(path, engine="numpy").backend.weights.output


def output_in(model) -> np.ndarray:
    return model.output.weight.detach().numpy()


def problems(path: Path) -> dict[str, tuple[str, ...]]:
    return {check.name: check.problems for check in verify_run(path) if check.problems}


def test_a_saved_run_gives_identical_logits(tmp_path: Path) -> None:
    """The model, its vocabulary and its document rule come back as they were."""
    model = tiny_model(vocab_size=5)
    path = fresh_run(tmp_path / "x", model)
    write_weights(path, model)
    loaded = load_run(path, engine="torch")
    ids = torch.randint(5, (7, 2), generator=seeded()).numpy()
    ours, theirs = engine(model), loaded.backend
    logits, state = ours.logits(ids, ours.initial_state(2))
    assert repr((logits, state)) == repr(theirs.logits(ids, theirs.initial_state(2)))
    assert (loaded.boundaries.document, loaded.boundaries.has_ends) == ("line", True)
    assert loaded.vocabulary.encode("cab").tolist() == vocabulary_of("abc").encode("cab").tolist()
    assert not any(weight.requires_grad for weight in theirs.model.parameters())


class Stopped(BaseException):
    """Stand-in for the end of the process."""


def test_the_manifest_is_right_after_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die before or after each single write of new weights: the run loads and verifies."""
    written, fault = [], {"at": 99, "after": False}

    def stopping(function):
        def call(*arguments):
            if len(written) == fault["at"] and not fault["after"]:
                raise Stopped
            function(*arguments)
            written.append(arguments[0].name)
            if len(written) > fault["at"] and fault["after"]:
                raise Stopped

        return call

    monkeypatch.setattr(model_files, "write_file", stopping(model_files.write_file))
    monkeypatch.setattr(model_files, "write_json", stopping(model_files.write_json))
    models = [tiny_model(vocab_size=5, seed=seed) for seed in range(3)]
    path = fresh_run(tmp_path / "x", models[0])
    write_weights(path, models[0])
    for fault["after"], fault["at"] in product((False, True), range(4)):
        for model in (models[1], models[2], models[1]):
            written.clear()
            with contextlib.suppress(Stopped):
                write_weights(path, model)
                assert written in ([], [MANIFEST, WEIGHTS, MANIFEST])
            assert manifest_problems(path, read_json(path / MANIFEST)) == []
            assert problems(path) == {}
            assert any(np.array_equal(output_of(path), output_in(m)) for m in models)
    fault["at"] = 99
    write_weights(path, models[0])
    assert isinstance(read_json(path / MANIFEST)["files"][WEIGHTS], dict)
    assert np.array_equal(output_of(path), output_in(models[0]))


def test_an_intact_run_has_no_problems(trained: Path) -> None:
    """Every file of a run is looked at."""
    checks = verify_run(trained)
    assert problems(trained) == {}
    assert {CONFIG, TOKENIZER, MANIFEST, RECORD, WEIGHTS, "data/train", "data/valid"} < {
        check.name for check in checks
    }
    assert sum(check.name.startswith("states/step-") for check in checks) == 2


def files_of(run: Path) -> list[str]:
    return sorted(str(f.relative_to(run)) for f in run.rglob("*") if f.is_file())


NOT_CHECKED = ("README.md", "metrics.jsonl", ".lock", ".owner")


def test_verify_finds_a_byte_changed_in_any_file(path: Path) -> None:
    """First, middle and last byte of every file, and the file cut short; exact files only."""
    for name in files_of(path):
        if name in NOT_CHECKED or name.endswith((RECORD, MANIFEST)):
            continue
        data = (path / name).read_bytes()
        for at in {0, len(data) // 2, len(data) - 1}:
            (path / name).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert problems(path), f"byte {at} of {name}"
        for wrong in (data[:-1], b"", data + b"\0"):
            (path / name).write_bytes(wrong)
            assert problems(path), name
        (path / name).write_bytes(data)
    assert problems(path) == {}


def test_verify_finds_every_missing_or_emptied_file(path: Path) -> None:
    """Each file that a run is made of; the log and the card are for people."""
    for name in files_of(path):
        if name in NOT_CHECKED:
            continue
        data = (path / name).read_bytes()
        (path / name).write_bytes(b"")
        assert problems(path), name
        if name != RECORD:
            (path / name).unlink()
            assert problems(path), name
        (path / name).write_bytes(data)
    assert problems(path) == {}


def test_verify_reports_and_never_raises(tmp_path: Path, path: Path) -> None:
    """A folder that is no run at all, and one full of rubbish."""
    (tmp_path / "empty").mkdir()
    assert CONFIG in problems(tmp_path / "empty")
    assert CONFIG in problems(tmp_path / "nothing")
    for name in files_of(path):
        (path / name).write_bytes(b"\x80\x04K\x01.")
    assert {CONFIG, TOKENIZER, MANIFEST, RECORD, WEIGHTS} <= problems(path).keys()


def changed(path: Path, **changes) -> None:
    write_json(path / CONFIG, read_json(path / CONFIG) | changes)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"hidden_size": 10**9}, "hidden_size is 1000000000"),
        ({"num_layers": -1}, "num_layers is -1"),
        ({"num_layers": 60000}, "num_layers is 60000"),
        ({"num_layers": 200}, "200 layers"),
        ({"hidden_size": None}, "hidden_size is NoneType None; expected int"),
        ({"hidden_size": "3"}, "hidden_size is str '3'; expected int"),
        ({"cell": "lstn"}, "cell is 'lstn'"),
        ({"hiden_size": 3}, "did you mean 'hidden_size'"),
        ({"hidden_size": 4}, "do not match"),
        ({"tie_weights": True}, "tie_weights needs equal sizes"),
    ],
)
def test_a_config_that_claims_another_model_is_refused(model, problem: str, path: Path) -> None:
    """The words of the settings, as a damaged run and not as a usage error."""
    changed(path, model=read_json(path / CONFIG)["model"] | model)
    with pytest.raises(RunError, match=problem):
        load_run(path)
    assert WEIGHTS in problems(path)


def test_a_vocabulary_of_another_size_is_named(path: Path) -> None:
    """Both numbers are in the message."""
    size = read_json(path / CONFIG)["vocab_size"]
    changed(path, vocab_size=size + 1)
    with pytest.raises(RunError, match=f"{size} entries, config.json expects {size + 1}"):
        load_run(path)


def test_a_manifest_of_another_format_is_named(path: Path) -> None:
    """Only config.json and run.json have a second format, that of labels."""
    write_json(path / MANIFEST, read_json(path / MANIFEST) | {"format": 2})
    assert "format 2 is newer than 1" in problems(path)[MANIFEST][0]
