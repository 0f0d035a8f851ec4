"""The step on static buffers, not captured: it equals the plain one and reads nothing back."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded_documents, encoded_stream, seeded, tiny_model, vocabulary_of
from torch.utils._python_dispatch import TorchDispatchMode

from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.training import TrainingSettings
from charlm.errors import DivergenceError, EnvironmentFailure
from charlm.nn import low_precision
from charlm.nn.devices import Precision
from charlm.nn.low_precision import LowCopy, can_be_static
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.side_by_side import PIECES
from charlm.runs.checkpoints import Checkpoint
from charlm.tasks.language_model import language_model_task
from charlm.text.batches import Position
from charlm.text.dataset import Dataset
from charlm.text.tokenizers.tokenizer_json import EOS
from charlm.training import optim
from charlm.training import trainer as trainer_module
from charlm.training.graphs import Graphs
from charlm.training.records import Record, StepRecord, WarningRecord
from charlm.training.static_step import StaticStep, padded_steps
from charlm.training.step import MemoryFull
from charlm.training.trainer import Trainer

VOCABULARY = vocabulary_of("abcd efgh")
V = len(VOCABULARY)
DROPOUT = {"dropout": 0.3, "output_dropout": 0.2, "embedding_dropout": 0.2, "weight_drop": 0.2}


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(2, V, count).tolist()


STREAM = encoded_stream(tokens(70))
LONG = encoded_stream(tokens(600))
LINES = encoded_documents([[*tokens(3 + 5 * n % 11, n), 1] for n in range(20)])
EQUAL_LINES = encoded_documents([[*tokens(6, n), 1] for n in range(20)])
VALID = encoded_stream([3, 4, 2, 5, 2, 6])


@pytest.fixture(autouse=True)
def frequent_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a step record, and so a look at the numbers, every five steps."""
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 5)


def make(
    train=LONG, *, static: bool, model: Any = None, valid=None, low: torch.dtype | None = None,
    **settings: Any,
) -> Trainer:  # fmt: skip
    values = {"steps": 20, "batch_size": 3, "bptt": 4, "learning_rate": 0.02, "evals": 3,
              "seed": 5, "clip_norm": 0.3}  # fmt: skip
    chosen = TrainingSettings(**(values | settings))
    dataset = Dataset(
        name="x", vocabulary=VOCABULARY, train=train, valid=valid, test=None, fingerprint=""
    )
    task = language_model_task(dataset, chosen, Precision(name="fp32", reason="test"))
    trainer = Trainer(model or tiny_model("lstm", V), task, chosen)
    if static:
        assert can_be_static(trainer.model.settings)
        vars(task)["low_precision"] = low
        trainer.gradient_step = StaticStep(trainer.state, task)
        trainer.recovery.step = trainer.gradient_step
    return trainer


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])


def nats_of(records: Iterable[Record]) -> list[float]:
    return [record.nats_per_token for record in records if isinstance(record, StepRecord)]


def both(**chosen: Any) -> tuple[Trainer, Trainer]:
    """Train plainly and on buffers, and compare the weights, the records and the states."""
    model = chosen.pop("model", None)
    trainers = [make(static=flag, model=copy.deepcopy(model), **chosen) for flag in (False, True)]
    records = [list(trainer.run()) for trainer in trainers]
    plain, static = trainers
    torch.testing.assert_close(weights_of(static), weights_of(plain), atol=1e-5, rtol=1e-4)
    assert static.counters.step == plain.counters.step
    for ours, theirs in zip(records[1], records[0], strict=True):
        assert type(ours) is type(theirs)
        if isinstance(ours, StepRecord):
            assert ours.nats_per_token == pytest.approx(theirs.nats_per_token, rel=1e-5)
            assert ours.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-3)
            assert ours.clipped == theirs.clipped
    a, b = (
        static.checkpoint().tensors,
        plain.checkpoint().tensors,
    )
    assert {name: t.shape for name, t in a.items()} == {name: t.shape for name, t in b.items()}
    return plain, static


