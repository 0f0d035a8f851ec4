"""Measure what the planner's constants rest on: settings with equal time on several corpora.

    CHARLM_DATA=folder python scripts/measure_plans.py speeds
    CHARLM_DATA=folder python scripts/measure_plans.py runs [--share 0/2] [--threads 1]
    CHARLM_DATA=folder python scripts/measure_plans.py ngrams
    CHARLM_DATA=folder python scripts/measure_plans.py runs --design machine
    python scripts/measure_plans.py table
    python scripts/measure_plans.py --design validation verdict

`--design passes` varies the passes over small texts. `--design validation` compares the planner's
choice with eight random points, at equal time, on texts that the constants do not come from.
`--design plans` trains the planner's choice on further texts, for as many passes as a machine of
300 billion operations a second makes in that time. `--design machine` adds the points of another
machine, such as one with a GPU or with AMX: the choice of the planner at the speed that it measures
there, for the passes that fit into the time. Then `ngrams`, and `fit_expectation.py`.

`speeds` measures the training speed of each point; keep the machine idle. `runs` trains each point
for the steps that its minutes allow at that speed, so results do not depend on other load, and
several workers can share the points. Results in the file are not measured again. Validation texts
are cut to 100,000 tokens (WikiText-2: 20,000). Figures are calibrated, as in `charlm train`.
`ngrams` adds the loss of n-grams on each of these texts, which `fit_expectation.py` needs. Records
of the kind "recipe" are whole trainings of RESULTS.md, judged on all of the validation text.
"""

import argparse
import copy
import fcntl
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch

from charlm.backends.processor import processor_name
from charlm.config.settings import settings_from
from charlm.inference.adapt.calibration import sample_of, text_logits
from charlm.inference.likelihood import evaluate
from charlm.ngrams.kneser_ney import ngram_nats
from charlm.nn.devices import choose_device, choose_precision
from charlm.nn.encoder import Encoder
from charlm.nn.heap import keep_freed_memory
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.tasks.language_model import language_model_task
from charlm.text.batches import Batch
from charlm.text.dataset import Dataset, load_dataset
from charlm.training.plan.planner import plan
from charlm.training.plan.speed import PlanInputs, set_threads, training_threads
from charlm.training.pretrained import set_output_bias
from charlm.training.trainer import Trainer
from plan_points import (
    FURTHER,
    LEFT_OUT,
    RANDOM_POINTS,
    TEXTS,
    Point,
    design,
    make_point,
    random_point,
    small,
)

RESULTS = Path(__file__).parent / "experiments" / "plans.jsonl"
DEVICE = choose_device("auto")
TRAINING_SHARE = 0.95
"""Fraction of the minutes for training; the rest is for validation."""
SPEED_SECONDS, ROUNDS = 1.0, 3
QUIET_SPEED = 3e11
"""Operations per second that plans of further texts assume."""


def validation(lengths: tuple[float, ...] = (1.0, 3.0)) -> Iterator[tuple[str, float, Point]]:
    """Yield the planner's point and random points for each held-out text and each time."""
    for minutes in lengths:
        for name in LEFT_OUT:
            yield name, minutes, planned_point(name, minutes)
            for number in range(RANDOM_POINTS):
                yield name, minutes, random_point(number)


def plans(lengths: tuple[float, ...] = (1.0, 3.0)) -> Iterator[tuple[str, float, Point]]:
    """Yield the planner's point, with its passes, for each further text and each time.

    A short text has one point, since all its useful passes take less than the shortest time.
    """
    known: list[tuple[str, Point]] = []
    for minutes in lengths:
        for name in FURTHER:
            point = planned_point(name, minutes, lambda: QUIET_SPEED)
            if (name, point) not in known:
                known.append((name, point))
                yield name, minutes, point


def machine(
    lengths: tuple[float, ...] = (1.0, 3.0), names: Sequence[str] = tuple(TEXTS)
) -> Iterator[tuple[str, float, Point]]:
    """Yield the planner's point, with its passes, on this machine for each text and each time."""
    here = {"machine": f"{DEVICE.type}, {processor_name()}"}
    if DEVICE.type == "cuda":
        here = {"machine": torch.cuda.get_device_name()}
    for minutes in lengths:
        for name in names:
            yield name, minutes, planned_point(name, minutes, here=here)


