"""More than one process: random numbers, ownership, sums, and real processes that train one run."""

import copy
import math
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded_documents, encoded_stream, tiny_model, vocabulary_of
from torch import distributed
from waiting import PATIENCE, Ticking

from charlm.config.model import ModelSettings
from charlm.config.settings import Settings
from charlm.config.training import TrainingSettings
from charlm.errors import DivergenceError
from charlm.nn.devices import Precision
from charlm.nn.dropout import Draws
from charlm.nn.low_precision import LossScale
from charlm.nn.model import RecurrentLanguageModel
from charlm.runs.checkpoints import Checkpoint
from charlm.tasks.language_model import language_model_task
from charlm.text.dataset import Dataset
from charlm.training import parallel
from charlm.training import trainer as trainer_module
from charlm.training.parallel import (
    TIMEOUT,
    Parallel,
    ProcessLost,
    Unanswered,
    interruptible,
    watched,
)
from charlm.training.plan import memory
from charlm.training.plan.memory import memory_of
from charlm.training.processes import ALONE, Processes, training_together
from charlm.training.trainer import Trainer

TINY = ModelSettings(cell="lstm", hidden_size=5, embedding_size=4, num_layers=2, tie_weights=False)
RANDOM = {
    "dropout": {"dropout": 0.5, "input_dropout": 0.3, "output_dropout": 0.4},
    "variational": {"dropout": 0.5, "output_dropout": 0.4, "variational": True},
    "recurrent": {"weight_drop": 0.3, "embedding_dropout": 0.3, "dropout": 0.2},
    "state dropout": {"state_dropout": 0.4, "dropout": 0.2},
    "zoneout": {"zoneout": 0.3, "zoneout_cell": 0.2, "output_dropout": 0.2},
}
"""Settings with every kind of random number in the network."""