@pytest.mark.parametrize(
    "chosen",
    [
        {"train": STREAM},
        {"train": LINES},
        {"train": LINES, "bptt": 40, "model": tiny_model("gru", V)},
        {"train": LINES, "stateless": True, "accumulate": 2},
        {"train": LINES, "accumulate": 3, "batch_size": 5},
        {"train": EQUAL_LINES, "slowness_penalty": 2.0, "activation_penalty": 1.0},
        {"random_bptt": True, "bptt": 9},
        {"model": tiny_model("lstm", V, **DROPOUT), "accumulate": 2, "steps": 6},
        {"model": tiny_model("gru", V, variational=True, dropout=0.4), "state_reset": 0.4,
         "steps": 9},
        {"model": tiny_model("tied mixture", V), "label_smoothing": 0.2},
        {"optimizer": "rmsprop"},
        {"optimizer": "sgd", "momentum": 0.5, "train": LINES},
        {"clip_value": 0.01, "clip_norm": 0.0},
        {"clip_norm": 0.0, "average": 0.9, "valid": VALID},
    ],
    ids=lambda chosen: " ".join(sorted(chosen)),
)  # fmt: skip
def test_the_step_on_buffers_equals_the_plain_one(chosen: dict[str, Any]) -> None:
    """Padded windows, sequences that end, random lengths, several windows in a step."""
    both(**chosen)


@pytest.mark.parametrize("cell", [name for name in CELLS if name != "lstm"])
def test_every_cell_trains_on_buffers(cell: str) -> None:
    """Six steps, to all differences."""
    both(train=STREAM, model=tiny_model(cell, V), steps=6)


def test_a_state_without_a_bound_stays_zero_where_there_is_no_text() -> None:
    """Padding doubles the state of this cell, real text clears it: 2 ** 150 is no float32."""
    model = tiny_model("rnn", V, nonlinearity="relu")
    with torch.no_grad():
        model.embedding.weight.fill_(-1000.0)[EOS] = 1.0
        for layer, factor in zip(model.recurrent_layers(), (0.25, 0.1), strict=True):
            layer.rnn.weight_ih_l0.fill_(factor)
        model.layers[0].rnn.weight_hh_l0.copy_(2.0 * torch.eye(3))
    texts = encoded_documents([tokens(150, n) for n in range(3)] + [[3]])
    both(train=texts, model=model, batch_size=2, steps=90, learning_rate=1e-6)


def test_most_windows_are_computed_on_buffers() -> None:
    """Else the laws above would compare the plain step with itself."""
    keys: list[Any] = []
    trainer = make(LINES, static=True, batch_size=4)
    trainer.gradient_step.run = lambda key, function: (keys.append(key), function())
    list(trainer.run())
    assert keys.count("update") == 20
    assert len(keys) > 30
    assert {key for key in keys if key != "update"} == {("gradient", 4, 4)}


def shapes_of(train: Any, **chosen: Any) -> list[tuple[int, int]]:
    """Return the shapes of the windows of an epoch on buffers."""
    trainer, shapes = make(train, static=True, **chosen), list[tuple[int, int]]()
    step = trainer.gradient_step
    step.run = lambda key, function: (shapes.append(key[1:]), function())
    batches = list(trainer.task.batches.epoch(Position()))
    for batch in batches:
        step.add(batch, 1.0)
    assert len(shapes) == len(batches), "a window was not computed on buffers"
    return shapes


def test_documents_much_shorter_than_a_window_are_computed_on_buffers() -> None:
    """Lists of names, whose windows would be padding for the most part: few shapes serve all."""
    assert set(shapes_of(EQUAL_LINES, bptt=64, batch_size=8)) == {(8, 8)}
    assert set(shapes_of(LINES, bptt=64, batch_size=4)) == {(8, 4), (16, 4)}
    assert set(shapes_of(LINES, bptt=4, batch_size=16)) == {(4, 16)}  # few rows go on to the end
    assert set(shapes_of(STREAM, bptt=16, batch_size=2)) == {
        (16, 2)
    }  # the last one has three steps


@pytest.mark.parametrize(
    ("steps", "bptt", "expected"),
    [(64, 64, 64), (32, 64, 64), (31, 64, 32), (7, 64, 8), (1, 64, 8), (90, 70, 90), (1, 1, 1),
     (3, 9, 4), (9, 70, 9), (10, 70, 18)],
)  # fmt: skip
def test_short_documents_are_padded_to_few_lengths(steps: int, bptt: int, expected: int) -> None:
    """By hand: the whole window if that is at most twice as long, else eighths of it."""
    assert padded_steps(steps, bptt) == expected


