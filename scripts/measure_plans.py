"""The measurements behind the planner's rules: settings tried at equal time on several corpora.

    CHARLM_DATA=folder python scripts/measure_plans.py speeds
    CHARLM_DATA=folder python scripts/measure_plans.py runs [--share 0/2] [--threads 1]
    python scripts/measure_plans.py table
    python scripts/measure_plans.py --design validation verdict

With `--design passes`: how often small texts are best read. With `--design validation`: on texts
that the rules were not made from, the planner's own choice and eight random ones, each with the
same time.

`speeds` measures what each point trains in a second (keep the machine quiet). `runs` trains each
for as many steps as its minutes hold at that speed, so its results do not depend on what else runs
meanwhile; several can share the work. What is in the file of results is not measured again.
Validation texts are cut to 100,000 tokens (WikiText-2: 20,000); figures are calibrated, as those of
`charlm train` are.
"""

import argparse
import copy
import fcntl
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.settings import Settings, settings_from
from charlm.inference.adapt.calibration import fit_scale, sample_of
from charlm.inference.likelihood import evaluate
from charlm.ngram.baseline import ngram_nats
from charlm.nn.devices import choose_precision, keep_freed_memory, processor_name
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.tasks.language_model import language_model_task
from charlm.text.batches import Batch
from charlm.text.dataset import Dataset, load_dataset
from charlm.training.plan.planner import plan
from charlm.training.pretrained import begin_with_frequencies
from charlm.training.trainer import Trainer

RESULTS = Path(__file__).parent / "experiments" / "plans.jsonl"
DATA = Path(os.environ.get("CHARLM_DATA", "data"))
CPU = torch.device("cpu")
TRAINING_SHARE = 0.95
"""Share of the minutes that is spent on training; the rest is validation."""
SPEED_SECONDS, ROUNDS = 1.0, 3

Point = dict[str, Any]


@dataclass(frozen=True)
class Text:
    """A corpus of the grid: its settings, and the point that the others vary by one thing."""

    files: tuple[str, ...]
    valid: str | None = None
    document: str | None = None
    unit: str = "char"
    words: str = "text"
    centre: tuple[int, int, int, float] = (256, 16, 64, 4e-3)  # hidden, rows, batch, rate
    judged_on: tuple[int, int] = (100_000, 40_000)  # tokens, of which for calibration

    def settings(self) -> Settings:
        """As `charlm train` would be told."""
        corpus: dict[str, Any] = {"document": self.document} if self.document else {}
        if self.valid:
            corpus["valid"] = (str(DATA / self.valid),)
        return Settings(
            corpus=CorpusSettings(sources=tuple(str(DATA / f) for f in self.files), **corpus),
            vocabulary=VocabularySettings(unit=self.unit, words=self.words),
        )


TEXTS = {
    "shakespeare": Text(("tinyshakespeare/input.txt",)),
    "ptb-char": Text(
        ("ptb/ptb.char.train.txt",), "ptb/ptb.char.valid.txt", "stream", "word", "whitespace"
    ),
    "ptb-word": Text(
        ("ptb/ptb.train.txt",), "ptb/ptb.valid.txt", "stream", "word", "whitespace",
        centre=(200, 16, 35, 4e-3),
    ),
    "names": Text(("names/names.txt",), document="line", centre=(192, 64, 16, 4e-3)),
    "japanese": Text(("multilingual/ja_soseki.txt",)),
    "english": Text(("multilingual/en.txt",)),
    "arabic": Text(("multilingual/ar.txt",)),
    "russian": Text(("multilingual/ru.txt",)),
    "prose": Text(("prose20/prose20.valid.txt",)),
    "wikitext2": Text(
        ("wikitext2/train.txt",), "wikitext2/valid.txt", "stream", "word", "whitespace",
        judged_on=(20_000, 5_000),
    ),
}  # fmt: skip
SMALL = ("english", "arabic")
SMALL_PASSES = ((15, 0.3), (25, 0.4), (35, 0.4), (50, 0.4), (100, 0.4))
"""Passes over them, with the dropout that the planner takes for as many."""
LEFT_OUT = ("russian", "prose", "wikitext2")
RANDOM_POINTS = 8


