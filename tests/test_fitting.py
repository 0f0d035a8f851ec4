"""Training from Python: `fit`, `train`, names of settings, progress, results, copied models."""

import copy
import fcntl
import os
import pickle
import pty
import shutil
import signal
import struct
import subprocess
import sys
import termios
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import begin, end_of

import charlm
from charlm.api.model import Model
from charlm.api.training import in_notebook
from charlm.backends.kernel_library import chosen_variant
from charlm.config.flags import by_section
from charlm.config.settings import find_setting, settings_from, table
from charlm.errors import EnvironmentFailure, RunError, UsageError
from charlm.listing import Listing
from charlm.report.notebook import SHOWN_ROWS
from charlm.runs.run import torch_model
from charlm.text.corpus import Corpus

TEXT = "abc abd\nab ca\n" * 10
TINY = {
    "hidden": 4, "embedding": 3, "layers": 1, "dropout": 0.1, "steps": 12, "batch": 2, "bptt": 4,
    "seed": 1, "precision": "fp32", "device": "cpu", "threads": 1, "learning_rate": 0.05,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fitting")
    charlm.fit(text=TEXT, name="a", checkpoints=path, **TINY)
    return path


@pytest.fixture
def model(folder: Path) -> Model:
    return charlm.load("a", checkpoints=folder)


# Training


def test_fit_trains_to_the_end(tmp_path: Path, model: Model) -> None:
    """The model has the weights of the run."""
    records = list(charlm.train(text=TEXT, checkpoints=tmp_path, name="b", **TINY))
    assert Path(records[-1].path) == tmp_path / "b"
    other = charlm.load("b", checkpoints=str(tmp_path))
    assert other.score("abc")[0].log_probability == model.score("abc")[0].log_probability
    assert model.config["model"]["hidden_size"] == 4
    names = {name for record in records for name in record.to_dict()}
    assert "path" in names  # of what was saved
    assert "path" not in records[-1].to_dict()  # a run's files can be moved


def test_files_may_be_paths_and_settings_come_from_a_file(tmp_path: Path) -> None:
    """An argument wins over the file."""
    (tmp_path / "t.txt").write_text(TEXT)
    (tmp_path / "c.toml").write_text("[model]\ncell = 'gru'\nhidden_size = 5\n")
    model = charlm.fit(tmp_path / "t.txt", config=tmp_path / "c.toml", checkpoints=tmp_path, **TINY)
    assert (model.config["model"]["cell"], model.config["model"]["hidden_size"]) == ("gru", 4)
    with pytest.raises(UsageError, match="text and files were both given"):
        charlm.fit(tmp_path / "t.txt", text=TEXT, checkpoints=tmp_path)
    with pytest.raises(UsageError, match="unit with vocab"):
        charlm.fit(text=TEXT, unit="word", vocab=tmp_path / "tokenizer.json", checkpoints=tmp_path)


@pytest.mark.parametrize("value", [["t.txt"], 3, b"t.txt", "abc abd\nab ca\n"])
def test_a_source_must_be_a_path(value: object, tmp_path: Path) -> None:
    """Lists, numbers and texts are common mistakes."""
    with pytest.raises(UsageError, match=r"expected the path.*(fit\(\*files\)|text=)") as problem:
        charlm.fit(value, checkpoints=tmp_path, **TINY)  # type: ignore[arg-type]
    assert len(str(problem.value)) < 150


def test_text_and_name_must_be_strings(tmp_path: Path) -> None:
    """Nothing is written before the refusal."""
    with pytest.raises(UsageError, match="text is a bytes; expected a string"):
        charlm.fit(text=TEXT.encode(), checkpoints=tmp_path, **TINY)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name is 3; expected a string"):
        charlm.fit(text=TEXT, name=3, checkpoints=tmp_path, **TINY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"),
    [("column", "x"), ("glue", True), ("encoding", "latin-1"), ("header", False),
     ("delimiter", ";"), ("input_format", "csv"), ("quoting", "none"), ("errors", "replace")],
)  # fmt: skip
def test_a_text_in_memory_refuses_file_settings(name: str, value: object, tmp_path: Path) -> None:
    """They have no effect, as an argument or in a file of settings."""
    with pytest.raises(UsageError, match=f"{name} .* has no effect with a text in memory"):
        charlm.fit(text=TEXT, checkpoints=tmp_path, **TINY, **{name: value})
    config = tmp_path / "c.toml"
    shown = str(value).lower() if isinstance(value, bool) else repr(value)
    config.write_text(f"[corpus]\n{name} = {shown}\n")
    with pytest.raises(UsageError, match=f"{name} .* has no effect with a text in memory"):
        charlm.fit(text=TEXT, checkpoints=tmp_path, config=config, **TINY)


def test_a_file_of_settings_applies_to_a_text_in_memory(tmp_path: Path) -> None:
    """Sources in the file are refused."""
    config = tmp_path / "c.toml"
    config.write_text("[corpus]\ndocument = 'line'\n")
    model = charlm.fit(text=TEXT, checkpoints=tmp_path, config=config, name="x", **TINY)
    other = charlm.fit(text=TEXT, checkpoints=tmp_path, document="line", name="y", **TINY)
    assert model.score("abc")[0] == other.score("abc")[0]
    assert model.config["document"] == "line"
    config.write_text("[corpus]\nsources = ['a.txt']\n")
    with pytest.raises(UsageError, match="text and files were both given"):
        charlm.fit(text=TEXT, checkpoints=tmp_path, config=config, **TINY)


def test_no_progress_bar_without_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program without a console has none."""
    monkeypatch.setattr(sys, "stderr", None)
    for progress in (None, True):
        charlm.fit(text=TEXT, checkpoints=tmp_path, progress=progress, **TINY)


def test_training_that_never_started_warns_and_frees_its_run(tmp_path: Path) -> None:
    """A call of `train` alone trains nothing."""
    training = charlm.train(text=TEXT, checkpoints=tmp_path, name="x", **TINY)
    assert "not started; iterate over it, or call charlm.fit" in repr(training)
    with pytest.warns(RuntimeWarning, match="never started.*charlm.fit"):
        del training
    from charlm.training.resume import resume

    list(resume(tmp_path / "x").records())  # the lock is free
    assert charlm.load(tmp_path / "x").path.name == "x"


def test_training_that_was_ended_on_purpose_does_not_warn(tmp_path: Path) -> None:
    """Closed before it began, stopped, or iterated to the end."""
    charlm.train(text=TEXT, checkpoints=tmp_path, **TINY).close()
    training = charlm.train(text=TEXT, checkpoints=tmp_path, **{**TINY, "steps": 1000})
    next(training)
    training.stop()
    assert [record.reason for record in training if record.kind == "finished"] == ["interrupted"]
    assert "started" in repr(training)


def test_an_interrupt_saves_the_run_before_it_raises(tmp_path: Path) -> None:
    """Then the signal handler is that of Python again."""
    from charlm.training.session import Session

    logged: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        log = Session._log

        def interrupt(self: Session, record: object) -> None:
            """Press the button once, at the first record."""
            if not logged:
                os.kill(os.getpid(), signal.SIGINT)
            logged.append(record)
            log(self, record)

        patch.setattr(Session, "_log", interrupt)
        with pytest.raises(KeyboardInterrupt, match="saved"):
            charlm.fit(
                text=TEXT, checkpoints=tmp_path, name="i", **{**TINY, "steps": 10**6, "evals": 1}
            )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert charlm.load(tmp_path / "i").history[-1]["reason"] == "interrupted"


# Names of settings


def test_every_flag_of_a_setting_is_a_keyword() -> None:
    for name, setting in table().items():
        for flag in setting.flags:
            assert find_setting(flag.removeprefix("--").replace("-", "_")).name == name


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    """An array is not."""
    given = {"hidden": np.int64(8), "learning_rate": torch.tensor(0.5), "skip": np.bool_(True)}
    nested = by_section(given)
    assert nested == {"model": {"hidden_size": 8, "skip": True}, "training": {"learning_rate": 0.5}}
    assert settings_from(nested).model.hidden_size == 8
    with pytest.raises(UsageError, match="hidden"):
        settings_from(by_section({"hidden": np.array([8, 9])}))
    assert settings_from(by_section({"valid": [Path("a"), "b"]})).corpus.valid == ("a", "b")


def test_a_flag_and_its_setting_are_two_names_of_one_value() -> None:
    """Both together are refused."""
    by_flag = {
        "layers": 2, "hidden": 128, "batch": 16, "init": "xavier", "mos": 3, "tie": True,
        "params": None, "embedding": "12", "min_count": 2, "valid_frac": 0.2,
    }  # fmt: skip
    by_name = {
        "num_layers": 2, "hidden_size": 128, "batch_size": 16, "recurrent_init": "xavier",
        "mixture": 3, "tie_weights": True, "embedding_size": 12, "min_count": 2,
        "valid_frac": 0.2,
    }  # fmt: skip
    assert settings_from(by_section(by_flag)) == settings_from(by_section(by_name))
    assert by_section({"embedding": "one-hot"}) == {"model": {"one_hot": True}}
    assert by_section({"params": "1.5M"}) == {"model": {"parameters": 1_500_000}}
    assert by_section({"params": 200}) == {"model": {"parameters": 200}}
    assert by_section({"vectors": Path("v.txt")}) == {"training": {"vectors": "v.txt"}}
    with pytest.raises(UsageError, match="hidden and hidden_size are two names of one setting"):
        by_section({"hidden": 4, "hidden_size": 4})
    for wrong, hint in (({"hiden": 3}, "'hidden'"), ({"embedding": "wide"}, "one-hot")):
        with pytest.raises(UsageError, match=hint):
            by_section(wrong)


# Progress


def on_a_terminal(folder: Path, **more: object) -> str:
    """Return what `fit` writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    options = {**TINY, "steps": 3, **more}
    child = begin(lambda: charlm.fit(text=TEXT, checkpoints=folder, **options), {2: theirs})
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:  # the end of a terminal whose other side is closed
        pass
    os.close(ours)
    assert end_of(child) == 0, shown
    return shown.decode()


def test_a_progress_bar_is_for_terminals(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It can be requested in a pipe and switched off on a terminal."""
    shown = on_a_terminal(tmp_path)
    assert "100%" in shown
    assert "planning" in shown  # a phase
    assert all(len(line) <= 80 for line in shown.replace("\r", "\n").split("\n"))
    assert on_a_terminal(tmp_path, progress=False) == ""
    charlm.fit(text=TEXT, checkpoints=tmp_path, **TINY)
    assert capfd.readouterr() == ("", "")
    charlm.fit(text=TEXT, checkpoints=tmp_path, progress=True, **TINY)
    out, err = capfd.readouterr()
    assert out == ""
    assert "100%" in err
    assert "bits/char" in err


def test_the_progress_bar_is_shown_in_a_notebook(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stderr is not a terminal."""
    assert not in_notebook()
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    notebook = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    assert in_notebook()
    charlm.fit(text=TEXT, checkpoints=tmp_path, **TINY)
    assert "100%" in capfd.readouterr().err
    charlm.fit(text=TEXT, checkpoints=tmp_path, progress=False, **TINY)
    assert capfd.readouterr().err == ""


# Results


def test_results_show_themselves_in_one_short_line(model: Model) -> None:
    state = model.state("ab")
    (score,) = model.score("abc " * 30, tokens=True)
    records = list(charlm.train(text=TEXT, checkpoints=model.path.parent, **TINY))
    records = [record for record in records if record.kind != "warning"]  # whole sentences
    things = [
        model, state, score, score.tally, score.tokens[0], model.next("a", top=1)[0],
        next(model.generate(3, seed=1)), Corpus.from_text(TEXT), model.history, *records[:-1],
    ]  # fmt: skip
    for thing in things:
        shown = repr(thing).replace(str(model.path.parent.resolve()), "")
        assert shown.startswith(f"{type(thing).__name__}("), shown
        assert "\n" not in shown
        assert len(shown.replace(str(model.path.parent), "")) <= 120, shown
    assert "1 x 4 LSTM" in repr(model)
    assert f"{score.log_probability:.3f}" in repr(score)
    assert "progress" in repr(next(r for r in records if r.kind == "step"))
    assert "reason 'complete'" in repr(records[-1])


def test_results_convert_to_tables(model: Model) -> None:
    pandas = pytest.importorskip("pandas")
    frame = model.next("a", top=3).to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["id", "token", "probability"]
    assert list(frame["id"]) == [token.id for token in model.next("a", top=3)]
    history = model.history.to_pandas()
    assert list(history["kind"])[-1] == "finished"
    assert history["nats_per_token"].notna().sum() >= 1
    html = model.next("a", top=3)._repr_html_()
    assert html.count("<tr>") == 4


def test_tables_in_a_notebook_are_escaped_and_cut() -> None:
    class Words(Listing[str]):
        """One column."""

        def rows(self) -> list[dict[str, object]]:
            """The words."""
            return [{"word": word} for word in self]

    html = Words(["<b>", "\x1b"])._repr_html_()
    assert "&lt;b&gt;" in html
    assert "\x1b" not in html
    assert f"{5:,} more rows" in Words("abcde" * (SHOWN_ROWS // 5 + 1))._repr_html_()
    assert Words()._repr_html_() is None


def test_without_pandas_an_extra_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EnvironmentFailure, match=r"pip install 'charlm\[pandas\]'"):
        model.next("a").to_pandas()


def test_a_run_without_a_log_has_an_empty_history() -> None:
    assert charlm.load("tales").history == []


# Samples


def test_a_sample_is_the_joined_stream(model: Model) -> None:
    """Flags of the command are accepted as other names."""
    whole = model.sample(30, seed=3)
    assert "".join(model.stream(30, seed=3)) == whole
    assert model.sample(len=30, seed=3) == whole
    assert model.sample(30, seed=3, prime="ab") == model.sample(30, seed=3, prompt="ab")
    several = model.samples(3, 30, seed=3)
    assert (len(several), several[0]) == (3, whole)
    assert len(set(several)) == 3
    assert {piece.sample for piece in model.generate(5, seed=3, n=2)} == {0, 1}
    for name in ("n", "samples"):
        with pytest.raises(UsageError, match=r"model.samples\(2\)"):
            model.sample(5, **{name: 2})


# Copies


def score_of(model: Model) -> float:
    return model.score("abc ab")[0].log_probability


@pytest.mark.parametrize("engine", ["numpy", "torch", "auto"])
def test_a_copied_model_is_loaded_again_with_its_options(folder: Path, engine: str) -> None:
    model = charlm.load("a", checkpoints=folder, engine=engine, threads=1)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), copy.copy(model)):
        assert other is not model
        assert type(other.run.backend) is type(model.run.backend)
        assert score_of(other) == score_of(model)
        assert other.path == model.path.resolve()
    assert len(pickle.dumps(model)) < 2000  # a path and options, no weights


def test_results_can_be_pickled(model: Model) -> None:
    state, (score,) = model.state("ab"), model.score("abc", tokens=True)
    assert pickle.loads(pickle.dumps(score)) == score
    again = pickle.loads(pickle.dumps(state))
    assert model.step(again, "c")[0] == model.step(state, "c")[0]
    assert pickle.loads(pickle.dumps(model.next("a"))) == model.next("a")


FORKED = """
import os, sys, charlm
model = charlm.load({path!r}, engine="native", threads=3)
before = model.score("abc ab")[0].log_probability
child = os.fork()
if not child:
    {child}
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def forked(path: Path, child: str) -> int:
    code = FORKED.format(path=str(path), child=child)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False)
    return done.returncode


needs_kernels = pytest.mark.skipif(
    chosen_variant() is None or not hasattr(os, "fork"), reason="no kernels, or no fork"
)


@needs_kernels
def test_a_forked_process_can_use_the_model_of_its_parent(folder: Path) -> None:
    """The threads, which a fork does not copy, are started again."""
    same = "os._exit(7 if model.score('abc ab')[0].log_probability == before else 8)"
    assert forked(folder / "a", same) == 7


@needs_kernels
def test_a_forked_process_refuses_weights_that_have_changed(folder: Path) -> None:
    child = """
    weights = model.path / "model.safetensors"
    os.utime(weights, ns=(1, 1))
    try:
        model.score("abc")
    except charlm.CharlmError as error:
        os._exit(7 if "has changed" in str(error) else 8)
    os._exit(9)"""
    copied = folder / "changed"
    shutil.copytree(folder / "a", copied)
    assert forked(copied, child.strip()) == 7


def test_a_copy_of_a_missing_run_is_refused(tmp_path: Path) -> None:
    model = charlm.fit(text=TEXT, checkpoints=tmp_path, name="gone", **TINY)
    data = pickle.dumps(model)
    (tmp_path / "gone").rename(tmp_path / "away")
    with pytest.raises(RunError, match="gone"):
        pickle.loads(data)


def test_a_copy_warns_of_weights_that_were_trained_again(tmp_path: Path) -> None:
    """A copy of the same weights is silent."""
    model = charlm.fit(text=TEXT, checkpoints=tmp_path, name="x", **TINY)
    data = pickle.dumps(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(data)
        copy.copy(model)
    charlm.fit(text=TEXT, checkpoints=tmp_path, name="x", overwrite=True, **{**TINY, "seed": 2})
    for make in (lambda: pickle.loads(data), lambda: copy.deepcopy(model)):
        with pytest.warns(RuntimeWarning, match="have changed since the model was loaded"):
            assert score_of(make()) != score_of(model)


def test_fit_returns_the_best_weights(model: Model) -> None:
    kept = torch_model(model.path).state_dict()["embedding.weight"].numpy()
    assert np.array_equal(kept, model.embedding)