# ------------------------------------------------------------------ numbers that are not finite


def broken_at(trainer: Trainer, steps: Iterable[int]) -> Trainer:
    """Put a NaN into the outputs and states of these steps, counted from 1."""

    def spoil(_module: Any, _inputs: Any, out: Any) -> Any:
        factor = np.nan if trainer.counters.step + 1 in steps else 1.0
        return out[0] * factor, tuple(tensor * factor for tensor in out[1])

    trainer.model.layers[-1].register_forward_hook(spoil)
    return trainer


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_a_step_that_is_not_finite_changes_nothing(optimizer: str) -> None:
    """Weights, moments and step count are those before it; later steps are as in the plain run."""
    chosen = {"on_nonfinite": "skip", "train": LINES, "optimizer": optimizer, "accumulate": 2}
    plain = broken_at(make(static=False, **chosen), (7, 8, 13))
    expected = nats_of(plain.run())
    trainer = broken_at(make(static=True, **chosen), (7, 8, 13))
    step, kept = trainer.step, {}

    def watched(batches: Any) -> None:
        before = {name: t.clone() for name, t in trainer.checkpoint().tensors.items()}
        step(batches)
        after = trainer.checkpoint().tensors
        kept[trainer.counters.step] = all(
            torch.equal(tensor, after[name])
            for name, tensor in before.items()
            if name.startswith(("model.", "optimizer."))
        )

    trainer.step = watched  # type: ignore[method-assign]
    records = list(trainer.run())
    if optimizer == "adamw":
        assert [number for number, same in kept.items() if same] == [7, 8, 13]
    torch.testing.assert_close(weights_of(trainer), weights_of(plain), atol=1e-5, rtol=1e-4)
    for name in ("skipped", "skipped_in_a_row", "step", "tokens", "epoch", "group", "offset"):
        assert getattr(trainer.counters, name) == getattr(plain.counters, name)
    assert nats_of(records) == pytest.approx(expected, rel=1e-5)
    warnings = [record.text for record in records if isinstance(record, WarningRecord)]
    assert warnings[0].startswith("step 7: the loss is nan")
    if optimizer == "adamw":
        assert warnings[0] == "step 7: the loss is nan; 2 steps were skipped"


def test_training_stops_at_the_first_number_that_is_not_finite() -> None:
    """Found at the next record; until then no step changes the weights."""
    trainer, seen = broken_at(make(static=True), (7,)), {}
    step = trainer.step
    trainer.step = lambda batches: (step(batches), seen.update(  # type: ignore[method-assign]
        {trainer.counters.step: weights_of(trainer)}
    ))  # fmt: skip
    with pytest.raises(DivergenceError, match="at step 7: the loss is nan"):
        list(trainer.run())
    assert max(seen) == 10
    assert all(torch.equal(seen[6], seen[number]) for number in (7, 8, 9, 10))
    assert not torch.equal(seen[5], seen[6])


def test_too_many_failed_steps_in_a_row_are_an_error() -> None:
    """They are counted from record to record."""
    trainer = broken_at(make(static=True, on_nonfinite="skip", steps=60), range(8, 99))
    with pytest.raises(DivergenceError, match="the loss is nan"):
        list(trainer.run())
    assert trainer.counters.step == 30  # 20 failed up to step 27
    assert trainer.counters.skipped == 18  # up to the record of step 25


def test_a_gradient_that_explodes_is_a_warning() -> None:
    trainer = make(static=True, steps=5)
    trainer.model.output.register_forward_hook(
        lambda _, __, out: out * (1e6 if trainer.counters.step == 2 else 1.0)
    )
    warnings = [r.text for r in trainer.run() if isinstance(r, WarningRecord)]
    assert len(warnings) == 1
    assert warnings[0].startswith("step 3: the gradient explodes, norm ")


def test_steps_that_cannot_be_captured_are_a_warning() -> None:
    """Once in a session, even if all buffers and graphs are dropped in between."""
    trainer = make(static=True, steps=20)
    graphs = Graphs(trainer.state.generator)
    graphs.failure = "operation not permitted"
    trainer.gradient_step = StaticStep(trainer.state, trainer.task, graphs=graphs)
    trainer.recovery.step = trainer.gradient_step
    warnings = []
    for record in trainer.run():
        if isinstance(record, WarningRecord):
            warnings.append(record.text)
            trainer.gradient_step.reset()
    assert warnings == [
        "step 5: steps cannot be captured in CUDA graphs (operation not permitted); training "
        "continues, but takes longer"
    ]