def planned_point(
    name: str,
    minutes: float,
    measure: Callable[[], float] | None = None,
    here: Point | None = None,
) -> Point:
    """Return the point that the planner chooses, from the results if it is there.

    `here` names the machine in the point, which then has passes.
    """
    place = here or {}
    known = result_of("plan", name, minutes, place)
    if known:
        return dict(known["chosen"])
    settings = settings_from(
        TEXTS[name].settings().to_dict() | {"training": {"minutes": minutes, "seed": 1}}
    )
    planned = plan(settings, dataset_of(name), inputs_of(name, measure))
    model, training = planned.settings.model, planned.settings.training
    assert model.num_layers and model.hidden_size and training.batch_size and training.bptt
    chosen = make_point(
        model.num_layers, model.hidden_size, training.batch_size, training.bptt,
        training.learning_rate or 0.0, model.dropout or 0.0,
    ) | {"unigrams": True, "planned": True} | place  # fmt: skip
    if here or measure or training.minutes != minutes:  # the text is too small for that time
        chosen["passes"] = round(planned.passes, 3)
    add("plan", name, minutes, place, {"chosen": chosen})
    return chosen


DESIGNS = {"rules": design, "passes": small, "validation": validation, "plans": plans,
           "machine": machine}  # fmt: skip


@cache
def dataset_of(name: str) -> Dataset:
    """Return a corpus with its validation text cut."""
    settings = TEXTS[name].settings()
    dataset = load_dataset(settings.corpus, settings.vocabulary)
    assert dataset.valid is not None
    return replace(dataset, valid=sample_of(dataset.valid, TEXTS[name].judged_on[0]))


def trainer_of(name: str, point: Point, steps: int) -> Trainer:
    """Return a trainer at a point. The planner chooses the settings that the point leaves open."""
    dataset, evals = dataset_of(name), 10 if "passes" in point else 3
    model = {key: point[key] for key in ("num_layers", "hidden_size", "dropout")}
    training = {key: point[key] for key in ("batch_size", "bptt", "learning_rate")}
    length = {"epochs": point["passes"]} if "passes" in point else {"steps": steps}
    letters = len(dataset.vocabulary) < 1000
    if letters and TEXTS[name].unit == "word":
        model |= {"tie_weights": False, "embedding_size": min(128, point["hidden_size"])}
    settings = settings_from(
        TEXTS[name].settings().to_dict()
        | {"model": model, "training": training | length | {"evals": evals, "seed": 1}}
    )
    planned = plan(settings, dataset, inputs_of(name)).settings
    network = RecurrentLanguageModel(planned.model, len(dataset.vocabulary))
    network.reset_parameters(torch.Generator().manual_seed(1))
    if point.get("unigrams"):
        set_output_bias(network, dataset.train)
    network.to(DEVICE)
    if "machine" in point:
        set_threads(
            training_threads(planned.model, len(dataset.vocabulary), point["batch_size"], DEVICE)
        )
    chosen = precision(name, planned.model, point["batch_size"])
    task = language_model_task(dataset, planned.training, chosen)
    return Trainer(network, task, planned.training)


def inputs_of(name: str, measure: Callable[[], float] | None = None) -> PlanInputs:
    """Return what the plan for a text depends on."""
    return PlanInputs(device=DEVICE, choose_precision=partial(precision, name), measure=measure)


def precision(name: str, model: Any, rows: int) -> Any:
    """Return the precision that `charlm train` would choose for batches of this many sequences."""
    return choose_precision("auto", [model], len(dataset_of(name).vocabulary), DEVICE, rows=rows)


