"""Differences between two runs: settings with their origins, facts, and results."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from charlm.config.corpus import HELD_OUT_NAMES
from charlm.config.settings import settings_from
from charlm.config.training import precision_text
from charlm.runs.card import model_size
from charlm.runs.layout import home, read_config, read_record
from charlm.runs.overview import FIGURES
from charlm.runs.shapes import FIGURES_OF

Pair = tuple[Any, Any]


@dataclass(frozen=True, kw_only=True)
class SettingPair:
    """A setting that differs between two runs: its values, and where each came from."""

    name: str
    values: Pair
    origins: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class RunDiff:
    """Differences between two runs.

    `settings` and `facts` hold only what differs. `results` holds each figure of either run, None
    where a run has none.
    """

    names: tuple[str, str]
    settings: list[SettingPair]
    facts: dict[str, Pair]
    results: dict[str, Pair]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def diff_runs(first: Path, second: Path) -> RunDiff:
    """Compare the records of two runs. Raises RunError for a damaged run."""
    one, two = (read_record(home(path)) for path in (first, second))
    facts = [_facts(path, record) for path, record in ((first, one), (second, two))]
    return RunDiff(
        names=(first.name, second.name),
        settings=_setting_pairs(one, two),
        facts={k: v for k, v in _paired(*facts).items() if v[0] != v[1]},
        results=_paired(_results(one), _results(two)),
    )


def _setting_pairs(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[SettingPair]:
    """Return the settings that differ; those that an older run does not record have defaults."""
    flat = [_flat(settings_from(record["settings"]).to_dict()) for record in (one, two)]
    origins = [record.get("origins", {}) for record in (one, two)]
    return [
        SettingPair(
            name=name,
            values=values,
            origins=(origins[0].get(name, "default"), origins[1].get(name, "default")),
        )
        for name, values in _paired(*flat).items()
        if values[0] != values[1]
    ]


def _flat(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{section}.{key}": value
        for section, values in settings.items()
        for key, value in values.items()
    }


def _facts(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what else distinguishes runs: model, text, machine, version."""
    config, corpus, machine = read_config(path), record["corpus"], record["machine"]
    return {
        "model": model_size(record),
        "vocabulary": config["vocab_size"],
        "text": corpus["name"],
        "text SHA-256": corpus["fingerprint"][:12],
        "training tokens": (corpus["parts"].get("train") or {}).get("tokens"),
        "fine-tuned from": (record.get("from") or {}).get("run"),
        "precision": precision_text(own) if (own := record.get("precision")) else None,
        "device": machine["device_name"],
        "threads": machine["threads"],
        "charlm": config.get("charlm"),
        "torch": config.get("torch"),
    }


def _results(record: Mapping[str, Any]) -> dict[str, Any]:
    results = record.get("results") or {}
    figures = {"status": record["status"], "step": results.get("step")}
    figures["seconds"] = results.get("seconds")
    for split in HELD_OUT_NAMES:
        tally = results.get(split) or {}
        names = dict.fromkeys(chain(FIGURES, *FIGURES_OF.values()))
        figures |= {f"{split}_{name}": tally[name] for name in names if tally.get(name)}
    return figures


def _paired(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Pair]:
    """Return the values of two mappings by name, None where one has no value."""
    return {name: (one.get(name), two.get(name)) for name in dict.fromkeys((*one, *two))}
