"""Every row of the table of tasks: its parts exist, fit their protocols, and agree."""

import inspect
from pathlib import Path

import pytest
from helpers import Call

import charlm
from charlm.api.task_api import TaskApi, api_of
from charlm.config.class_path import resolve
from charlm.config.settings import settings_from
from charlm.config.tasks import LANGUAGE_MODEL, TASKS
from charlm.report.task_reports import Predictions, TaskReport, report_of
from charlm.runs.layout import is_run_file
from charlm.runs.shapes import FIGURES_OF, TASK_SHAPES
from charlm.text.task_text import TaskText, text_for
from charlm.training.task_training import TaskTraining, training_of

OTHERS = [name for name in TASKS if name != LANGUAGE_MODEL]
every_task = pytest.mark.parametrize("task", OTHERS)


def members(protocol: type) -> set[str]:
    """Return the public names that a protocol asks for."""
    return {name for name in vars(protocol) if not name.startswith("_")}


@every_task
def test_the_parts_of_a_task_fit_their_protocols(task: str) -> None:
    settings = settings_from({"task": {"task": task}})
    text, api, training = text_for(settings), api_of(task), training_of(settings)
    for part, protocol in ((text, TaskText), (api, TaskApi), (training, TaskTraining)):
        assert members(protocol) <= set(dir(part))
    assert isinstance(report_of({"task": {"task": task}}), TaskReport)
    row = TASKS[task]
    assert list(inspect.signature(resolve(row.run)).parameters)[:3] == ["path", "engine", "threads"]
    assert callable(resolve(row.model).of_task) and callable(resolve(row.shapes))
    assert callable(resolve(row.counts).from_sums)


@every_task
def test_figures_of_a_row_are_checked_in_run_json(task: str) -> None:
    """Also its headline, and the loss, which the shape asks for."""
    row = TASKS[task]
    for figures in ({}, {"f1": None}, {"reference_letters": 1.0}):
        assert row.headline(figures) in {*row.figures} & {*FIGURES_OF[task]}
    assert FIGURES_OF[task][0] == f"nats_per_{row.target}"
    assert task in TASK_SHAPES
    assert (row.format, bool(row.needs_example)) == (2, True)


@every_task
def test_what_is_no_pair_is_answered_with_what_was_expected(task: str) -> None:
    """None is what the library passes for it."""
    text = text_for(settings_from({"task": {"task": task}}))
    assert text
    for pair in (None, (5, 6)):
        assert "expected " in text.check_example(pair)


@every_task
def test_a_command_uses_the_run(task: str) -> None:
    """Formats of `charlm predict` are named once, and auto is one of them."""
    row, report = TASKS[task], report_of({"task": {"task": task}})
    assert report
    found = report.predictions
    assert row.verb in ("predict", "sample")
    if row.verb == "predict":
        assert type(found) is not Predictions
        assert {found.shown, found.piped, "jsonl"} <= set(found.formats)
        assert len(set(found.formats)) == len(found.formats) and "auto" not in found.formats
        assert found.flags <= {"--top", "--tokens", "--beam", "--with"}
    assert api_of(task).evaluation_flags <= {"--target", "--worst", "--beam", "--with"}


@pytest.mark.parametrize(
    "name",
    [
        "letters.json", "target.json", "data/train/words.json", "data/valid/spellings.bin",
        "data/train/targets.bin", "data/test/values.bin", "data/valid-target/ids.bin",
        "data/test/pairs.json",
    ],
)  # fmt: skip
def test_files_of_tasks_are_those_of_a_run(name: str) -> None:
    """Else sharing a run would leave them out in silence."""
    assert is_run_file(name)
    assert not is_run_file(f"x{name}")


EXAMPLES = {
    "tag": [(["Anna", "lives"], ["B-PER", "O"]), (["Bob"], ["B-PER"]), (["so"], ["O"])] * 4,
    "translate": [("ab", "ba"), ("abc", "cba"), ("a", "a")] * 4,
}


@pytest.mark.parametrize("task", EXAMPLES)
def test_a_shared_run_has_all_its_vocabularies(task: str, here: Path, call: Call) -> None:
    """An exported run answers as the run itself."""
    charlm.fit(
        examples=EXAMPLES[task], task=task, name="own", steps=1, hidden=4, embedding=4, seed=1,
        threads=1, precision="fp32", checkpoints=here / "checkpoints",
    )  # fmt: skip
    assert call("runs", "export", "own", "own.zip")[0] == 0
    assert call("runs", "import", "own.zip", "--checkpoints", "others")[0] == 0
    words = ("predict", "a b", "--json")
    assert call(*words, "--checkpoints", "others")[1] == call(*words)[1]
    assert call("verify", "own", "--checkpoints", "others")[0] == 0