def speeds(points: list[tuple[str, Point]]) -> Iterator[tuple[str, Point, float]]:
    """Yield each point with its tokens per second: the fastest of ROUNDS rounds over all points.

    No machine is quite idle, and a disturbance lasts for seconds.
    """
    best: dict[int, float] = {}
    trainers = [trainer_of(name, point, 10**6) for name, point in points]
    batches = [_for_ever(trainer) for trainer in trainers]
    for _ in range(ROUNDS):
        for at, trainer in enumerate(trainers):
            times: list[tuple[float, int]] = []
            begun = time.perf_counter()
            while len(times) <= 6 or time.perf_counter() - begun < SPEED_SECONDS:
                batch = next(batches[at])
                start = time.perf_counter()
                trainer.step([batch])
                times.append((time.perf_counter() - start, batch.tokens))
            seconds = statistics.median(s for s, _ in times[2:])
            pace = statistics.median(tokens for _, tokens in times[2:]) / seconds
            best[at] = max(pace, best.get(at, 0.0))
    for at, (name, point) in enumerate(points):
        yield name, point, best[at]


def _for_ever(trainer: Trainer) -> Iterator[Batch]:
    """Yield the batches of pass after pass, since a short text has few in one."""
    while True:
        yield from trainer.task.batches.epoch(trainer.counters.position)


def result(name: str, point: Point, minutes: float, tokens_per_second: float) -> dict[str, Any]:
    """Train for the passes or minutes of a point and return its calibrated results."""
    dataset = dataset_of(name)
    tokens = tokens_per_second * 60.0 * minutes * TRAINING_SHARE
    lengths = len(dataset.train.ids) / max(dataset.train.documents, 1)
    in_a_step = point["batch_size"] * min(point["bptt"], lengths)
    trainer = trainer_of(name, point, max(10, round(tokens / in_a_step)))
    best: list[RecurrentLanguageModel] = []

    def keep(model: Encoder) -> None:
        """Keep the best weights so far."""
        best[:] = [cast(RecurrentLanguageModel, copy.deepcopy(model))]

    trainer.on_best = keep
    for _ in trainer.run():
        pass
    assert dataset.valid is not None and trainer.counters.best is not None
    part = sample_of(dataset.valid, TEXTS[name].judged_on[1])
    scale = text_logits(TorchBackend(best[0]), part).best_factor()
    calibrated = evaluate(TorchBackend(best[0], scale), dataset.valid)
    return {
        "nats": round(calibrated.nats_per_token, 5),
        "nats_uncalibrated": round(trainer.counters.best.nats_per_token, 5),
        "passes": round(trainer.counters.tokens / len(dataset.train.ids), 3),
        "steps": trainer.counters.step,
        "precision": precision(name, trainer.model.settings, point["batch_size"]).name,
        "weights": trainer.model.parameter_count(),
        "train_tokens": len(dataset.train.ids),
        "vocab_size": len(dataset.vocabulary),
    }


@cache
def plain_nats(name: str) -> float:
    """Return the nats per token of n-grams on the text."""
    dataset = dataset_of(name)
    assert dataset.valid is not None
    return ngram_nats(dataset.train.ids, dataset.valid.ids, len(dataset.vocabulary))


def main() -> None:
    """Measure missing results, or print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speeds", "runs", "ngrams", "table", "verdict"])
    parser.add_argument("--share", default="0/1", help="this worker / all workers, such as 0/2")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--texts", nargs="*", default=list(TEXTS), choices=list(TEXTS))
    parser.add_argument("--design", default="rules", choices=list(DESIGNS))
    parser.add_argument("--minutes", type=float, help="only points with this number of minutes")
    options = parser.parse_args()
    if options.what == "ngrams":
        for name in options.texts:
            add("ngram", name, None, {}, {"nats": round(plain_nats(name), 5)})
        return
    chosen = DESIGNS[options.design]()
    if options.design == "validation" and options.minutes:
        chosen = validation((options.minutes,))
    if options.design == "machine":
        lengths = (options.minutes,) if options.minutes else (1.0, 3.0)
        chosen = machine(lengths, options.texts)
    points = [
        (name, minutes, one)
        for name, minutes, one in chosen
        if name in options.texts and options.minutes in (None, minutes)
    ]
    if options.what in ("table", "verdict"):
        (print_table if options.what == "table" else print_verdict)(points)
        return
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    number, of = map(int, options.share.split("/"))
    if options.what == "speeds":
        missing = []
        for name, minutes, one in points:
            pair = name, shape_of(one)
            done = result_of("speed", name, None, pair[1]) or result_of("run", name, minutes, one)
            if not done and pair not in missing:
                missing.append(pair)
        for name, one, pace in speeds(missing):
            add("speed", name, None, one, {"tokens_per_second": round(pace)})
        return
    for at, (name, minutes, point) in enumerate(points):
        if at % of == number and not result_of("run", name, minutes, point):
            known = result_of("speed", name, None, shape_of(point))
            if "passes" in point:
                known = {"tokens_per_second": 0}
            if not known:
                raise SystemExit(f"no speed of {name} {point}; run: measure_plans.py speeds")
            measured = result(name, point, minutes, known["tokens_per_second"])
            add("run", name, minutes, point, measured)


def shape_of(point: Point) -> Point:
    """Return the settings of a point that affect its speed."""
    return {
        key: value for key, value in point.items() if key not in ("unigrams", "planned", "passes")
    }


def records() -> list[dict[str, Any]]:
    """Return all results."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def result_of(kind: str, name: str, minutes: float | None, point: Point) -> dict[str, Any] | None:
    """Return the result of a point, or None."""
    key = {"kind": kind, "text": name, "minutes": minutes, "point": point}
    return next((r for r in reversed(records()) if key.items() <= r.items()), None)


