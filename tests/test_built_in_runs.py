"""The built-in models: complete, small, and without paths of the machine that trained them."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from helpers import Call

import charlm
import make_built_in_run
from charlm.config.settings import settings_from
from charlm.runs.layout import (
    CARD,
    CONFIG,
    RECORD,
    TOKENIZER,
    WEIGHTS,
    read_config,
    read_record,
    write_record,
)
from charlm.runs.verify import verify_run
from charlm.text.dataset import load_dataset
from make_built_in_run import BUILT_INS, CHECKPOINTS, MAX_BYTES, ROOT, package

SHIPPED = [name for name in BUILT_INS if (CHECKPOINTS / name).exists()]
FILES = {CARD, CONFIG, RECORD, TOKENIZER, WEIGHTS, "MANIFEST.json"}


def strings(value: object) -> list[str]:
    """Return all strings in a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def check_shipped(path: Path) -> None:
    assert {file.name for file in path.iterdir()} == FILES
    assert not [check for check in verify_run(path) if check.problems]
    assert (path / WEIGHTS).stat().st_size <= MAX_BYTES
    record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    assert not [text for text in strings(record) if re.search(r"(^|[\s'\"])/\w", text)]
    assert record["name"] == path.name
    assert BUILT_INS[path.name].about in (path / CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_complete_and_anonymous(name: str) -> None:
    check_shipped(CHECKPOINTS / name)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_is_installed_and_tracked(name: str) -> None:
    """Although git ignores other runs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included[f"checkpoints/{name}"] == f"charlm/_built_in/checkpoints/{name}"
    assert f"!/checkpoints/{name}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_a_run_can_be_packaged(tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """It scores as before; text, log, checkpoints and paths are left out."""
    text = tmp_path / "novel.txt"
    text.write_text("the cat sat on the mat.\n" * 30, encoding="utf-8")
    size = ["--hidden", "3", "--layers", "1", "--batch", "2", "--bptt", "8", "--steps", "2"]
    assert call("train", str(text), *size, "--checkpoints", str(tmp_path), "--name", "a")[0] == 0
    shipped = package(tmp_path / "a", "prose", tmp_path / "shipped")
    check_shipped(shipped)
    run, model = (charlm.load(path) for path in (tmp_path / "a", shipped))
    assert model.score(["the mat"])[0].tally == run.score(["the mat"])[0].tally
    assert read_record(shipped)["results"] == read_record(tmp_path / "a")["results"]

    monkeypatch.setattr(make_built_in_run, "MAX_BYTES", 100)
    with pytest.raises(SystemExit, match="expected at most 100"):
        package(tmp_path / "a", "prose", tmp_path / "shipped")
    record = read_record(tmp_path / "a")
    del record["results"]
    write_record(tmp_path / "a", record)
    with pytest.raises(SystemExit, match="trained to its end"):
        package(tmp_path / "a", "prose", tmp_path / "shipped")


def test_the_built_in_model_knows_what_unk_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    settings = settings_from(read_record(CHECKPOINTS / "tales")["settings"])
    dataset = load_dataset(settings.corpus, settings.vocabulary)
    assert read_config(CHECKPOINTS / "tales")["unk_types"] == dataset.unk_types


def test_the_text_of_prose_is_not_there(call: Call, here: Path) -> None:
    """It does not ship, so n-grams cannot be fitted on it, and no advice says so."""
    for words in (
        ["ngram", "export", "prose", "x"],
        ["score", "a", "--run", "prose", "--with", "ngram"],
    ):
        _, _, err = call(*words)
        assert "charlm ngram TEXT --vocab" in err
        assert "--like" not in err
    assert "charlm ngram --like" in call("ngram", "export", "tales", "x")[2]
    for words in (["ngram", "--like", "prose"], ["eval", "--run", "prose", "--ngram", "3"]):
        status, _, err = call(*words, "--file" if "eval" in words else "--name", "x")
        assert (status, "the run keeps no copy" in err) == (3, True), err
