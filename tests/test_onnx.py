"""ONNX files against torch: every cell and structure, the rules, the examples of the guide."""

import contextlib
import functools
import importlib
import io
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import STRUCTURES, Call, engine, started, tiny_model
from test_guide import code

from charlm.api.hub import export_run
from charlm.api.loading import load
from charlm.backends.interface import State
from charlm.config.cells import CELLS
from charlm.errors import EnvironmentFailure
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.onnx_model import FIRST_TORCH, onnx_bytes, state_names
from charlm.runs.run import load_run

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < FIRST_TORCH, reason="torch is too old"
)
SCALE = 1.25
"""Factor of the calibration on all logits."""


def inference(content: bytes) -> Any:
    """Return a session of another program's library that computes with the content of a file."""
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def check_steps(model: RecurrentLanguageModel, content: bytes, inputs: int = 5) -> None:
    """Compare five steps of one and of three texts with torch."""
    session, names, backend = inference(content), state_names(model), engine(model)
    assert [entry.name for entry in session.get_inputs()] == ["tokens", *names]
    for rows in (1, 3):
        state: State = backend.initial_state(rows)
        ours = dict(zip(names, (array for layer in state for array in layer), strict=True))
        for ids in np.random.default_rng(0).integers(inputs, size=(5, rows)):
            logits, state = backend.logits(ids[None], state)
            scores, *after = session.run(None, {"tokens": ids, **ours})
            expected = torch.from_numpy(SCALE * logits).log_softmax(-1).numpy()
            np.testing.assert_allclose(scores, expected, atol=1e-5)
            ours = dict(zip(names, after, strict=True))
            for tensor, array in zip(after, (a for layer in state for a in layer), strict=True):
                np.testing.assert_allclose(tensor, array, atol=1e-5)


@pytest.fixture(scope="module", autouse=True)
def one_table_of_operators() -> Iterator[None]:
    """Let torch keep its table of operators, which it makes again for each file in a second."""
    registry = importlib.import_module("torch.onnx._internal.exporter._registration").ONNXRegistry
    with pytest.MonkeyPatch.context() as patch:
        once = staticmethod(functools.cache(registry.from_torchlib))
        patch.setattr(registry, "from_torchlib", once)
        yield


IN_OTHER_TESTS = {"lstm": "structures together", "gru": "an adaptive softmax"}


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell not in IN_OTHER_TESTS])
def test_a_file_computes_what_torch_computes(cell: str) -> None:
    """For every cell, and for other numbers of texts than in the example of the exporter."""
    model = tiny_model(cell, num_layers=1)  # several layers are in the test of structures together
    check_steps(model, onnx_bytes(model, SCALE, {}))


@pytest.mark.slow
@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_can_be_exported(structure: str) -> None:
    model = tiny_model(structure)
    check_steps(model, onnx_bytes(model, SCALE, {}))


def test_structures_together_can_be_exported() -> None:
    """Conditions are further tokens of the input."""
    settings = {"learned_state": True, "mixture": 2, "last_hidden_size": 2}
    model = tiny_model("lstm", conditions=2, **settings)
    check_steps(model, onnx_bytes(model, SCALE, {}), inputs=7)


def test_an_adaptive_softmax_can_be_exported() -> None:
    model = tiny_model("gru", 60, adaptive_softmax=True, hidden_size=16, num_layers=1)
    check_steps(model, onnx_bytes(model, SCALE, {}), inputs=60)


def test_a_file_is_the_same_each_time_and_says_nothing_about_this_machine() -> None:
    """The exporter notes the folders and lines of the code that it traces."""
    model = tiny_model(num_layers=1)
    content = onnx_bytes(model, SCALE, {"a": "b"})
    assert onnx_bytes(model, SCALE, {"a": "b"}) == content
    assert b".py" not in content and b"charlm" not in content


def written(folder: Path, **changes: Any) -> tuple[Path, dict[str, Any]]:
    """Train a run, export it, and return its path and the rules in the file."""
    session = started(folder, "tiny", **changes)
    list(session.records())
    file = folder / "tiny.onnx"
    export_run(session.path, file)
    about = inference(file.read_bytes()).get_modelmeta().custom_metadata_map
    assert about["tokenizer.json"] == (session.path / "tokenizer.json").read_text(encoding="utf-8")
    return session.path, json.loads(about["charlm"])


