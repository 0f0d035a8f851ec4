"""Runs of n-gram models: written, read, refused if damaged, and used by every command."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import Call
from safetensors.numpy import load, load_file, save, save_file

import charlm
from charlm.backends.ngram_backend import NgramBackend
from charlm.errors import RunError, UsageError
from charlm.files.atomic import MANIFEST, fingerprint, json_bytes, write_json
from charlm.ngrams.kneser_ney import fit
from charlm.runs.layout import CONFIG, NGRAMS, TOKENIZER, read_manifest
from charlm.runs.locate import newest_run
from charlm.runs.ngrams import ngram_pieces
from charlm.runs.run import load_run
from charlm.runs.verify import verify_run

TEXT = "the cat sat on the mat\nthe dog sat on the log\na cat and a dog ran\n" * 8


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a run `kn` of words, which is the folder of all runs."""
    monkeypatch.setenv("CHARLM_CHECKPOINTS", str(tmp_path))
    charlm.ngram(text=TEXT, name="kn", unit="word", words="whitespace", order=3, document="line")
    return tmp_path


def test_a_run_is_the_model_of_its_training_text(folder: Path) -> None:
    model = charlm.load("kn")
    train = model.run.kept("train")
    expected, _ = fit(np.asarray(train.ids), len(model.vocabulary), 3)
    assert isinstance(model.run.backend, NgramBackend)
    assert model.run.kind == "ngram"
    ids = model.vocabulary.encode("the dog ran\n")
    (score,) = model.score("the dog ran", tokens=True)
    nats = [token.nats for token in score.tokens]
    assert nats == pytest.approx(expected.text_nats(ids), abs=1e-5)
    assert repr(model).endswith("3-gram, 12 word entries)")


def test_a_model_can_be_pickled(folder: Path) -> None:
    model = charlm.load("kn")
    again = pickle.loads(pickle.dumps(model))
    assert again.score("the cat").rows() == model.score("the cat").rows()
    _, state = model.step(model.state(), "the ")
    assert np.exp(state.log_probabilities).sum() == pytest.approx(1.0, abs=1e-6)


def test_equal_texts_give_equal_files(folder: Path) -> None:
    charlm.ngram(text=TEXT, name="b", unit="word", words="whitespace", order=3, document="line")
    assert (folder / "kn" / NGRAMS).read_bytes() == (folder / "b" / NGRAMS).read_bytes()


def test_a_companion_has_text_vocabulary_and_documents_of_its_run(folder: Path) -> None:
    model = charlm.ngram(like="kn", name="same", order=2)
    assert model.vocabulary.tokens == charlm.load("kn").vocabulary.tokens
    assert model.run.boundaries == charlm.load("kn").run.boundaries
    assert model.run.backend.model.order == 2
    assert all(not check.problems for check in verify_run(model.path))
    with pytest.raises(UsageError, match="like takes the text"):
        charlm.ngram(like="kn", unit="char")


def test_a_run_in_the_folder_of_a_run_has_its_vocabulary(folder: Path) -> None:
    """A companion keeps no vocabulary; without the run around it, it cannot be read."""
    shutil.copytree(folder / "kn", folder / "kn" / "ngram")
    (folder / "kn" / "ngram" / TOKENIZER).unlink()
    inner = load_run(folder / "kn" / "ngram")
    assert inner.vocabulary.tokens == charlm.load("kn").vocabulary.tokens
    assert "ngram/ngrams.safetensors" in [check.name for check in verify_run(folder / "kn")]
    shutil.copytree(folder / "kn" / "ngram", folder / "alone")
    with pytest.raises(RunError, match=r"tokenizer\.json does not exist"):
        load_run(folder / "alone")


def test_a_backward_run_has_a_backward_companion(folder: Path) -> None:
    """The n-grams of a reversed text give each reversed document the same probability."""
    config = json.loads((folder / "kn" / CONFIG).read_text(encoding="utf-8"))
    assert config["model"] == {"kind": "ngram", "order": 3, "direction": "forward"}
    config["model"]["direction"] = "backward"
    write_json(folder / "kn" / CONFIG, config)
    manifest = read_manifest(folder / "kn")
    manifest["files"][CONFIG] = fingerprint(json_bytes(config))
    write_json(folder / "kn" / MANIFEST, manifest)
    model = charlm.ngram(like="kn", name="back", order=2)
    assert model.run.backward
    (last, *_) = model.score("the dog", tokens=True)[0].tokens
    assert last.token == "dog"