def model_of(**settings) -> RecurrentLanguageModel:
    model = RecurrentLanguageModel(replace(TINY, **settings), 7)
    model.reset_parameters(torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("kind", RANDOM)
def test_some_sequences_get_the_random_numbers_that_they_get_among_all(kind: str) -> None:
    """Each process reads some sequences; together they see the masks of one process."""
    model = model_of(**RANDOM[kind])
    ids = torch.from_numpy(np.random.default_rng(1).integers(0, 7, (6, 5)))

    def read(*columns: int) -> torch.Tensor:
        generator = Draws()
        generator.manual_seed(3)
        if columns:
            generator.rows, generator.of = torch.tensor(columns), 5
        with torch.no_grad():
            model.read(ids[:, columns] if columns else ids, None, generator)  # moves it on
            return model.read(ids[:, columns] if columns else ids, None, generator)[1]

    whole = read()
    assert not torch.allclose(whole, model.read(ids)[1], atol=1e-2)
    for columns in ((0, 1), (2, 3, 4), (4,)):
        assert torch.allclose(read(*columns), whole[:, columns], atol=1e-6)


# ------------------------------------------------------------------ two processes in two threads


class Exchange:
    """What processes exchange, if they are threads of one process."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=PATIENCE)
        self.values: list[Any] = [None] * count

    def of_all(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values


class InThread(Parallel):
    """One of several processes, as a thread."""

    def __init__(self, rank: int, exchange: Exchange) -> None:
        super().__init__(rank, len(exchange.values))
        self.exchange = exchange

    def _add(self, numbers: torch.Tensor) -> None:
        numbers.copy_(torch.stack(self.exchange.of_all(self.rank, numbers.clone())).sum(0))

    def _broadcast(self, value: Any) -> Any:
        return copy.deepcopy(self.exchange.of_all(self.rank, copy.deepcopy(value))[0])

    def _gather(self, value: Any) -> list[Any] | None:
        values = self.exchange.of_all(self.rank, value)
        return None if self.rank else values


VOCABULARY = vocabulary_of("abcd efgh")
RANDOM_IDS = np.random.default_rng(2)
STREAM = encoded_stream(RANDOM_IDS.integers(2, len(VOCABULARY), 150).tolist())
LINES = encoded_documents(
    [
        [*RANDOM_IDS.integers(2, len(VOCABULARY), length).tolist(), 1]
        for length in (1, 2, 3, 4, 5, 6, 8, 9, 11, 12, 13, 15, 16, 18, 19, 33)
    ]
)
"""Lines of 2 to 34 tokens: of sixteen sequences, one is left in the last windows."""
CASES: dict[str, tuple[Any, dict, dict]] = {
    "stream": (STREAM, {}, {}),
    "lines": (LINES, {"batch_size": 16}, {}),
    "dropout": (LINES, {}, RANDOM["dropout"] | {"weight_drop": 0.2, "embedding_dropout": 0.2}),
    "zoneout": (LINES, {"state_reset": 0.3}, RANDOM["zoneout"] | RANDOM["state dropout"]),
    "penalties": (LINES, {"activation_penalty": 2.0, "slowness_penalty": 1.0}, {"dropout": 0.3}),
    "accumulate": (LINES, {"accumulate": 3, "label_smoothing": 0.1}, {"learned_state": True}),
    "random windows": (STREAM, {"random_bptt": True, "bptt": 9}, {"variational": True}),
    "average": (STREAM, {"average": 0.9, "optimizer": "sgd", "momentum": 0.5}, {}),
    "plateau": (STREAM, {"schedule": "plateau", "clip_norm": 0.05}, {"mixture": 2}),
}
"""Text, training settings and model settings of trainings that any number of processes repeats."""


def trainer_of(
    case: str,
    processes: Processes = ALONE,
    *,
    kind: type[Trainer] = Trainer,
    steps: int = 12,
    **more: Any,
) -> Trainer:
    text, training, model = CASES[case]
    settings = TrainingSettings(
        **{
            "steps": steps, "batch_size": 5, "bptt": 4, "learning_rate": 0.05, "evals": 3, "seed": 5
        } | training | more
    )  # fmt: skip
    dataset = Dataset(
        name="x", vocabulary=VOCABULARY, train=text, valid=encoded_stream([3, 4, 5, 5, 4]),
        test=None, fingerprint="",
    )  # fmt: skip
    precision = Precision(name="fp32", reason="test")
    return kind(
        tiny_model("lstm", len(VOCABULARY), seed=1 + processes.rank, **model),
        language_model_task(dataset, settings, precision),
        settings,
        clock=Ticking(),
        processes=processes,
    )


def trained(
    case: str, count: int, saved: Checkpoint | None = None, **more: Any
) -> tuple[Checkpoint, list[dict], list[Trainer]]:
    """Train with some processes; return the checkpoint, the records, and all trainers."""
    exchange = Exchange(count)
    parallel = [InThread(rank, exchange) for rank in range(count)]
    trainers = [trainer_of(case, p, **more) for p in (parallel if count > 1 else [ALONE])]
    if saved:
        trainers[0].restore(saved)
    records: dict[int, list[dict]] = {}
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            records[rank] = [record.to_dict() for record in trainers[rank].run()]
        except BaseException as error:
            errors.append(error)
            exchange.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return trainers[0].checkpoint(), records[0], trainers


def difference(one: Checkpoint, other: Checkpoint) -> float:
    """Return the largest difference between tensors of two checkpoints."""
    assert one.tensors.keys() == other.tensors.keys()
    assert torch.equal(one.tensors["generator"], other.tensors["generator"])
    return max(
        float((one.tensors[name].double() - other.tensors[name].double()).abs().max())
        for name in one.tensors
    )


@pytest.fixture(autouse=True)
def a_record_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)


@pytest.mark.parametrize("case", CASES)
def test_the_number_of_processes_changes_nothing(case: str) -> None:
    """Weights, moments, state and validations; lines leave some processes without sequences."""
    saved, records, _ = trained(case, 1)
    shared, shared_records, trainers = trained(case, 3)
    assert difference(saved, shared) < 2e-6
    for one, other in zip(records, shared_records, strict=True):
        assert one.keys() == other.keys()
        figures = [key for key in one if "nats" in key or key in ("learning_rate", "best")]
        assert [one[key] for key in figures] == pytest.approx([other[key] for key in figures], 1e-5)
    weights = [trainer.model.state_dict() for trainer in trainers]
    for name, weight in weights[0].items():
        assert all(torch.equal(weight, others[name]) for others in weights[1:])
    assert len({repr(trainer.counters) for trainer in trainers}) == 1


def test_any_number_of_processes_resumes_a_checkpoint() -> None:
    whole, _, _ = trained("zoneout", 1, schedule="constant")
    saved, _, _ = trained("zoneout", 2, schedule="constant", steps=5)
    for count, steps in ((3, 9), (1, 12)):
        saved, _, _ = trained("zoneout", count, saved, schedule="constant", steps=steps)
    assert difference(whole, saved) < 2e-6


class Scaled(Trainer):
    """Training with a scaled loss and the range of float16, whose scale is too large at first."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.state.loss_scale = LossScale(torch.device("cpu"))
        self.state.loss_scale.factor.fill_(2.0**24)
        self.model.output.register_forward_hook(self.narrow)

    @staticmethod
    def narrow(_module: Any, _inputs: Any, out: torch.Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda g: g.masked_fill(g.abs() > 65504.0, torch.inf))


def test_all_processes_have_the_same_scale_of_the_loss() -> None:
    """It follows their sum: a gradient beyond the range in one of them halves it in all."""
    saved, _, _ = trained("accumulate", 1, kind=Scaled)
    shared, _, trainers = trained("accumulate", 2, kind=Scaled)
    assert difference(saved, shared) < 2e-6
    scales = [trainer.state.loss_scale.factor for trainer in trainers]
    assert scales[0] == scales[1] < 2.0**24
    assert trainers[1].counters.updates > 2


@pytest.mark.parametrize("count", [1, 2])
def test_too_little_memory_in_one_process_changes_nothing(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All repeat the step in parts, with the random numbers that it had before."""
    saved, _, _ = trained("dropout", 1)
    read = RecurrentLanguageModel.read

    def small(model: Any, ids: torch.Tensor, *more: Any) -> Any:
        if ids.shape[1] > 2:  # of two processes, only the first one has more
            raise torch.OutOfMemoryError
        return read(model, ids, *more)

    monkeypatch.setattr(RecurrentLanguageModel, "read", small)
    shared, _, trainers = trained("dropout", count)
    assert [trainer.counters.parts for trainer in trainers] == [4 // count] * count
    assert difference(saved, shared) < 2e-6


def test_a_weight_without_a_gradient_in_all_processes_keeps_none() -> None:
    """AdamW would move it: a rare cluster of an adaptive softmax, say."""
    exchange, weights = (
        Exchange(2),
        [[torch.nn.Parameter(torch.ones(2)) for _ in "abc"] for _ in "12"],
    )
    weights[0][0].grad, weights[1][0].grad = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    weights[1][1].grad = torch.tensor([4.0, 4.0])
    numbers: list[Any] = [None, None]

    def add(rank: int) -> None:
        vector = torch.tensor([rank, 10.0], dtype=torch.float64)
        numbers[rank] = InThread(rank, exchange).total(weights[rank], vector).tolist()

    threads = [threading.Thread(target=add, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [[1.0, 20.0]] * 2
    for first, second, third in weights:
        assert [first.grad.tolist(), second.grad.tolist()] == [[4.0, 7.0], [4.0, 4.0]]
        assert third.grad is None


def test_all_processes_stop_after_the_same_step() -> None:
    """Process 0 is asked to stop; the others hear of it with the sum of the next step."""

    class Stopping(Trainer):
        def step(self, batches: Any) -> None:
            super().step(batches)
            if self.counters.step == 4 and self.processes.rank == 0:
                self.stop("interrupted")

    _, records, trainers = trained("lines", 3, kind=Stopping)
    assert [trainer.counters.step for trainer in trainers] == [5, 5, 5]
    assert records[-1]["step"] == 5


def test_all_processes_skip_a_step_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Trainer):
        def step(self, batches: Any) -> None:
            alone, last = self.processes.count == 1, self.processes.rank == 2
            if self.counters.step == 4 and (alone or last):
                self.state.hidden = tuple(
                    tuple(tensor * float("nan") for tensor in layer) for layer in self.state.hidden
                )
            super().step(batches)

    saved, _, _ = trained("stream", 1, kind=Broken, on_nonfinite="skip")
    shared, _, trainers = trained("stream", 3, kind=Broken, on_nonfinite="skip")
    assert [trainer.counters.skipped for trainer in trainers] == [1, 1, 1]
    assert difference(saved, shared) < 2e-6
    with pytest.raises(DivergenceError, match="step 5"):
        trained("stream", 3, kind=Broken)


def test_a_rewind_that_stops_at_once_keeps_the_state_of_all_sequences() -> None:
    """The state of the first sequences was saved twice, in place of the others."""

    class Rewinding(Trainer):
        def run(self) -> Any:
            yield from super().run()
            if self.processes.rank == 0:
                self.restore(self.checkpoint())
            yield from super().run()

    once, _, _ = trained("stream", 2)
    again, _, _ = trained("stream", 2, kind=Rewinding)
    assert difference(once, again) == 0.0


def test_weights_that_cannot_be_saved_stop_all_processes_at_once() -> None:
    """Process 0 alone found them when it saved, and rewound while the others took a step."""

    class Broken(Trainer):
        def step(self, batches: Any) -> None:
            super().step(batches)
            if self.counters.step == 2:
                with torch.no_grad():
                    self.model.embedding.weight.fill_(float("inf"))

    with pytest.raises(DivergenceError, match="not finite after step 2"):
        trained("stream", 2, kind=Broken)


def test_process_0_decides_which_weights_are_the_best() -> None:
    """Its figures may differ: lost weights are validated again when it saves."""

    class Other(Trainer):
        def step(self, batches: Any) -> None:
            super().step(batches)
            if self.counters.step == 5 and self.processes.rank == 0:
                self.counters.best_nats = 0.0
                self.counters.best_tally |= {"nats": 0.0}

    _, _, trainers = trained("plateau", 2, kind=Other)
    assert [trainer.counters.without_gain for trainer in trainers] == [2, 2]
    assert trainers[0].counters.plateau == trainers[1].counters.plateau < 1


def test_each_process_needs_memory_for_all_weights_and_for_its_sequences() -> None:
    """And for the sum of the gradients: four bytes for each weight."""
    model, training = ModelSettings(hidden_size=32, num_layers=1), TrainingSettings(bptt=16)

    def needed(count: int, batch_size: int) -> int:
        with training_together(Parallel(0, count) if count > 1 else ALONE):
            return memory_of(model, replace(training, batch_size=batch_size), 1000)

    assert needed(4, 32) == needed(4, 30) == needed(1, 8) + 4 * 1000
    assert needed(1, 9) > needed(1, 8)


@pytest.mark.parametrize(("here", "fits"), [(1, True), (2, True), (3, False)])
def test_all_processes_of_a_machine_must_fit(
    here: int, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * 10**9 + memory.PROCESS_BYTES)
    settings = Settings(training=TrainingSettings(batch_size=8, bptt=8))
    with training_together(Parallel(0, 8, here)):
        problem = memory.memory_problem(10**9, settings, torch.device("cpu"))
    assert (problem is None) == fits
    assert fits or "with 3 processes needs about 3.4 GB of memory, 2.2 GB are" in str(problem)


def test_a_wait_for_others_ends_with_an_interruption() -> None:
    """Though what is waited for never comes."""
    never, raised = threading.Event(), threading.Event()

    def check() -> None:
        raised.set()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interruptible(never.wait, check)
    assert raised.is_set()
    never.set()
    assert interruptible(never.wait, check) is True
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)


def test_a_long_wait_ends_if_process_0_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that had been stopped meanwhile did not see that its connection was closed."""

    class Gone:
        def check(self, _keys: list[str]) -> bool:
            raise RuntimeError("connection reset by peer")

    follower = Parallel(1, 2)
    follower.store = Gone()
    monkeypatch.setattr(parallel, "CHECK_SECONDS", math.inf)
    follower._check_answer(0.0)
    monkeypatch.setattr(parallel, "CHECK_SECONDS", -math.inf)
    with pytest.raises(ProcessLost), watched():
        follower._check_answer(0.0)
    first = Parallel(0, 2)
    first.store = Gone()
    first._check_answer(0.0)


def test_a_wait_is_bounded_only_after_the_request_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "STOP_SECONDS", 0.0)
    first = Parallel(0, 2)
    first._check_answer(0.0)
    trainer_of("stream", first).stop("interrupted")
    with pytest.raises(Unanswered, match="did not answer within 0 seconds of the request to stop"):
        first._check_answer(0.0)


def test_gpus_wait_as_long_as_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL would end the other processes if a program holds process 0 for ten minutes."""
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(distributed, "new_group", lambda **given: made.append(given) or "gpus")
    assert group_of_a_sum(monkeypatch) == "gpus"
    assert made == [{"backend": "nccl", "timeout": TIMEOUT}]


def test_gpus_add_by_gloo_without_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where torch refuses a group of NCCL."""
    monkeypatch.setattr(distributed, "is_nccl_available", lambda: False)
    monkeypatch.setattr(distributed, "new_group", None)
    assert group_of_a_sum(monkeypatch) == "all"


def group_of_a_sum(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the group of processes that adds a vector on a GPU."""
    groups: list[Any] = []
    done = SimpleNamespace(is_completed=lambda: True, wait=lambda: None)
    monkeypatch.setattr(
        distributed, "all_reduce", lambda _, group, **__: groups.append(group) or done
    )
    processes = Parallel(0, 2)
    processes.group = "all"  # type: ignore[assignment]
    processes._add(SimpleNamespace(is_cuda=True))  # type: ignore[arg-type]
    return groups[0]
