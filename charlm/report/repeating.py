"""The command that trains a run again, bit for bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charlm.commands import command
from charlm.config.fields import VALIDATION
from charlm.config.flags import words_of
from charlm.config.presets import task_defaults
from charlm.config.settings import Nested, Settings, settings_from, table
from charlm.config.tasks import TASKS, is_of_task, task_name
from charlm.config.unused import facts_of, missing_need
from charlm.errors import UsageError
from charlm.runs.built_in import is_built_in, shipped_sources
from charlm.runs.layout import RECORD, TOKENIZER
from charlm.runs.pair import length_factor
from charlm.runs.parent import GROW, KEEP, LIMITS
from charlm.training.plan.constants import MIN_VALID_TOKENS

Json = Mapping[str, Any]


def repeat_command(path: Path, record: Json) -> str | None:
    """Return the command with every choice that rules, plan and machine made, or None.

    For a run that was limited by minutes the command has the number of steps instead, which can be
    repeated. It is None for a text that cannot be read again (stdin, memory, not shipped).
    """
    try:
        settings = settings_from(record["settings"], str(path / RECORD))
    except UsageError:  # of another version of charlm
        return None
    sources = _sources(path, settings)
    if not sources:
        return None
    corpus = record["corpus"]
    known = {VALIDATION: "valid" in corpus["parts"], "document": corpus["document"]}
    facts = facts_of(settings) | known
    defaults = _defaults(settings.task.task, settings.model.dropout)
    words, skipped = _vocabulary(path, record)
    if about := record.get("from"):
        words += _parent_words(about, labelled=TASKS[settings.task.task].labelled)
        skipped |= _decided_by_parent(record)
        if about["vocabulary"] == GROW:
            skipped -= _limit(defaults, record)
    known_settings = table()
    for name, value in _values(settings, facts, record).items():
        setting = known_settings[name]
        default = defaults.get(setting.section, {}).get(name, setting.default)
        plain = value is None or value == default
        if name not in (*skipped, "sources") and not plain and not missing_need(setting, facts):
            words += words_of(name, value)
    paths = (f"./{source}" if source.startswith("-") else source for source in sources)
    if ngrams := record.get("ngrams"):
        return command("ngram", *paths, "--order", ngrams["order"], *words)
    return command("train", *paths, *words)


def _sources(path: Path, settings: Settings) -> tuple[str, ...]:
    """Return the sources of a run, or none if they cannot be read again."""
    sources = settings.corpus.sources
    if is_built_in(path):
        sources = tuple(shipped_sources(path) or ())
    return () if "-" in sources else sources


def _values(settings: Settings, facts: Json, record: Json) -> dict[str, Any]:
    """Return the values of all settings, with those that the machine and the length had."""
    values = {name: facts[name] for name in table()}
    if not record.get("ngrams"):
        values |= _machine(record)
    steps = (record.get("results") or {}).get("step")
    if values["minutes"] and steps:
        values |= {"minutes": None, "steps": steps}
    elif values["minutes"]:
        values["minutes"] *= length_factor("minutes", settings.model)
    values["valid_tokens"] = values["valid_tokens"] or _every_valid_token(record)
    if values["one_hot"]:
        values["embedding_size"] = None
    return values


def _parent_words(about: Json, *, labelled: bool) -> list[str]:
    """Return the words that name the run to start from, and what happens to its vocabulary."""
    words = ["--from", about.get("path", about["run"])]
    usual = KEEP if labelled else GROW
    return words + (["--vocabulary", about["vocabulary"]] if about["vocabulary"] != usual else [])


def _decided_by_parent(record: Json) -> set[str]:
    """Return the settings whose values came from the run that a run started from."""
    origin = f"run {record['from']['run']}"
    return {name.partition(".")[2] for name, why in record["origins"].items() if why == origin}


def repeat_note(record: Json) -> str:
    """Return a sentence that introduces the command and says if it gives the same weights."""
    if record.get("ngrams"):
        return "To fit it again:"
    if record["settings"]["training"].get("minutes"):
        return "The run was limited by minutes. To train one with as many steps:"
    if "planned" not in record:  # an older version made the run
        return "To train one with these settings:"
    if not record["planned"]:  # --resume with other settings empties the plan
        return "Settings changed when the run was resumed. To train one with the final settings:"
    return "To train it again, bit for bit on this machine:"


def _every_valid_token(record: Json) -> int | None:
    """Return the size of a long validation text, of which a plan might read a part; else None."""
    if record.get("ngrams") or TASKS[task_name(record["settings"])].labelled:
        return None
    tokens = int(record["corpus"]["parts"].get("valid", {}).get("tokens", 0))
    return tokens if tokens > MIN_VALID_TOKENS else None


def _defaults(task: str, dropout: float | None) -> Nested:
    """Return the values that a command need not have: those of the task under this dropout."""
    usual = TASKS[task].defaults.get("model", {}).get("dropout")
    given = {} if dropout == usual else {"model": {"dropout": dropout}}
    return {**task_defaults(task, given), "task": {}}  # the task has to be named


def _limit(layer: Nested, record: Json) -> set[str]:
    """Set the limits of a grown vocabulary in the defaults of a task; return their names.

    The default maximum counts the entries of the old run too. Older versions of charlm had none.
    """
    limits = layer.get("vocabulary", {})
    names = set(limits) & LIMITS
    if "max_size" in names:
        by_task = is_of_task(record["origins"].get("vocabulary.max_size", ""))
        limits["max_size"] = limits["max_size"] + record["from"]["entries"] if by_task else None
    return names


def _machine(record: Json) -> dict[str, Any]:
    """Return the settings that depend on the machine.

    A run in fp32 without the loop may be an earlier version's, or have changed to torch and back.
    """
    machine, precision = record["machine"], record.get("precision") or {}
    chosen = {"threads": machine.get("threads"), "device": machine.get("device")}
    name, engine = precision.get("name"), "torch"
    if precision.get("kernels"):
        engine = "native" if name == "bf16" else "auto"
    elif precision.get("softmax"):
        engine = "auto"
    return chosen | {"precision": name, "engine": engine}


def _vocabulary(path: Path, record: Json) -> tuple[list[str], set[str]]:
    """Return the words for a vocabulary file, and the settings that need not be repeated."""
    origins, names = record.get("origins", {}), record["settings"]["vocabulary"]
    sources = {name: str(origins.get(f"vocabulary.{name}", "default")) for name in names}
    if all(origin.startswith("file ") and origin.endswith(".json") for origin in sources.values()):
        return ["--vocab", str(path / TOKENIZER)], set(names)
    return [], {name for name, origin in sources.items() if origin == "default"}
