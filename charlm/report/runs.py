"""Description of a run from its config.json and run.json."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from charlm.config.corpus import HELD_OUT_NAMES
from charlm.config.settings import table
from charlm.config.text_units import UNITS
from charlm.config.training import precision_text
from charlm.files.escapes import escape_unprintable
from charlm.report.conditions import condition_text
from charlm.report.tables import advice_pairs, plain_table
from charlm.report.task_reports import report_of
from charlm.report.text import duration, number, word_perplexity
from charlm.runs.card import companion_text, model_size, part_read
from charlm.units import count_of

Json = Mapping[str, Any]


def run_pairs(path: Path, config: Json, record: Json) -> list[tuple[str, str]]:
    """Return names and values that describe a run."""
    corpus, machine = record["corpus"], record["machine"]
    pairs = [
        ("run", str(path)),
        ("status", str(record.get("status"))),
        ("model", model_size(record)),
        ("vocabulary", f"{config['vocab_size']:,} {config['vocabulary']['unit']} entries"),
        ("text", f"{corpus['name']}, document: {corpus['document']}"),
    ]
    unit = UNITS.get(config["vocabulary"]["unit"])
    if numeric := unit is not None and unit.numeric:
        pairs[-2:] = [("text", corpus["name"])]
    if shares := condition_text(record):
        pairs.append(("conditions", shares))
    if about := record.get("from"):
        grown = config["vocab_size"] - about["entries"]
        more = f", and {grown:,} new entries" if grown else ""
        pairs.insert(2, ("fine-tuned", f"from run {about['run']}{more}"))
    if pulled := record.get("pulled"):
        pairs.append(("pulled from", f"hf:{pulled['repository']}@{pulled['revision']}"))
    for name, part in corpus["parts"].items():
        size = f"{count_of(part['tokens'], 'token')}, {count_of(part['documents'], 'document')}"
        size = f"{size}, {count_of(part['bytes'], 'byte')}"
        if numeric:
            values = part["targets"] + (name == "train")  # whose first one is only read
            size = count_of(values, "value")
        pairs.append((f"  {name}", size))
    results = record.get("results") or {}
    pairs += _trained(results)
    if report := report_of(record["settings"]):
        pairs += [*report.facts(record), *report.result_pairs(record, results)]
    else:
        pairs += result_pairs(record, results, config["vocabulary"]["unit"])
    pairs += advice_pairs((results.get("review") or {}).get("advice") or [])
    created = f"{record.get('created')} with charlm {config.get('charlm')}"
    if record.get("ngrams"):
        pairs += [*_discount_pairs(record["ngrams"]), ("created", created)]
    else:
        precision = record.get("precision", {})
        pairs += [
            ("machine", f"{machine['device_name']}, {count_of(machine['threads'], 'thread')}"),
            ("precision", f"{precision_text(precision)} ({precision.get('reason')})"),
            ("created", f"{created}, torch {config.get('torch')}"),
        ]
    if record.get("command"):
        pairs.append(("command", str(record["command"])))
    return pairs


def _discount_pairs(ngrams: Json) -> list[tuple[str, str]]:
    """Return the number of n-grams and the discounts of each order."""
    discounts = ngrams.get("discounts") or [None] * len(ngrams["sizes"])
    pairs = []
    for order, (size, found) in enumerate(zip(ngrams["sizes"], discounts, strict=True), 1):
        text = count_of(size, "n-gram")
        if found:
            text += ", discounts " + " ".join(f"{value:.4f}" for value in found["values"])
            text += " (fall-back: too few counts)" if found["fallback"] else ""
        pairs.append((f"  order {order}", text))
    return pairs


def _trained(results: Json) -> list[tuple[str, str]]:
    if not results:
        return []
    steps = f"{count_of(results['step'], 'step')}, " if results["step"] else ""
    trained = steps or results["seconds"]
    return [("trained", f"{steps}{duration(results['seconds'])}")] if trained else []


def result_pairs(record: Json, results: Json, unit: str) -> list[tuple[str, str]]:
    """Return the figures of a language model on its texts, and what was fitted to them."""
    pairs = []
    for name, heading in (HELD_OUT_NAMES | {"old_valid": "old text"}).items():
        if not (tally := results.get(name)):
            continue
        figures = (
            f"{number(tally['nats_per_token'])} nats/token, {number(tally['bits_per_char'])} "
            f"bits/char, perplexity {number(tally['perplexity'], 2)}"
            f"{word_perplexity(tally.get('word_perplexity'), unit)}"
        )
        if oov := tally.get("oov"):
            without = number(tally.get("perplexity_without_oov"), 2)
            figures += f" ({without} without {oov:,} OOV)"
        pairs.append((heading, figures))
        if name == "valid" and (part := part_read(record, tally["tokens"])):
            pairs.append(("", f"on {part}; charlm eval reads all"))
    if before := results.get("valid_uncalibrated"):
        pairs.append(
            (
                "calibrated",
                f"on the validation text, logits times {results['logit_scale']:.3f}; "
                f"{number(before['nats_per_token'])} nats/token before",
            )
        )
    if results.get("companion"):
        pairs.append(("with n-grams", companion_text(results["companion"])))
    return pairs


def setting_table(rows: Sequence[tuple[str, str, str]]) -> Table:
    """Return a table of `setting_rows`; names of settings are never wrapped."""
    table = plain_table("<setting", "<value", "<why")
    table.columns[0].no_wrap = True
    for row in rows:
        table.add_row(*map(escape_unprintable, row))
    return table


def setting_rows(record: Json, *, everything: bool) -> list[tuple[str, str, str]]:
    """Return settings that the user or a rule chose, or all, each with its origin.

    Of a fine-tuned run, those that the other run decided are chosen if they are not the default.
    """
    origins, settings = record.get("origins", {}), table()
    rows = []
    for section, values in record["settings"].items():
        for key, value in values.items():
            why = origins.get(f"{section}.{key}", "default")
            inherits_default = why.startswith("run ") and value == settings[key].default
            if everything or not (why == "default" or inherits_default):
                rows.append((f"{section}.{key}", str(value), why))
    return rows


def trial_table(rows: Sequence[Json]) -> Table:
    """Return a table of the trials of a search, the best first."""
    names = list(dict.fromkeys(name for row in rows for name in row["values"]))
    table = plain_table("trial", "nats/token", "<state", *names)
    for row in rows:
        values = [row["values"].get(name) for name in names]
        shown = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in values]
        table.add_row(str(row["number"]), number(row["nats_per_token"]), row["state"], *shown)
    return table