Written = dict[str, tuple[Path, dict[str, Any]]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A run of lines, and one of a stream that is read backwards from a state that was learned."""
    folder = tmp_path_factory.mktemp("exported")
    stream = {"document": "stream", "learned_state": True, "direction": "backward"}
    return {
        "line": written(folder / "line", document="line", valid_frac=0.3),
        "stream": written(folder / "stream", **stream),
    }


def test_the_rules_are_those_of_the_run(exported: Written) -> None:
    """Lines end, a stream does not."""
    path, rules = exported["line"]
    assert rules == {
        "run": path.name, "unit": "char", "direction": "forward", "begin": 1, "end": 1,
        "unknown": 0, "conditions": {}, "first_state": {},
    }  # fmt: skip
    path, rules = exported["stream"]
    assert (rules["end"], rules["direction"]) == (None, "backward")
    first = [array for layer in load_run(path).backend.initial_state(1) for array in layer]
    assert np.any(first[0])
    learned = [rules["first_state"][name] for name in ("h1", "c1", "h2", "c2")[: len(first)]]
    np.testing.assert_allclose(learned, [array[0] for array in first], atol=1e-7)


def first_state(session: Any, rules: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the state before a text: zeros if the file has none."""
    return {
        entry.name: np.array([rules["first_state"].get(entry.name, [0.0] * entry.shape[1])], "f4")
        for entry in session.get_inputs()[1:]
    }


@pytest.mark.parametrize("document", ["line", "stream"])
def test_the_sum_of_the_guide_is_that_of_score(document: str, exported: Written) -> None:
    """The guide left out the end of a text, which `charlm score` counts."""
    path, rules = exported[document]
    session = inference((path.parent / "tiny.onnx").read_bytes())
    model, state = load(path), first_state(session, rules)
    tokens = [int(token) for token in model.vocabulary.encode("the end")]  # as the model reads them
    tokens += [] if rules["end"] is None else [rules["end"]]
    total = 0.0
    for token, following in pairwise([rules["begin"], *tokens]):
        scores, *after = session.run(None, {"tokens": np.array([token]), **state})
        state = dict(zip(state, after, strict=True))
        total += float(scores[0][following])
    assert total == pytest.approx(model.score("the end")[0].log_probability, rel=1e-5)


def test_the_calibration_is_in_the_file(exported: Written, tmp_path: Path) -> None:
    """The file gives the probabilities of `charlm next`."""
    path = Path(shutil.copytree(exported["line"][0], tmp_path / "x"))
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    config["logit_scale"] = 0.5
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (path / "MANIFEST.json").unlink()
    export_run(path, tmp_path / "b.onnx")
    session = inference((tmp_path / "b.onnx").read_bytes())
    state = first_state(session, exported["line"][1])
    scores = session.run(None, {"tokens": np.array([1]), **state})[0][0]
    likely = load(path).next("", top=1)[0]
    assert np.exp(scores.max()) == pytest.approx(likely.probability, rel=1e-5)


def test_the_example_of_the_guide_continues_a_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A built-in model, whose words it spells."""
    monkeypatch.chdir(tmp_path)
    export_run("prose", "prose.onnx")
    (program,) = (block for block in code("onnx", "python") if "onnxruntime" in block)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(program, "onnx", "exec"), {})
    assert 80 < len(out.getvalue()) <= 101 and "<" not in out.getvalue()


def test_the_command_says_what_is_left_out(runs: Path, here: Path, call: Call) -> None:
    """And refuses the flags that only archives have."""
    status, out, err = call("runs", "export", "lines", "lines.onnx")
    assert (status, out) == (0, "") and (here / "lines.onnx").stat().st_size > 1000
    assert "wrote 1 file" in err and "charlm guide onnx" in err
    status, _, err = call("runs", "export", "lines", "lines.onnx", "--with-data")
    assert status == 2 and "--with-data with lines.onnx" in err
    status, _, err = call("runs", "export", "lines", "lines.bin")
    assert status == 2 and ".zip, .tar.zst or .onnx" in err


@pytest.mark.parametrize(
    ("task", "problem"), [("classify", "gives labels, not text"), ("ngram", "has n-grams and no")]
)
def test_other_runs_are_refused_with_the_command_for_an_archive(
    task: str, problem: str, here: Path, call: Call
) -> None:
    """The story: the advice was to answer texts, or to name a run with --run, which is no flag."""
    text = "pos\ta good film\nneg\ta bad film\n" if task == "classify" else "to be or not\n"
    (here / "a.tsv").write_text("label\ttext\n" + text * 20, encoding="utf-8")
    small = "--task classify --steps 1 --hidden 2 --batch 2"
    words = f"train a.tsv {small}" if task == "classify" else "ngram a.tsv --input-format text"
    assert call(*words.split(), "--name", "other")[0] == 0
    status, _, err = call("runs", "export", "other", "my/other.onnx")
    assert status == 2 and not (here / "my").exists()
    assert f"run other {problem}" in err
    assert err.endswith("charlm runs export other my/other.zip\n")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ImportError(name="onnxscript")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(EnvironmentFailure, match=r"onnxscript.*pip install 'charlm\[onnx\]'"):
        onnx_bytes(tiny_model(), SCALE, {})


def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.8.1+cpu")
    with pytest.raises(EnvironmentFailure, match=r"needs torch 2\.9 or newer, and this is 2\.8\.1"):
        onnx_bytes(tiny_model(), SCALE, {})
