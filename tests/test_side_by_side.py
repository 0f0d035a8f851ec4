"""Layers that read a window in pieces, side by side: the same results as one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.nn import side_by_side
from charlm.nn.encoder import Encoder
from charlm.nn.layers import recorded_calls
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.side_by_side import Lanes
from charlm.nn.torch_layers import TorchLayer, run_at_once

T, B, V = 37, 3, 11
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"dropout": 0.3, "input_dropout": 0.2, "output_dropout": 0.2},
    "variational": {"dropout": 0.3, "input_dropout": 0.2, "variational": True},
    "weight drop": {"weight_drop": 0.4},
    "skip": {"skip": True, "dropout": 0.2},
    "state dropout": {"state_dropout": 0.2},
    "zoneout": {"zoneout": 0.2},
}


def results(model: RecurrentLanguageModel, pieces: int) -> list[Tensor]:
    """Return logits, states, gradients and the state of the generator after one window."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(V, (T, B), generator=random)
    before = tuple(
        tuple(torch.rand(t.shape, generator=random) for t in layer) for layer in model.zero_state(B)
    )
    with model.in_pieces(pieces):
        logits, after = model(ids, before, random)
    loss = logits.log_softmax(-1)[..., 3].sum()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    states = [tensor for layer in after for tensor in layer]
    return [logits, *states, *(g for g in gradients if g is not None), random.get_state().float()]


BY_STEPS = ("lstm-peephole", "lstm-layernorm", "lstm-capped", "mlstm", "mogrifier")
"""Cells that are computed step by step."""


def new_model(cell: str, layers: int, form: str = "plain", **more: Any) -> RecurrentLanguageModel:
    """Return a model of a few units with random weights."""
    settings = ModelSettings(
        cell=cell, num_layers=layers, hidden_size=8, embedding_size=8, **FORMS[form], **more
    )
    model = RecurrentLanguageModel(settings, V)
    model.reset_parameters(torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("cell", BY_STEPS)
def test_pieces_change_no_result(cell: str, form: str) -> None:
    """The random numbers are those for the whole window, and drawn in the same order."""
    model = new_model(cell, 3, form)
    for whole, parts in zip(results(model, 1), results(model, 4), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "calls"), [(3, 1), (16, 2), (37, 4), (400, 4)])
def test_a_layer_reads_a_few_pieces_that_are_not_too_short(steps: int, calls: int) -> None:
    model = new_model("mlstm", 2)
    lengths: list[int] = []
    model.layers[1].register_forward_pre_hook(lambda _, given: lengths.append(len(given[0])))
    with model.in_pieces(4):
        model(torch.zeros(steps, B, dtype=torch.int64))
    assert (len(lengths), sum(lengths)) == (calls, steps)
    lengths.clear()
    model(torch.zeros(steps, B, dtype=torch.int64))
    assert lengths == [steps]


@pytest.mark.parametrize("cell", CELLS)
def test_only_layers_that_are_computed_step_by_step_read_pieces(cell: str) -> None:
    model = new_model(cell, 2)
    with model.in_pieces(4):
        assert (model.pieces == 4) == (cell in BY_STEPS)
    assert model.pieces == 1


