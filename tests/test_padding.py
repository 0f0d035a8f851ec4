"""A copy with padded sizes computes what the model does, and its additional units stay zero."""

import copy
from typing import Any

import pytest
import torch
from helpers import seeded, tiny_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from charlm.config.cells import CELLS
from charlm.config.training import TrainingSettings
from charlm.nn.devices import Precision
from charlm.nn.encoder import State
from charlm.nn.low_precision import LowCopy
from charlm.nn.model import RecurrentLanguageModel
from charlm.tasks.language_model import LanguageModelLoss
from charlm.tasks.task import Sums
from charlm.text.batches import PADDING

V, T, B = 9, 5, 4
SIZES: dict[str, Any] = {"hidden_size": 10, "embedding_size": 6}
OF_CUDNN = ("lstm", "gru", "rnn", "relu")
STRUCTURES: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"embedding_size": 10, "tie_weights": True},
    "narrow last layer": {"last_hidden_size": 7},
    "tied narrow last layer": {"last_hidden_size": 6, "tie_weights": True},
    "embedding that fits": {"embedding_size": 8},
    "skip": {"skip": True, "num_layers": 3},
    "tied mixture": {"mixture": 3, "tie_weights": True},
    "conditions": {"conditions": 2},
}
PENALTIES = TrainingSettings(activation_penalty=2.0, slowness_penalty=1.0)
LOSS = LanguageModelLoss(PENALTIES, Precision(name="fp32", reason="test"))


def window(seed: int, conditions: bool) -> tuple[Tensor, Tensor]:
    """Return inputs and targets (T, B), with some padding and perhaps conditions."""
    ids = torch.randint(2, V, (2, T, B), generator=seeded(seed))
    ids[1, -2:, 1] = PADDING
    if conditions:
        ids[0, 0] = V + 1
    return ids[0], ids[1]


def sums_of(model: Any, ids: tuple[Tensor, Tensor], state: State) -> Sums:
    """Return the sums of a window of a model without dropout."""
    return LOSS.of_window(model, *ids, state, seeded())


def random_state(model: RecurrentLanguageModel) -> State:
    """Return a state that is not zero."""
    generator = seeded(2)
    return tuple(
        tuple(torch.randn(tensor.shape, generator=generator) / 2 for tensor in layer)
        for layer in model.zero_state(B)
    )