def test_layers_work_side_by_side_unless_a_capture_has_failed() -> None:
    """Without graphs they gain nothing, and torch may keep what several streams have read."""
    trainer, seen = make(static=True, steps=2, model=tiny_model("mogrifier", V)), list[int]()
    step, graphs = trainer.gradient_step, Graphs(trainer.state.generator)
    read = trainer.model.read
    trainer.model.read = lambda *given: (seen.append(trainer.model.pieces), read(*given))[1]
    list(trainer.run())
    graphs.failure, step.graphs = "operation not permitted", graphs
    step.add(next(iter(trainer.task.batches.epoch(Position()))), 1.0)
    assert seen == [PIECES, PIECES, 1]


# ------------------------------------------------------------------ what a CUDA graph needs


class NoReads(TorchDispatchMode):
    """Refuses operations that wait for a GPU, or whose shapes depend on values."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        if name == "index" or name.startswith("index_put"):
            masks = [t for t in args[1] if t is not None and t.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} by a mask"
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal"), name
        return func(*args, **(kwargs or {}))


def reading_nothing(trainer: Trainer) -> Trainer:
    """Refuse reads in the functions that are captured on a GPU."""

    def run(_key: Any, function: Any) -> None:
        with NoReads():
            function()

    trainer.gradient_step.run = run
    return trainer


@pytest.mark.parametrize("cell", CELLS)
def test_no_number_is_read_in_a_step(cell: str) -> None:
    """Neither for the loss, nor to clip, nor for dropout in any form."""
    drops = DROPOUT if CELLS[cell].learns_recurrence else {"dropout": 0.3, "output_dropout": 0.2}
    chosen = {"activation_penalty": 1.0, "slowness_penalty": 1.0, "label_smoothing": 0.1}
    model = tiny_model(cell, V, **drops)
    list(reading_nothing(make(LINES, static=True, model=model, steps=4, **chosen)).run())


def test_no_number_is_read_of_texts_with_conditions() -> None:
    """Their inputs are entries of the vocabulary and others, which no mask may separate."""
    settings = ModelSettings(num_layers=1, hidden_size=3, embedding_size=3, tie_weights=True)
    model = RecurrentLanguageModel(settings, V, conditions=2)
    model.reset_parameters(seeded())
    list(reading_nothing(make(LINES, static=True, model=model, steps=4)).run())


def test_a_read_is_noticed() -> None:
    """The check above is one."""
    trainer = reading_nothing(make(static=True, steps=1))
    trainer.model.output.register_forward_hook(lambda _, __, out: out * float(out.sum() > 0))
    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        list(trainer.run())


def test_buffers_stay_where_they_are() -> None:
    """A graph remembers addresses: of states, gradients, weights and moments."""
    trainer, places = make(LINES, static=True, valid=VALID, average=0.9, accumulate=2), set()
    for record in trainer.run():
        step = trainer.gradient_step
        assert isinstance(step, StaticStep)
        buffers = step._buffers
        assert buffers is not None
        with trainer.state.kept_weights():
            pass
        moments = trainer.state.optimizer.state.values()
        tensors = [*trainer.model.parameters(), *buffers.gradients]
        tensors += [tensor for entry in moments for tensor in entry.values()]
        tensors += [tensor for layer in buffers.hidden for tensor in layer]
        assert [w.grad for w in step.weights] == buffers.gradients
        places.add(tuple(tensor.data_ptr() for tensor in tensors))
        assert record.step
    assert len(places) == 1


# ------------------------------------------------------------------ resuming, memory


def copied(saved: Checkpoint) -> Checkpoint:
    tensors = {name: tensor.clone() for name, tensor in saved.tensors.items()}
    return Checkpoint(step=saved.step, tensors=tensors, counters=copy.deepcopy(saved.counters))


@pytest.mark.parametrize("used", [False, True])
def test_resuming_equals_never_stopping(used: bool) -> None:
    """To the bit, also by a trainer that has trained already, as one that rewinds."""
    chosen: dict[str, Any] = {"train": LINES, "static": True, "on_nonfinite": "skip"}
    model = tiny_model("lstm", V, **DROPOUT)
    whole, saved, expected = make(model=copy.deepcopy(model), **chosen), {}, []
    for record in whole.run():
        expected.append(record.nats_per_token)
        saved[record.step] = copied(whole.checkpoint())
    other = make(model=tiny_model("lstm", V, seed=8, **DROPOUT), **chosen)
    if used:
        records = other.run()
        while other.counters.step < 20:
            next(records)
        other.gradient_step.add(next(other.task.batches.epoch(Position())), 1.0)
        other.gradient_step.update(0.0)  # not settled
        other.gradient_step.add(next(other.task.batches.epoch(Position())), 1.0)
    other.restore(copied(saved[10]))
    assert nats_of(other.run()) == expected[2:]
    ours, theirs = other.checkpoint(), whole.checkpoint()
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, tensor in theirs.tensors.items():
        assert torch.equal(ours.tensors[name], tensor), name


@pytest.mark.parametrize(
    ("fits", "error"),
    [
        (2, torch.OutOfMemoryError("CUDA out of memory")),
        (1, RuntimeError("CUDA error: out of memory")),
    ],
)
def test_too_little_memory_goes_on_in_parts(fits: int, error: RuntimeError) -> None:
    """The window that does not fit is the second of a step; nothing of the step is lost.

    Nor are the numbers of the steps before it, if single sequences only fit at the second try.
    """
    chosen: dict[str, Any] = {"train": LINES, "steps": 8, "accumulate": 2}
    plain = make(static=False, **chosen)
    expected = nats_of(plain.run())
    trainer = make(static=True, **chosen)
    read, sizes = trainer.model.read, []

    def cramped(ids: torch.Tensor, *rest: Any) -> Any:
        sizes.append(ids.shape[1])
        if len(sizes) >= 6 and ids.shape[1] > fits:
            raise error
        return read(ids, *rest)

    trainer.model.read = cramped  # type: ignore[method-assign]
    assert nats_of(trainer.run()) == pytest.approx(expected, rel=1e-5)
    assert trainer.counters.parts == 4 - fits
    assert trainer.counters.tokens == plain.counters.tokens
    assert trainer.counters.sum_nats == pytest.approx(plain.counters.sum_nats, rel=1e-5)
    torch.testing.assert_close(weights_of(trainer), weights_of(plain), atol=1e-5, rtol=1e-4)


class Full(TorchDispatchMode):
    """Memory that is full from the allocation of this number on, counted from 0."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        changes = any(argument.alias_info for argument in func._schema.arguments)
        if not changes and func.namespace == "aten":
            self.left -= 1
            if self.left < 0:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return func(*args, **(kwargs or {}))


