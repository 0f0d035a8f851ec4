"""Model card: the README.md of a run, for people and model hubs."""

import json
from collections.abc import Mapping
from typing import Any

from charlm.commands import command
from charlm.config.corpus import HELD_OUT_NAMES
from charlm.config.tasks import TASKS, TaskSpec, task_name
from charlm.config.text_units import UNITS
from charlm.config.training import counted_length, length_of, precision_text
from charlm.files.escapes import escape_unprintable
from charlm.runs.layout import COMPANION
from charlm.units import finite, first_few

NAMES = {
    "tokens": "tokens",
    "nats_per_token": "nats per token",
    "bits_per_char": "bits per character",
    "bits_per_byte": "bits per byte",
    "perplexity": "perplexity",
}
"""Figures of a card by their keys in run.json, of language models."""

MAX_LISTED = 8
"""Labels that the cell of their shares names; each of them has a row further down."""


def model_card(
    name: str, record: Mapping[str, Any], *, run: str | None = None, license_: str | None = None
) -> str:
    """Return the card in Markdown from the content of run.json.

    `run` names the run in commands, by default `name`; `license_` is an identifier of a model hub,
    such as "mit".
    """
    settings, corpus = record["settings"], record["corpus"]
    unit = settings["vocabulary"]["unit"]
    kind = "n-gram" if record.get("ngrams") else "recurrent"
    row = _row(record)
    lines = [
        "---",
        "library_name: charlm",
        f"pipeline_tag: {row.pipeline}",
        f"tags: [{row.noun.replace(' ', '-')}, {kind}, charlm]",
        *([f"license: {license_}"] if license_ else []),
        *_metadata(name, record),
        "---",
        f"# {name}",
        "",
        f"{'An' if kind == 'n-gram' else 'A'} {kind} {row.noun} over {unit} units, trained "
        f"with charlm on `{corpus['name']}`.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in run_facts(record).items()),
        "",
    ]
    lines += _task_results(record) if row.text else _results(record)
    lines += [
        "## Use",
        "",
        "```",
        *(command(verb, "--run", run or name, *words) for verb, *words in _uses(record)),
        "```",
        "",
    ]
    if record.get("command"):
        lines += ["Made by:", "", "```", record["command"], "```", ""]
    lines += [
        "## Limits",
        "",
        "The model knows its training text and nothing else; it repeats the mistakes and "
        "prejudices in it. The licence of the training text applies.",
        "",
    ]
    return "\n".join(lines)


