"""The step that a GPU captures, on a device without values: it reads none, and stays on its device.

A captured step may not wait for the device, nor read memory of the processor: a number that the
host puts into an operation keeps the value that it had in the capture. What is computed only where
tensors are on CUDA is not tested here.
"""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded_stream, tiny_model, vocabulary_of
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from charlm.config.cells import CELLS
from charlm.config.training import TrainingSettings
from charlm.nn import low_precision
from charlm.nn.chunked_softmax import chunked_nats
from charlm.nn.devices import Precision
from charlm.nn.dropout import Draws
from charlm.nn.encoder import Encoder
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.output import Softmax
from charlm.tasks.language_model import language_model_task
from charlm.text.batches import Position
from charlm.text.dataset import Dataset
from charlm.training import static_step, train_state
from charlm.training.optim import skips_on_device
from charlm.training.static_step import StaticStep
from charlm.training.train_state import TrainState

VOCABULARY = vocabulary_of("abcdefghij klmnopqrstuvwxyz")
V = len(VOCABULARY)
NOWHERE = torch.device("meta")
EVERYTHING = {"dropout": 0.3, "input_dropout": 0.2, "output_dropout": 0.2, "embedding_dropout": 0.2}


class Random(Draws):
    """The generator of a device for which torch has none."""

    device = NOWHERE

    def __new__(cls, _device: torch.device | None = None) -> "Random":
        return super().__new__(cls)

    def __init__(self, _device: torch.device | None = None) -> None:
        super().__init__()


class StaysThere(TorchDispatchMode):
    """Refuses tensors of another device, and counts the operations that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            if isinstance(leaf, Tensor):
                assert leaf.device == NOWHERE, f"{func.name()} on {leaf.device}"
        views = any(argument.alias_info for argument in func._schema.returns)
        changes = any(a.alias_info and a.alias_info.is_write for a in func._schema.arguments)
        made = func.name().startswith(("aten::empty", "aten::new_empty", "aten::detach"))
        self.operations += not made and (changes or not views)
        return result


def nowhere(model: nn.Module, dtype: torch.dtype | None = None) -> Any:
    """Return a copy of a model on a device without values; tied weights stay tied."""
    moved, made = copy.deepcopy(model), dict[int, Tensor]()
    for module in moved.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None and id(tensor) not in made:
                    kind = dtype if dtype and tensor.is_floating_point() else tensor.dtype
                    other: Tensor = torch.empty(tensor.shape, dtype=kind, device=NOWHERE)
                    if isinstance(tensor, nn.Parameter):
                        other = nn.Parameter(other, requires_grad=tensor.requires_grad)
                    made[id(tensor)] = other
                if tensor is not None:
                    tensors[name] = made[id(tensor)]
    return moved


@pytest.fixture
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Leave out what needs a device with values: copies from the host, the optimiser of torch."""
    monkeypatch.setattr(train_state, "Draws", Random)
    monkeypatch.setattr(static_step, "send", lambda *_: None)
    padded = low_precision.padded_copy

    def copied(model: Encoder) -> Any:
        """Return a padded copy; its type is changed as its weights are replaced."""
        sizes = copy.deepcopy(REAL[0])
        assert [p.shape for p in sizes.parameters()] == [p.shape for p in model.parameters()]
        wide: Any = padded(sizes)
        wide.to = lambda dtype: nowhere(wide, dtype)
        return wide

    monkeypatch.setattr(low_precision, "padded_copy", copied)
    return monkeypatch


REAL: list[Encoder] = []
"""The model on the processor that the newest one without values was made from."""


def operations(
    model: RecurrentLanguageModel, low: torch.dtype | None, patch: pytest.MonkeyPatch, **chosen: Any
) -> int:
    """Make a step of two windows, and return the operations of the last one and of the update."""
    values = {"steps": 20, "batch_size": 3, "bptt": 4, "learning_rate": 0.02, "seed": 5}
    settings = TrainingSettings(**(values | {"clip_norm": 0.3} | chosen))
    ids = np.random.default_rng(0).integers(2, V, 600).tolist()
    dataset = Dataset(
        name="x", vocabulary=VOCABULARY, train=encoded_stream(ids), valid=None, test=None,
        fingerprint="",
    )  # fmt: skip
    task = language_model_task(dataset, settings, Precision(name="fp32", reason="test"))
    vars(task)["low_precision"] = low
    REAL[:] = [model]
    state, updates, counts = TrainState(nowhere(model), settings), [], dict[Any, int]()
    assert skips_on_device(state.optimizer)
    patch.setattr(state.optimizer, "step", lambda: updates.append(1))
    step = StaticStep(state, task)
    step._allocated()

    def run(key: Any, function: Any) -> None:
        with StaysThere() as mode:
            function()
        counts[key if key == "update" else "gradient"] = mode.operations

    step.run = run
    batches = task.batches.epoch(Position())
    for _ in range(2):
        step.add(next(batches), 0.5)
    step.update(0.01)
    assert len(updates) == 1 and not step._full
    return sum(counts.values())