def changeable(trainer: Trainer) -> list[torch.Tensor]:
    """Return the weights, the state of the optimiser and of the generator."""
    tensors = trainer.checkpoint().tensors
    return [tensors[n].clone() for n in sorted(tensors) if not n.startswith("hidden.")]


@pytest.mark.parametrize("kind", ["plain", "static", "host", "float16", "rmsprop"])
@pytest.mark.parametrize("first", [True, False])
def test_too_little_memory_in_an_update_changes_nothing(kind: str, first: bool) -> None:
    """Wherever it happens: nothing is allocated once a weight or a moment has changed.

    With an optimiser that allocates in between, the run ends.
    """
    chosen: dict[str, Any] = {"optimizer": "rmsprop" if kind == "rmsprop" else "adamw"}
    chosen |= {"model": tiny_model("lstm", V, dropout=0.3, num_layers=1), "clip_norm": 0.01}
    chosen |= {"bptt": 1, "batch_size": 2}
    low = torch.float16 if kind == "float16" else None
    trainer = make(static=kind != "plain", low=low, **chosen)
    step, batches = trainer.gradient_step, trainer.task.batches.epoch(Position())
    if kind == "host":
        vars(step)["decides"] = False
    if not first:
        step.add(next(batches), 1.0)
        step.update(0.1)
    before, batch, failures = changeable(trainer), next(batches), 0
    for number in range(999):
        step.add(batch, 1.0)
        try:
            with Full(number):
                step.update(0.1)
            break
        except (MemoryFull, EnvironmentFailure) as error:
            failures += 1
            assert isinstance(error, EnvironmentFailure) == (kind == "rmsprop")
        if kind == "rmsprop":
            return
        step.reset()
        for ours, theirs in zip(changeable(trainer), before, strict=True):
            assert torch.equal(ours, theirs), number
    assert failures > 5
    assert any(not torch.equal(a, b) for a, b in zip(changeable(trainer), before, strict=False))