def _uses(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the commands that use a run: the verb and its words."""
    row = _row(record)
    if row.verb == "predict":
        return [("predict", "some text")]
    if usual := frequent_condition(record):
        return [("sample", "--condition", usual), ("score", "--by", "condition", "some text")]
    return [("sample",)] if row.text else [("sample",), ("score", "some text")]


def frequent_condition(record: Mapping[str, Any]) -> str:
    """Return the most frequent condition of the training texts, or "" for a run without any."""
    if not record["settings"].get("task", {}).get("condition"):
        return ""
    counts = record["corpus"]["labels"]["train"]
    return str(max(counts, key=counts.get))


def _row(record: Mapping[str, Any]) -> TaskSpec:
    """Return the row of the task of a run."""
    return TASKS[task_name(record["settings"])]


def _metadata(name: str, record: Mapping[str, Any]) -> list[str]:
    """Return the data sets of the hub and the results of a model as lines of YAML."""
    from charlm.text.sources.hub import HUB_PREFIX, hub_parts

    corpus, results = record["corpus"], record.get("results") or {}
    hub = [source for source in corpus["sources"] if source.startswith(HUB_PREFIX)]
    lines = (
        [f"datasets: {json.dumps([hub_parts(source)['path'] for source in hub])}"] if hub else []
    )
    figures = [
        f"    - {{type: {key}, value: {_number(tally[key])}, "
        f"name: {json.dumps(f'{label} ({split})')}}}"
        for split, tally in _held_out(results).items()
        for key, label in (_row(record).figures or NAMES).items()
        if isinstance(tally.get(key), float)
    ]
    if not figures:
        return lines
    text = json.dumps(corpus["name"])
    return [
        *lines,
        "model-index:",
        f"- name: {json.dumps(name)}",
        "  results:",
        f"  - task: {{type: {_row(record).pipeline}}}",
        f"    dataset: {{name: {text}, type: {text}}}",
        "    metrics:",
        *figures,
    ]


def _held_out(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of each held-out text that has some, by the name of its split."""
    return {name: results[name] for name in HELD_OUT_NAMES if results.get(name)}


def model_shape(model: Mapping[str, Any]) -> str:
    """Return the shape of a model in words, from config.json or settings: `2 x 512 LSTM`."""
    if "order" in model:
        return f"{model['order']}-gram"
    return f"{model['num_layers']} x {model['hidden_size']} {model['cell'].upper()}"


def model_size(record: Mapping[str, Any]) -> str:
    """Return the shape and the size of the model of a run, from run.json."""
    if ngrams := record.get("ngrams"):
        return f"{model_shape(ngrams)}, {ngrams['method']}, {sum(ngrams['sizes']):,} n-grams"
    settings = record["settings"]
    model = settings["model"]
    weights = f"{record.get('parameters', 0):,} weights"
    own = "both_ways" in _row(record).settings
    ways = " both ways" if own and settings["task"]["both_ways"] else ""
    return f"{model_shape(model)}{ways}, embedding {model['embedding_size']}, {weights}"


def run_facts(record: Mapping[str, Any]) -> dict[str, str]:
    """Return facts about a model, its text and, for a network, its training, from run.json."""
    corpus, unit = record["corpus"], record["settings"]["vocabulary"]["unit"]
    facts = {
        "model": model_size(record),
        "vocabulary": f"{corpus['vocabulary']:,} {unit} entries",
        "documents": str(corpus["document"]),
    }
    if UNITS[unit].numeric:
        facts = {"model": facts["model"]}
    if "from" in record:
        facts["fine-tuned from"] = str(record["from"]["run"])
    if train := corpus["parts"].get("train"):
        noun = "numbers" if UNITS[unit].numeric else "tokens"
        facts["training text"] = f"{train['tokens']:,} {noun}"
    if "labels" in corpus:
        labels = _training_labels(record)
        total = max(sum(labels.values()), 1)
        shares = (f"{_cell(label)} {100 * n / total:.1f} %" for label, n in labels.items())
        conditioned = record["settings"].get("task", {}).get("condition")
        noun = "conditions" if conditioned else _row(record).gives
        facts[noun] = first_few(shares, MAX_LISTED)
    if record.get("ngrams"):
        return facts
    training = record["settings"]["training"]
    if results := record.get("results"):  # none if the process was killed
        facts["length"] = _length_facts(*length_of(training), results)
    precision = record.get("precision") or {"name": "fp32"}
    return facts | {
        "machine": f"{record['machine']['device_name']}, {precision_text(precision)}",
        "seed": str(training["seed"]),
    }


def _length_facts(unit: str, value: float, results: Mapping[str, Any]) -> str:
    """Return the length that a run was given, the time that it took, and its steps."""
    seconds, steps = results["seconds"], results["step"]
    time = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"
    more = "" if (unit, value) == ("steps", steps) else f", {steps:,} steps"
    return f"{counted_length(unit, value)}; took {time}{more}"


def companion_text(companion: Mapping[str, Any]) -> str:
    """Describe the n-gram companion of a run, from its figures in run.json."""
    network, ngram, both = (
        companion[f"{name}_nats_per_token"] for name in ("network", "ngram", "mixture")
    )
    weight = companion["weight"]
    return (
        f"nats/token on the validation text: network {network:.4f}, {companion['order']}-gram "
        f"{ngram:.4f}, both {both:.4f} (weights {1 - weight:.2f} and {weight:.2f}; the n-grams "
        f"take {companion['bytes'] / 1e6:.1f} MB)"
    )


def _cell(text: str) -> str:
    """Return a text as a cell of a Markdown table."""
    return escape_unprintable(text).replace("|", "\\|")


def _training_labels(record: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of training texts of each label, in the order of the run's outputs."""
    from charlm.text.labels import natural_order

    labels = record["corpus"]["labels"]["train"]
    return {label: labels[label] for label in sorted(labels, key=natural_order)}


def _task_results(record: Mapping[str, Any]) -> list[str]:
    """Return the figures of a run, its floors, and the figures of each label if it has some."""
    row, results = _row(record), record.get("results") or {}
    figures = _held_out(results)
    if not figures:
        return _results(record)
    known = {
        key: label
        for key, label in row.figures.items()
        if any(each.get(key) is not None for each in figures.values())
    }
    lines = ["## Results", "", *_figure_rows(figures, known)]
    floors = record.get("floors") or {}
    for key, label in row.floors.items():
        values = [(floors.get(key) or {}).get(name) for name in figures]
        values = [v.get(row.headline(v)) if isinstance(v, Mapping) else v for v in values]
        if any(value is not None for value in values):
            lines.append(f"| {label} | " + " | ".join(map(_number, values)) + " |")
    name, last = list(figures.items())[-1]
    if "confusion" not in last:
        return [*lines, ""]
    from charlm.inference.counts import LabelCounts  # needs numpy, as the list of runs does not

    labels = _training_labels(record)
    counts = LabelCounts.from_summary(last)
    which = "validation" if name == "valid" else name
    noun, target = row.gives.removesuffix("s"), row.target
    lines += ["", f"Each {noun} on the {which} text:", "",
              f"| | precision | recall | F1 | {target}s |",
              "|---|---:|---:|---:|---:|"]  # fmt: skip
    for label, own in zip(labels, counts.per_label(), strict=True):
        cells = " | ".join(_number(finite(value)) for value in own)
        lines.append(f"| {_cell(label)} | {cells} |")
    return [*lines, ""]


def _number(value: float | int | None) -> str:
    if value is None or isinstance(value, int):
        return "-" if value is None else f"{value:,}"
    return f"{value:.3g}" if 0.0 < abs(value) < 1e-3 else f"{value:.4f}"


def _figure_rows(figures: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Return a Markdown table with a column for each text."""
    return [
        "| | " + " | ".join(figures) + " |",
        "|---|" + "---:|" * len(figures),
        *(
            f"| {label} | " + " | ".join(_number(each[key]) for each in figures.values()) + " |"
            for key, label in names.items()
        ),
    ]


def part_read(record: Mapping[str, Any], tokens: int) -> str:
    """Return which part of the validation text these tokens are, or "" for all of it."""
    return part_text(tokens, record["corpus"]["parts"].get("valid", {}).get("tokens", 0))


def part_text(read: int, every: int) -> str:
    """Return which part of the validation text was read, or "" for all of it; both in tokens."""
    return f"{read:,} of {every:,} validation tokens" if read < every else ""


def _results(record: Mapping[str, Any]) -> list[str]:
    results = record.get("results")
    if not results:
        return ["Training has not ended, so there are no results.", ""]
    figures = _held_out(results)
    if not figures:
        return ["No text was held out, so the quality was not measured.", ""]
    part = part_read(record, results["valid"]["tokens"]) if "valid" in figures else ""
    protocol = "One full pass over the text, state carried, end symbols counted"
    lines = [
        "## Results",
        "",
        f"{protocol}; only {part} were read." if part else f"{protocol}.",
        "",
        *_figure_rows(figures, NAMES),
    ]
    before = results.get("valid_uncalibrated")
    if before:
        lines += [
            "",
            f"All logits are multiplied by {results['logit_scale']:.3f}, a factor fitted on the "
            f"validation text; without it, {before['nats_per_token']:.4f} nats per token there.",
        ]
    if results.get("companion"):
        lines += ["", f"Mixed with n-grams of its training text (`--with {COMPANION}`), "
                  f"{companion_text(results['companion'])}."]  # fmt: skip
    return [*lines, ""]
