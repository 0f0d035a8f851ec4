"""Measure tasks on public sets: one command a row, the median of several seeds.

    CHARLM_DATA=folder python scripts/measure_tasks.py sst2 trec tweets [--seeds 1 2 3]
    CHARLM_DATA=folder python scripts/measure_tasks.py imdb-from --from RUN
    CHARLM_DATA=folder python scripts/measure_tasks.py sst2 --set dropout=0.5 --minutes 0.5
    CHARLM_DATA=folder python scripts/measure_tasks.py wnut17 wnut17-crf ewt ewt-crf multi30k dates
    CHARLM_DATA=folder python scripts/measure_tasks.py trec-condition
    python scripts/measure_tasks.py cosine cosine-stateless addition
    CHARLM_DATA=folder python scripts/measure_tasks.py --table

Each training is a process, `charlm train FILE --task classify ...`. `-crf` rows are a linear-chain
CRF of the package sklearn-crfsuite instead, with the features of its tutorial. `-condition` rows
are a language model of texts that begin with their label; its answer to a test text is the label
with the highest P(label | text). Results are appended to `tasks.jsonl` below --out, and are not
measured again; `--table` prints them as Markdown. Figures are those of the test text, or of the
held-out end of a series. The sets lie in `tasks/NAME` below CHARLM_DATA; those that `charlm
reproduce` makes are made below --out.
`-from` rows begin with the weights of a language model of reviews, such as

    charlm train unsup.sample.txt.gz train.tsv.gz --unit word --words bare --lowercase \\
        --set max_size=20000 --document stream --layers 1 --hidden 400 --batch 32 \\
        --set adaptive_softmax=true --precision bf16 --ngram 0 --valid-fraction 0.02 \\
        --minutes 30 --seed 1 --name film

Models with `--minutes 1` and `4` show what pretraining is worth: each --from is a row of the
table. `alone` is the accuracy of the network without the bag of words that is mixed in. A `-mixed`
row is the runs of another row, one for each of --seeds, that answer together.
"""

import argparse
import csv
import json
import math
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from charlm.api.conditions import posteriors
from charlm.api.recipe_texts import MAKERS, made_texts
from charlm.config.tasks import LANGUAGE_MODEL, TASKS
from charlm.text.sources.text_lines import FileRules
from charlm.text.tagged_files import read_sentences

TEXTBOOK = (
    "--set max_size=2500 --set max_tokens=100 --set kept_part=end --hidden 64 --embedding 64 "
    "--epochs 5 --set both_ways=false"
)
"""The textbook's settings for IMDB: 2,500 words, the last 100 tokens, 5 passes."""


@dataclass(frozen=True)
class Row:
    """A set, the options of its training, and the figure with its bar, if it has one."""

    folder: str
    """Folder of the set, or the maker of its texts."""
    options: str
    bar: float | None
    figure: str = "accuracy"
    valid: str = ""
    test: str = "test.tsv"
    """File that the figure is of; "" for the held-out end."""
    train: str = "train.tsv"
    started: bool = False
    """True if it begins with the weights of --from."""
    together: str = ""
    """Row whose runs, one for each seed, answer as one; "" for a row of its own runs."""
    task: str = "classify"
    floor: str = "bag_of_words"
    """Key of the floor in run.json."""


