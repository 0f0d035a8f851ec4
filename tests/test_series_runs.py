"""Runs on series of numbers: training, resuming, forecasts and figures, from flags to files."""

import json
import math
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import Call, nested
from task_sessions import finished

import charlm
from charlm.api.series import SeriesForecaster
from charlm.api.sessions import Request, plan_run, start_run
from charlm.config.presets import combined
from charlm.config.settings import settings_from
from charlm.config.tasks import SERIES, TASKS, task_name
from charlm.errors import CorpusError, RunError, UsageError
from charlm.inference.series_counts import SeriesCounts
from charlm.report.progress import describe_plan
from charlm.report.repeating import repeat_command
from charlm.runs.layout import read_metrics, read_record
from charlm.runs.tensors import tensors_from_file
from charlm.runs.verify import verify_run
from charlm.text.tokenizers.vocabulary import load_vocabulary
from charlm.training.resume import resume

WAVE = 5.0 * np.cos(np.arange(300) / 7.0) * np.exp(-np.arange(300) / 90.0) + 3.0
TINY = {"hidden_size": 8, "embedding_size": 4, "bptt": 10, "batch_size": 4, "steps": 12, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a series and the run `wave`, trained on it."""
    folder = tmp_path_factory.mktemp("series")
    write_series(folder / "wave.csv", WAVE)
    for _ in session_of(folder, "wave").records():
        pass
    return folder


def write_series(path: Path, values) -> None:
    path.write_text("t,value\n" + "".join(f"{i},{v!r}\n" for i, v in enumerate(values.tolist())))


def session_of(folder: Path, name: str, file: str = "wave.csv", **more):
    flags = nested(sources=(str(folder / file),), unit="number", **(TINY | more))
    return start_run(Request(flags=flags, name=name, checkpoints=folder / "runs"))


def model_of(folder: Path, name: str = "wave", **options) -> SeriesForecaster:
    model = charlm.load(folder / "runs" / name, **options)
    assert isinstance(model, SeriesForecaster)
    return model


# ------------------------------------------------------------------ settings


def test_the_unit_implies_the_task_and_the_task_the_unit() -> None:
    for given in ({"unit": "number"}, {"task": SERIES}):
        values, origins = combined(nested(**given), "flag")
        settings = settings_from(values)
        assert (settings.task.task, settings.vocabulary.unit) == (SERIES, "number")
        assert settings.training.minutes == 1.0
        assert origins["training.minutes"] == f"task {SERIES}"
    values, _ = combined(nested(unit="number", epochs=2.0, hidden_size=9), "flag")
    assert "minutes" not in values["training"] and values["model"]["hidden_size"] == 9
    assert task_name({"vocabulary": {"unit": ["number"]}}) != SERIES


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": SERIES, "unit": "word"}, "task series with unit word; expected number"),
        ({"task": "classify"}, "task classify with unit number; expected char or byte"),
        ({"task": "tag"}, "task tag with unit number; expected char or byte"),
        ({"lowercase": True}, "lowercase true has no effect with unit number"),
        ({"document": "line"}, "document line has no effect with task series"),
        ({"words": "bare"}, "words bare has no effect with unit number"),
        ({"label_smoothing": 0.1}, "label_smoothing 0.1 has no effect with unit number"),
        ({"one_hot": True}, "one_hot true has no effect with unit number"),
        ({"embedding_dropout": 0.1}, "embedding_dropout 0.1 has no effect with unit number"),
        ({"vectors": "x.vec"}, "vectors x.vec has no effect with unit number"),
        ({"state_reset": 0.5}, "state_reset 0.5 has no effect with task series"),
        ({"direction": "both"}, "direction both has no effect with task series"),
        ({"hold_out": "random"}, "hold_out random has no effect with task series"),
        ({"pooling": "max"}, "pooling max has no effect with task series"),
    ],
)
def test_settings_of_texts_are_refused(folder, given, message) -> None:
    flags = nested(**{"sources": (str(folder / "wave.csv"),), "unit": "number", **given})
    with pytest.raises((UsageError, CorpusError)) as caught:
        plan_run(Request(flags=flags, source="argument"))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("preset", ["awd-ptb", "char-rnn"])
def test_settings_of_texts_in_a_preset_are_left_out(preset: str, folder: Path) -> None:
    """Before, they were refused as if the user had given them."""
    flags = nested(sources=(str(folder / "wave.csv"),), unit="number", hidden_size=4, steps=2)
    planned = plan_run(Request(flags=flags, source="argument", preset=preset))
    model = planned.record["settings"]["model"]
    assert model["embedding_dropout"] == 0.0 and model["one_hot"] is False


def test_a_series_has_a_file(folder) -> None:
    with pytest.raises(UsageError, match=r"a file with a column of numbers. Name its file$"):
        plan_run(Request(flags=nested(unit="number")))
    with pytest.raises(UsageError, match="a file with a column of numbers"):
        charlm.fit(text="1 2 3", unit="number", checkpoints=folder / "runs")
    with pytest.raises(UsageError, match="gives numbers, not text"):
        plan_run(
            Request(
                flags=nested(unit="number", sources=(str(folder / "wave.csv"),)),
                start_from=str(folder / "runs" / "wave"),
            )
        )


@pytest.mark.parametrize("given", [{"task": SERIES}, {"unit": "number"}])
def test_a_series_starts_from_no_run(given: dict[str, str], folder: Path) -> None:
    """The story: the message named the unit of the run, which nobody had given."""
    flags = nested(sources=(str(folder / "wave.csv"),), **given)
    for vocabulary in (None, "keep", "grow"):
        with pytest.raises(UsageError, match=r"^start_from tales for a series .* out start_from$"):
            plan_run(Request(flags=flags, start_from="tales", vocabulary=vocabulary))


def test_kernels_for_a_series_need_another_precision(folder: Path) -> None:
    """The story: the advice was to leave out a flag that the task had set."""
    flags = nested(sources=(str(folder / "wave.csv"),), unit="number", engine="native")
    with pytest.raises(UsageError, match=r"Use precision='bf16', or leave out engine$"):
        plan_run(Request(flags=flags))


def test_answers_to_texts_come_from_other_runs(folder: Path, call: Call) -> None:
    """The story: the message asked for a run that was trained with --task, which this one was."""
    status, _, err = call("predict", "1", "--run", str(folder / "runs" / "wave"))
    assert status == 2 and "run wave gives numbers; expected a run that gives labels, tags" in err
    assert "Use: charlm sample --run" in err


def test_open_settings_fit_a_short_series(folder) -> None:
    flags = nested(sources=(str(folder / "wave.csv"),), unit="number")
    planned = plan_run(Request(flags=flags))
    training = planned.record["settings"]["training"]
    assert (training["minutes"], training["bptt"], training["batch_size"]) == (1.0, 64, 1)
    assert planned.record["planned"]["passes"] > training["evals"] == 40  # not 8, far apart
    for more, evals in (({}, 13), ({"evals": 8}, 8)):  # which the user may want
        request = Request(flags=flags | nested(epochs=12.5, **more))
        assert plan_run(request).record["settings"]["training"]["evals"] == evals
    text, floor, model, run, *_, outlook = describe_plan(planned.record)
    assert "passes over the series" in outlook
    assert text == "series wave: 270 values of column value, 30 held out at the end"
    assert floor.startswith("floor  last value MSE 0.00") and "linear recurrence" in floor
    assert "1 x 64 LSTM" in model and "batch 1 x 64 with the state carried over" in run


def test_info_and_the_plan_count_the_same_values(folder: Path, call: Call) -> None:
    """The first value is only read, and was missing in `charlm info`."""
    _, out, _ = call("info", "--run", str(folder / "runs" / "wave"))
    assert "train     270 values" in out and "valid     30 values" in out


# ------------------------------------------------------------------ training


def test_a_run_keeps_what_its_figures_need(folder) -> None:
    path = folder / "runs" / "wave"
    record, config = read_record(path), json.loads((path / "config.json").read_text())
    results = record["results"]["valid"]
    counts = model_of(folder).run.evaluate(*model_of(folder).run.kept("valid"))
    assert counts.summary() == pytest.approx(results, rel=1e-4)
    assert counts.values == 30 == record["corpus"]["parts"]["valid"]["targets"]
    assert record["floors"]["last_value"]["valid"] == pytest.approx(
        np.mean(np.diff(WAVE)[-30:] ** 2)
    )
    assert config["task"]["mean"] == WAVE[:270].mean() and config["task"]["column"] == "value"
    assert record["corpus"]["column"] == "value" and config["format"] == 2
    assert (
        "MSE" not in (path / "README.md").read_text()
        and "squared" in (path / "README.md").read_text()
    )
    assert not any(check.problems for check in verify_run(path))
    assert len(load_vocabulary(path / "tokenizer.json")) == 2
    steps = [each for each in read_metrics(path) if each["kind"] == "step"]
    keys = {"values", "nats_per_value", "values_per_second"}
    assert steps and keys <= steps[0].keys() and not any("token" in key for key in steps[0])


def test_training_beats_the_last_number(folder) -> None:
    last = finished(session_of(folder, "longer", steps=150, learning_rate=0.02))
    valid = last.valid
    assert isinstance(valid, SeriesCounts) and valid.mse < 0.5 * valid.last_value_mse
    assert last.review and 0.0 < last.review.train["mse_of_last_value"] < 1.0
    first, *more = last.review.advice
    assert first.startswith("worse than a linear recurrence (MSE ")  # which is exact here
    assert f"{valid.mse / valid.last_value_mse:.3g}"[:4] in more[0]


@pytest.mark.parametrize("more", [{}, {"stateless": True}, {"cell": "qrnn", "dropout": 0.1}])
def test_a_run_that_resumes_equals_one_that_never_stopped(folder, more) -> None:
    name = "-".join(["stopped", *map(str, more)])
    whole = finished(session_of(folder, f"{name}-not", **more))
    session = session_of(folder, name, **more)
    for record in session.records():
        if record.step >= 7:
            session.trainer.stop("interrupted")
    assert session.trainer.counters.step < 12
    resumed = finished(resume(folder / "runs" / name))
    assert resumed.valid == whole.valid
    files = [folder / "runs" / each / "model.safetensors" for each in (name, f"{name}-not")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_scale_of_a_series_does_not_change_what_is_learned(folder) -> None:
    write_series(folder / "other.csv", 4.0 * WAVE - 64.0)
    figures = finished(session_of(folder, "other", "other.csv")).valid
    own = read_record(folder / "runs" / "wave")["results"]["valid"]
    assert isinstance(figures, SeriesCounts)
    assert figures.mse == pytest.approx(16 * own["mse"], rel=1e-3)
    assert figures.nats_per_value == pytest.approx(own["nats_per_value"] + math.log(4), abs=1e-3)
    tensors = [
        tensors_from_file(folder / "runs" / n / "model.safetensors") for n in ("wave", "other")
    ]
    for name, tensor in tensors[0].items():
        assert np.allclose(tensor, tensors[1][name], atol=1e-4), name


@pytest.mark.parametrize("constant", [slice(-60, None), slice(0, -60)])
def test_the_review_of_a_series_that_stops_changing_has_no_huge_numbers(folder, constant) -> None:
    """The last value is right there: an error as a multiple of its error had 290 digits."""
    values = WAVE.copy()
    values[constant] = 3.5
    write_series(folder / "still.csv", values)
    name = f"still{constant.start}"
    last = finished(session_of(folder, name, "still.csv"))
    assert last.review and 0.0 <= last.review.train["mse_of_last_value"] < 100.0
    assert all(len(word) < 20 for line in last.review.advice for word in line.split())


def test_zero_validation_is_allowed(folder) -> None:
    last = finished(session_of(folder, "all", valid_frac=0.0))
    assert last.valid is None
    model = model_of(folder, "all")
    assert np.array_equal(model.run.series, WAVE)
    with pytest.raises(UsageError, match="keeps no held-out series"):
        charlm.api.series.SERIES_API.evaluate(model.run)


def test_damaged_numbers_are_noticed(folder) -> None:
    path = folder / "runs" / "wave" / "data" / "valid" / "values.bin"
    before = path.read_bytes()
    try:
        path.write_bytes(before[:-8] + np.float64(7.0).tobytes())
        assert any(check.problems for check in verify_run(folder / "runs" / "wave"))
        path.write_bytes(before[: 8 * 20])
        with pytest.raises(CorpusError, match="the numbers are damaged"):
            model_of(folder).forecast(2)
    finally:
        path.write_bytes(before)


# ------------------------------------------------------------------ forecasts


def test_a_forecast_continues_the_series_of_the_run(folder) -> None:
    model = model_of(folder)
    numbers = model.forecast(5)
    assert np.array_equal(model.run.series, WAVE)
    assert np.array_equal(numbers, model.forecast(5, values=WAVE))
    assert np.array_equal(numbers, model.forecast(5, seed=4))
    assert np.allclose(numbers, model_of(folder, engine="torch").forecast(5), atol=1e-4)
    drawn = list(model.samples(3, 5, temperature=1.0, seed=2))
    assert np.array_equal(drawn[0], model.forecast(5, temperature=1.0, seed=2))
    assert not np.array_equal(drawn[0], drawn[1])
    copy = pickle.loads(pickle.dumps(model))
    assert np.array_equal(copy.forecast(5), numbers) and "value" in repr(model)
    assert model.history.path == model.path
    assert model.evaluate(WAVE[:50]).values == 49


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": ["a"]}, "expected numbers"),
        ({"values": [[1.0, 2.0]]}, "shape"),
        ({"values": [1.0, math.nan]}, r"values\[1\] is nan"),
        ({"values": []}, "the series has no numbers to continue"),
        ({"temperature": -1.5}, "temperature is -1.5; expected at least 0"),
        ({"length": -1}, "length is -1"),
    ],
)
def test_forecasts_refuse_what_they_cannot_continue(folder, options, message) -> None:
    with pytest.raises(UsageError, match=message):
        model_of(folder).forecast(**options)


def test_sample_writes_numbers_and_eval_their_errors(folder, call: Call, monkeypatch) -> None:
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(folder / "runs"))
    run = ("--run", "wave", "--checkpoints", str(folder / "runs"))
    model = model_of(folder)
    code, out, _ = call("sample", "--len", "3", "--n", "2", *run)
    line = "".join(f"{value:.12g}\n" for value in model.forecast(3))
    assert (code, out) == (0, f"{line}\n{line}")
    assert len(call("sample", *run)[1].splitlines()) == 48
    _, out, _ = call("sample", "--prime", "1 2 3.5", "--len", "2", *run)
    assert out.split() == [f"{v:.12g}" for v in model.forecast(2, values=[1, 2, 3.5])]
    (folder / "own.txt").write_text("1\n2\n3.5\n")
    assert call("sample", "--prime-file", str(folder / "own.txt"), "--len", "2", *run)[1] == out
    _, out, err = call("sample", "--len", "2", "--temperature", "1", "--json", "--n", "2", *run)
    drawn = [json.loads(each) for each in out.splitlines()]
    assert [each["sample"] for each in drawn] == [0, 1] and f"seed {drawn[0]['seed']}" in err
    assert drawn[0]["values"] != drawn[1]["values"]
    code, out, err = call("sample", "--temperature", "nan", *run)  # refused before a seed is named
    assert (code, out) == (2, "") and err == "charlm: --temperature is nan; expected at least 0\n"
    _, out, _ = call("eval", "--json", *run)
    assert json.loads(out)["mse"] == pytest.approx(model.run.evaluate(*model.run.kept("valid")).mse)
    _, out, _ = call("eval", "--file", str(folder / "wave.csv"), *run)
    assert "299" in out and "linear recurrence of order 2" in out


def test_ngrams_of_the_text_of_a_series_are_refused(folder, call: Call) -> None:
    where = ["--checkpoints", str(folder / "runs")]
    code, out, err = call("ngram", "--like", "wave", "--name", "counted", *where)
    assert code == 2 and not out and "run wave gives numbers, not text" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample --top-k 3", "--top-k is for runs that give text, and run wave gives numbers"),
        ("sample --stop x", "--stop is for runs that give text"),
        ("sample --prime a", "--prime: number 1 holds 'a'; expected a number. Write numbers with"),
        ("sample --prime 1_0", "--prime: number 1 holds '1_0'"),
        ("sample --prime 1,5", "--prime: number 1 holds '1,5'; expected a number with a decimal"),
        ("sample --prime nan", "--prime: number 1 holds 'nan'"),
        ("sample --engine native", "--engine native with run wave"),
        ("score hello", "run wave gives numbers, not text"),
        ("next hello", "run wave gives numbers, not text"),
        ("eval --worst 3", "--worst is for runs that give"),
        ("eval --reset", "--reset is for runs that give text"),
        ("predict hello", "run wave gives numbers"),
    ],
)
def test_misuse_is_answered_in_one_line(folder, call: Call, words, message) -> None:
    code, out, err = call(*words.split(), "--run", "wave", "--checkpoints", str(folder / "runs"))
    assert code == (3 if "--prime" in words else 2) and not out
    assert message in err.splitlines()[-1]


def test_a_forecast_imports_no_torch(folder) -> None:
    run = str(folder / "runs" / "wave")
    code = (
        "import sys, charlm.cli\n"
        f"sys.argv = ['charlm', 'sample', '--len', '2', '--run', {run!r}]\n"
        "try:\n    charlm.cli.main()\nexcept SystemExit as error:\n    assert not error.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_the_row_names_what_a_series_has() -> None:
    row = TASKS[SERIES]
    assert (row.target, row.gives, row.verb, row.headline({})) == (
        "value",
        "numbers",
        "sample",
        "mse",
    )
    assert row.labelled


def test_an_unknown_run_of_numbers_is_refused(folder) -> None:
    path = folder / "runs" / "wave" / "config.json"
    before = path.read_text()
    config = json.loads(before)
    try:
        path.write_text(json.dumps(config | {"task": config["task"] | {"mean": "x"}}))
        with pytest.raises(RunError, match="mean"):
            model_of(folder)
    finally:
        path.write_text(before)


def test_scales_of_another_series_are_noticed(folder) -> None:
    """Forecasts with an edited mean would look right, and be wrong."""
    path = folder / "runs" / "wave" / "config.json"
    before = path.read_text()
    config = json.loads(before)
    try:
        path.write_text(json.dumps(config | {"task": config["task"] | {"mean": 7.0}}))
        with pytest.raises(RunError, match="not as written"):
            model_of(folder)
    finally:
        path.write_text(before)


def test_a_run_can_be_repeated_by_its_command(folder, call: Call) -> None:
    path = folder / "runs" / "wave"
    words = shlex.split(repeat_command(path, read_record(path)) or "")
    assert words[:2] == ["charlm", "train"] and "--task" in words
    where = ("--name", "again", "--checkpoints", str(folder / "runs"))
    assert call(*words[1:], *where)[0] == 0
    files = [folder / "runs" / name / "model.safetensors" for name in ("wave", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_search_tries_language_models_only(folder, call: Call) -> None:
    code, _, err = call("search", str(folder / "wave.csv"), "--unit", "number", "--minutes", "1")
    assert code == 2 and "series with a search, which tries language models" in err
