"""Every row of the table of tasks: its parts exist, fit their protocols, and agree."""

import inspect
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import Call, nested

import charlm
from charlm.api.sessions import Request, plan_run
from charlm.api.task_api import TaskApi, api_of
from charlm.config.class_path import resolve
from charlm.config.settings import settings_from
from charlm.config.tasks import LANGUAGE_MODEL, TASKS
from charlm.report.repeating import repeat_command
from charlm.report.task_reports import Predictions, TaskReport, report_of
from charlm.runs.layout import is_run_file
from charlm.runs.shapes import FIGURES_OF, TASK_SHAPES
from charlm.text.parallel import Parallel
from charlm.text.task_text import TaskText, gold_of, text_for
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.planned_run import PlannedRun
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
    assert callable(resolve(row.counts))


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


FILES = {
    LANGUAGE_MODEL: "a text of a few words\n" * 30,
    "classify": "text\tlabel\n" + "good film\tpos\nbad film\tneg\n" * 20,
    "tag": "Anna B-PER\nlives O\n\nBob B-PER\n\n" * 20,
    "translate": "a\tb\n" + "ab\tba\nabc\tcba\n" * 20,
    "series": "x\ty\n" + "".join(f"{number % 7}.5\t1\n" for number in range(200)),
}
"""A small text of each task."""
OPTIONS = {"translate": {"column": "a", "target": "b"}, "series": {"column": "x"}}
DROPOUTS = ("dropout", "input_dropout", "output_dropout")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"dropout": 0.2}, (0.2, 0.1, 0.2)),
        ({"dropout": 0.0}, (0.0, 0.0, 0.0)),
        ({"dropout": 0.2, "input_dropout": 0.3}, (0.2, 0.3, 0.2)),
        ({"dropout": 0.5, "output_dropout": 0.0}, (0.5, 0.25, 0.0)),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_dropout_before_and_after_the_layers_follows_the_given_one(
    task: str, given: dict[str, float], expected: tuple[float, ...], tmp_path: Path
) -> None:
    """Also in the command that repeats the run; half of it is dropped after the embedding."""
    record = planned(tmp_path, task, **given)
    assert dropouts_of(record) == expected
    words = shlex.split(repeat_command(tmp_path, record) or "")
    flags = {name: f"--{name.replace('_', '-')}" for name in DROPOUTS}
    again = {
        name: float(words[words.index(flag) + 1]) for name, flag in flags.items() if flag in words
    }
    assert dropouts_of(planned(tmp_path, task, **again)) == expected


def plan(
    folder: Path, task: str, about: dict[str, str] | None = None, *, text: str = "", **given: Any
) -> PlannedRun:
    """Return the plan of a run on a text, usually the small one of a task."""
    text = text or FILES[task]
    source = folder / ("train.tsv" if "\t" in text else "train.txt")
    source.write_text(text, encoding="utf-8")
    flags = nested(
        task=task, sources=(str(source),), steps=2, threads=1, precision="fp32", num_layers=1,
        **OPTIONS.get(task, {}), **given,
    )  # fmt: skip
    return plan_run(Request(flags=flags, checkpoints=folder, **(about or {})))


def planned(folder: Path, task: str, *about: dict[str, str], **given: Any) -> dict[str, Any]:
    """Return the record of a planned run."""
    return plan(folder, task, *about, **given).record


def dropouts_of(record: dict[str, Any]) -> tuple[float, ...]:
    """Return the dropout between, before and after the layers."""
    return tuple(record["settings"]["model"][name] for name in DROPOUTS)


LIMITED = {"classify": (None, 20_000), "tag": (2, 20_000), "translate": (None, 4000)}
"""Minimum count and maximum size in the defaults of each task."""