@pytest.mark.parametrize("static", [True, False])
def test_too_little_memory_for_moments_goes_on_in_parts(
    static: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first update has made some of them; they are dropped, and the step is repeated."""
    plain = make(static=False, steps=4)
    list(plain.run())
    trainer = make(static=static, steps=4)
    optimizer, take_step, zeros = trainer.state.optimizer, trainer.state.optimizer.step, []

    def cramped(like: torch.Tensor, **more: Any) -> torch.Tensor:
        zeros.append(like)
        if len(zeros) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.zeros(like.shape, dtype=like.dtype)

    def step() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(torch, "zeros_like", cramped)
            take_step()

    monkeypatch.setattr(optimizer, "step", step)
    warning, *_ = [r.text for r in trainer.run() if isinstance(r, WarningRecord)]
    assert warning.startswith("step 1: too little memory for 3 sequences at once")
    assert trainer.counters.parts == 2
    torch.testing.assert_close(weights_of(trainer), weights_of(plain), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "momentum", "decides"),
    [*((name, 0.0, bool(OPTIMIZERS[name].gpu_options)) for name in OPTIMIZERS),
     ("sgd", 0.5, False), ("rmsprop", 0.5, False)],
)  # fmt: skip
def test_optimisers_with_the_options_of_a_gpu(
    optimizer: str, momentum: float, decides: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They train as on a processor, skip steps, and resume, with their rate in one tensor."""
    chosen: dict[str, Any] = {"optimizer": optimizer, "momentum": momentum, "steps": 15}
    chosen |= {"on_nonfinite": "skip", "learning_rate": 0.01}
    plain = broken_at(make(static=False, **chosen), (1, 7))
    expected = nats_of(plain.run())
    monkeypatch.setattr(optim, "on_gpu", lambda _: True)
    trainer = broken_at(make(static=True, **chosen), (1, 7))
    rate = trainer.state.optimizer.param_groups[0]["lr"]
    records, saved = [], None
    for record in trainer.run():
        records.append(record)
        if record.step == 10:
            saved = copied(trainer.checkpoint())
    assert nats_of(records) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(weights_of(trainer), weights_of(plain), atol=1e-5, rtol=1e-4)
    assert trainer.counters.skipped == 2
    assert isinstance(trainer.gradient_step, StaticStep)
    assert trainer.gradient_step.decides == decides
    if decides:
        assert isinstance(rate, torch.Tensor)
        assert trainer.state.optimizer.param_groups[0]["lr"] is rate
    assert saved is not None
    other = make(static=True, model=tiny_model("lstm", V, seed=3), **chosen)
    other.restore(saved)
    (record,) = other.run()
    assert record == replace(records[-1], tokens_per_second=record.tokens_per_second,
                             seconds=record.seconds)  # fmt: skip
    assert torch.equal(weights_of(other), weights_of(trainer))


# ------------------------------------------------------------------ low precision


def test_the_copy_follows_the_weights() -> None:
    """They are equal once rounded; ties and frozen weights stay; no memory is allocated."""
    model = tiny_model("lstm", V, tie_weights=True, embedding_size=8, hidden_size=8)
    model.layers[0].requires_grad_(False)
    low = LowCopy(model, torch.bfloat16)
    places = [weight.data_ptr() for weight in low.model.parameters()]
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=seeded(1)))
    low.refresh()
    for ours, theirs in zip(low.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())
        assert ours.requires_grad == theirs.requires_grad
    assert low.model.output.weight is low.model.embedding.weight
    assert [weight.data_ptr() for weight in low.model.parameters()] == places


