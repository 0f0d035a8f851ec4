"""Planning: given settings stay, open ones get a sensible value and a reason."""

import itertools
import math
from collections.abc import Callable, Collection
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import encoded_documents, encoded_stream, memory_errors, vocabulary_of

from charlm.backends import kernel_library
from charlm.config.cells import CELLS
from charlm.config.model import ModelSettings
from charlm.config.optimizers import OPTIMIZERS
from charlm.config.settings import Settings
from charlm.config.text_units import UNITS
from charlm.config.training import TrainingSettings
from charlm.errors import UsageError
from charlm.nn.devices import Precision
from charlm.nn.model import RecurrentLanguageModel, count_parameters, multiplied_weights
from charlm.tasks.task import Task
from charlm.text.boundaries import Boundaries
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.training.parallel import Parallel
from charlm.training.plan import constants, speed
from charlm.training.plan.constants import HIDDEN_SIZES
from charlm.training.plan.memory import memory_of
from charlm.training.plan.planner import Plan, plan
from charlm.training.plan.speed import (
    OPERATIONS_PER_LOGIT,
    PlanInputs,
    measured_speed,
    training_threads,
)
from charlm.training.planned_run import _shrunk
from charlm.training.processes import ALONE, training_together
from charlm.training.static_step import step_of
from charlm.training.step import Step
from charlm.training.train_state import TrainState

CPU = torch.device("cpu")
SPEED = 5e10  # operations a second; two cores
VOCABULARIES = {unit: vocabulary_of(unit=unit) for unit in ("char", "byte", "word", "bpe")}


def dataset(train: EncodedText, valid: EncodedText | None = None, unit: str = "char") -> Dataset:
    return Dataset(
        name="x", vocabulary=VOCABULARIES[unit], train=train, valid=valid,
        test=None, fingerprint="",
    )  # fmt: skip


def stream(tokens: int, valid: int = 0, unit: str = "char") -> Dataset:
    tail = encoded_stream(np.zeros(valid, np.uint8)) if valid else None
    return dataset(encoded_stream(np.zeros(tokens, np.uint8)), tail, unit)


def planned(
    data: Dataset,
    *,
    model: ModelSettings | None = None,
    measure: Callable[[], float] | None = lambda: SPEED,
    device: torch.device = CPU,
    given: Collection[str] = (),
    **training,
) -> Plan:
    settings = Settings(model=model or ModelSettings(), training=TrainingSettings(**training))
    fp32 = Precision(name="fp32", reason="test")
    inputs = PlanInputs(
        device=device, choose_precision=lambda *_: fp32, measure=measure, given=given
    )
    return plan(settings, data, inputs)


OPEN = {"training": ("bptt", "batch_size", "learning_rate", "weight_decay", "seed", "average",
                     "schedule", "ngram"),
        "model": ("num_layers", "hidden_size", "embedding_size", "dropout",
                  "input_dropout", "output_dropout", "tie_weights")}  # fmt: skip


@pytest.mark.parametrize("unit", VOCABULARIES)
@pytest.mark.parametrize("length", [{}, {"steps": 5}, {"epochs": 2.0}, {"minutes": 3.0}])
@pytest.mark.parametrize("cell", CELLS)
def test_nothing_is_left_open_and_every_choice_has_a_reason(unit: str, length, cell: str) -> None:
    """Every value that was None is filled in; `info` can say why; the run has one length."""
    result = planned(stream(50_000, unit=unit), model=ModelSettings(cell=cell), **length)
    for section, names in OPEN.items():
        for name in names:
            assert getattr(getattr(result.settings, section), name) is not None, name
            assert result.reasons[f"{section}.{name}"]
    training = result.settings.training
    assert sum(bool(getattr(training, name)) for name in ("epochs", "steps", "minutes")) == 1
    assert ("training.epochs" in result.reasons) == (not length)


GIVEN = {
    "training": {"batch_size": 3, "bptt": 7, "epochs": 1.5, "learning_rate": 0.25,
                 "weight_decay": 0.5, "seed": 11, "average": 0.5, "schedule": "step", "ngram": 3},
    "model": {"num_layers": 1, "hidden_size": 48, "embedding_size": 5, "dropout": 0.15,
              "input_dropout": 0.05, "output_dropout": 0.45, "tie_weights": False},
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "name"), [(section, name) for section, values in GIVEN.items() for name in values]
)
def test_given_settings_stay(section: str, name: str) -> None:
    """Each setting alone keeps its value, and has no reason because nothing was chosen."""
    value = GIVEN[section][name]
    if section == "model":
        result = planned(stream(50_000), model=ModelSettings(**{name: value}))
    else:
        result = planned(stream(50_000), **{name: value})
    assert getattr(getattr(result.settings, section), name) == value
    assert f"{section}.{name}" not in result.reasons


def test_complete_settings_are_left_alone_and_nothing_is_measured() -> None:
    """With all settings given, the plan is the settings, and the machine's speed is not needed."""
    model = ModelSettings(**GIVEN["model"])
    training = TrainingSettings(**GIVEN["training"], evals=3)
    result = planned(stream(50_000), model=model, measure=refused, **GIVEN["training"], evals=3)
    assert result.settings.model == model
    assert result.settings.training == training
    assert result.reasons == {}


def refused() -> float:
    raise AssertionError("the speed was measured")