@pytest.fixture(scope="module")
def word_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of the words "old" and "text", in a folder of runs."""
    folder = tmp_path_factory.mktemp("runs")
    charlm.fit(
        text="old text\n" * 20, unit="word", words="whitespace", name="old", steps=1, hidden=4,
        embedding=4, layers=1, seed=1, threads=1, precision="fp32", checkpoints=folder,
        dropout=0.0, valid_frac=0.2,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("task", LIMITED)
def test_a_vocabulary_grows_by_what_the_defaults_of_the_task_allow(
    task: str, word_run: Path
) -> None:
    """The defaults are about the text of the task, so the entries of the old run do not count."""
    known = len(load_vocabulary(word_run / "old" / "tokenizer.json"))
    least, most = LIMITED[task]
    about = {"start_from": "old", "vocabulary": "grow"}
    record = planned(word_run, task, about)
    found = record["settings"]["vocabulary"]
    assert found["max_size"] == known + most
    assert record["origins"]["vocabulary.max_size"] == f"task {task}"
    assert least is None or found["min_count"] == least
    given = planned(word_run, task, about, min_count=3, max_size=known + 1)
    assert given["corpus"]["vocabulary"] == known + 1
    assert given["settings"]["vocabulary"]["min_count"] == 3
    assert planned(word_run, task, {"start_from": "old"})["corpus"]["vocabulary"] == known


def test_rare_words_of_a_tagger_get_no_entries_of_their_own(word_run: Path) -> None:
    """A word that occurs once is unknown, as in a vocabulary without an old run."""
    rare = f"{FILES['tag']}once O\n\nAnna B-PER\nsaw O\nBob B-PER\n\n"
    about = {"start_from": "old", "vocabulary": "grow"}
    known = planned(word_run, "tag", about, text=rare, valid_frac=0)["corpus"]["vocabulary"]
    assert known == len(load_vocabulary(word_run / "old" / "tokenizer.json")) + 3


def test_the_target_of_a_translation_counts_its_own_entries(word_run: Path) -> None:
    """Not those that the source had before."""
    few = TASKS["translate"].defaults | {"vocabulary": {"max_size": 6}}
    about = {"start_from": "old", "vocabulary": "grow"}
    text = "a\tb\n" + "".join(f"s{n} s{n}\tt{n} t{n}\n" for n in range(9)) * 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "translate", replace(TASKS["translate"], defaults=few))
        dataset = plan(word_run, "translate", about, text=text).dataset
    old = len(load_vocabulary(word_run / "old" / "tokenizer.json"))
    assert len(dataset.vocabulary) == old + 6
    assert len(gold_of(dataset, Parallel).vocabulary) == 6


@pytest.mark.parametrize("mode", [None, "keep", "grow"])
@pytest.mark.parametrize("task", [LANGUAGE_MODEL, *LIMITED])
def test_the_command_that_repeats_a_run_treats_new_words_alike(
    task: str, mode: str | None, word_run: Path, call: Call
) -> None:
    """Tasks keep the vocabulary of an old run by default, language models let it grow."""
    about = {"start_from": "old"}
    record = planned(word_run, task, about | ({"vocabulary": mode} if mode else {}))
    _, verb, *words = shlex.split(repeat_command(word_run, record) or "")
    again = words[words.index("--vocabulary") + 1] if "--vocabulary" in words else None
    repeated = planned(word_run, task, about | ({"vocabulary": again} if again else {}))
    assert repeated["from"]["vocabulary"] == record["from"]["vocabulary"]
    assert repeated["corpus"]["vocabulary"] == record["corpus"]["vocabulary"]
    status, _, message = call(verb, *words, "--plan")
    assert (status, "no effect" in message) == (0, False), message


@pytest.mark.parametrize("task", LIMITED)
def test_the_command_that_repeats_a_run_limits_a_grown_vocabulary_alike(
    task: str, word_run: Path
) -> None:
    """The story: that of a run from before the limits of a task did not name its own ones."""
    about = {"start_from": "old", "vocabulary": "grow"}
    record = planned(word_run, task, about)
    assert "--max-size" not in (repeat_command(word_run, record) or "")  # also for a target
    usual = LIMITED[task][1]
    given = repeat_command(word_run, planned(word_run, task, about, max_size=usual)) or ""
    assert f"--max-size {usual}" in given  # and not that many new entries
    record["settings"]["vocabulary"] |= {"min_count": 1, "max_size": 50_000}
    record["origins"] |= {"vocabulary.min_count": "default", "vocabulary.max_size": "default"}
    older = repeat_command(word_run, record) or ""
    assert "--max-size 50000" in older and ("--min-count 1" in older) == (task == "tag")
