"""Shapes of the JSON files of a run: the types of all values, and a check."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from charlm.config.tasks import CLASSIFY, SERIES, TAG, TRANSLATE
from charlm.errors import RunError

NUMBER = (int, float)
MAYBE = (int, float, type(None))
MAX_SHOWN = 80


@dataclass(frozen=True)
class Each:
    """A table with any keys, or a list, whose values all have one shape."""

    shape: Any
    kind: type = dict


FIGURES = {
    "nats_per_token": MAYBE, "bits_per_char": MAYBE, "perplexity": MAYBE, "oov?": int,
    "perplexity_without_oov?": MAYBE,
}  # fmt: skip
MAYBE_FIGURES = (FIGURES, type(None))
COMPANION_FIGURES = dict.fromkeys(
    (f"{name}_nats_per_token" for name in ("network", "ngram", "mixture")), NUMBER
)
PART = dict.fromkeys(("tokens", "documents", "chars", "bytes", "words", "targets?"), int)

RECORD_SHAPE: dict[str, Any] = {
    "format": int,
    "name": str,
    "created": str,
    "command": str,
    "status": str,
    "origins": Each(str),
    "settings": Each(dict),
    "corpus": {
        "name": str,
        "sources": Each(str, list),
        "valid?": Each(str, list),
        "test?": Each(str, list),
        "document": str,
        "fingerprint": str,
        "coverage": NUMBER,
        "vocabulary": int,
        "parts": Each(PART),
        "labels?": Each(Each(int)),
        "column?": str,
        "columns?": {"text?": str, "target?": str},
    },
    "floors?": Each(dict),
    "machine": {"device_name": str, "threads": int},
    "precision?": {"name": str, "reason": str},
    "parameters?": int,
    "planned?": dict,
    "notes?": Each(str, list),
    "pulled?": {"repository": str, "revision": str},
    "from?": {
        "run": str,
        "path?": str,
        "id": (str, type(None)),
        "sha256": str,
        "vocabulary": str,
        "entries": int,
        "valid": MAYBE_FIGURES,
        "old_valid": MAYBE_FIGURES,
    },
    "ngrams?": {"order": int, "method": str, "sizes": Each(int, list)},
    "results?": {
        "step": int,
        "seconds": NUMBER,
        "reason": str,
        "logit_scale?": NUMBER,
        "bag?": int,
        "valid?": MAYBE_FIGURES,
        "test?": MAYBE_FIGURES,
        "old_valid?": MAYBE_FIGURES,
        "valid_uncalibrated?": MAYBE_FIGURES,
        "companion?": (
            {"order": int, "bytes": int, "weight": NUMBER, **COMPANION_FIGURES},
            type(None),
        ),
        "notes": Each(str, list),
    },
}
"""Shape of run.json. Names that may be missing end with a question mark."""

FIGURES_OF = {
    CLASSIFY: ("nats_per_text", "accuracy", "macro_f1", "macro_recall"),
    TAG: ("nats_per_tag", "accuracy", "precision", "recall", "f1"),
    TRANSLATE: ("nats_per_token", "exact", "chrf", "bleu"),
    SERIES: ("nats_per_value", "mse", "mae", "explained", "last_value_mse", "recurrence_mse"),
}
"""Figures of a text in run.json, by task; only the first one is always there."""

TASK_SHAPES: dict[str, dict[str, Any]] = {
    CLASSIFY: {
        "labels": Each(str, list), "pooling": str, "both_ways": bool, "max_tokens": int,
        "kept_part": str,
    },
    TAG: {
        "labels": Each(str, list), "spans": bool, "both_ways": bool, "output": str,
        "letter_width": int, "letters": int,
    },
    TRANSLATE: {"both_ways": bool, "target_size": int},
    SERIES: {
        "column": str, "mean": NUMBER, "scale": NUMBER, "change": NUMBER, "stateless": bool,
        "window": int,
    },
}  # fmt: skip
"""Shape of the table `task` in config.json beside its name, by task. Keys with the name of a field
of `TaskSettings` are that setting."""

CONFIG_SHAPE = {
    "vocab_size": int,
    "document": str,
    "eos_inside?": bool,
    "crlf?": bool,
    "line_ends_inside?": bool,
    "unk_types?": NUMBER,
    "logit_scale?": NUMBER,
    "task?": {"name": str},
    "conditions?": {
        "column": str,
        "labels": Each(str, list),
        "documents": Each(int, list),
        "without": int,
    },
    "model": {"cell": str, "num_layers": int, "hidden_size": int, "embedding_size": int},
    "vocabulary": {"unit": str, "words": str},
    "charlm?": str,
    "torch?": str,
}

NGRAM_CONFIG_SHAPE = CONFIG_SHAPE | {"model": {"kind": str, "order": int, "direction": str}}
"""Shapes of config.json, of networks and of n-gram models."""


def record_shape(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shape of run.json for the task that it names."""
    settings = record.get("settings")
    section = settings.get("task") if isinstance(settings, Mapping) else None
    task = section.get("task") if isinstance(section, Mapping) else None
    names = FIGURES_OF.get(task) if isinstance(task, str) else None
    if names is None:
        return RECORD_SHAPE
    figures = ({names[0]: MAYBE} | {f"{name}?": MAYBE for name in names[1:]}, type(None))
    results = dict.fromkeys(("valid?", "test?", "valid_uncalibrated?"), figures)
    return RECORD_SHAPE | {"results?": RECORD_SHAPE["results?"] | results | {"floors?": dict}}


def check_shape(content: Any, shape: Any, where: str) -> None:
    """Raise RunError that names the first value that does not fit the shape."""
    options = shape if isinstance(shape, tuple) else (shape,)
    table = next((option for option in options if isinstance(option, dict | Each)), None)
    if table is None or not isinstance(content, table.kind if isinstance(table, Each) else dict):
        kinds = tuple(option for option in options if isinstance(option, type))
        if not isinstance(content, kinds) or (isinstance(content, bool) and bool not in kinds):
            value = f"{type(content).__name__} {shown(content)}"
            raise RunError(f"{where} is {value}; expected {_names(shape)}, as charlm train writes")
        return
    for key, inner, value in _inner(content, table, where):
        if type(value) is inner:  # most values, of which there are hundreds in run.json
            continue
        check_shape(value, inner, f"{where}.{shown(key)[1:-1]}")


def _inner(content: Any, table: Any, where: str) -> list[tuple[str, Any, Any]]:
    """Return name, shape and value of each entry that must be checked."""
    if isinstance(table, Each):
        pairs = content.items() if isinstance(content, Mapping) else enumerate(content)
        return [(str(key), table.shape, value) for key, value in pairs]
    entries = []
    for name, inner in table.items():
        key = name.removesuffix("?")
        if key in content:
            entries.append((key, inner, content[key]))
        elif key == name:
            raise RunError(f"{where}.{key} is missing; expected {_names(inner)}")
    return entries


def _names(shape: Any) -> str:
    if isinstance(shape, tuple):
        return " or ".join(dict.fromkeys(_names(option) for option in shape))
    if isinstance(shape, Each):
        return "a list" if shape.kind is list else "a table"
    if isinstance(shape, dict) or shape is dict:
        return "a table"
    return "nothing" if shape is type(None) else str(shape.__name__)


def shown(value: Any) -> str:
    """Return a value for a message, shortened if it is long."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