def add(
    kind: str, name: str, minutes: float | None, point: Point, measured: dict[str, Any]
) -> None:
    """Append a result to the file, under a lock that other workers respect."""
    place = {"kind": kind, "text": name, "minutes": minutes, "point": point}
    machine = {"machine": processor_name(), "cores": os.cpu_count(), "torch": torch.__version__}
    line = json.dumps(place | measured | machine | {"date": date.today().isoformat()})
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line + "\n")
    print(line, flush=True)


def print_table(points: list[tuple[str, float, Point]]) -> None:
    """Print a row for each point, the best of each text and time first."""
    head = "size | rows x batch | rate | dropout | frequencies | tokens/s | passes | nats |"
    print(f"| text | minutes | {head}")
    print("|---|---:|---|---|---:|---:|---|---:|---:|---:|")
    groups = dict.fromkeys((name, minutes) for name, minutes, _ in points)
    for name, minutes in groups:
        runs = [
            r for r in records()
            if (r["kind"], r["text"], r["minutes"]) == ("run", name, minutes)
        ]  # fmt: skip
        for run in sorted(runs, key=lambda r: r["nats"]):
            p, pace = run["point"], result_of("speed", name, None, shape_of(run["point"]))
            print(
                f"| {name} | {minutes:g} | {p['num_layers']} x {p['hidden_size']} "
                f"| {p['batch_size']} x {p['bptt']} | {p['learning_rate']:g} | {p['dropout']:g} "
                f"| {'yes' if p.get('unigrams') else 'no'} "
                f"| {pace['tokens_per_second'] if pace else 0:,} | {run['passes']:.1f} "
                f"| {run['nats']:.4f} |"
            )


def print_verdict(points: list[tuple[str, float, Point]]) -> None:
    """Print the plan beside the best random point for each text and time."""
    print("| text | minutes | plan | nats | best random of | nats | the plan needs |")
    print("|---|---:|---|---:|---|---:|---:|")
    for name, minutes in dict.fromkeys((name, minutes) for name, minutes, _ in points):
        group = [one for at, length, one in points if (at, length) == (name, minutes)]
        done = [run for one in group if (run := result_of("run", name, minutes, one))]
        own = next((run for run in done if run["point"].get("planned")), None)
        others = [run for run in done if not run["point"].get("planned")]
        if own and others:
            best = min(others, key=lambda run: run["nats"])
            more = 100.0 * (own["nats"] / best["nats"] - 1.0)
            print(
                f"| {name} | {minutes:g} | {size_of(own['point'])} | {own['nats']:.4f} "
                f"| {len(others)}: {size_of(best['point'])} | {best['nats']:.4f} | {more:+.1f} % |"
            )


def size_of(one: Point) -> str:
    """Return layers, hidden size, rows and batch of a point."""
    shape = f"{one['num_layers']} x {one['hidden_size']}, {one['batch_size']} x {one['bptt']}"
    return f"{shape}, {one['learning_rate']:g}"


if __name__ == "__main__":
    main()