TYPES = [None, torch.bfloat16, torch.float16]
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": EVERYTHING,
    "variational": {**EVERYTHING, "variational": True},
    "weight drop": {"weight_drop": 0.3, "dropout": 0.3},
    "state dropout": {"state_dropout": 0.2},
    "zoneout": {"zoneout": 0.2},
    "mixture": {"mixture": 2},
    "tied": {"tie_weights": True, "hidden_size": 8, "embedding_size": 8},
    "skip": {"skip": True, "hidden_size": 10, "embedding_size": 6, "num_layers": 3},
    "uneven": {"hidden_size": 10, "embedding_size": 6, "last_hidden_size": 5},
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("form", FORMS)
def test_a_step_stays_on_its_device(
    form: str, cell: str, without_a_gpu: pytest.MonkeyPatch
) -> None:
    """For all cells and structures, computed by a copy; plain ones also without it."""
    low = None if form == "plain" else torch.bfloat16
    changes_steps = form in ("weight drop", "state dropout", "zoneout")
    if (changes_steps and not CELLS[cell].learns_recurrence) or (
        form == "tied" and not CELLS[cell].learns_input
    ):
        pytest.skip("not a setting of this cell")
    assert operations(tiny_model(cell, V, **FORMS[form]), low, without_a_gpu) > 20


@pytest.mark.parametrize(
    "chosen",
    [
        {"optimizer": "adam", "weight_decay": 0.0},
        {"optimizer": "sgd"},
        {"clip_norm": 0.0},
        {"on_nonfinite": "skip"},
        {"activation_penalty": 1.0, "slowness_penalty": 1.0, "label_smoothing": 0.1},
        {"random_bptt": True},
    ],
    ids=lambda chosen: " ".join(chosen),
)
@pytest.mark.parametrize("low", TYPES, ids=str)
def test_all_settings_of_a_step_stay_on_its_device(
    low: torch.dtype | None, chosen: dict[str, Any], without_a_gpu: pytest.MonkeyPatch
) -> None:
    patch = without_a_gpu
    patch.setattr("charlm.training.optim.is_fused", lambda _: True)  # as on a GPU
    model = tiny_model("lstm", V, dropout=0.2, hidden_size=10)
    assert operations(model, low, patch, **chosen) > 20


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("low", TYPES, ids=str)
def test_layers_in_one_call_stay_on_its_device(
    low: torch.dtype | None, cell: str, without_a_gpu: pytest.MonkeyPatch
) -> None:
    """With a loss in chunks, as of a large vocabulary."""
    patch, calls = without_a_gpu, list[int]()

    def in_chunks(
        layer: Softmax, hidden: Tensor, targets: Tensor, smoothing: float = 0.0
    ) -> Tensor:
        calls.append(1)
        return chunked_nats(hidden, layer.weight, layer.bias, targets, smoothing, rows=5)

    patch.setattr(Encoder, "_are_one_call", lambda *_: True)
    patch.setattr(Softmax, "nats", in_chunks)
    model = tiny_model(cell, V, hidden_size=10, embedding_size=6)
    one_call = operations(model, low, patch, label_smoothing=0.1)
    assert one_call > 20 and calls


def test_inputs_of_other_kinds_stay_on_its_device(without_a_gpu: pytest.MonkeyPatch) -> None:
    """Conditions, which are no entries of the vocabulary, and one-hot inputs."""
    assert operations(tiny_model("gru", V, conditions=2), None, without_a_gpu) > 20
    one_hot = tiny_model("gru", V, one_hot=True, embedding_size=V)
    assert operations(one_hot, torch.bfloat16, without_a_gpu) > 20


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda out: out * torch.tensor(2.0), "on cpu"),
        (lambda out: out + torch.ones(V), "device"),
        (lambda out: out * float(out.sum()), "meta tensor"),
        (lambda out: out[out > 0], "meta tensor|not supported|nonzero"),
    ],
)
def test_what_may_not_be_captured_is_noticed(
    spoil: Any, problem: str, without_a_gpu: pytest.MonkeyPatch
) -> None:
    """A number and a tensor of the processor, a read, a shape that depends on values."""
    forward = Softmax.forward
    without_a_gpu.setattr(Softmax, "forward", lambda layer, x: spoil(forward(layer, x)))
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError), match=problem):
        operations(tiny_model("gru", V), None, without_a_gpu)
