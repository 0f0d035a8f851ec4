"""Weights in and out of safetensors: exact, checked before use, and never a pickle."""

import io
import json
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import seeded, tiny_model
from safetensors.torch import save
from waiting import python_calls

from charlm.backends.weights import expected_shapes
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.errors import RunError
from charlm.files.atomic import fingerprint
from charlm.nn.encoder import saved_tensors
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs.tensors import (
    FORMAT_METADATA,
    put_weights,
    tensor_pieces,
    tensors_from_file,
    tensors_to_bytes,
)
from charlm.runs.weights import MAX_HEADER, load_arrays, read_header

V = 5


def saved(path: Path, model) -> Path:
    path.write_bytes(tensors_to_bytes(saved_tensors(model)))
    return path


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tied", [False, True])
def test_saved_and_loaded_is_the_same_model(cell: str, tied: bool, tmp_path: Path) -> None:
    """Identical logits and state for every cell, tied or not; bytes depend on the weights only."""
    if tied and not CELLS[cell].learns_input:
        pytest.skip("the embedding of a reservoir is not trained, so it cannot be tied")
    sizes = {"embedding_size": 3} if tied else {}
    model = tiny_model(cell, V, tie_weights=tied, **sizes)
    path = saved(tmp_path / "w", model)
    arrays = load_arrays(path, model.settings, V)
    loaded = RecurrentLanguageModel(model.settings, V)
    put_weights(loaded, {name: torch.from_numpy(array) for name, array in arrays.items()})
    shapes = {name: tuple(tensor.shape) for name, tensor in saved_tensors(model).items()}
    assert not CELLS[cell].numpy_step or shapes == expected_shapes(model.settings, V)
    ids = torch.randint(V, (6, 2), generator=seeded())
    (logits, state), (again, after) = model(ids), loaded(ids)
    assert torch.equal(logits, again)
    assert all(torch.equal(a, b) for x, y in zip(state, after, strict=True) for a, b in zip(x, y))  # noqa: B905
    assert tensors_to_bytes(saved_tensors(loaded)) == path.read_bytes()
    assert ("output.weight" in read_header(path)) == (not tied)
    assert (loaded.output.weight is loaded.embedding.weight) == tied


def test_the_order_of_the_tensors_does_not_matter() -> None:
    """The same tensors give the same bytes, wherever they came from and however often.

    safetensors 0.8 writes two entries of metadata in an order that is drawn for each file.
    """
    tensors = saved_tensors(tiny_model())
    turned = dict(reversed(tensors.items()))
    assert {tensors_to_bytes(turned) for _ in range(8)} == {tensors_to_bytes(tensors)}
    slanted = {"a": torch.arange(6.0).reshape(2, 3).T}
    assert tensors_to_bytes(slanted) == tensors_to_bytes({"a": slanted["a"].contiguous()})


def test_files_are_those_of_the_library_byte_for_byte() -> None:
    """Types in its order, names of any letters and lengths, shapes without or with no numbers."""
    kinds = [torch.float32, torch.uint8, torch.float64, torch.int64, torch.bfloat16, torch.bool,
             torch.float16, torch.int32, torch.int16, torch.int8]  # fmt: skip
    tensors = {"b" + at * '"': torch.arange(at).to(kind) for at, kind in enumerate(kinds)}
    tensors |= {"a": torch.tensor(7.0), "é": torch.zeros(0, 3), "\t": torch.ones(2, 3, 1)}
    expected = save(tensors, metadata=FORMAT_METADATA)
    assert tensors_to_bytes(tensors) == expected
    assert fingerprint(tensor_pieces(tensors)) == fingerprint(expected)


def test_the_pieces_of_a_file_are_the_memory_of_the_weights() -> None:
    """The story: a checkpoint of a large model took three more copies of its weights."""
    weights = torch.zeros(3, 2)
    *_, piece = tensor_pieces({"a": weights})
    weights.fill_(1.0)
    assert np.array_equal(np.frombuffer(piece, np.float32), np.ones(6))


