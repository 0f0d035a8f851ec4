"""Layers in the compiled training kernels agree with torch's, whatever the settings around them."""

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from helpers import seeded, tiny_model
from torch import Tensor

from charlm.backends import training_library
from charlm.config.model import ModelSettings
from charlm.nn import devices, kernel_layers, torch_layers
from charlm.nn.kernel_layers import kernels_in_use
from charlm.nn.model import RecurrentLanguageModel

BUILT = [
    name for name in ("emulated512", "amx", "avx512bf16") if name in training_library.variants()
]
pytestmark = pytest.mark.skipif(
    not BUILT, reason="no training kernels run here; they need AVX-512 BF16 and a C++ compiler"
)
VARIANT = BUILT[0] if BUILT else ""
V, T, B = 6, 9, 7
SIZES = {"hidden_size": 36, "embedding_size": 20}
WHOLE = {
    "lstm": {},
    "skip": {"skip": True},
    "learned state": {"learned_state": True},
    "weight drop": {"weight_drop": 0.5},
    "dropout": {"dropout": 0.3, "output_dropout": 0.3},
    "input dropout": {"input_dropout": 0.3},
    "variational": {"dropout": 0.3, "input_dropout": 0.2, "variational": True},
    "embedding dropout": {"embedding_dropout": 0.3},
    "tied": {"embedding_size": 36, "tie_weights": True},
    "one-hot": {"one_hot": True, "embedding_size": V},
    "mixture": {"mixture": 2},
    "narrow last layer": {"last_hidden_size": 17},
}
"""Settings under which each layer reads a whole window."""
STEPWISE = {
    "zoneout": {"zoneout": 0.3, "zoneout_cell": 0.2},
    "state dropout": {"state_dropout": 0.3},
    "relu": {"cell": "rnn", "nonlinearity": "relu"},
    "mogrifier": {"cell": "mogrifier"},
}
"""Settings that leave all layers to torch."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, type]]:
    """Cell and type of the input of each call of the kernels."""
    seen: list[tuple[str, type]] = []
    run = kernel_layers.run_layer_kernel

    def watched(cell, x, state, weights):
        seen.append((cell, type(x)))
        return run(cell, x, state, weights)

    monkeypatch.setattr(torch_layers, "run_layer_kernel", watched)
    return seen


@contextlib.contextmanager
def native(variant: str = VARIANT) -> Iterator[None]:
    """Compute as a training in bf16 does."""
    with torch.autocast("cpu", torch.bfloat16), kernels_in_use(variant):
        yield


def results(model: RecurrentLanguageModel, ids: Tensor, *, kernels: bool) -> list[Tensor]:
    """Return logits, states and gradients of one window with dropout."""
    model.zero_grad()
    with native() if kernels else contextlib.nullcontext():
        logits, after = model(ids, None, seeded(3))
    logits.float().log_softmax(-1)[..., 0].mean().backward()
    states = [part.detach().float() for layer in after for part in layer]
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    return [logits.detach().float(), *states, *map(torch.clone, grads)]


def error(found: list[Tensor], right: list[Tensor]) -> float:
    """Return the largest relative distance."""
    pairs = zip(found, right, strict=True)
    return max(float((a - b).norm() / b.norm().clamp_min(1e-20)) for a, b in pairs)


def random_ids(entries: int = V, steps: int = T) -> Tensor:
    return torch.randint(entries, (steps, B), generator=seeded(1))


@pytest.mark.parametrize("conditions", [0, 2])
@pytest.mark.parametrize("name", WHOLE)
def test_a_model_in_the_kernels_agrees_with_float32(
    name: str, conditions: int, calls: list[tuple[str, type]]
) -> None:
    """To what bfloat16 explains: outputs, states and the gradients of all weights."""
    if conditions and "one_hot" in WHOLE[name]:
        pytest.skip("one-hot input has no conditions")
    model = tiny_model("lstm", V, conditions=conditions, **SIZES | WHOLE[name])
    ids = random_ids(V + conditions)
    exact = results(model, ids, kernels=False)
    assert not calls
    assert error(results(model, ids, kernels=True), exact) < 0.012
    assert [cell for cell, _ in calls] == ["lstm", "lstm"]


@pytest.mark.parametrize("cell", [cell for cell in training_library.CELLS if cell != "lstm"])
def test_other_cells_agree_too(cell: str, calls: list[tuple[str, type]]) -> None:
    model, ids = tiny_model(cell, V, **SIZES), random_ids()
    exact = results(model, ids, kernels=False)
    assert error(results(model, ids, kernels=True), exact) < 0.012
    assert [each for each, _ in calls] == [cell, cell]


@pytest.mark.parametrize("name", STEPWISE)
def test_torch_computes_what_the_kernels_cannot(name: str, calls: list[tuple[str, type]]) -> None:
    """Layers that run step by step, and other cells: exactly as without kernels."""
    model, ids = (
        tiny_model(**{"cell": "lstm", **SIZES, **STEPWISE[name]}, vocab_size=V),
        random_ids(),
    )
    found = results(model, ids, kernels=True)
    with torch.autocast("cpu", torch.bfloat16):
        expected = results(model, ids, kernels=False)
    assert all(map(torch.equal, found, expected))
    assert not calls


def test_a_single_step_and_float32_are_left_to_torch(calls: list[tuple[str, type]]) -> None:
    model = tiny_model("lstm", V, **SIZES)
    results(model, random_ids(steps=1), kernels=True)
    with kernels_in_use(VARIANT):
        results(model, random_ids(), kernels=False)
    with native(), torch.autocast("cpu", enabled=False):
        model(random_ids())
    assert not calls


@pytest.mark.parametrize(
    ("entries", "changes", "looks_up"),
    [
        (T * B // 4, {}, True),
        (T * B // 4 + 1, {}, False),
        (V, {"input_dropout": 0.1}, False),
        (V, {"dropout": 0.1, "embedding_dropout": 0.1}, True),
    ],
)
def test_a_small_vocabulary_is_looked_up_in_a_table(
    entries: int, changes: dict, looks_up: bool, calls: list[tuple[str, type]]
) -> None:
    """Unless something is dropped between the embedding and the first layer."""
    model = tiny_model("lstm", entries, **SIZES | changes)
    results(model, random_ids(entries), kernels=True)
    first, second = (kind for _, kind in calls)
    assert (first is kernel_layers.Lookup) == looks_up
    assert second is Tensor


def test_a_window_is_the_sum_of_its_pieces() -> None:
    """Bit for bit, states passed on; without gradients too."""
    model, ids = tiny_model("lstm", 40, **SIZES), random_ids(40)
    with native():
        whole, end = model(ids)
        first, middle = model(ids[:4])
        second, after = model(ids[4:], middle)
        with torch.no_grad():
            again, _ = model(ids)
    assert torch.equal(whole, torch.cat([first, second]))
    assert torch.equal(whole, again)
    for one, other in zip(end, after, strict=True):
        assert all(map(torch.equal, one, other))


def test_frozen_layers_get_no_gradient() -> None:
    """The layer below a frozen one gets the gradient that it has anyway."""
    gradients = []
    for frozen in (False, True):
        model = tiny_model("lstm", V, **SIZES)
        model.layers[1].requires_grad_(not frozen)
        results(model, random_ids(), kernels=True)
        assert (model.layers[1].rnn.weight_hh_l0.grad is None) == frozen
        gradients.append(model.layers[0].rnn.weight_hh_l0.grad)
    assert torch.equal(*gradients)


def test_a_second_backward_pass_repeats_the_first_and_a_second_derivative_is_refused() -> None:
    model = tiny_model("lstm", V, **SIZES)
    with native():
        loss = model(random_ids())[0].float().square().mean()
    weight = model.layers[0].rnn.weight_hh_l0
    passes = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for _ in range(2)]
    assert torch.equal(*passes)
    (attached,) = torch.autograd.grad(loss, weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        attached.sum().backward()
    torch.autograd.grad(loss, weight)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, weight)


def test_a_token_outside_of_the_vocabulary_is_refused() -> None:
    model = tiny_model("lstm", V, **SIZES)
    with native(), pytest.raises(IndexError, match="outside of the 6 entries"):
        model(random_ids() + V)


def test_a_token_of_an_empty_table_is_refused() -> None:
    """The kernels once took such a table for an input, and read far beyond it."""
    layer = tiny_model("lstm", V, **SIZES).layers[0]
    state = layer.initial_state(B)
    with native():
        for ids in (random_ids(), random_ids() + 1):
            with pytest.raises(IndexError, match="outside of the 0 entries"):
                layer(kernel_layers.Lookup(ids, torch.empty(0, 20)), state)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("name", kernel_layers.LayerWeights._fields)
def test_weights_of_other_shapes_are_refused(cell: str, name: str) -> None:
    """The kernels would read beyond them."""
    layer = tiny_model(cell, V, **SIZES).layers[0]
    state, x = layer.initial_state(B), torch.zeros(T, B, 20)
    weights = layer.weights()
    less = weights._replace(**{name: getattr(weights, name)[:-1]})
    with native():
        with pytest.raises(RuntimeError, match=rf"{name} has the shape"):
            kernel_layers.run_layer_kernel(cell, x, state, less)
        with pytest.raises(RuntimeError, match="the state has 0 tensors"):
            kernel_layers.run_layer_kernel(cell, x, (), weights)


@pytest.mark.parametrize("entries", [V, 40], ids=["table", "embeddings"])
def test_a_state_of_other_rows_is_refused(entries: int) -> None:
    """As torch does; the kernels would read beyond it, or leave out sequences."""
    model, ids = tiny_model("lstm", entries, **SIZES), random_ids(entries)
    with native():
        for rows in (B - 1, B + 1):
            state = model.zero_state(rows)
            with pytest.raises(RuntimeError, match=rf"shape \({rows}, 36\); expected \({B}, 36\)"):
                model(ids, state)


@pytest.mark.parametrize("entries", [V, 40], ids=["table", "embeddings"])
def test_other_types_are_converted(entries: int) -> None:
    """The kernels read int64 and float32 only."""
    model, ids = tiny_model("lstm", entries, **SIZES), random_ids(entries)
    with native():
        right, _ = model(ids)
        assert torch.equal(model(ids.int())[0], right)
        model.layers.double()
        assert torch.equal(model(ids)[0], right)
    right.float().sum().backward()
    model.zero_grad()
    with native():
        model(ids)[0].float().sum().backward()
    assert model.layers[0].rnn.weight_hh_l0.grad.dtype == torch.float64


def in_three_threads(compute: Callable[[], Sequence[Tensor]]) -> list[Sequence[Tensor]]:
    """Return what a function returns in five calls in each of three threads at once."""
    found: list[Sequence[Tensor]] = []

    def work() -> None:
        found.extend(compute() for _ in range(5))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 15
    return found


def test_threads_may_go_backward_through_one_graph() -> None:
    """Each backward pass has arguments and memory of its own."""
    model = tiny_model("lstm", V, **SIZES)
    with native():
        loss = model(random_ids())[0].float().log_softmax(-1)[..., 0].sum()
    weights = list(model.parameters())
    expected = torch.autograd.grad(loss, weights, retain_graph=True)
    found = in_three_threads(lambda: torch.autograd.grad(loss, weights, retain_graph=True))
    assert all(all(map(torch.equal, one, expected)) for one in found)


def test_threads_of_one_process_do_not_disturb_each_other() -> None:
    """The kernels run without Python's lock, each call in memory of its own.

    The bits of the first call in a thread once differed: torch had multiplied in more threads.
    """
    model, ids = tiny_model("lstm", V, **SIZES), random_ids()
    expected = results(copy.deepcopy(model), ids, kernels=True)
    found = in_three_threads(lambda: results(copy.deepcopy(model), ids, kernels=True))
    assert all(all(map(torch.equal, one, expected)) for one in found)


@pytest.mark.parametrize(
    "name",
    ["y", "h_after", "c_after", "dx", "dw_ih", "dw_hh", "db_ih", "db_hh", "dh0", "dc0", None],
)
@pytest.mark.parametrize("entries", [16, 300], ids=["table", "embeddings"])
def test_kernels_with_one_wrong_result_are_not_used(
    name: str | None, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with float32 sees each result: one of them is doubled."""
    addresses, library = kernel_layers._addresses, kernel_layers.open_library(VARIANT)
    wrong: list[Tensor] = []

    class Wrong:
        training_sizes = library.training_sizes

        def __getattr__(self, function: str):
            def call(arguments) -> int:
                failed = getattr(library, function)(arguments)
                for tensor in wrong:
                    tensor.mul_(2)
                wrong.clear()
                return failed

            return call

    def watched(prefix, names, tensors):
        pairs = zip(names, tensors, strict=False)
        wrong.extend(t for field, t in pairs if prefix + field == name and t is not None)
        return addresses(prefix, names, tensors)

    monkeypatch.setattr(kernel_layers, "_addresses", watched)
    monkeypatch.setattr(kernel_layers, "open_library", lambda _: Wrong())
    settings = ModelSettings(num_layers=1, hidden_size=36, embedding_size=20)
    problem = devices.gradient_problem([settings], entries, torch.device("cpu"), VARIANT)
    assert (problem is None) == (name is None)


def test_settings_decide_which_cells_the_kernels_have() -> None:
    assert kernel_layers.computes(ModelSettings(cell="lstm"))
    assert not kernel_layers.computes(ModelSettings(cell="rnn", nonlinearity="relu"))
    assert not kernel_layers.computes(ModelSettings(cell="esn"))
    for name in ("zoneout", "zoneout_cell", "state_dropout"):
        assert not kernel_layers.computes(ModelSettings(cell="lstm", **{name: 0.1}))