DAMAGES = {
    "tokens.2": lambda a: a[::-1].copy(),
    "tokens.3": lambda a: a.astype(np.int64),
    "children.1": lambda a: np.append(a[:-1] + 1, a[-1]),
    "children.2": lambda a: a.astype(np.uint32) << 24,
    "log10_p.2": lambda a: np.append(a[:-1], np.float32("nan")),
    "log10_backoff.1": lambda a: a[:-1],
    "log10_p.1": lambda a: a.astype(np.float64),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused(folder: Path, name: str, call: Call) -> None:
    path = folder / "kn" / NGRAMS
    arrays = load_file(path)
    save_file(arrays | {name: DAMAGES[name](arrays[name])}, path)
    status, out, err = call("score", "--run", "kn", "the cat")
    assert (status, out) == (4, "")
    assert "ngrams.safetensors" in err
    assert call("verify", "--run", "kn")[0] == 4


def test_the_start_symbol_is_never_predicted(folder: Path) -> None:
    """A file with such an n-gram would index beyond the vocabulary."""
    path = folder / "kn" / NGRAMS
    arrays = load_file(path)
    size = len(arrays["log10_p.1"])
    arrays["tokens.2"][-1] = size - 1
    save_file(arrays, path)
    with pytest.raises(RunError, match="not of the vocabulary"):
        load_run(folder / "kn")


def test_the_file_is_small(folder: Path) -> None:
    """Keys follow from tokens and numbers of children, which have one byte here."""
    arrays = load_file(folder / "kn" / NGRAMS)
    assert {a.dtype.name for name, a in arrays.items() if "log10" not in name} == {"uint8"}
    sizes = sum(len(values) for name, values in arrays.items() if name.startswith("log10_p"))
    assert sum(a.nbytes for a in arrays.values()) < 10 * sizes


@pytest.mark.parametrize(
    "model",
    [{"kind": "ngram", "order": 10**9, "direction": "forward"}, {"kind": "ngram", "order": 0},
     {"kind": "ngram"}, {"kind": "other"}, {"kind": ["ngram"]}, "ngram",
     {"kind": "ngram", "order": 4, "direction": "forward"}],
)  # fmt: skip
def test_another_config_is_refused(folder: Path, model: object) -> None:
    path = folder / "kn" / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"model": model}), encoding="utf-8")
    with pytest.raises(RunError):
        load_run(folder / "kn")


def test_every_command_takes_the_run(folder: Path, call: Call, tmp_path: Path) -> None:
    text = tmp_path / "new.txt"
    text.write_text("the cat ran\na dog sat\n", encoding="utf-8")
    for words in (
        ("info",), ("verify",), ("sample", "--len", "5", "--seed", "1"), ("next", "the"), ("eval",),
        ("eval", "--file", str(text)), ("score", "the cat"), ("score", "--tokens", "the cat"),
    ):  # fmt: skip
        status, out, err = call(*words, "--run", "kn")
        assert status == 0, (words, err)
        assert out, words
    assert call("compare", "kn", "kn", "--file", str(text))[0] == 0
    assert "3-gram, modified Kneser-Ney" in (folder / "kn" / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    "words",
    [("vectors", "nearest", "the"), ("gradients",), ("fill", "the ___"), ("train", "--resume"),
     ("eval", "--dynamic"), ("eval", "--temperature"),
     ("score", "a", "--engine", "torch"), ("next", "--weights", "int8")],
)  # fmt: skip
def test_what_needs_a_network_refuses_the_run(folder: Path, call: Call, words) -> None:
    status, out, err = call(*words, "--run", "kn")
    assert (status, out) == (2, "")
    assert "kn is an n-gram run" in err
    assert words[0] != "eval" or f"{words[1]} needs a network" in err
    assert err.count("\n") == 1


def test_a_name_of_an_n_gram_run_is_not_trained(folder: Path, call: Call, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(TEXT, encoding="utf-8")
    words = ("train", f"{tmp_path}/x.txt", "--name", "kn")
    status, out, err = call(*words, "--continue")
    assert (status, out) == (2, "")
    assert "kn is an n-gram run, which is complete" in err
    status, out, err = call(*words)
    assert (status, out) == (4, "")
    assert err.endswith("Choose another --name, or replace it with --overwrite\n")


def test_the_newest_run_is_a_network_if_there_is_one(folder: Path) -> None:
    assert newest_run(folder) == folder / "kn"
    shutil.copytree(folder / "kn", folder / "network")
    (folder / "network" / NGRAMS).rename(folder / "network" / "model.safetensors")
    charlm.ngram(text=TEXT, name="later")
    assert newest_run(folder) == folder / "network"
    (folder / "network" / "model.safetensors").unlink()
    assert newest_run(folder) in (folder / "later", folder / "kn")


def test_the_command_fits_a_run(folder: Path, call: Call, tmp_path: Path) -> None:
    """`fit` may be left out; a file with the name of a command is ./NAME."""
    for place, name in (("corpus.txt", "a"), ("export", "b")):
        (tmp_path / place).write_text(TEXT, encoding="utf-8")
        status, out, err = call("ngram", f"{tmp_path}/{place}", "--name", name, "--order", "2")
        assert status == 0, err
        assert "2-gram" in out
    again = call("info", "--run", "a")[1].rstrip().splitlines()[-1]
    assert again.startswith("charlm ngram ")
    assert "--order 2" in again
    status, _, err = call("ngram", "--order", "99")
    assert status == 2
    assert "--order is 99" in err
    status, _, err = call("ngram", "--like", "kn", "--unit", "char")
    assert status == 2
    assert "--like takes the text" in err


def test_networks_alone_have_settings_of_training() -> None:
    with pytest.raises(UsageError, match="hidden is a setting of networks"):
        charlm.ngram(text=TEXT, hidden=3)


def test_a_file_has_the_bytes_of_the_library(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(1, 400, 5000)
    for kind in (np.float32, np.float64):
        content = b"".join(ngram_pieces(fit(ids, 400, 3, kind=kind)[0]))
        assert content == save(load(content))
        assert {str(array.dtype) for array in load(content).values()} >= {"uint16", "float32"}