def change(model: RecurrentLanguageModel, seed: int) -> None:
    """Change all weights."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=seeded(seed))


def assert_near(ours: Tensor, theirs: Tensor, dtype: torch.dtype) -> None:
    """Compare two tensors within the rounding of the copy."""
    assert ours.shape == theirs.shape
    bound = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    error = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    assert error < bound


@pytest.mark.parametrize("cell", OF_CUDNN)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_padded_copy_computes_what_the_model_does(cell: str, structure: str) -> None:
    """Losses with penalties, gradients and states of several windows, as weights change."""
    model = tiny_model(cell, V, **SIZES | STRUCTURES[structure])
    dtypes = (torch.float64, torch.float32, torch.bfloat16)
    for dtype in dtypes if structure in ("tied", "narrow last layer") else dtypes[:1]:
        low, state = LowCopy(model, dtype), random_state(model)
        assert [layer.hidden_size % 8 for layer in low.model.recurrent_layers()] == [0] * len(state)
        for number in range(3):
            ids = window(number, structure == "conditions")
            exact = copy.deepcopy(model).double()
            expected = sums_of(exact, ids, tuple(tuple(t.double() for t in s) for s in state))
            sums = sums_of(low.model, ids, low.cast(state))
            for ours, theirs in zip(sums[:2], expected[:2], strict=True):
                assert_near(ours.detach(), theirs.detach(), dtype)
            gradients = torch.autograd.grad(expected.loss, list(exact.parameters()))
            for part, whole in zip(low.gradients(sums.loss), gradients, strict=True):
                assert part is not None
                assert_near(part.reshape(whole.shape), whole, dtype)
            for ours, theirs in zip(sum(low.cut(sums.after), ()), sum(expected.after, ()),
                                    strict=True):  # fmt: skip
                assert_near(ours, theirs, dtype)
            state = low.cut(sums.after)
            change(model, number)
            low.refresh()


@pytest.mark.parametrize("cell", OF_CUDNN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("drops", [("dropout", "weight_drop"), ("zoneout", "state_dropout")])
def test_padded_units_stay_zero(cell: str, dtype: torch.dtype, drops: tuple[str, ...]) -> None:
    """To the bit, in outputs and states, with dropout, as weights change in the same memory."""
    model = tiny_model(cell, V, last_hidden_size=7, **SIZES, **dict.fromkeys(drops, 0.3))
    low, generator = LowCopy(model, dtype), seeded(1)
    state, places = low.cast(random_state(model)), [w.data_ptr() for w in low.model.parameters()]
    for number in range(4):
        raw, _, state = low.model.read(window(number, conditions=False)[0], state, generator)
        assert raw.shape[-1] == 8
        assert not raw[..., 7:].any()
        assert raw[..., :7].all() or cell == "relu"
        for layer, size in zip(state, (10, 7), strict=True):
            assert all(not tensor[:, size:].any() for tensor in layer)
        change(model, number)
        low.refresh()
    assert [weight.data_ptr() for weight in low.model.parameters()] == places


def test_frozen_weights_have_no_gradient() -> None:
    """Gradients are those of the weights that are trained, in their order."""
    model = tiny_model("lstm", V, **SIZES)
    model.layers[0].requires_grad_(False)
    low = LowCopy(model, torch.float64)
    loss = sums_of(low.model, window(0, conditions=False), low.cast(random_state(model))).loss
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    sizes = [part.numel() for part in low.gradients(loss) if part is not None]
    assert sizes == [weight.numel() for weight in trained]


@pytest.mark.parametrize("training", [True, False])
def test_a_copy_trains_if_the_model_does(training: bool) -> None:
    """The backward pass of cuDNN needs it."""
    low = LowCopy(tiny_model("lstm", V, **SIZES).train(training), torch.bfloat16)
    assert all(module.training == training for module in low.model.modules())


class Operations(TorchDispatchMode):
    """Records the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().removeprefix("aten::").partition(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cell", OF_CUDNN)
def test_sizes_that_fit_cost_nothing(cell: str) -> None:
    """A state is rounded, weights are copied at once, and all else are views."""
    model = tiny_model(cell, V, hidden_size=16, embedding_size=8, last_hidden_size=8)
    low, state = LowCopy(model, torch.bfloat16), random_state(model)
    with Operations() as seen:
        low.cut(low.cast(state))
        low.refresh()
    assert seen.names <= {"_to_copy", "_foreach_copy_", "slice", "view", "detach", "alias"}
    loss = sums_of(low.model, window(0, conditions=False), low.cast(state)).loss
    for part, weight in zip(low.gradients(loss), model.parameters(), strict=True):
        assert part is not None
        assert part.shape == weight.shape


@pytest.mark.parametrize(
    "named",
    [*({"cell": cell} for cell in CELLS if cell not in OF_CUDNN),
     {"one_hot": True, "embedding_size": V}, {"learned_state": True},
     {"hidden_size": 17, "adaptive_softmax": True, "vocab_size": 50}],
    ids=str,
)  # fmt: skip
def test_other_models_are_not_padded(named: dict[str, Any]) -> None:
    """Zeros may not stay zeros there, and cuDNN does not compute their layers."""
    model = tiny_model(**{"vocab_size": V} | SIZES | named)
    low = LowCopy(model, torch.bfloat16)
    for ours, theirs in zip(low.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())
    state = tuple(tuple(t.bfloat16() for t in layer) for layer in random_state(model))
    for ours, theirs in zip(low.cut(low.cast(state)), state, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