IMDB = Row(
    folder="imdb", options="--minutes 4", bar=0.905, train="train.tsv.gz", test="test.tsv.gz"
)
TWEETS = Row(
    folder="tweets", options="--minutes 3", bar=0.61, figure="macro_recall", valid="dev.tsv",
    train="train.tsv.gz", test="test.tsv.gz",
)  # fmt: skip
CRF = "crf"
"""In place of a task: a linear-chain CRF, an oracle."""
WNUT = Row(
    folder="wnut17", options="--epochs 12", bar=None, figure="f1", task="tag",
    floor="frequent_tag", train="train.conll", valid="dev.conll", test="test.conll",
)  # fmt: skip
EWT = Row(
    folder="ewt", options="--epochs 8", bar=0.94, task="tag", floor="frequent_tag",
    train="train.conllu.gz", valid="dev.conllu.gz", test="test.conllu.gz",
)  # fmt: skip
COSINE = Row(
    folder="cosine", options="--minutes 1 --valid-fraction 0.2", bar=2.86e-5, figure="mse",
    task="series", floor="last_value", train="train.csv", test="",
)  # fmt: skip
TREC_FROM = Row(folder="trec", options="--minutes 1 --vocabulary grow", bar=0.92, started=True)
ROWS = {
    "imdb-textbook-lstm": replace(IMDB, options=TEXTBOOK, bar=0.855),
    "imdb-textbook-rnn": replace(IMDB, options=f"{TEXTBOOK} --cell rnn", bar=0.82),
    "imdb": IMDB,
    "imdb-from": replace(IMDB, options="--minutes 5", bar=0.915, started=True),
    "sst2": Row(folder="sst2", options="--minutes 1", bar=0.82, valid="dev.tsv"),
    "sst2-from": Row(folder="sst2", options="--minutes 1", bar=0.85, valid="dev.tsv", started=True),
    "trec": Row(folder="trec", options="--minutes 1", bar=0.92),
    "trec-from": TREC_FROM,
    "trec-from-mixed": replace(TREC_FROM, together="trec-from"),
    "trec-condition": Row(
        folder="trec", task=LANGUAGE_MODEL, bar=None,
        options="--condition label --unit word --words bare --lowercase --hidden 128 --layers 1 "
        "--epochs 8 --threads 1",
    ),
    "tweets": TWEETS,
    "tweets-balanced": replace(TWEETS, options=f"{TWEETS.options} --set balance=true"),
    # tags: span-F1 as conlleval counts it, or accuracy; beside a linear CRF
    "wnut17": WNUT,
    "wnut17-crf": replace(WNUT, options="", task=CRF),
    "ewt": EWT,
    "ewt-crf": replace(EWT, options="", task=CRF, bar=None),
    # translations
    "multi30k": Row(
        folder="multi30k", task="translate", figure="bleu", floor="copy", bar=25.0,
        options="--column en --target de --minutes 15",
        train="train.tsv.gz", valid="dev.tsv.gz", test="test.tsv.gz",
    ),
    "dates": Row(
        folder="dates", task="translate", figure="exact", floor="copy", bar=0.99,
        options="--column human --target machine --minutes 1", valid="dev.tsv",
    ),
    "addition": Row(
        folder="addition", task="translate", figure="exact", floor="copy", bar=0.98,
        options="--column sum --target result --minutes 5", valid="valid.tsv",
    ),
    # series: the error, which is lower if better
    "cosine": COSINE,
    "cosine-stateless": replace(COSINE, options=f"{COSINE.options} --stateless", bar=None),
}  # fmt: skip
FIGURES = {
    LANGUAGE_MODEL: ("accuracy", "nats_per_token"),
    "classify": ("accuracy", "macro_f1", "macro_recall", "nats_per_text", "ece"),
    "tag": ("f1", "precision", "recall", "accuracy", "nats_per_tag", "ece"),
    "translate": ("bleu", "chrf", "exact", "nats_per_token"),
    "series": ("mse", "mae", "explained", "nats_per_value"),
}
"""Figures that are kept, by task."""