def test_settings_that_rules_do_not_touch_pass_through() -> None:
    """Optimiser, schedule, clipping and the others are the user's."""
    chosen = {"optimizer": "sgd", "momentum": 0.9, "schedule": "plateau", "clip_norm": 0.25}
    result = planned(stream(5_000, 500), steps=3, stateless=True, patience=4, **chosen)
    before = asdict(TrainingSettings(steps=3, stateless=True, patience=4, **chosen))
    after = asdict(result.settings.training)
    open_names = {*OPEN["training"], "evals"}
    assert {k: v for k, v in after.items() if k not in open_names} == {
        k: v for k, v in before.items() if k not in open_names
    }


@pytest.mark.parametrize(
    "setting", [{"patience": 3}, {"schedule": "plateau"}, {"average_trigger": 2}]
)
def test_settings_that_act_on_validations_need_validation_text(setting) -> None:
    """Otherwise the rate would never fall, averaging never begin, patience never end the run."""
    with pytest.raises(UsageError, match="without validation text"):
        planned(stream(5_000), steps=3, **setting)
    planned(stream(5_000, 500), steps=3, **setting)


@pytest.mark.parametrize("length", [{}, {"steps": 5}, {"epochs": 2.0}])
def test_only_a_given_time_needs_a_measurement(length, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of a seeded run once depended on the load of the machine at its start."""
    monkeypatch.setattr(speed, "measured_speed", refused)
    result = planned(stream(50_000), measure=None, **length)
    assert result.settings.model.hidden_size
    assert not result.measured
    calls = []
    planned(stream(50_000), measure=lambda: calls.append(1) or SPEED, minutes=2.0)
    assert calls == [1]
    monkeypatch.undo()
    before = torch.get_rng_state()
    result = planned(stream(2_000), measure=None, minutes=0.5)
    assert result.measured and result.speed > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_gpu_is_measured_while_it_has_steps_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes one while the host prepares the next; waiting after each looked much slower."""
    clock, taken = [0.0], []

    def step() -> None:
        clock[0] += 0.5
        taken.append(clock[0])

    def waited(device: torch.device) -> None:
        clock[0] += 4.0

    monkeypatch.setattr(speed, "training_step", lambda *given: step)
    monkeypatch.setattr(speed, "finish_queued", waited)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    model = ModelSettings(num_layers=1, hidden_size=8, embedding_size=4)
    exact = Precision(name="fp32", reason="")
    on_cpu, on_gpu = (
        measured_speed(model, 60, (5, 3), torch.device(device), exact) for device in ("cpu", "cuda")
    )
    steps = speed.QUEUED_STEPS["cuda"]
    assert on_gpu / on_cpu == pytest.approx(steps * 4.5 / (4.0 + 0.5 * steps))


@pytest.mark.parametrize(
    ("seconds", "device", "expected"),
    [(0.01, "cpu", 1 + 5), (2.0, "cpu", 1 + 5), (0.01, "cuda", 3 + 5 * 8), (2.0, "cuda", 3 + 8)],
)
def test_long_steps_are_measured_a_few_times(
    seconds: float, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five groups of eight steps took 80 seconds on a GPU whose steps take two."""
    clock, steps = [0.0], list[float]()

    def step() -> None:
        clock[0] += seconds
        steps.append(seconds)

    monkeypatch.setattr(speed, "training_step", lambda *given: step)
    monkeypatch.setattr(speed, "finish_queued", lambda _: None)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: clock[0])
    model = ModelSettings(num_layers=1, hidden_size=8, embedding_size=4)
    exact = Precision(name="fp32", reason="")
    measured_speed(model, 60, (5, 3), torch.device(device), exact)
    assert len(steps) == expected


def test_several_processes_are_measured_with_plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that they take: captured ones would look several times faster."""
    classes: list[Any] = []
    monkeypatch.setattr(speed, "training_step", lambda *given: classes.append(given[-1]) or int)
    model = ModelSettings(num_layers=1, hidden_size=8, embedding_size=4)
    exact = Precision(name="fp32", reason="")
    for processes in (ALONE, Parallel(0, 2)):
        with training_together(processes):
            measured_speed(model, 60, (5, 3), CPU, exact)
    assert classes == [step_of, Step]


def test_a_default_plan_counts_with_the_assumed_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It depends on the number type and on the useful threads; the reason says "assumed"."""
    monkeypatch.setattr(kernel_library, "default_threads", lambda: 2)
    result = planned(stream(900_000), measure=None)
    model = replace(result.settings.model, num_layers=1, hidden_size=384)
    assert training_threads(model, 60, 32, CPU) == 2
    assert result.speed == pytest.approx(2 * constants.NOMINAL_SPEED["fp32"], rel=0.01)
    assert "120 billion operations a second (assumed)" in result.reasons["model.hidden_size"]
    assert planned(stream(900_000), measure=None, threads=1).speed == pytest.approx(
        constants.NOMINAL_SPEED["fp32"], rel=0.01
    )
    card = planned(stream(900_000), measure=None, device=torch.device("cuda"))
    assert card.speed == pytest.approx(constants.NOMINAL_SPEED_OF_DEVICE["cuda"], rel=0.01)


def test_a_default_plan_for_a_gpu_compares_no_number_types() -> None:
    """The assumed speed is one for all types; the comparison takes seconds."""
    inputs = PlanInputs(device=GPU, choose_precision=None)  # type: ignore[arg-type]
    assert plan(Settings(), stream(900_000), inputs).speed


def test_a_default_run_is_planned_like_one_of_the_default_minutes() -> None:
    """They once counted with 0.85 and 0.9 of the time for training."""
    text = stream(10_000_000)  # its passes are not rounded
    timed = planned(text, minutes=constants.DEFAULT_MINUTES)
    assert planned(text).passes == pytest.approx(timed.passes, rel=0.01)


def test_a_small_text_fills_no_more_minutes_than_it_is_worth() -> None:
    """The run makes as many passes as a default run; the reason has the given minutes."""
    result = planned(stream(50_000), minutes=30.0)
    assert result.passes == pytest.approx(planned(stream(50_000)).passes, rel=0.01)
    assert 0 < result.settings.training.minutes < 30.0
    assert "30" in result.reasons["training.minutes"]


@pytest.mark.parametrize(
    ("tokens", "minutes", "model"),
    [
        (constants.FEW_TOKENS + 1, 300.0, {}),
        (50_000, 0.1, {}),
        (50_000, 30.0, {"hidden_size": 16}),
        (50_000, 30.0, {"parameters": 20_000}),
    ],
)
def test_long_texts_short_times_and_given_sizes_use_all_minutes(
    tokens: int, minutes: float, model: dict[str, int]
) -> None:
    result = planned(stream(tokens), model=ModelSettings(**model), minutes=minutes)
    assert result.settings.training.minutes == minutes
    assert "training.minutes" not in result.reasons


@pytest.mark.parametrize(("minutes", "seconds"), [(1.0, 0.3), (3.0, 0.9), (60.0, 5.0)])
def test_a_longer_run_is_measured_for_longer(
    minutes: float, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to five seconds."""
    asked: list[float] = []
    monkeypatch.setattr(speed, "measured_speed", lambda *given: asked.append(given[-1]) or SPEED)
    planned(stream(50_000), measure=None, minutes=minutes)
    assert asked == [pytest.approx(seconds)]


GPU = torch.device("cuda")


def test_a_gpu_does_not_read_a_text_more_often_than_it_bears() -> None:
    """A minute was enough for 22 passes over Shakespeare, of which the last ten over-fitted."""
    data, fast = stream(1_000_000), {"measure": lambda: 5e13, "minutes": 1.0}
    card, own = planned(data, device=GPU, **fast), planned(data, **fast)
    assert card.passes == pytest.approx(16, rel=0.1) and own.passes > 30
    assert card.settings.training.minutes < 1.0 == own.settings.training.minutes
    assert "gain nothing" in card.reasons["training.minutes"]
    sized = planned(data, device=GPU, model=ModelSettings(hidden_size=512), **fast)
    assert sized.settings.training.minutes == 1.0


def test_a_gpu_reads_more_of_a_large_text_side_by_side() -> None:
    for tokens, rows in ((1_000_000, 64), (3_000_000, 128)):
        card = planned(stream(tokens), device=GPU, minutes=1.0)
        assert card.settings.training.batch_size == rows


def test_a_gpu_is_measured_with_the_shapes_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """It computes large layers several times faster than small ones, and layers without dropout
    between them in one call. Sizes of the user count."""
    asked: list[tuple[Any, ...]] = []

    def measure(settings, _size, shape, *_) -> float:
        asked.append((settings.num_layers, settings.hidden_size, settings.dropout, shape))
        return 5e13

    monkeypatch.setattr(speed, "measured_speed", measure)
    chosen: dict[str, Any] = {"measure": None, "minutes": 1.0, "bptt": 100}
    for device in (CPU, GPU):
        planned(stream(3_000_000), device=device, **chosen)
    for own in ({"hidden_size": 96, "dropout": 0.0}, {"num_layers": 3}):
        planned(stream(3_000_000), device=GPU, model=ModelSettings(**own), **chosen)
    assert asked == [
        (1, 384, None, (64, 16)), (2, 1024, 0.2, (100, 128)),
        (1, 96, 0.0, (100, 128)), (3, 1024, 0.2, (100, 128)),
    ]  # fmt: skip


def test_the_model_of_a_measurement_gets_no_orthogonal_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They take seconds to make for 1024 units; its weights are finite all the same."""
    monkeypatch.setattr(RecurrentLanguageModel, "reset_parameters", None)
    fp32, made = Precision(name="fp32", reason="test"), list[TrainState]()

    def step_class(state: TrainState, task: Task) -> Step:
        made.append(state)
        return Step(state, task)

    for cell in ("lstm", "esn", "lstm-layernorm"):
        settings = ModelSettings(cell=cell, num_layers=1, hidden_size=8, embedding_size=4)
        speed.training_step(settings, 5, (3, 2), CPU, fp32, step_class)()
        weights = made[-1].model.state_dict().values()
        assert all(0.0 < float(weight.abs().max()) <= 0.031 for weight in weights)


@pytest.mark.parametrize(
    ("seconds", "steps", "median"), [(0.0, 5, 3.0), (9.0, 5, 3.0), (40.0, 9, 5.0)]
)
def test_the_speed_is_the_median_of_the_measured_steps(
    seconds: float, steps: int, median: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are at least five; the first one, which allocates memory, is left out."""
    durations = iter([1e9, *range(1, 100)])
    measured: list[float] = []
    monkeypatch.setattr(
        speed, "_seconds", lambda *_: measured.append(next(durations)) or measured[-1]
    )
    settings = ModelSettings(num_layers=1, hidden_size=4, embedding_size=4, tie_weights=False)
    fp32 = Precision(name="fp32", reason="test")
    rate = measured_speed(settings, 5, (3, 2), CPU, fp32, seconds)
    assert len(measured) == steps + 1
    each = 6 * multiplied_weights(settings, 5) + OPERATIONS_PER_LOGIT * 5
    assert rate == pytest.approx(each * 3 * 2 / median)


def test_the_speed_is_measured_with_the_model_that_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An adaptive softmax computes a part of its output; state dropout runs step by step."""
    settings = ModelSettings(
        num_layers=1, hidden_size=16, embedding_size=4, tie_weights=False, adaptive_softmax=True,
        state_dropout=0.5,
    )  # fmt: skip
    fp32 = Precision(name="fp32", reason="test")
    monkeypatch.setattr(RecurrentLanguageModel, "forward", refused)
    generators: list[object] = []
    read = RecurrentLanguageModel.read
    monkeypatch.setattr(
        RecurrentLanguageModel, "read", lambda *given: generators.append(given[-1]) or read(*given)
    )
    assert measured_speed(settings, 60, (3, 2), CPU, fp32) > 0
    assert all(isinstance(generator, torch.Generator) for generator in generators)


def test_the_machine_is_measured_within_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch is halved until a step fits, by the estimate or by an error of the device."""
    shapes: list[tuple[int, int]] = []
    errors = itertools.cycle(memory_errors())

    def measure(_settings, _size, shape, *_) -> float:
        shapes.append(shape)
        if shape[1] > 4:
            raise next(errors)
        return SPEED

    monkeypatch.setattr(speed, "measured_speed", measure)
    planned(stream(500_000), measure=None, minutes=7.0)
    assert [rows for _, rows in shapes] == [32, 16, 8, 4]
    shapes.clear()
    monkeypatch.setattr("charlm.training.plan.memory.free_memory", lambda: int(1.5e8))
    planned(stream(500_000), measure=None, minutes=7.0, model=ModelSettings(mixture=200))
    assert [rows for _, rows in shapes] == [1]
    monkeypatch.setattr("charlm.training.plan.memory.free_memory", lambda: 0)
    shapes.clear()
    planned(stream(500_000), measure=None, minutes=7.0)
    assert shapes == [(1, 1)]


@pytest.mark.parametrize("minutes", [1.0, 7.0])
def test_the_machine_is_measured_as_it_will_train(
    minutes: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some processors, kernels are faster than torch with large batches only.

    A plan once measured the kernels, while its batches of 16 sequences were trained by torch.
    """
    monkeypatch.setattr(speed, "measured_speed", lambda *_: SPEED)
    rows: list[int] = []

    def choose(_model: ModelSettings, batch_size: int) -> Precision:
        rows.append(batch_size)
        return Precision(name="fp32", reason="test")

    settings = Settings(training=TrainingSettings(minutes=minutes))
    result = plan(settings, stream(500_000), PlanInputs(device=CPU, choose_precision=choose))
    assert rows == [result.settings.training.batch_size]


@pytest.mark.parametrize(("tokens", "documents"), [(3_000_000, 3), (750_000, 5)])
def test_long_documents_are_planned_like_one_text(tokens: int, documents: int) -> None:
    """Two novels once made a batch of two, and were planned like a list of names."""
    ends = np.linspace(0, tokens, documents + 1).astype(np.int64)[1:]
    text = replace(encoded_stream(np.zeros(tokens, np.uint8)), ends=ends, is_stream=False)
    several = planned(dataset(text), minutes=5.0).settings
    one = planned(stream(tokens), minutes=5.0).settings
    assert several.model == one.model
    assert several.training.average == 0.0
    for name in ("batch_size", "bptt", "learning_rate"):
        assert getattr(several.training, name) == getattr(one.training, name)


def test_a_number_of_weights_goes_with_a_clustered_output() -> None:
    """The search starts at the smallest size for which such an output can be built."""
    words = dataset(encoded_stream(np.zeros(9000, np.uint8)), unit="word")
    vocabulary = vocabulary_of(" ".join(f"w{n}" for n in range(200)), unit="word")
    data = replace(words, vocabulary=vocabulary)
    model = ModelSettings(parameters=60_000, adaptive_softmax=True, num_layers=1)
    assert planned(data, model=model, steps=3).settings.model.hidden_size >= 16
    with pytest.raises(UsageError, match=r"expected at least .*, which 16 hidden units need"):
        planned(data, model=replace(model, parameters=100), steps=3)


def test_a_number_of_weights_holds_if_the_size_follows_from_others() -> None:
    """Tied weights make the layer as wide as the embedding, but not with a mixture."""
    tied = ModelSettings(parameters=5_000, tie_weights=True, embedding_size=64, num_layers=1)
    with pytest.raises(UsageError, match="parameters is 5,000, but tied weights"):
        planned(stream(9_000), model=tied, steps=3)
    assert planned(stream(9_000), model=replace(tied, parameters=10**6), steps=3)
    mixed = replace(tied, parameters=None, embedding_size=24, mixture=3)
    assert planned(stream(9_000), model=mixed, steps=3).settings.model.hidden_size != 24


def test_only_what_a_short_text_shrinks_is_called_smaller() -> None:
    """Sizes that are small because of a short time are not."""
    minute = planned(stream(200_000), minutes=1.0)
    assert _shrunk(minute.reasons) == []
    short = planned(stream(60), steps=3)
    assert [line.split()[0] for line in _shrunk(short.reasons)] == ["bptt", "batch_size"]


def test_a_seed_is_chosen_if_none_was_given() -> None:
    """Each plan has another one, from the system and not from torch's global state."""
    before = torch.get_rng_state()
    seeds = {planned(stream(500), steps=1).settings.training.seed for _ in range(3)}
    assert len(seeds) == 3
    assert torch.equal(torch.get_rng_state(), before)
    assert all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("sizes", [{}, {"batch_size": 32, "bptt": 64}])
@pytest.mark.parametrize("tokens", [1, 2, 3, 10, 63, 64, 65, 200, 1000])
def test_tiny_texts_shrink_batch_and_window(tokens: int, sizes: dict[str, int]) -> None:
    """A window is at most the text; each sequence has about four windows; the reason says so."""
    result = planned(stream(tokens), steps=1, **sizes)
    training = result.settings.training
    assert 1 <= training.bptt <= tokens
    assert training.batch_size >= 1
    if tokens < UNITS["char"].bptt:
        assert "shorter" in result.reasons["training.bptt"]
    if not sizes:
        assert training.batch_size == 1 or training.batch_size * training.bptt * 4 <= tokens
        assert "short" in result.reasons["training.batch_size"]
    elif tokens == 10:
        assert (training.batch_size, training.bptt) == (1, 10)
        assert "training.batch_size" in result.reasons


def test_a_batch_has_at_most_a_sequence_for_each_document() -> None:
    """Short documents make larger batches, until a step has enough tokens."""
    few = dataset(encoded_documents([[2, 3, 1]] * 5))
    assert planned(few, steps=1).settings.training.batch_size == 5
    batch_sizes = [
        planned(dataset(encoded_documents([[2] * (n - 1) + [1]] * 400)), steps=1)
        .settings.training.batch_size
        for n in (4, 20, 60, 200)
    ]  # fmt: skip
    assert batch_sizes == sorted(batch_sizes, reverse=True)
    assert all(16 <= size <= 256 for size in batch_sizes)


def test_an_accelerator_gets_larger_batches() -> None:
    """Only the type of the device counts, so planning needs no accelerator."""
    sizes = [
        planned(stream(10**6), steps=1, device=torch.device(kind)).settings.training.batch_size
        for kind in ("cpu", "cuda")
    ]
    assert sizes[0] < sizes[1]


def weights_of(plans: list[dict]) -> list[int]:
    """Return the number of weights of each plan."""
    models = [planned(**values).settings.model for values in plans]
    assert all(model.hidden_size in HIDDEN_SIZES for model in models)
    return [count_parameters(model, 60) for model in models]


@pytest.mark.parametrize(
    "plans",
    [
        [{"data": stream(900_000), "measure": lambda s=s: s} for s in (1e8, 1e9, 1e10, 1e11, 1e12)],
        *([{"data": stream(n)} | length
           for n in (2, 500, 5_000, 50_000, 150_000, 500_000, 2_000_000)]
          for length in ({"steps": 5}, {"epochs": 2.0}, {"minutes": 30.0}, {})),
        *([{"data": stream(2_500_000, unit=unit), "minutes": m}
           for m in (0.2, 1.0, 3.0, 10.0, 30.0, 100.0)]
          for unit in VOCABULARIES),
    ],
    ids=["speed", "text-steps", "text-epochs", "text-minutes", "text",
         *(f"minutes-{unit}" for unit in VOCABULARIES)],
)  # fmt: skip
def test_more_of_speed_text_or_time_never_makes_a_smaller_model(plans: list[dict]) -> None:
    """Also at the change from one layer to two, which has more weights."""
    weights = weights_of(plans)
    assert weights == sorted(weights)
    assert weights[-1] > 4 * weights[0]


def test_more_text_never_makes_more_passes() -> None:
    """Small texts are read more often, none more than sixty times."""
    epochs = [planned(stream(n)).settings.training.epochs for n in (2, 10**3, 10**5, 10**6, 10**7)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs[0] <= 60
    assert epochs[-1] > 0


def test_more_passes_never_make_less_dropout() -> None:
    """A text that is read often is memorised; dropout is a multiple of 0.05 up to 0.4."""
    data = stream(100_000)
    models = [planned(data, epochs=float(n)).settings.model for n in (1, 2, 4, 8, 16, 60)]
    dropouts = [model.dropout for model in models]
    assert dropouts == sorted(dropouts)
    assert dropouts[-1] == 0.4
    assert all(round(dropout / 0.05) * 0.05 == pytest.approx(dropout) for dropout in dropouts)
    assert all(model.input_dropout == model.dropout / 2 for model in models)
    assert all(model.output_dropout == model.dropout for model in models)


@pytest.mark.parametrize(
    ("passes", "dropout"),
    [(1.0, 0.0), (3.0, 0.05), (4.0, 0.1), (10.0, 0.15), (15.0, 0.25), (20.0, 0.3), (25.0, 0.4)],
)
def test_dropout_follows_the_measured_slope(passes: float, dropout: float) -> None:
    """0.02 for each pass up to four and 0.015 beyond (experiments/LOG.md), to the next 0.05."""
    assert planned(stream(100_000), epochs=passes).settings.model.dropout == dropout


@pytest.mark.parametrize(
    ("hidden", "passes", "dropout", "decay"),
    [
        (512, 8.0, 0.15, 0.1), (512, 12.0, 0.25, 0.1), (640, 16.0, 0.4, 0.1),
        (512, 20.0, 0.5, 0.1), (512, 60.0, 0.5, 0.01), (448, 20.0, 0.3, 0.01),
    ],
)  # fmt: skip
def test_wide_layers_that_read_a_text_often_are_held_back(
    hidden: int, passes: float, dropout: float, decay: float
) -> None:
    """A GPU made 20 passes in 17 seconds, and its model was best after 8 of them."""
    model = ModelSettings(num_layers=2, hidden_size=hidden)
    settings = planned(stream(1_000_000), model=model, epochs=passes).settings
    assert (settings.model.dropout, settings.training.weight_decay) == (dropout, decay)


@pytest.mark.parametrize(
    ("length", "decay"), [({"epochs": 2.0}, 0.01), ({"epochs": 6.0}, 0.1), ({"epochs": 13.0}, 0.01)]
)
def test_a_text_that_is_read_several_times_gets_more_weight_decay(length, decay: float) -> None:
    """Fewer passes do not need it, more have dropout (experiments/LOG.md); a given decay stays."""
    assert planned(stream(100_000), **length).settings.training.weight_decay == decay
    given = planned(stream(100_000), weight_decay=0.5, **length)
    assert given.settings.training.weight_decay == 0.5


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_only_the_decoupled_weight_decay_grows(optimizer: str) -> None:
    """Elsewhere it is an L2 penalty, which other optimisers do not have by default."""
    result = planned(stream(100_000, 5_000), optimizer=optimizer, epochs=7.0)
    usual = OPTIMIZERS[optimizer].weight_decay
    grown = constants.WEIGHT_DECAY if optimizer == "adamw" else usual
    assert result.settings.training.weight_decay == grown
    names = dataset(encoded_documents([[0] * 7] * 2_000), encoded_documents([[0] * 7] * 50))
    result = planned(names, optimizer=optimizer, epochs=7.0)
    assert result.settings.training.weight_decay == usual


@pytest.mark.parametrize("minutes", [1.0, 3.0, 10.0, 30.0])
def test_minutes_make_the_passes_that_their_operations_allow(minutes: float) -> None:
    """90 % of the time, at 6 operations for each weight and token, and those of the softmax.

    The dropout is for those passes.
    """
    data = stream(900_000)
    result = planned(data, minutes=minutes)
    model = result.settings.model
    entries = len(data.vocabulary)
    each = 6 * multiplied_weights(model, entries) + OPERATIONS_PER_LOGIT * entries
    operations = each * 900_000 * result.passes
    assert operations == pytest.approx(constants.TRAINING_FRACTION * 60 * minutes * result.speed)
    assert result.speed == pytest.approx(SPEED, rel=0.02)  # less the fraction that is padding
    assert model.dropout == planned(data, epochs=result.passes).settings.model.dropout


def test_tied_weights_get_equal_sizes() -> None:
    """Whichever of the two is given, and when neither is."""
    for given in ({}, {"hidden_size": 40}, {"embedding_size": 40}):
        model = planned(
            stream(50_000), model=ModelSettings(tie_weights=True, **given), steps=1
        ).settings.model
        assert model.hidden_size == model.embedding_size
        assert not given or model.hidden_size == 40


@pytest.mark.parametrize(
    ("tokens", "speed"), [(900_000, 5e9), (900_000, 2e10), (900_000, 1e11), (4_000_000, 4e6)]
)
def test_a_default_run_takes_about_its_minutes(tokens: int, speed: float) -> None:
    """6 operations for each weight and token, and those of the softmax.

    It makes a hundredth of a pass if one would take too long.
    """
    result = planned(stream(tokens), measure=lambda: speed)
    model = result.settings.model
    gates, hidden, width = 4, model.hidden_size, model.embedding_size
    weights = gates * hidden * (width + hidden)
    weights += (model.num_layers - 1) * gates * 2 * hidden * hidden
    entries = len(VOCABULARIES["char"])
    operations = 6 * (weights + hidden * entries) + OPERATIONS_PER_LOGIT * entries
    seconds = operations * result.settings.training.epochs * tokens / speed
    assert 0.8 * 60 * constants.DEFAULT_MINUTES <= seconds <= 60 * constants.DEFAULT_MINUTES


@pytest.mark.parametrize("entries", [1_000, 10_000, 40_000])
def test_a_plan_knows_what_the_softmax_of_a_large_vocabulary_takes(entries: int) -> None:
    """A small network is not faster by as much as it has fewer weights."""
    data = words(3_000_000, entries)
    small, large = (
        planned(data, model=ModelSettings(num_layers=1, hidden_size=hidden), minutes=1.0).passes
        for hidden in (32, 256)
    )
    gain = small / large
    each = [
        6 * multiplied_weights(ModelSettings(
            num_layers=1, hidden_size=hidden, embedding_size=hidden, tie_weights=True), entries)
        for hidden in (32, 256)
    ]  # fmt: skip
    softmax = OPERATIONS_PER_LOGIT * entries
    assert gain == pytest.approx((each[1] + softmax) / (each[0] + softmax), rel=1e-6)
    assert gain < 0.5 * each[1] / each[0]


def test_rare_words_do_not_make_a_network_small() -> None:
    """With the same speed, the product of its size and the vocabulary may grow."""
    hidden = {
        entries: planned(words(3_000_000, entries), measure=lambda: 4e11, minutes=1.0)
        .settings.model.hidden_size
        for entries in (2_000, 10_000, 40_000)
    }  # fmt: skip
    assert hidden[2_000] > hidden[10_000] > hidden[40_000]
    assert 40_000 * hidden[40_000] > 1.5 * 10_000 * hidden[10_000]


def words(tokens: int, entries: int) -> Dataset:
    """Return a text of words with a vocabulary of this size."""
    text = " ".join(f"w{number}" for number in range(entries))
    vocabulary = vocabulary_of(text, "word", max_size=entries, min_count=1)
    train = encoded_stream(np.zeros(tokens, np.uint16))
    return Dataset(
        name="x", vocabulary=vocabulary, train=train, valid=None, test=None, fingerprint=""
    )


def test_a_long_validation_text_is_read_less_often() -> None:
    """At least once, and as often as the user asked for."""
    short, long = stream(50_000, valid=50), stream(500, valid=5_000)
    assert planned(short, epochs=2.0).settings.training.evals == 8
    assert planned(long, epochs=2.0, evals=40).settings.training.evals == 40
    usual = planned(long, epochs=2.0, evals=8, given=["training.evals"])
    assert usual.settings.training.evals == 8  # though it is the default
    result = planned(long, epochs=2.0)
    assert result.settings.training.evals == 1
    assert "validation" in result.reasons["training.evals"]


def test_n_grams_are_fitted_beside_the_network_unless_the_text_is_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Longer ones for characters; none without a text for their weight; as the user says."""
    for unit, order in (("char", 7), ("word", 5)):
        assert planned(stream(3_000, unit=unit, valid=50)).settings.training.ngram == order
    assert planned(stream(3_000)).settings.training.ngram == 0
    assert planned(stream(3_000, valid=50), ngram=2).settings.training.ngram == 2
    monkeypatch.setattr(constants, "MAX_TOKENS_OF_NGRAMS", 2_000)
    result = planned(stream(3_000, valid=50))
    assert result.settings.training.ngram == 0
    assert "more than 2,000 training tokens" in result.reasons["training.ngram"]


def test_a_long_validation_text_is_read_in_part_by_a_short_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A minute of training was followed by three minutes of reading 800,000 words."""
    monkeypatch.setattr(constants, "MIN_VALID_TOKENS", 100)
    text = stream(3_000, valid=1_000)

    def tokens(**training) -> int | None:
        return planned(text, **training).settings.training.valid_tokens

    assert tokens(epochs=2.0) is None
    assert tokens(epochs=1.0) == 750
    assert tokens(epochs=0.1) == 100
    assert tokens(epochs=0.1, valid_tokens=900) == 900
    assert planned(stream(3_000), epochs=0.1).settings.training.valid_tokens is None
    reason = planned(text, epochs=1.0).reasons["training.valid_tokens"]
    assert reason == "of 1,000: reading all takes long beside 3,000 training tokens"
    few = planned(text, epochs=1.0, valid_tokens=150).settings.training.evals
    assert few == 3_000 // (4 * 150)  # validations of a part cost as much as the part
    assert planned(text, epochs=1.0).settings.training.evals == 1


def test_every_setting_of_training_is_known_to_these_tests() -> None:
    """A new open setting must be planned: its default is None and it is filled in above."""
    names = {f.name for f in fields(TrainingSettings) if f.default is None}
    by_text = {"epochs", "steps", "minutes", "threads", "vectors", "log", "valid_tokens"}
    assert names == {*OPEN["training"], *by_text}
    names = {f.name for f in fields(ModelSettings) if f.default is None}
    by_cell = {"mogrifier_rank", "recurrent_init", "input_init", "last_hidden_size"}
    assert names == {*OPEN["model"], "parameters", *by_cell}


@pytest.mark.parametrize("unit", VOCABULARIES)
def test_words_and_bpe_are_tied_where_sizes_allow(unit: str, monkeypatch) -> None:
    """The rule does not tie unequal sizes, and never overrides the user."""
    monkeypatch.setattr(constants, "MAX_CHARACTER_TYPES", 0)
    large = unit in ("word", "bpe")
    data = stream(50_000, unit=unit)
    assert planned(data, steps=1).settings.model.tie_weights is large
    apart = ModelSettings(hidden_size=8, embedding_size=4)
    assert planned(data, model=apart, steps=1).settings.model.tie_weights is False
    no = ModelSettings(tie_weights=False)
    assert planned(data, model=no, steps=1).settings.model.tie_weights is False


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("unit", ["char", "word"])
@pytest.mark.parametrize("most", [2_000, 60_000])
def test_a_budget_of_weights_is_used_but_not_exceeded(cell: str, unit: str, most: int) -> None:
    """The largest hidden size that fits, for every cell; one unit more would be too many."""
    model = ModelSettings(cell=cell, parameters=most)
    result = planned(stream(50_000, unit=unit), model=model, steps=3).settings.model
    vocab_size = len(VOCABULARIES[unit])
    assert result.parameters is None
    assert result.hidden_size
    larger = planned(
        stream(50_000, unit=unit),
        model=replace(model, parameters=None, hidden_size=result.hidden_size + 1),
        steps=3,
    ).settings.model
    assert count_parameters(result, vocab_size) <= most < count_parameters(larger, vocab_size)


def test_a_budget_that_no_model_fits_is_refused() -> None:
    """With what the smallest one needs; and with a hidden size as well it is a contradiction."""
    with pytest.raises(UsageError, match=r"parameters is 3; expected at least \d+"):
        planned(stream(50_000), model=ModelSettings(parameters=3), steps=3)
    with pytest.raises(UsageError, match="give one"):
        ModelSettings(parameters=3000, hidden_size=8)
    needs_no_length = planned(stream(2000), model=ModelSettings(parameters=20_000), measure=None)
    assert count_parameters(needs_no_length.settings.model, len(VOCABULARIES["char"])) <= 20_000


def test_the_decay_of_an_average_stays_below_one() -> None:
    """A fast machine may make any number of steps in the minutes."""
    names = encoded_documents([[2, 3, 4, 1]] * 500)
    data = replace(stream(500), train=names, boundaries=Boundaries(document="line"))
    result = planned(data, minutes=600.0, measure=lambda: 1e15)
    assert 0.9 <= result.settings.training.average < 1.0


def test_an_elman_network_gets_a_smaller_rate() -> None:
    """At the usual one it learns nothing."""
    rates = {
        cell: planned(stream(50_000), model=ModelSettings(cell=cell)).settings.training
        for cell in ("rnn", "gru", "lstm")
    }
    assert rates["gru"].learning_rate == rates["lstm"].learning_rate / 2
    assert rates["rnn"].learning_rate == rates["gru"].learning_rate / 4


def test_a_few_words_are_planned_like_letters() -> None:
    """Symbols between blanks, as Penn Treebank's characters come: windows, sizes, not tied."""
    letters, words = (planned(stream(600_000, unit=unit), minutes=9.0) for unit in ("char", "word"))
    for result in (letters, words):
        assert result.settings.training.bptt == UNITS["char"].bptt
        assert result.settings.model.tie_weights is False
    assert letters.settings.model.embedding_size == words.settings.model.embedding_size


@pytest.mark.parametrize(("speed", "layers"), [(1e10, 1), (5e10, 1), (5e12, 2)])
def test_one_layer_until_it_would_be_too_wide(speed: float, layers: int) -> None:
    """A plan has two for a long or unknown time, and always the number that the user gave."""
    data = stream(3_000_000)
    model = planned(data, minutes=3.0, measure=lambda: speed).settings.model
    assert model.num_layers == layers
    assert layers == 2 or model.hidden_size <= constants.MAX_HIDDEN_OF_ONE_LAYER
    assert planned(data, steps=9).settings.model.num_layers == 2
    three = ModelSettings(num_layers=3)
    assert planned(data, model=three, minutes=3.0).settings.model.num_layers == 3


def test_passes_and_memory_are_reported() -> None:
    """Passes as given; memory grows with rows, window and size."""
    data = stream(50_000)
    assert planned(data, epochs=3.0).passes == 3.0
    result = planned(data, steps=1250, batch_size=5, bptt=10)  # the random start parts one row
    assert result.passes == pytest.approx(1.0, rel=0.01)
    result = planned(data, steps=100, batch_size=4, bptt=10)
    small = result.memory
    for more in ({"batch_size": 400}, {"bptt": 1000}):
        assert planned(data, steps=100, **({"batch_size": 4, "bptt": 10} | more)).memory > small
    wide = ModelSettings(hidden_size=2048)
    assert planned(data, model=wide, steps=100, batch_size=4, bptt=10).memory > 2 * small


NAMES = dataset(encoded_documents([[2] * (1 + n % 12) + [1] for n in range(3000)]))


def test_padding_counts_neither_as_text_nor_as_work() -> None:
    """Documents of 2 to 13 tokens: steps make the plan that as many passes do."""
    names = replace(NAMES, boundaries=Boundaries(document="line"))
    rows = planned(names, steps=1).settings.training.batch_size
    by_steps = planned(names, steps=3 * math.ceil(3000 / rows))
    by_passes = planned(names, epochs=3.0)
    assert by_steps.passes == pytest.approx(3.0, rel=0.02)
    assert by_steps.settings.model == by_passes.settings.model
    averages = [result.settings.training.average for result in (by_steps, by_passes)]
    assert averages[0] == pytest.approx(averages[1], abs=1e-3)
    as_stream = replace(NAMES, train=encoded_stream(NAMES.train.ids))
    model = ModelSettings(hidden_size=64, num_layers=1)
    padded, full = (planned(data, model=model, minutes=0.01) for data in (names, as_stream))
    mean, longest = 7.5, 13.0  # the share of a window that is filled
    assert padded.passes == pytest.approx(full.passes * mean / longest, rel=0.05)


@pytest.mark.parametrize(
    ("tokens", "given", "expected"),
    [
        (900_000, {"minutes": 3.0}, (32, 64)),
        (900_000, {"minutes": 1.0}, (16, 32)),
        (900_000, {"minutes": 1.0, "stateless": True}, (16, 64)),
        (900_000, {"minutes": 1.0, "batch_size": 5, "bptt": 7}, (5, 7)),
        (900_000, {"minutes": 5.0}, (32, 64)),
        (200_000, {"minutes": 5.0}, (16, 32)),
        (200_000, {"epochs": 50.0}, (32, 64)),
    ],
)
def test_short_runs_and_texts_read_many_times_take_smaller_steps(
    tokens: int, given: dict, expected: tuple[int, int]
) -> None:
    """On a CPU batch and window are halved below two minutes, unless the run is stateless."""
    result = planned(stream(tokens), **given)
    assert (result.settings.training.batch_size, result.settings.training.bptt) == expected
    assert tokens > 200_000 or "epochs" in given or "many times" in result.reasons["training.bptt"]


@pytest.mark.parametrize(("weights", "megabytes"), [(11_092_748, 297), (42_663_948, 978)])
def test_the_memory_of_large_models_is_as_measured(weights: int, megabytes: int) -> None:
    """Peaks of LSTMs of one layer with 1600 and 3200 units, above that of a small model.

    The story: four numbers for each weight were assumed, and torch's own copies left out.
    """
    model = ModelSettings(cell="lstm", num_layers=1, hidden_size=1600)
    needed = memory_of(model, TrainingSettings(batch_size=1, bptt=2), weights)
    assert needed == pytest.approx(1e6 * megabytes, rel=0.18)
    averaged = memory_of(model, TrainingSettings(batch_size=1, bptt=2, average=0.9), weights)
    assert averaged - needed == 4 * weights