@pytest.mark.parametrize("has_cudnn", [True, False])
def test_weights_are_put_together_only_for_cudnn(
    has_cudnn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch for the GPUs of AMD, which it calls cuda too, has no such function."""
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda _: True), raising=False)
    monkeypatch.setattr(torch, "_use_cudnn_rnn_flatten_weight", lambda: has_cudnn)
    monkeypatch.setattr(torch, "_cudnn_rnn_flatten_weight", lambda *given: calls.append(given))
    monkeypatch.setattr(low_precision, "get_cudnn_mode", lambda _: 2)
    low = LowCopy(tiny_model("lstm", V, hidden_size=8, embedding_size=8), torch.bfloat16)
    assert len(calls) == (len(low.model.layers) if has_cudnn else 0)


def low_trainer(dtype: torch.dtype | None, cell: str = "gru", **chosen: Any) -> Trainer:
    weight_drop = 0.5 if cell == "lstm" else 0.0
    model = tiny_model(cell, V, hidden_size=16, embedding_size=8, weight_drop=weight_drop)
    return make(static=True, model=model, low=dtype, **chosen)


@pytest.mark.parametrize(("cell", "parts"), [("gru", 1), ("lstm", 1), ("lstm", 2)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_the_copy_are_those_of_the_weights(
    dtype: torch.dtype, cell: str, parts: int
) -> None:
    """Within the rounding of the type; the scale of float16 is divided out.

    The LSTM has weight drop, whose dropped weights are the copy's. Parts of a batch that did not
    fit in memory are computed by the copy too.
    """
    found = []
    for kind in (None, dtype):
        trainer = low_trainer(kind, cell)
        trainer.counters.parts = parts
        for batch in list(trainer.task.batches.epoch(Position()))[:2]:
            trainer.gradient_step.add(batch, 1.0)
        if scale := trainer.state.loss_scale:
            scale.divide_out([w.grad for w in trainer.gradient_step.weights])
        found.append(torch.cat([w.grad.flatten() for w in trainer.gradient_step.weights]))
        assert found[-1].dtype == torch.float32
    exact, rough = found
    error = float((rough - exact).norm() / exact.norm())
    assert 1e-5 < error < {torch.bfloat16: 0.05, torch.float16: 0.005}[dtype]


def test_training_with_a_copy_ends_as_well() -> None:
    """60 tiny steps, to 0.02 nats."""
    ends = []
    for dtype in (None, torch.bfloat16):
        *_, last = low_trainer(dtype, steps=60, clip_norm=1.0).run()
        ends.append(last.nats_per_token)
    assert ends[1] == pytest.approx(ends[0], abs=0.02)
    assert ends[1] != ends[0]


PADDED: dict[str, Any] = {"hidden_size": 10, "embedding_size": 6}


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("structure", [{}, {"tie_weights": True, "last_hidden_size": 6}])
def test_a_padded_copy_trains_as_the_model(cell: str, structure: dict[str, Any]) -> None:
    """In float32, with penalties; checkpoints have the sizes of the model."""
    model = tiny_model(cell, V, **PADDED, **structure)
    penalties = {"slowness_penalty": 2.0, "activation_penalty": 1.0}
    _, static = both(train=LINES, model=model, low=torch.float32, steps=8, **penalties)
    assert static.gradient_step._low.model.layers[0].hidden_size == 16


def test_a_padded_copy_trains_in_parts() -> None:
    """As the model does, in the parts of a batch that did not fit in memory."""
    ends = []
    for low in (None, torch.float32):
        model = tiny_model("lstm", V, **PADDED)
        trainer = make(LINES, static=True, model=model, low=low, steps=8)
        trainer.counters.parts = 2
        list(trainer.run())
        ends.append(weights_of(trainer))
    torch.testing.assert_close(ends[1], ends[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_no_number_is_read_in_a_step_of_a_padded_copy(cell: str) -> None:
    model = tiny_model(cell, V, **PADDED, **DROPOUT)
    trainer = make(LINES, static=True, model=model, low=torch.bfloat16, steps=4)
    list(reading_nothing(trainer).run())


def test_a_padded_copy_resumes_to_the_same_bits() -> None:
    """Its zeros are no part of the checkpoint."""
    chosen: dict[str, Any] = {"train": LINES, "static": True, "low": torch.bfloat16}
    whole, other = (make(model=tiny_model("lstm", V, seed=s, **PADDED), **chosen) for s in (0, 1))
    saved, expected = {}, []
    for record in whole.run():
        expected.append(record.nats_per_token)
        saved[record.step] = copied(whole.checkpoint())
    other.restore(saved[10])
    assert nats_of(other.run()) == expected[2:]
    assert torch.equal(weights_of(other), weights_of(whole))