def test_tensors_of_every_kind_come_back(tmp_path: Path) -> None:
    """A generator's bytes, a step counter without a shape, an empty tensor."""
    tensors = {
        "generator": seeded(3).get_state(),
        "step": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "double": torch.tensor([1e-300]).double(),
    }
    (tmp_path / "t").write_bytes(tensors_to_bytes(tensors))
    back = tensors_from_file(tmp_path / "t")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    assert back["double"].dtype == torch.float64


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch zip"])
def test_a_pickle_under_a_good_name_is_refused(kind: str, tmp_path: Path) -> None:
    """Its code is not executed."""
    marker, buffer = tmp_path / "marker", io.BytesIO()
    if kind == "pickle":
        buffer.write(pickle.dumps(Trap(marker)))
    else:
        zipped = kind == "torch zip"
        torch.save({"x": Trap(marker)}, buffer, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "model.safetensors"
    path.write_bytes(buffer.getvalue())
    model = tiny_model()
    for read in (read_header, tensors_from_file):
        with pytest.raises(RunError, match=r"model\.safetensors"):
            read(path)
    with pytest.raises(RunError):
        load_arrays(path, model.settings, V)
    assert not marker.exists()


F4 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
DAMAGED = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "no header": struct.pack("<Q", 8),
    "huge header": struct.pack("<Q", 100_000_000) + b"{}",
    "endless header": struct.pack("<Q", 2**64 - 1) + b"{}",
    "just too large": struct.pack("<Q", MAX_HEADER + 1) + b" " * 16,
    "not JSON": safetensors(b"\x80\x04K\x01."),
    "a list": safetensors([1, 2]),
    "a number": safetensors(3),
    "not a tensor": safetensors({"a": 3}),
    "no shape": safetensors({"a": {"dtype": "F32"}}),
    "deep": safetensors(b"[" * 100_000),
    "unknown type": safetensors({"a": {**F4, "dtype": "X9"}}, b"\0" * 4),
    "cut off": safetensors({"a": F4}, b"\0" * 3),
    "trailing": safetensors({"a": F4}, b"\0" * 5),
    "overlap": safetensors({"a": F4, "b": F4}, b"\0" * 4),
    "hole": safetensors({"a": {**F4, "data_offsets": [4, 8]}}, b"\0" * 8),
    "backwards": safetensors({"a": {**F4, "data_offsets": [4, 0]}}, b"\0" * 4),
    "negative": safetensors({"a": {**F4, "shape": [-1]}}, b"\0" * 4),
    "overflow": safetensors({"a": {**F4, "shape": [2**62, 2**62]}}, b"\0" * 4),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_run_errors(name: str, tmp_path: Path) -> None:
    """One error that names the file, with little work and nothing large allocated."""
    path = tmp_path / "w.safetensors"
    path.write_bytes(DAMAGED[name])
    model = tiny_model().settings

    def read() -> None:
        with pytest.raises(RunError, match=r"w\.safetensors"):
            tensors_from_file(path)
        with pytest.raises(RunError, match=r"w\.safetensors"):
            load_arrays(path, model, V)

    tracemalloc.start()
    try:
        assert python_calls(read) < 2000
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """At every length below its own."""
    path = saved(tmp_path / "w", tiny_model())
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1, *range(0, len(whole), 37)}:
        path.write_bytes(whole[:length])
        with pytest.raises(RunError):
            tensors_from_file(path)


@pytest.mark.parametrize(
    ("changes", "vocab_size", "problem"),
    [
        ({"hidden_size": 4}, V, "layers.0"),
        ({"embedding_size": 5}, V, r"embedding.weight has shape \(5, 4\).*\(5, 5\)"),
        ({"num_layers": 3}, V, r"layers\.2\..* has shape none"),
        ({"num_layers": 1}, V, r"layers\.1\..* expects none"),
        ({"cell": "gru"}, V, r"layers\.0\..*\(12,.*\(9,"),
        ({}, V + 1, r"\(5, 4\).*\(6, 4\)"),
        ({"hidden_size": 65536}, V, "layers.0"),
    ],
)
def test_a_model_of_other_shapes_is_named(changes, vocab_size, problem, tmp_path: Path) -> None:
    """The first tensor that does not fit, with both shapes, before anything is allocated."""
    model = tiny_model("lstm", V)
    path = saved(tmp_path / "w", model)
    values = {"num_layers": 2, "hidden_size": 3, "embedding_size": 4} | changes
    with pytest.raises(RunError, match=problem) as caught:
        load_arrays(path, ModelSettings(**values), vocab_size)
    assert "do not match" in str(caught.value)


def test_a_false_depth_is_refused_with_little_work(tmp_path: Path) -> None:
    """A config.json that claims 256 layers is found out by the file's header at once."""
    path = saved(tmp_path / "w", tiny_model())

    def read() -> None:
        with pytest.raises(RunError, match="layers"):
            settings = ModelSettings(num_layers=256, hidden_size=3, embedding_size=4)
            load_arrays(path, settings, V)

    assert python_calls(read) < 300


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    """One broken number in one tensor, by the name of the tensor."""
    model = tiny_model()
    with torch.no_grad():
        model.output.bias[3] = value
    path = saved(tmp_path / "w", model)
    with pytest.raises(RunError, match=r"output\.bias.*not finite"):
        load_arrays(path, model.settings, V)


def test_loading_into_a_model_copies(tmp_path: Path) -> None:
    """The file may be replaced or deleted afterwards; nothing of it stays mapped."""
    model, other = tiny_model(seed=1), tiny_model(seed=2)
    path = saved(tmp_path / "w", model)
    tensors = tensors_from_file(path)
    path.write_bytes(b"")
    put_weights(other, tensors)
    assert torch.equal(other.output.weight, model.output.weight)
    assert other.output.weight.data_ptr() != tensors["output.weight"].data_ptr()