def processor_seconds() -> float:
    """Return the seconds of the processor that finished processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command_of(row: Row, seed: int, arguments: argparse.Namespace, name: str) -> list[str]:
    """Return the command that trains a row with a seed."""
    if row.task == CRF:
        return ["sklearn_crfsuite.CRF", row.train]
    options = shlex.split(row.options)
    if arguments.minutes is not None:
        while set(options) & {"--minutes", "--epochs"}:
            at = next(n for n, word in enumerate(options) if word in ("--minutes", "--epochs"))
            del options[at : at + 2]
        options += ["--minutes", str(arguments.minutes)]
    words = ["charlm", "train", row.train, "--task", row.task, *options]
    words += ["--test", row.test] if row.test else []
    words += ["--valid", row.valid] if row.valid else []
    words += ["--from", arguments.start] if row.started else []
    for pair in arguments.set:
        words += ["--set", pair]
    return [*words, "--seed", str(seed), "--name", name]


def measured(key: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train a row and return its command, its figures and its seconds."""
    row = ROWS[key]
    if row.folder in MAKERS:
        folder = arguments.out / f"{row.folder}-texts"
        made_texts(row.folder, None, folder)
    else:
        folder = Path(os.environ["CHARLM_DATA"]) / "tasks" / row.folder
    if row.task == CRF:
        return linear_crf(key, folder)
    words = command_of(row, seed, arguments, f"{key}-{seed}")
    beside = ["--checkpoints", str(arguments.out.resolve()), "--json", "--overwrite"]
    begun, used = time.perf_counter(), processor_seconds()
    done = subprocess.run(
        [sys.executable, "-m", "charlm", *words[1:], *beside],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)}\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    part = "test" if row.test else "valid"
    figures = {name: result.get(f"{part}_{name}") for name in FIGURES[row.task]}
    path = arguments.out / f"{key}-{seed}"
    if row.task == LANGUAGE_MODEL:
        figures["accuracy"] = accuracy_of_conditions(path, folder / row.test)
    run = json.loads((path / "run.json").read_text(encoding="utf-8"))
    floor = (run.get("floors") or {}).get(row.floor, {}).get(part)
    train, counted = run["corpus"]["parts"]["train"], f"{TASKS[row.task].target}s"
    size = train.get("targets") or train["documents" if counted == "texts" else counted]
    return {
        "row": key,
        "seed": seed,
        "command": shlex.join(words),
        "figure": figures[row.figure],
        **figures,
        "valid": result.get(f"valid_{row.figure}"),
        "alone": ((run["results"].get("floors") or {}).get("network") or {}).get("test"),
        "floor": floor.get(row.figure) if isinstance(floor, dict) else floor,
        "best_step": result.get("best_step"),
        "steps": result.get("step"),
        "passes": round(result[counted] / size, 2),
        "train_seconds": result.get("seconds"),
        "processor": round(processor_seconds() - used, 1),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def command_together(row: Row, seeds: Sequence[int]) -> list[str]:
    """Return the command that evaluates the runs of another row as one."""
    first, *others = [f"{row.together}-{seed}" for seed in seeds]
    return ["charlm", "eval", "--run", first, *(w for name in others for w in ("--with", name))]


def measured_together(
    key: str, arguments: argparse.Namespace, members: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Evaluate the runs of another row as one; `members` are their results, one for each seed."""
    row, begun, used = ROWS[key], time.perf_counter(), processor_seconds()
    words = command_together(row, arguments.seeds)
    beside = ["--checkpoints", str(arguments.out), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "charlm", *words[1:], *beside],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{shlex.join(words)}\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    figures = {name: result["test"][name] for name in FIGURES[row.task]}
    seconds, processor = (sum(each[name] for each in members) for name in ("seconds", "processor"))
    return {
        "row": key,
        "seed": None,
        "command": _commands_together(members[0], words),
        "figure": figures[row.figure],
        **figures,
        "valid": result["valid"][row.figure],
        "floor": members[0]["floor"],
        "processor": round(processor + processor_seconds() - used, 1),
        "seconds": round(seconds + time.perf_counter() - begun, 1),
    }


def _commands_together(member: dict[str, Any], words: Sequence[str]) -> str:
    """Return the command that trains the runs, and the one that evaluates them as one."""
    return f"{_without_seed(member)}; {shlex.join(words)}"


def accuracy_of_conditions(path: Path, test: Path) -> float:
    """Return the fraction of texts whose label is the likeliest condition of a run."""
    with test.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = posteriors(path, [row["text"] for row in rows])
    answers = [found.labels[at] for at in found.probabilities.argmax(axis=1)]
    return statistics.fmean(a == row["label"] for a, row in zip(answers, rows, strict=True))


def linear_crf(key: str, folder: Path) -> dict[str, Any]:
    """Train a linear-chain CRF on the features of sklearn-crfsuite's tutorial, and test it."""
    import seqeval.metrics
    import sklearn_crfsuite

    row, begun, used = ROWS[key], time.perf_counter(), time.process_time()
    parts = {}
    for name in (row.train, row.test):
        read = read_sentences([str(folder / name)], FileRules(warn=print))
        parts[name] = [(_features(each.words), list(each.tags or ())) for each in read]
    model = sklearn_crfsuite.CRF(
        algorithm="lbfgs", c1=0.1, c2=0.1, max_iterations=100, all_possible_transitions=True
    )
    model.fit([words for words, _ in parts[row.train]], [tags for _, tags in parts[row.train]])
    gold = [tags for _, tags in parts[row.test]]
    found = model.predict([words for words, _ in parts[row.test]])
    pairs = [pair for own in map(zip, gold, found) for pair in own]
    figures = {"accuracy": sum(one == other for one, other in pairs) / len(pairs)}
    if row.figure == "f1":
        figures["f1"] = float(seqeval.metrics.f1_score(gold, found))
    return {
        "row": key,
        "seed": None,
        "command": shlex.join(command_of(row, 0, argparse.Namespace(), key)),
        "figure": figures[row.figure],
        **figures,
        "floor": None,
        "processor": round(time.process_time() - used, 1),
        "seconds": round(time.perf_counter() - begun, 1),
    }


def _features(words: Sequence[str]) -> list[dict[str, Any]]:
    """Return the features of each word of a sentence, and of the words beside it."""
    own = [
        {
            "lower": word.lower(), "upper": word.isupper(), "title": word.istitle(),
            "digit": word.isdigit(),
        }
        for word in words
    ]  # fmt: skip
    features: list[dict[str, Any]] = []
    for at, word in enumerate(words):
        made: dict[str, Any] = {"bias": 1.0, "ends3": word[-3:], "ends2": word[-2:], **own[at]}
        for side, place in (("-1", at - 1), ("+1", at + 1)):
            inside = 0 <= place < len(words)
            beside = own[place] if inside else {"edge": True}
            made |= {f"{side}:{name}": value for name, value in beside.items() if name != "digit"}
        features.append(made)
    return features


def table(records: list[dict[str, Any]]) -> str:
    """Return a Markdown table: a row for each command with the median of its seeds."""
    lines = ["| row | command | median | seeds | alone | floor | bar | seconds | processor |",
             "|---|---|---:|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for key in dict.fromkeys((record["row"], _without_seed(record)) for record in records):
        own = [record for record in records if (record["row"], _without_seed(record)) == key]
        values = [record["figure"] for record in own]
        floor, alone = own[0]["floor"], [record.get("alone") for record in own]
        known = [value for value in alone if value is not None]
        lines.append(
            f"| {key[0]} | `{key[1]}` | {_shown(statistics.median(values))} | "
            f"{' '.join(map(_shown, values))} | "
            f"{_shown(statistics.median(known)) if known else '-'} | "
            f"{'-' if floor is None else _shown(floor)} | {ROWS[key[0]].bar or '-'} | "
            f"{statistics.median(record['seconds'] for record in own):.0f} | "
            f"{statistics.median(record.get('processor', math.nan) for record in own):.0f} |"
        )
    return "\n".join(lines)


def _shown(value: float) -> str:
    """Return a figure with four decimals; small errors span many powers of ten."""
    return f"{value:.1e}" if 0.0 < value < 1e-3 else f"{value:.4f}"


def _without_seed(record: dict[str, Any]) -> str:
    """Return the command of a result, up to its seed."""
    return str(record["command"]).partition(" --seed ")[0]


@dataclass
class Results:
    """Results of rows, the oldest first, in memory and in a file."""

    path: Path
    records: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Return the results in a file; none if there is no such file."""
        lines = path.read_text().splitlines() if path.exists() else []
        return cls(path, [json.loads(line) for line in lines])

    def add(self, record: dict[str, Any]) -> dict[str, Any]:
        """Append a result, print it and return it."""
        self.records.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)
        return record

    def kept(self, key: str, seed: int) -> dict[str, Any] | None:
        """Return the result of the run `KEY-SEED` in the folder, the last one of this name."""
        own = [each for each in self.records if (each["row"], each["seed"]) == (key, seed)]
        return own[-1] if own else None


def measure_row(key: str, seed: int, arguments: argparse.Namespace, results: Results) -> None:
    """Measure a row with a seed, unless it is among the results."""
    words = shlex.join(command_of(ROWS[key], seed, arguments, f"{key}-{seed}"))
    if all(record["command"] != words for record in results.records):
        results.add(measured(key, seed, arguments))


def measure_together(key: str, arguments: argparse.Namespace, results: Results) -> None:
    """Measure the runs of another row as one, unless the result of the same runs is known.

    Runs that are not in the folder are trained.
    """
    name, members, known = ROWS[key].together, [], True
    for seed in arguments.seeds:
        words = shlex.join(command_of(ROWS[name], seed, arguments, f"{name}-{seed}"))
        kept = results.kept(name, seed)
        if kept is None or kept["command"] != words:
            kept, known = results.add(measured(name, seed, arguments)), False
        members.append(kept)
    words = _commands_together(members[0], command_together(ROWS[key], arguments.seeds))
    if not known or all(record["command"] != words for record in results.records):
        results.add(measured_together(key, arguments, members))


def main() -> None:
    """Measure the rows that are asked for, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="rows to measure")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--minutes", type=float, help="in place of the length of the rows")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--from", dest="start", metavar="RUN", help="run that -from rows begin with"
    )
    parser.add_argument("--out", type=Path, default=Path("measured"), help="folder of the runs")
    parser.add_argument("--table", action="store_true", help="print the table of all results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = Results.read(arguments.out / "tasks.jsonl")
    if any(ROWS[key].started for key in arguments.rows) and not arguments.start:
        raise SystemExit("-from rows need --from RUN")
    for seed in arguments.seeds:
        for key in arguments.rows:
            if not ROWS[key].together:
                measure_row(key, seed, arguments, results)
    for key in arguments.rows:
        if ROWS[key].together:
            measure_together(key, arguments, results)
    if arguments.table or arguments.rows:
        print(table(results.records))


if __name__ == "__main__":
    main()
