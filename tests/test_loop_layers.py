"""Layers computed in a loop with gradients by hand agree with torch's, and are chosen by rule."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Call, seeded, started, tiny_model
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.model import ModelSettings
from charlm.nn import devices, kernel_layers
from charlm.nn.kernel_layers import LOOP, MIN_STEPS_OF_LOOP, kernels_in_use
from charlm.nn.layers import Lookup
from charlm.nn.loop_layers import CELLS, run_loop
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs.layout import RECORD, WEIGHTS, read_record
from charlm.training.records import StepRecord
from charlm.training.resume import resume
from charlm.training.session import Session

CPU = torch.device("cpu")
MODULES = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
V, T, B, E, H = 4, 9, 5, 6, 7
WHOLE = {
    "plain": {},
    "skip": {"skip": True},
    "learned state": {"learned_state": True},
    "weight drop": {"weight_drop": 0.5},
    "dropout": {"dropout": 0.3, "input_dropout": 0.3, "output_dropout": 0.3},
    "variational": {"dropout": 0.3, "input_dropout": 0.2, "variational": True},
    "embedding dropout": {"embedding_dropout": 0.3},
    "tied": {"embedding_size": H, "tie_weights": True},
    "one-hot": {"one_hot": True, "embedding_size": V},
    "narrow last layer": {"last_hidden_size": 3},
}
"""Settings under which each layer reads a whole window."""
SIZES = {"hidden_size": H, "embedding_size": E}


class Example:
    """A layer in torch and in the loop, with the same inputs: x or a table, state, weights."""

    def __init__(self, cell: str, dtype: torch.dtype, *, table: bool) -> None:
        self.cell, self.module = cell, MODULES[cell](E, H).to(dtype)
        generator = seeded(1)
        weights = list(self.module.parameters())
        for weight in weights:
            nn.init.normal_(weight, std=0.5, generator=generator)
        self.ids = torch.randint(V, (T, B), generator=generator) if table else None
        shapes = [(V, E) if table else (T, B, E), *[(B, H)] * (2 if cell == "lstm" else 1)]
        free = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
        self.inputs = [*(each.requires_grad_() for each in free), *weights]

    def loop(self, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        state, weights = others[:-4], others[-4:]
        given = x if self.ids is None else Lookup(self.ids, x)
        y, after = run_loop(self.cell, given, state, weights)
        return y, *after

    def torch(self, x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        state = tuple(part[None] for part in others[:-4])
        rows = x if self.ids is None else F.embedding(self.ids, x)
        y, after = self.module(rows, state if len(state) > 1 else state[0])
        return y, *(part[0] for part in (after if len(state) > 1 else (after,)))


def error(found: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """Return the largest relative distance."""
    pairs = zip(found, right, strict=True)
    return max(float(((a - b).norm() / b.norm().clamp_min(1e-20)).detach()) for a, b in pairs)


@pytest.mark.parametrize("table", [False, True], ids=["inputs", "table"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_outputs_states_and_gradients_are_those_of_torch(
    cell: str, table: bool, dtype: torch.dtype, limit: float
) -> None:
    """To rounding, with a state before the window and gradients of the state after it."""
    example = Example(cell, dtype, table=table)
    found, right = (way(*example.inputs) for way in (example.loop, example.torch))
    assert error(found, right) < limit
    given = [torch.randn(part.shape, generator=seeded(2)).to(dtype) for part in right]
    for chosen in range(1, 2 ** len(given)):  # any of the results may have a gradient
        used = [number for number in range(len(given)) if chosen >> number & 1]
        gradients = [
            torch.autograd.grad(
                [results[n] for n in used], example.inputs, [given[n] for n in used],
                retain_graph=True,
            )
            for results in (found, right)
        ]  # fmt: skip
        assert error(*gradients) < limit, used


@pytest.mark.parametrize("table", [False, True], ids=["inputs", "table"])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_differences_of_the_results(cell: str, table: bool) -> None:
    example = Example(cell, torch.float64, table=table)
    assert torch.autograd.gradcheck(example.loop, example.inputs)


def results(model: RecurrentLanguageModel, ids: Tensor, variant: str | None = LOOP) -> list[Tensor]:
    """Return logits, states and gradients of one window with dropout."""
    model.zero_grad()
    with kernels_in_use(variant):
        logits, after = model(ids, None, seeded(3))
    logits.log_softmax(-1)[..., 0].mean().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [logits.detach(), *(part.detach() for layer in after for part in layer), *gradients]


def random_ids(entries: int = V, steps: int = T, rows: int = B) -> Tensor:
    return torch.randint(entries, (steps, rows), generator=seeded(1))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """Types of the inputs of the loop, in the order of its calls."""
    seen: list[type] = []

    def watched(cell, x, state, weights):
        seen.append(type(x))
        return run_loop(cell, x, state, weights)

    monkeypatch.setattr(kernel_layers, "run_loop", watched)
    return seen


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("cell", CELLS)
def test_a_model_in_the_loop_agrees_with_torch(cell: str, name: str, calls: list[type]) -> None:
    """Whatever is between the layers; a small vocabulary is read from a table."""
    model, ids = tiny_model(cell, V, **SIZES | WHOLE[name]).double(), random_ids()
    right = results(model, ids, None)
    assert not calls
    assert error(results(model, ids), right) < 1e-12
    first = Tensor if WHOLE[name].get("input_dropout") else Lookup
    assert calls == [first, Tensor]


@pytest.mark.parametrize("conditions", [0, 2])
@pytest.mark.parametrize("entries", [T * B // 4 - 2, T * B // 4 - 1])
def test_a_large_vocabulary_is_read_as_embeddings(
    entries: int, conditions: int, calls: list[type]
) -> None:
    model = tiny_model("gru", entries, conditions=conditions, **SIZES).double()
    ids = random_ids(entries)
    assert error(results(model, ids), results(model, ids, None)) < 1e-12
    assert calls == [Lookup if 4 * (entries + conditions) <= T * B else Tensor, Tensor]


@pytest.mark.parametrize(
    ("changes", "shape"),
    [
        ({"cell": "lstm", "zoneout": 0.3, "zoneout_cell": 0.2}, (T, B)),
        ({"cell": "gru", "state_dropout": 0.3}, (T, B)),
        ({"cell": "rnn", "nonlinearity": "relu"}, (T, B)),
        ({"cell": "mogrifier"}, (T, B)),
        ({"cell": "gru"}, (MIN_STEPS_OF_LOOP - 1, B)),
    ],
)
def test_torch_computes_what_the_loop_does_not(
    changes: dict, shape: tuple[int, int], calls: list[type]
) -> None:
    """Layers that run step by step, other cells and short windows: the bits are those of torch."""
    model, ids = tiny_model(**{**SIZES, **changes, "vocab_size": V}), random_ids(V, *shape)
    assert all(map(torch.equal, results(model, ids), results(model, ids, None)))
    assert not calls


def test_bfloat16_is_left_to_torch(calls: list[type]) -> None:
    model = tiny_model("gru", V, **SIZES)
    with torch.autocast("cpu", torch.bfloat16):
        results(model, random_ids())
    assert not calls


@pytest.mark.parametrize(("steps", "rows"), [(0, 2), (2, 0), (T, 0)])
def test_an_empty_window_is_as_in_torch(steps: int, rows: int) -> None:
    layer = tiny_model("gru", V, **SIZES).layers[0]
    x, state = torch.zeros(steps, rows, E), layer.initial_state(rows)
    outcomes = []
    for variant in (LOOP, None):
        with kernels_in_use(variant):
            try:
                outcomes.append([part.shape for part in layer(x, state)[1]])
            except RuntimeError as error:
                outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_a_window_is_the_sum_of_its_pieces() -> None:
    """States are passed on; without gradients too."""
    model, ids = tiny_model("gru", V, **SIZES), random_ids(V, 2 * T)
    with kernels_in_use(LOOP):
        whole, end = model(ids)
        first, middle = model(ids[:T])
        second, after = model(ids[T:], middle)
        with torch.no_grad():
            again, _ = model(ids)
    assert error([whole, *sum(end, ())], [torch.cat([first, second]), *sum(after, ())]) < 1e-6
    assert torch.equal(whole, again)


def test_the_state_after_a_window_does_not_hold_its_outputs() -> None:
    """A view would keep all steps in memory, and in the file of a checkpoint."""
    example = Example("lstm", torch.float32, table=False)
    for part in example.loop(*example.inputs)[1:]:
        assert part.untyped_storage().nbytes() == 4 * B * H


def test_frozen_weights_get_no_gradient() -> None:
    example = Example("gru", torch.float32, table=False)
    right = torch.autograd.grad(example.loop(*example.inputs)[0].sum(), example.inputs)
    for number, frozen in enumerate(example.inputs):
        frozen.requires_grad_(False)
        others = [each for each in example.inputs if each is not frozen]
        found = torch.autograd.grad(example.loop(*example.inputs)[0].sum(), others)
        assert all(map(torch.equal, found, [*right[:number], *right[number + 1 :]]))
        frozen.requires_grad_()


@pytest.mark.parametrize("cell", CELLS)
def test_a_second_backward_pass_repeats_the_first_and_a_second_derivative_is_refused(
    cell: str,
) -> None:
    example = Example(cell, torch.float32, table=True)
    loss = example.loop(*example.inputs)[0].square().mean()
    passes = [torch.autograd.grad(loss, example.inputs, retain_graph=True) for _ in range(2)]
    assert all(map(torch.equal, *passes))
    attached, *_ = torch.autograd.grad(loss, example.inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        attached.sum().backward()


def test_what_does_not_fit_is_refused() -> None:
    """A state of one sequence would otherwise be that of all."""
    model = tiny_model("gru", V, **SIZES)
    with kernels_in_use(LOOP):
        with pytest.raises(RuntimeError, match=r"shape \(1, 7\); expected \(5, 7\)"):
            model(random_ids(), model.zero_state(1))
        with pytest.raises(IndexError):
            model(random_ids() + V)


@pytest.mark.parametrize("library", [True, False], ids=["oneDNN", "no oneDNN"])
def test_the_loop_is_chosen_where_it_is_faster(
    library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for an LSTM if torch computes all of its steps in one call."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    sizes = {"num_layers": 1, **SIZES}
    served = {
        "rnn": {"cell": "rnn"},
        "gru": {"cell": "gru"},
        "lstm": {"cell": "lstm"},
        "relu": {"cell": "rnn", "nonlinearity": "relu"},
        "zoneout": {"cell": "gru", "zoneout": 0.1},
        "other": {"cell": "mingru"},
    }
    for requested in ("fp32", "auto"):
        for name, changes in served.items():
            settings = [ModelSettings(**sizes | changes)]
            loops = name in ("rnn", "gru") or (name == "lstm" and not library)
            for engine, kernels in (("auto", LOOP if loops else None), ("torch", None)):
                chosen = devices.choose_precision(requested, settings, V, CPU, engine)
                assert (chosen.name, chosen.kernels) == ("fp32", kernels), name
            cuda = devices.choose_precision("fp32", settings, V, torch.device("cuda"))
            assert cuda.kernels is None


def test_the_loop_is_used_in_the_forward_pass_of_training_only() -> None:
    precision = devices.Precision(name="fp32", reason="test", kernels=LOOP)
    with precision.autocast(CPU):
        assert kernel_layers._variant.get() == LOOP
        assert not torch.is_autocast_enabled("cpu")
    assert kernel_layers._variant.get() is None


LINES = "the cat sat on the mat\nthe dog ran to the log\na cat and a dog\n" * 12


def looped(folder: Path, name: str, **changes) -> Session:
    values = {"cell": "gru", "hidden_size": 9, "num_layers": 2, "batch_size": 4, "bptt": 16}
    more = {"weight_drop": 0.2, "dropout": 0.2, "learning_rate": 0.01, "document": "line"}
    return started(folder, name, text=LINES, **values | more | changes)


def losses(session: Session) -> list[float]:
    """Train to the end; return the losses of the steps."""
    return [r.nats_per_token for r in session.records() if isinstance(r, StepRecord)]


@pytest.mark.parametrize(
    ("windows", "loops"),
    [({"bptt": 7}, False), ({"bptt": 8}, True), ({"bptt": 4, "random_bptt": True}, True)],
)
def test_a_run_of_short_windows_is_not_said_to_use_the_loop(
    tmp_path: Path, calls: list[type], windows: dict[str, Any], loops: bool
) -> None:
    """The record names the loop only if it computes windows, and the run resumes without a word."""
    session = looped(tmp_path, "x", steps=30, **windows)
    losses(session)
    assert bool(calls) == loops
    assert ("kernels" in read_record(session.path)["precision"]) == loops
    session = resume(session.path, {"training": {"steps": 31}})
    assert not [text for text in session.warnings if "precision" in text]
    session.lock.release()


def test_a_run_in_the_loop_learns_as_in_torch_and_resumes_to_the_same_bits(
    tmp_path: Path, calls: list[type]
) -> None:
    whole = looped(tmp_path, "whole", steps=6)
    found = losses(whole)
    assert calls
    assert read_record(whole.path)["precision"]["kernels"] == LOOP
    half = looped(tmp_path, "half", steps=3)
    losses(half)
    session = resume(half.path, {"training": {"steps": 6}})
    assert not [text for text in session.warnings if "precision" in text]
    losses(session)
    assert (half.path / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()
    calls.clear()
    exact = looped(tmp_path, "exact", steps=6, engine="torch")
    assert losses(exact) == pytest.approx(found, rel=1e-4)
    assert not calls
    assert "kernels" not in read_record(exact.path)["precision"]


def test_a_run_that_torch_began_goes_on_in_torch(
    tmp_path: Path, calls: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of an earlier version, which had no loop; other bits would follow without a reason."""
    with monkeypatch.context() as earlier:
        earlier.setattr(devices, "loop_pays", lambda _: False)
        whole, half = (looped(tmp_path, name, steps=n) for name, n in (("a", 6), ("b", 3)))
        losses(whole)
        losses(half)
    session = resume(half.path, {"training": {"steps": 6}})
    assert not [text for text in session.warnings if "precision" in text]
    losses(session)
    assert (half.path / WEIGHTS).read_bytes() == (whole.path / WEIGHTS).read_bytes()
    assert not calls


def test_a_resumed_run_can_change_to_torch_and_back(tmp_path: Path) -> None:
    session = looped(tmp_path, "x", steps=2)
    for engine, change in (
        ("torch", "from fp32 in loop kernels to fp32 (as set)"),
        ("auto", ""),  # it keeps what it used
    ):
        session.lock.release()
        session = resume(session.path, {"training": {"engine": engine}})
        new = [text for text in session.warnings[session.warned :] if "precision" in text]
        assert len(new) == bool(change)
        assert all(f"the precision changed {change}" in text for text in new)
    session.lock.release()


def test_the_command_line_names_the_loop(here: Path, call: Call) -> None:
    """In the plan and in `info`, whose command trains the run again."""
    Path("a.txt").write_text(LINES, encoding="utf-8")
    flags = ["--cell", "gru", "--steps", "1", "--name", "a", "--hidden", "9"]
    code, _, err = call("train", "a.txt", *flags)
    assert code == 0, err
    assert "device cpu, fp32 in loop kernels (bf16 is no faster for a model this small)" in err
    assert "fp32 in loop kernels" in call("info", "--run", "a")[1]
    assert (Path("checkpoints/a") / RECORD).exists()
