"""The command that trains a run again, bit for bit, from what its record says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charlm.commands import command
from charlm.config.fields import VALIDATION
from charlm.config.flags import words_of
from charlm.config.settings import settings_from, table
from charlm.config.unused import facts_of, missing_need
from charlm.errors import UsageError
from charlm.runs.layout import RECORD, TOKENIZER
from charlm.runs.pair import length_factor

Json = Mapping[str, Any]


def repeat_command(path: Path, record: Json) -> str | None:
    """Return the command with every choice of rules, plan and machine written out, or None.

    A run that the clock ended has the number of its steps in place of its minutes: it is the
    nearest that can be repeated. None without text that can be read again (stdin, memory).
    """
    try:
        settings = settings_from(record["settings"], str(path / RECORD))
    except UsageError:  # of another version of charlm
        return None
    sources = settings.corpus.sources
    if not sources or "-" in sources:
        return None
    corpus = record["corpus"]
    known = {VALIDATION: "valid" in corpus["parts"], "document": corpus["document"]}
    facts = facts_of(settings) | known
    known_settings = table()
    values = {name: facts[name] for name in known_settings} | _machine(record)
    steps = (record.get("results") or {}).get("step")
    if values["minutes"] and steps:
        values |= {"minutes": None, "steps": steps}
    elif values["minutes"]:
        values["minutes"] *= length_factor("minutes", settings.model)
    if values["one_hot"]:
        values["embedding_size"] = None
    words, skipped = _vocabulary(path, record)
    for name, value in values.items():
        setting = known_settings[name]
        plain = value is None or value == setting.default
        if name not in (*skipped, "sources") and not plain and not missing_need(setting, facts):
            words += words_of(name, value)
    paths = (f"./{source}" if source.startswith("-") else source for source in sources)
    return command("train", *paths, *words)


def repeat_note(record: Json) -> str:
    """Return a sentence that introduces the command: whether it gives the same weights."""
    if record["settings"]["training"].get("minutes"):
        return "the clock ended it; train one of as many steps:"
    if not record.get("planned"):  # taken away where other settings came with --resume
        return "its settings changed when it was resumed; train one with the last of them:"
    return "train it again, bit for bit on this machine:"


def _machine(record: Json) -> dict[str, Any]:
    """Return what the machine decided."""
    machine, precision = record["machine"], record.get("precision") or {}
    found = {"threads": machine.get("threads"), "device": machine.get("device")}
    return found | {"precision": precision.get("name")}


def _vocabulary(path: Path, record: Json) -> tuple[list[str], set[str]]:
    """Return the words for a frozen vocabulary, and settings that rules decide again or a file."""
    origins, names = record.get("origins", {}), record["settings"]["vocabulary"]
    found = {name: str(origins.get(f"vocabulary.{name}", "default")) for name in names}
    if all(origin.startswith("file ") and origin.endswith(".json") for origin in found.values()):
        return ["--vocab", str(path / TOKENIZER)], set(names)
    return [], {name for name, origin in found.items() if origin == "default"}