def around(text: Text) -> Iterator[Point]:
    """The centre, and the points that differ from it in one thing: where to look at all."""
    hidden, rows, batch, rate = text.centre
    centre = point(2, hidden, rows, batch, rate)
    yield centre
    yield centre | {"hidden_size": hidden * 3 // 2}
    yield centre | {"hidden_size": hidden // 2}
    yield centre | {"dropout": 0.2}
    yield centre | {"learning_rate": rate * 2}
    yield centre | {"learning_rate": rate / 2}
    yield centre | {"batch_size": rows * 2}
    yield centre | {"batch_size": rows // 2}
    yield centre | {"bptt": batch * 2}
    yield centre | {"num_layers": 1, "hidden_size": hidden * 3 // 2}


def point(
    layers: int, hidden: int, rows: int, batch: int, rate: float, dropout: float = 0.0
) -> Point:
    """A point by its values."""
    return {
        "num_layers": layers, "hidden_size": hidden, "batch_size": rows, "bptt": batch,
        "learning_rate": rate, "dropout": dropout,
    }  # fmt: skip


CLOSER: dict[tuple[str, float], list[tuple[int, int, int, int, float, float]]] = {
    ("shakespeare", 1.0): [
        (1, 384, 16, 64, 8e-3, 0.0), (1, 512, 16, 64, 8e-3, 0.0), (1, 384, 16, 32, 8e-3, 0.0),
        (1, 256, 16, 64, 8e-3, 0.0), (1, 384, 16, 32, 16e-3, 0.0), (1, 384, 16, 16, 8e-3, 0.0),
        (1, 384, 8, 32, 8e-3, 0.0), (2, 256, 16, 32, 8e-3, 0.0), (1, 256, 16, 32, 8e-3, 0.0),
        (1, 512, 16, 32, 8e-3, 0.0),
    ],
    ("ptb-word", 1.0): [
        (2, 200, 16, 35, 4e-3, 0.0), (1, 200, 16, 35, 8e-3, 0.0), (1, 300, 16, 20, 8e-3, 0.0),
        (1, 200, 16, 20, 4e-3, 0.0), (1, 300, 32, 35, 8e-3, 0.0),
    ],
    ("names", 1.0): [
        (2, 192, 64, 16, 4e-3, 0.0), (1, 256, 64, 16, 8e-3, 0.0), (1, 256, 32, 16, 8e-3, 0.0),
        (1, 128, 64, 16, 8e-3, 0.0),
    ],
    ("japanese", 1.0): [
        (2, 256, 16, 64, 4e-3, 0.0), (1, 384, 16, 32, 8e-3, 0.0), (1, 256, 16, 32, 8e-3, 0.0),
        (1, 384, 16, 32, 4e-3, 0.0),
    ],
    ("ptb-char", 1.0): [
        (1, 384, 16, 32, 8e-3, 0.0), (1, 256, 16, 32, 8e-3, 0.0), (1, 384, 16, 64, 8e-3, 0.0),
    ],
    ("shakespeare", 3.0): [
        (1, 512, 16, 32, 8e-3, 0.1), (2, 384, 16, 32, 8e-3, 0.1), (1, 512, 32, 64, 8e-3, 0.1),
        (1, 512, 16, 64, 8e-3, 0.1), (2, 384, 32, 64, 8e-3, 0.1), (2, 384, 32, 64, 4e-3, 0.1),
        (2, 384, 32, 64, 8e-3, 0.25), (2, 384, 32, 128, 8e-3, 0.1),
    ],
    ("ptb-word", 3.0): [
        (1, 300, 16, 35, 8e-3, 0.1), (1, 300, 32, 70, 8e-3, 0.1), (1, 300, 32, 70, 4e-3, 0.1),
        (1, 300, 32, 70, 8e-3, 0.25), (1, 200, 32, 70, 8e-3, 0.1),
    ],
    ("ptb-char", 3.0): [
        (1, 512, 32, 64, 8e-3, 0.0), (1, 512, 32, 64, 8e-3, 0.05), (2, 384, 32, 64, 8e-3, 0.0),
        (1, 512, 32, 64, 4e-3, 0.0), (1, 512, 16, 64, 8e-3, 0.0), (1, 512, 32, 128, 8e-3, 0.0),
    ],
    ("japanese", 3.0): [
        (1, 320, 32, 64, 8e-3, 0.05), (1, 448, 32, 64, 8e-3, 0.05), (1, 320, 32, 64, 4e-3, 0.05),
        (1, 320, 32, 64, 8e-3, 0.15), (1, 320, 16, 64, 8e-3, 0.05), (1, 320, 32, 32, 8e-3, 0.05),
    ],
    ("names", 3.0): [
        (2, 192, 64, 16, 4e-3, 0.3), (2, 128, 64, 16, 4e-3, 0.3), (2, 192, 64, 16, 8e-3, 0.3),
        (2, 192, 64, 16, 4e-3, 0.1), (2, 192, 32, 16, 4e-3, 0.3), (2, 192, 64, 8, 4e-3, 0.3),
    ],
    ("ptb-char", 10.0): [
        (2, 448, 32, 64, 8e-3, 0.05), (2, 320, 32, 64, 8e-3, 0.1), (2, 448, 32, 64, 4e-3, 0.05),
        (2, 448, 64, 64, 8e-3, 0.05),
    ],
    ("shakespeare", 10.0): [
        (2, 448, 32, 64, 8e-3, 0.15), (2, 384, 32, 64, 4e-3, 0.2), (2, 448, 32, 64, 4e-3, 0.15),
        (2, 448, 32, 64, 8e-3, 0.3), (2, 320, 32, 64, 8e-3, 0.15), (2, 448, 64, 64, 8e-3, 0.15),
        (2, 448, 32, 128, 8e-3, 0.15),
    ],
    ("ptb-word", 10.0): [
        (2, 448, 32, 70, 8e-3, 0.1), (1, 448, 32, 70, 8e-3, 0.1), (2, 448, 32, 70, 4e-3, 0.1),
        (2, 448, 32, 70, 8e-3, 0.3), (2, 256, 32, 70, 8e-3, 0.2),
    ],
    ("japanese", 10.0): [
        (2, 320, 32, 64, 8e-3, 0.15), (1, 448, 32, 64, 8e-3, 0.15), (2, 320, 32, 64, 4e-3, 0.15),
        (2, 320, 32, 64, 8e-3, 0.3),
    ],
    ("names", 10.0): [(2, 256, 72, 16, 4e-3, 0.5)],
}  # fmt: skip
"""What the first look left open: layers, size, rate and batch together; layers, hidden size,
rows, batch, rate, dropout."""


UNIGRAMS: list[tuple[str, tuple[int, int, int, int, float, float]]] = [
    ("japanese", (1, 256, 16, 32, 8e-3, 0.0)), ("japanese", (1, 384, 16, 32, 8e-3, 0.0)),
    ("ptb-word", (1, 200, 16, 35, 8e-3, 0.0)), ("shakespeare", (1, 384, 16, 32, 8e-3, 0.0)),
]  # fmt: skip
"""Points that are tried again with the output bias at the logarithms of the frequencies."""


def design() -> Iterator[tuple[str, float, Point]]:
    """Every point that is to be measured, with its text and minutes."""
    for one in around(TEXTS["shakespeare"]):
        yield "shakespeare", 1.0, one
    for name, values in UNIGRAMS:
        yield name, 1.0, point(*values) | {"unigrams": True}
    for (name, minutes), points in CLOSER.items():
        for values in points:  # the first minutes were measured without
            yield name, minutes, point(*values) | ({"unigrams": True} if minutes > 1 else {})


def small() -> Iterator[tuple[str, float, Point]]:
    """How often a small text is best read, however much time there is (0 minutes: not by time)."""
    for name in SMALL:
        for passes, dropout in SMALL_PASSES:
            more = {"unigrams": True, "passes": passes}
            yield name, 0.0, point(1, 192, 16, 32, 8e-3, dropout) | more


def validation(lengths: tuple[float, ...] = (1.0, 3.0)) -> Iterator[tuple[str, float, Point]]:
    """The plan's point and random ones, for each text that was left out and each time."""
    for minutes in lengths:
        for name in LEFT_OUT:
            yield name, minutes, planned_point(name, minutes)
            for number in range(RANDOM_POINTS):
                yield name, minutes, random_point(number)


def random_point(number: int) -> Point:
    """A point drawn from where `charlm search` draws."""
    draws = np.random.default_rng([5, number])
    low, high = np.log(1e-3), np.log(2e-2)
    return point(
        int(draws.integers(1, 3)),
        round(float(np.exp(draws.uniform(np.log(64), np.log(768))))),
        int(draws.choice([8, 16, 32, 64])),
        int(draws.choice([16, 32, 64, 128])),
        round(float(np.exp(draws.uniform(low, high))), 5),
        round(0.05 * int(draws.integers(0, 9)), 2),
    ) | {"unigrams": True}


def planned_point(name: str, minutes: float) -> Point:
    """What the planner chooses; measured once, then read from the results."""
    known = found("plan", name, minutes, {})
    if known:
        return dict(known["chosen"])
    settings = settings_from(
        TEXTS[name].settings().to_dict() | {"training": {"minutes": minutes, "seed": 1}}
    )
    found_plan = plan(settings, dataset_of(name), CPU, lambda model: precision(name, model))
    model, training = found_plan.settings.model, found_plan.settings.training
    assert model.num_layers and model.hidden_size and training.batch_size and training.bptt
    chosen = point(
        model.num_layers, model.hidden_size, training.batch_size, training.bptt,
        training.learning_rate or 0.0, model.dropout or 0.0,
    ) | {"unigrams": True, "planned": True}  # fmt: skip
    if training.minutes != minutes:  # the text fills no more of them usefully
        chosen["passes"] = round(found_plan.passes, 1)
    add("plan", name, minutes, {}, {"chosen": chosen})
    return chosen


DESIGNS = {"rules": design, "passes": small, "validation": validation}


@cache
def dataset_of(name: str) -> Dataset:
    """A corpus with its validation text cut to a useful size."""
    settings = TEXTS[name].settings()
    dataset = load_dataset(settings.corpus, settings.vocabulary)
    assert dataset.valid is not None
    return replace(dataset, valid=sample_of(dataset.valid, TEXTS[name].judged_on[0]))


def trainer_of(name: str, point: Point, steps: int) -> Trainer:
    """A trainer at a point. What the point leaves open, the planner fills in."""
    dataset, evals = dataset_of(name), 10 if "passes" in point else 3
    model = {key: point[key] for key in ("num_layers", "hidden_size", "dropout")}
    training = {key: point[key] for key in ("batch_size", "bptt", "learning_rate")}
    letters = len(dataset.vocabulary) < 1000
    if letters and TEXTS[name].unit == "word":
        model |= {"tie_weights": False, "embedding_size": min(128, point["hidden_size"])}
    settings = settings_from(
        TEXTS[name].settings().to_dict()
        | {"model": model, "training": training | {"steps": steps, "evals": evals, "seed": 1}}
    )
    planned = plan(settings, dataset, CPU, lambda model: precision(name, model)).settings
    network = RecurrentLanguageModel(planned.model, len(dataset.vocabulary))
    network.reset_parameters(torch.Generator().manual_seed(1))
    if point.get("unigrams"):
        begin_with_frequencies(network, dataset.train)
    task = language_model_task(dataset, planned.training, precision(name, planned.model))
    return Trainer(network, task, planned.training)


def precision(name: str, model: Any) -> Any:
    """As `charlm train` chooses it."""
    return choose_precision("auto", model, len(dataset_of(name).vocabulary), CPU)


def speeds(points: list[tuple[str, Point]]) -> Iterator[tuple[str, Point, float]]:
    """Tokens a second of training: the fastest of ROUNDS rounds over all points in turn.

    The machine is never quite quiet, and what disturbs it lasts for seconds.
    """
    best: dict[int, float] = {}
    trainers = [trainer_of(name, point, 10**6) for name, point in points]
    windows = [_for_ever(trainer) for trainer in trainers]
    for _ in range(ROUNDS):
        for at, trainer in enumerate(trainers):
            times: list[tuple[float, int]] = []
            begun = time.perf_counter()
            while len(times) <= 6 or time.perf_counter() - begun < SPEED_SECONDS:
                batch = next(windows[at])
                start = time.perf_counter()
                trainer.step([batch], trainer.backward)
                times.append((time.perf_counter() - start, batch.tokens))
            seconds = statistics.median(s for s, _ in times[2:])
            found = statistics.median(tokens for _, tokens in times[2:]) / seconds
            best[at] = max(found, best.get(at, 0.0))
    for at, (name, point) in enumerate(points):
        yield name, point, best[at]


def _for_ever(trainer: Trainer) -> Iterator[Batch]:
    """The windows of one pass after the other: a short text has few in one."""
    while True:
        yield from trainer.task.batches.epoch(trainer.counters.position)


def result(name: str, point: Point, minutes: float, tokens_per_second: float) -> dict[str, Any]:
    """Train for the point's passes, or as many steps as the minutes hold; evaluate, calibrated."""
    dataset = dataset_of(name)
    tokens = tokens_per_second * 60.0 * minutes * TRAINING_SHARE
    if "passes" in point:
        tokens = float(point["passes"] * len(dataset.train.ids))
    lengths = len(dataset.train.ids) / max(dataset.train.documents, 1)
    in_a_step = point["batch_size"] * min(point["bptt"], lengths)
    trainer = trainer_of(name, point, max(10, round(tokens / in_a_step)))
    best: list[RecurrentLanguageModel] = []

    def keep(model: RecurrentLanguageModel) -> None:
        """The best weights so far."""
        best[:] = [copy.deepcopy(model)]

    trainer.on_best = keep
    for _ in trainer.run():
        pass
    assert dataset.valid is not None and trainer.counters.best is not None
    part = sample_of(dataset.valid, TEXTS[name].judged_on[1])
    scale = fit_scale(lambda factor: evaluate(TorchBackend(best[0], factor), part).nats)
    calibrated = evaluate(TorchBackend(best[0], scale), dataset.valid)
    return {
        "nats": round(calibrated.nats_per_token, 5),
        "nats_uncalibrated": round(trainer.counters.best.nats_per_token, 5),
        "passes": round(trainer.counters.tokens / len(dataset.train.ids), 3),
        "steps": trainer.counters.step,
        "precision": precision(name, trainer.model.settings).name,
        "weights": trainer.model.parameter_count(),
        "train_tokens": len(dataset.train.ids),
        "vocab_size": len(dataset.vocabulary),
        "ngram_nats": round(plain_nats(name), 5),
    }


@cache
def plain_nats(name: str) -> float:
    """What n-grams make of the text."""
    dataset = dataset_of(name)
    assert dataset.valid is not None
    return ngram_nats(dataset.train.ids, dataset.valid.ids, len(dataset.vocabulary))


def main() -> None:
    """Measure what is missing, or print what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["speeds", "runs", "table", "verdict"])
    parser.add_argument("--share", default="0/1", help="this one of so many workers, such as 0/2")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--texts", nargs="*", default=list(TEXTS), choices=list(TEXTS))
    parser.add_argument("--design", default="rules", choices=list(DESIGNS))
    parser.add_argument("--minutes", type=float, help="only points of so many minutes")
    options = parser.parse_args()
    chosen = DESIGNS[options.design]()
    if options.design == "validation" and options.minutes:
        chosen = validation((options.minutes,))
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
            there = found("speed", name, None, pair[1]) or found("run", name, minutes, one)
            if not there and pair not in missing:
                missing.append(pair)
        for name, one, pace in speeds(missing):
            add("speed", name, None, one, {"tokens_per_second": round(pace)})
        return
    for at, (name, minutes, point) in enumerate(points):
        if at % of == number and not found("run", name, minutes, point):
            known = found("speed", name, None, shape_of(point))
            if "passes" in point:
                known = {"tokens_per_second": 0}
            if not known:
                raise SystemExit(f"no speed of {name} {point}; run: measure_plans.py speeds")
            measured = result(name, point, minutes, known["tokens_per_second"])
            add("run", name, minutes, point, measured)


def shape_of(point: Point) -> Point:
    """What of a point decides its speed."""
    return {
        key: value for key, value in point.items() if key not in ("unigrams", "planned", "passes")
    }


def records() -> list[dict[str, Any]]:
    """All results so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def found(kind: str, name: str, minutes: float | None, point: Point) -> dict[str, Any] | None:
    """The result of this point, if it is there."""
    wanted = {"kind": kind, "text": name, "minutes": minutes, "point": point}
    return next((r for r in reversed(records()) if wanted.items() <= r.items()), None)


def add(
    kind: str, name: str, minutes: float | None, point: Point, measured: dict[str, Any]
) -> None:
    """Append a result to the file, safely beside other workers."""
    place = {"kind": kind, "text": name, "minutes": minutes, "point": point}
    machine = {"machine": processor_name(), "cores": os.cpu_count(), "torch": torch.__version__}
    line = json.dumps(place | measured | machine | {"date": date.today().isoformat()})
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line + "\n")
    print(line, flush=True)


def print_table(points: list[tuple[str, float, Point]]) -> None:
    """A row for each point, the best of each text and time first."""
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
            p, pace = run["point"], found("speed", name, None, shape_of(run["point"]))
            print(
                f"| {name} | {minutes:g} | {p['num_layers']} x {p['hidden_size']} "
                f"| {p['batch_size']} x {p['bptt']} | {p['learning_rate']:g} | {p['dropout']:g} "
                f"| {'yes' if p.get('unigrams') else 'no'} "
                f"| {pace['tokens_per_second'] if pace else 0:,} | {run['passes']:.1f} "
                f"| {run['nats']:.4f} |"
            )


def print_verdict(points: list[tuple[str, float, Point]]) -> None:
    """For each text and time of the validation, the plan beside the best of the random points."""
    print("| text | minutes | plan | nats | best random of | nats | the plan needs |")
    print("|---|---:|---|---:|---|---:|---:|")
    for name, minutes in dict.fromkeys((name, minutes) for name, minutes, _ in points):
        group = [one for at, length, one in points if (at, length) == (name, minutes)]
        done = [run for one in group if (run := found("run", name, minutes, one))]
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
    """Layers, hidden size, rows and batch of a point."""
    shape = f"{one['num_layers']} x {one['hidden_size']}, {one['batch_size']} x {one['bptt']}"
    return f"{shape}, {one['learning_rate']:g}"


if __name__ == "__main__":
    main()