@pytest.mark.parametrize(
    ("cell", "more"), [("lstm", {}), ("gru", {}), ("rnn", {}), ("rnn", {"nonlinearity": "relu"})]
)
def test_one_call_computes_what_one_for_each_layer_does(cell: str, more: dict[str, str]) -> None:
    model = new_model(cell, 3, **more)
    layers = cast(list[TorchLayer], model.recurrent_layers())
    random = torch.Generator().manual_seed(1)
    x = torch.rand(T, B, 8, generator=random)
    before = [
        tuple(torch.rand(B, 8, generator=random) for _ in layer.spec.state) for layer in layers
    ]
    whole, after = run_at_once(layers, x, before)
    for layer, state, expected in zip(layers, before, after, strict=True):
        x, state = layer(x, state)
        torch.testing.assert_close(state, expected)
    torch.testing.assert_close(x, whole)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_a_state_that_was_cut_out_reaches_torch_in_one_piece(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN refuses others, such as the first state of a decoder, a part of a product."""
    layer = cast(TorchLayer, new_model(cell, 1).layers[0])
    name = layer.rnn.mode.lower()
    real, given = getattr(torch, name), list[bool]()

    def checked(x: torch.Tensor, state: Any, *rest: Any) -> Any:
        parts = state if isinstance(state, list) else [state]
        given.extend(part.is_contiguous() for part in parts)
        return real(x, state, *rest)

    monkeypatch.setattr(torch, name, checked)
    cut = torch.ones(2, 16).split(8, dim=-1)[: len(layer.spec.state)]
    assert not cut[0].is_contiguous()
    run_at_once([layer], torch.ones(1, 2, 8), [cut])
    assert given and all(given)


@pytest.mark.parametrize(("on_gpu", "gradient"), list(product((True, False), repeat=2)))
def test_a_gpu_keeps_nothing_for_a_gradient_that_is_not_computed(
    on_gpu: bool, gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did for all layers of a validation, 256 sequences at a time."""
    compute, trains = torch.lstm, list[bool]()

    def lstm(*given: Any) -> Any:
        trains.append(given[6])
        return compute(*given)

    monkeypatch.setattr(torch, "lstm", lstm)
    monkeypatch.setattr(Tensor, "is_cuda", on_gpu)
    model = new_model("lstm", 2)
    for training in (True, False):
        model.train(training)
        with torch.set_grad_enabled(gradient):
            model(torch.zeros(T, B, dtype=torch.int64))
    assert trains == 2 * [gradient or not on_gpu] + 2 * [False]


@pytest.mark.parametrize(
    ("one_call", "cell", "form", "trains", "more"),
    [
        (True, "lstm", "plain", True, {}),
        (True, "gru", "dropout", False, {}),
        (False, "lstm", "dropout", True, {}),
        (False, "lstm", "weight drop", True, {}),
        (False, "lstm", "zoneout", False, {}),
        (False, "lstm", "skip", False, {}),
        (False, "lstm", "plain", True, {"last_hidden_size": 4, "tie_weights": False}),
        (False, "mogrifier", "plain", False, {}),
    ],
)
def test_a_gpu_computes_all_layers_in_one_call_if_nothing_happens_between_them(
    one_call: bool, cell: str, form: str, trains: bool, more: dict[str, Any]
) -> None:
    model, generator = new_model(cell, 2, form, **more), torch.Generator() if trains else None
    assert model._are_one_call(torch.device("cuda"), generator) == one_call
    assert not model._are_one_call(torch.device("cpu"), generator)
    with recorded_calls(model.recurrent_layers()):  # which needs a call of each layer
        assert not model._are_one_call(torch.device("cuda"), generator)


class Stream:
    """A stream that writes down what it waits for."""

    current: "Stream"

    def __init__(self, device: object = None) -> None:
        self.device = device
        self.waited: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited.append(other)


class Shared:
    """A tensor that writes down who reads it."""

    def __init__(self) -> None:
        self.readers: list[Stream] = []

    def record_stream(self, stream: Stream) -> None:
        self.readers.append(stream)


@pytest.fixture
def fake_streams(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """Replace the streams of a GPU, and return the current one."""
    Stream.current = first = Stream()

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        before, Stream.current = Stream.current, stream
        yield
        Stream.current = before

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _=None: Stream.current)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(side_by_side, "_others", {})
    return first


def test_each_lane_of_a_gpu_waits_for_the_one_below(fake_streams: Stream) -> None:
    lanes, tensor, used = Lanes(torch.device("cuda"), 3), Shared(), []
    for lane in range(3):
        lanes.share(lane, tensor)  # type: ignore[arg-type]
        with lanes.after_the_one_below(lane):
            used.append(Stream.current)
    lanes.join(tensor)  # type: ignore[arg-type]
    assert used[0] is fake_streams and len(set(used)) == 3 and Stream.current is fake_streams
    assert [stream.waited for stream in used] == [used[1:], used[:1], used[1:2]]
    assert tensor.readers == [*used, fake_streams]
    for count in (2, 3):  # as those of a model with fewer layers
        assert Lanes(torch.device("cuda"), count).streams == used[:count]


def test_lanes_that_a_failed_capture_has_reached_are_joined(
    fake_streams: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may not be waited for in a capture; one that is invalid refuses to wait."""
    _, captured, idle, invalid = Lanes(torch.device("cuda"), 4).streams
    inside = {fake_streams, captured, invalid}
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: Stream.current in inside)

    def wait(stream: Stream) -> None:
        if stream is invalid:
            raise RuntimeError("operation failed due to a previous error during capture")
        fake_streams.waited.append(stream)

    monkeypatch.setattr(fake_streams, "wait_stream", wait)
    side_by_side.join_captured()
    assert fake_streams.waited == [captured] and idle not in inside


class Reads(TorchDispatchMode):
    """Finds tensors that a lane reads and another one has made, unless `share` has named them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.lane, self.made, self.kept = 0, dict[int, int](), list[Tensor]()
        self.shared, self.unnamed = set[tuple[int, int]](), set[str]()
        monkeypatch.setattr(Lanes, "share", self.share)
        monkeypatch.setattr(Lanes, "after_the_one_below", self.on)

    def share(self, lane: int, *tensors: Tensor) -> None:
        self.shared |= {(lane, place(tensor)) for tensor in tensors}

    @contextmanager
    def on(self, lane: int) -> Iterator[None]:
        self.lane = lane
        yield
        self.lane = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        for tensor in given:
            elsewhere = self.made.get(place(tensor), self.lane) != self.lane
            if elsewhere and (self.lane, place(tensor)) not in self.shared:
                self.unnamed.add(f"lane {self.lane}: {func.name()} {tuple(tensor.shape)}")
        result = func(*args, **(kwargs or {}))
        old = {place(tensor) for tensor in given}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and place(tensor) not in old:
                self.made[place(tensor)] = self.lane
                self.kept.append(tensor)  # so that no other tensor gets its memory
        return result


def place(tensor: Tensor) -> int:
    """Return the address of the memory of a tensor and its views."""
    return tensor.untyped_storage().data_ptr()


@pytest.mark.parametrize("form", ["plain", "dropout", "variational", "weight drop", "skip"])
@pytest.mark.parametrize("cell", BY_STEPS)
def test_a_lane_names_each_tensor_of_another_that_it_reads(
    cell: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory was free for others as soon as the lane that made it was done with it."""
    model = new_model(cell, 3, form)
    ids = torch.zeros(T, B, dtype=torch.int64)
    with Reads(monkeypatch) as seen, model.in_pieces(4):
        hidden, after = Encoder.forward(model, ids, generator=torch.Generator())
        hidden.sum() + sum(tensor.sum() for layer in after for tensor in layer)
    assert set(seen.made.values()) == {0, 1, 2}
    assert not seen.unnamed
