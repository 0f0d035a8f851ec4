"""Runs that give labels: equal in every backend; damaged ones are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import encoded_documents, seeded
from labelled_runs import LABELS, WORDS, label_run

from charlm.backends import kernel_library
from charlm.backends.kernel_library import chosen_variant
from charlm.backends.softmax import softmax
from charlm.backends.weights import task_shapes
from charlm.config.model import ModelSettings
from charlm.config.tasks import POOLINGS
from charlm.errors import EnvironmentFailure, RunError, UsageError
from charlm.inference import labelling
from charlm.nn import classifier, pooling
from charlm.nn.task_models import model_shapes
from charlm.runs.label_run import load_label_run
from charlm.runs.layout import (
    CONFIG,
    LOGIT_SCALE,
    TOKENIZER,
    WEIGHTS,
    is_label_run,
    read_record,
)
from charlm.runs.run import load_run
from charlm.runs.task_run import load_task_run
from charlm.runs.verify import run_problems
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training.resume import resume

TEXTS = ["a good film", "", "bad", "not bad : an odd film , and not a good one .", "unknown words"]
NATIVE = ["native"] if chosen_variant() else []
PLAIN = ["rnn", "lstm", "gru"]


@pytest.mark.parametrize("engine", ["numpy", *NATIVE])
@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("cell", PLAIN)
def test_every_engine_gives_the_logits_of_torch(
    cell: str, both_ways: bool, engine: str, tmp_path: Path
) -> None:
    path = label_run(tmp_path / "x", cell=cell, both_ways=both_ways, scale=1.5)
    run, other = load_label_run(path, engine="torch"), load_label_run(path, engine=engine)
    assert other.reader.name.startswith(engine)
    text = run.encode(TEXTS * 40)  # more than are read side by side
    assert np.abs(run.reader.logits(text) - other.reader.logits(text)).max() < 1e-5
    assert np.abs(run.reader.features(text) - other.reader.features(text)).max() < 1e-6


@pytest.mark.parametrize("engine", ["numpy", "torch", *NATIVE])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_text_has_alone_the_logits_that_it_has_among_others(
    pooling: str, engine: str, tmp_path: Path
) -> None:
    run = load_label_run(label_run(tmp_path / "x", pooling=pooling), engine=engine)
    together = run.reader.logits(run.encode(TEXTS))
    for row, text in enumerate(TEXTS):
        alone = run.reader.logits(run.encode([text]))
        assert np.abs(alone[0] - together[row]).max() < 1e-6


@pytest.mark.parametrize("name", POOLINGS)
def test_arrays_are_pooled_and_reversed_as_in_torch(name: str) -> None:
    hidden, lengths = torch.randn(6, 3, 2, generator=seeded()), torch.tensor([6, 1, 4])
    own = labelling.pooled(name, hidden.numpy(), lengths.numpy())
    assert np.abs(own - pooling.pooled(name, hidden, lengths).numpy()).max() < 1e-6
    ids = torch.randint(0, 5, (6, 3), generator=seeded())
    reverse = labelling.reversed_within(ids.numpy(), lengths.numpy())
    assert np.array_equal(reverse, classifier.reversed_within(ids, lengths))


@pytest.mark.parametrize("both_ways", [True, False])
@pytest.mark.parametrize("pooling", ["concat", "mean"])
@pytest.mark.parametrize("cell", PLAIN)
def test_shapes_are_those_of_the_model(cell: str, pooling: str, both_ways: bool) -> None:
    settings = ModelSettings(cell=cell, num_layers=2, hidden_size=3, embedding_size=4)
    task = {
        "name": "classify", "labels": list("abc"), "pooling": pooling, "both_ways": both_ways
    }  # fmt: skip
    assert task_shapes(settings, 7, task) == model_shapes(settings, 7, task)


@pytest.mark.parametrize("model", [{"cell": "lstm-peephole"}, {"skip": True, "embedding_size": 3}])
def test_a_model_that_only_torch_computes_is_read_by_torch(model, tmp_path: Path) -> None:
    path = label_run(tmp_path / "x", **model)
    assert load_label_run(path).reader.name == "torch cpu"
    with pytest.raises(UsageError, match="only torch computes"):
        load_label_run(path, engine="numpy")


def test_the_factor_on_logits_is_that_of_the_config(tmp_path: Path) -> None:
    runs = [load_label_run(label_run(tmp_path / str(s), scale=s)) for s in (1.0, 2.5)]
    plain, scaled = (run.reader.logits(run.encode(TEXTS)) for run in runs)
    assert np.array_equal(2.5 * plain, scaled)


def test_probabilities_are_a_softmax() -> None:
    sizes = np.geomspace(1e-3, 1e3, 50)[:, np.newaxis]
    logits = np.random.default_rng(0).normal(size=(50, 3)) * sizes
    shares = softmax(logits)
    assert np.all((shares >= 0) & (shares <= 1))
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-12
    assert np.array_equal(shares.argmax(axis=1), logits.argmax(axis=1))


def test_texts_are_cut_as_the_config_says(tmp_path: Path) -> None:
    run = load_label_run(label_run(tmp_path / "x"))
    words = WORDS.split()
    text = run.encode([WORDS])
    kept = [*words[:6], *words[-6:]]
    assert [run.vocabulary.token_text(i) for i in text.ids[:-1]] == kept
    assert text.ids[-1] == EOS
    assert run.encode([]).documents == 0


# ------------------------------------------------------------------ misuse and damage


def test_a_run_of_labels_is_no_language_model_and_the_reverse(tmp_path: Path) -> None:
    path = label_run(tmp_path / "movies")
    assert is_label_run(path)
    with pytest.raises(UsageError, match=r"gives labels, not text.*charlm predict --run .*movies"):
        load_run(path)
    config = json.loads((path / CONFIG).read_text("utf-8"))
    del config["task"]
    (path / CONFIG).write_text(json.dumps(config | {"format": 1}), encoding="utf-8")
    assert not is_label_run(path)
    with pytest.raises(
        UsageError,
        match=r"gives text; .* labels, .*charlm score --run .*movies",
    ):
        load_task_run(path)
    assert not is_label_run(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["task"]["labels"].append("odd"), r"head\.\w+ has shape"),
        (lambda config: config["task"].update(pooling="mean"), r"head.weight has shape"),
        (lambda config: config["task"].update(both_ways=False), "backward.*has shape"),
        (lambda config: config["model"].update(hidden_size=4), "has shape"),
        (lambda config: config["task"]["labels"].reverse(), "config.json: not as written"),
        (lambda config: config["task"].update(kept_part="end"), "config.json: not as written"),
        (lambda config: config.update(vocab_size=9), "tokenizer.json has"),
        (lambda config: config.update(format=3), "format 3 is newer.*Upgrade"),
        (lambda config: config.update({LOGIT_SCALE: -1}), "logit_scale is -1"),
    ],
)
def test_files_that_do_not_match_are_refused(change, message: str, tmp_path: Path) -> None:
    path = label_run(tmp_path / "x")
    config = json.loads((path / CONFIG).read_text("utf-8"))
    change(config)
    (path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(RunError, match=message):
        load_task_run(path)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = label_run(tmp_path / "x")
    data = bytearray((path / WEIGHTS).read_bytes())
    (path / WEIGHTS).write_bytes(data[:-4])
    with pytest.raises(RunError, match="by its header"):
        load_label_run(path)
    data[-4:] = np.float32(np.nan).tobytes()
    (path / WEIGHTS).write_bytes(data)
    with pytest.raises(RunError, match="not finite"):
        load_label_run(path)
    (path / WEIGHTS).unlink()
    with pytest.raises(RunError, match="resume training with: charlm train --resume"):
        load_label_run(path)
    (path / TOKENIZER).unlink()
    with pytest.raises(RunError, match=TOKENIZER):
        load_label_run(path)


def test_kept_texts_come_with_their_targets(tmp_path: Path) -> None:
    from charlm.text.encoded import write_encoded
    from charlm.text.labels import write_targets

    path = label_run(tmp_path / "x")
    run, folder = load_label_run(path), path / "data" / "valid"
    assert run.kept("valid") is None
    write_encoded(folder, encoded_documents([[3, EOS], [4, 5, EOS]]))
    write_targets(folder, np.array([2, 0], np.int32))
    text, targets = run.kept("valid")
    assert (text.documents, targets.tolist()) == (2, [2, 0])
    assert run.labels.names == LABELS


OLD_RUN = Path(__file__).parent / "fixtures" / "classify-2"
"""Run of labels as the first version that had them wrote it, with a checkpoint at its end."""


def test_an_older_run_gives_the_same_logits_and_resumes(tmp_path: Path) -> None:
    """To the bit, and further training does what it did then."""
    expected = json.loads((OLD_RUN / "expected.json").read_text("utf-8"))
    run = load_label_run(OLD_RUN, engine="numpy")
    logits = run.reader.logits(run.encode(["a good film", "bad film", "unheard of", ""]))
    assert [[x.hex() for x in row] for row in logits.tolist()] == expected["logits"]
    path = tmp_path / "old"
    shutil.copytree(OLD_RUN, path)
    (path / "expected.json").unlink()
    assert run_problems(path) == []
    session = resume(path, more={"steps": 8.0})
    records = list(session.records())
    after = read_record(path)["results"]
    assert after["step"] == expected["after"]["step"] == records[-1].step
    assert after["valid"]["nats_per_text"] == pytest.approx(expected["after"]["nats"], abs=1e-6)


@pytest.mark.parametrize(
    ("off", "message"),
    [
        (True, r"^engine='native' needs .* switches off\. Unset .*, or leave out engine='native'$"),
        (False, r"^engine='native' needs .* not here\. Install charlm again .* leave out engine"),
    ],
)
def test_missing_kernels_are_explained(
    off: bool, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The story: the message named a type of weights, which these runs do not take."""
    path = label_run(tmp_path / "x")
    if off:
        monkeypatch.setenv(kernel_library.VARIABLE, "none")
    else:
        monkeypatch.setattr(kernel_library, "variants", list)
    with pytest.raises(EnvironmentFailure, match=message):
        load_label_run(path, engine="native")
