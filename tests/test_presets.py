"""Presets: every number and model size as published; each preset trains."""

from dataclasses import fields
from pathlib import Path

import pytest

import charlm
from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.model import ModelSettings
from charlm.config.presets import PRESETS, layered, overlay, preset_settings
from charlm.config.settings import settings_from
from charlm.config.training import TrainingSettings
from charlm.errors import UsageError
from charlm.nn.model import count_parameters
from charlm.runs.layout import read_record
from charlm.training.schedule import rate_factor

# What the papers, READMEs and configurations say, in their own units and by our names.
WORDS = {"document": "stream", "unit": "word", "words": "whitespace"}
BYTES = {"document": "stream", "unit": "byte"}
OLD = {
    "warmup": 0.0, "average": 0.0, "weight_decay": 0.0, "calibrate": False,
    "frequency_bias": False,
}  # fmt: skip
NO_DROPOUT = {"dropout": 0.0, "input_dropout": 0.0, "output_dropout": 0.0}
ZAREMBA = WORDS | OLD | {
    "num_layers": 2, "tie_weights": False, "batch_size": 20, "optimizer": "sgd",
    "schedule": "decay", "forget_bias": 0.0,
}  # fmt: skip
AWD = OLD | {
    "num_layers": 3, "tie_weights": True, "variational": True, "random_bptt": True,
    "clip_norm": 0.25, "weight_decay": 1.2e-6,
}  # fmt: skip
AWD_WORDS = WORDS | AWD | {
    "hidden_size": 1150, "last_hidden_size": 400, "embedding_size": 400, "output_dropout": 0.4,
    "embedding_dropout": 0.1, "weight_drop": 0.5, "optimizer": "nt-asgd", "learning_rate": 30.0,
    "schedule": "constant", "bptt": 70, "activation_penalty": 2.0, "slowness_penalty": 1.0,
}  # fmt: skip
AWD_LETTERS = AWD | {
    "embedding_dropout": 0.0, "optimizer": "adam", "beta1": 0.9, "beta2": 0.999, "batch_size": 128,
    "schedule": "decay", "decay": 0.1, "decay_times": 2, "seed": 1111,
}  # fmt: skip
MOGRIFIER = {
    "cell": "mogrifier", "cap_input_gate": True, "skip": True, "forget_bias": 1.0,
    "optimizer": "adam", "beta1": 0.0, "beta2": 0.999, "state_reset": 0.01,
    "schedule": "constant", "warmup": 0.0, "average": 0.0, "average_latest": 0.8,
    "calibrate": True, "frequency_bias": False,
}  # fmt: skip
PUBLISHED = {
    "char-rnn": OLD | NO_DROPOUT | {
        "document": "stream", "valid_frac": 0.05, "unit": "char", "num_layers": 2,
        "hidden_size": 128, "one_hot": True, "recurrent_init": "uniform:0.08",
        "input_init": "uniform:0.08", "forget_bias": 1.0, "batch_size": 50, "bptt": 50,
        "epochs": 50.0, "optimizer": "rmsprop", "learning_rate": 0.002,
        "clip_value": 0.1,  # 5 on the sum over 50 steps
        "schedule": "decay", "decay": 0.97, "decay_from": 10.0, "seed": 123, "evals": 50,
    },
    "torch-rnn": OLD | NO_DROPOUT | {
        "document": "stream", "valid_frac": 0.1, "unit": "char", "num_layers": 2,
        "hidden_size": 128, "embedding_size": 64, "forget_bias": 1.0, "batch_size": 50, "bptt": 50,
        "epochs": 50.0, "optimizer": "adam", "learning_rate": 0.002, "beta1": 0.9, "beta2": 0.999,
        "clip_value": 5.0, "schedule": "decay", "decay": 0.5, "decay_from": 4.0,
        "decay_every": 5.0, "evals": 50,
    },
    "zaremba-small": ZAREMBA | NO_DROPOUT | {
        "hidden_size": 200, "embedding_size": 200, "bptt": 20, "epochs": 13.0, "evals": 13,
        "learning_rate": 20.0, "clip_norm": 0.25,  # 1 and 5 on the sum over 20 steps
        "decay": 0.5, "decay_from": 5.0, "recurrent_init": "uniform:0.1",
        "input_init": "uniform:0.1",
    },
    "zaremba-medium": ZAREMBA | {
        "hidden_size": 650, "embedding_size": 650, "bptt": 35, "epochs": 39.0, "evals": 39,
        "learning_rate": 35.0, "clip_norm": 5 / 35, "decay": 1 / 1.2, "decay_from": 7.0,
        "dropout": 0.5, "input_dropout": 0.5, "output_dropout": 0.5,
        "recurrent_init": "uniform:0.05", "input_init": "uniform:0.05",
    },
    "zaremba-large": ZAREMBA | {
        "hidden_size": 1500, "embedding_size": 1500, "bptt": 35, "epochs": 55.0, "evals": 55,
        "learning_rate": 35.0, "clip_norm": 10 / 35, "decay": 1 / 1.15, "decay_from": 15.0,
        "dropout": 0.65, "input_dropout": 0.65, "output_dropout": 0.65,
        "recurrent_init": "uniform:0.04", "input_init": "uniform:0.04",
    },
    "awd-ptb": AWD_WORDS | {
        "input_dropout": 0.4, "dropout": 0.25, "batch_size": 20, "epochs": 500.0, "seed": 141,
    },
    "awd-wt2": AWD_WORDS | {
        "input_dropout": 0.65, "dropout": 0.2, "batch_size": 80, "epochs": 750.0, "seed": 1882,
    },
    "awd-ptb-char": WORDS | AWD_LETTERS | {
        "hidden_size": 1000, "last_hidden_size": 200, "embedding_size": 200, "dropout": 0.25,
        "input_dropout": 0.1, "output_dropout": 0.1, "weight_drop": 0.5, "bptt": 150,
        "learning_rate": 0.002, "epochs": 500.0, "decay_from": 300.0, "decay_every": 100.0,
        "evals": 500,
    },
    "awd-enwik8": BYTES | AWD_LETTERS | {
        "hidden_size": 1840, "last_hidden_size": 400, "embedding_size": 400, "dropout": 0.1,
        "input_dropout": 0.1, "output_dropout": 0.4, "weight_drop": 0.2, "bptt": 200,
        "learning_rate": 0.001, "epochs": 50.0, "decay_from": 25.0, "decay_every": 10.0,
        "evals": 50,
    },
    "mogrifier-ptb": WORDS | MOGRIFIER | {
        "num_layers": 2, "parameters": 24_000_000, "mogrifier_rounds": 5, "mogrifier_rank": 84,
        "tie_weights": True, "input_dropout": 0.729, "dropout": 0.291, "state_dropout": 0.387,
        "output_dropout": 0.716, "weight_decay": 2.52e-4 / 70, "clip_norm": 10 / 70,
        "learning_rate": 0.0023,  # L2 and clipping are of the sum over 70 steps
        "batch_size": 64, "bptt": 70, "steps": 200_000, "evals": 1000, "average_trigger": 50,
    },
    "mogrifier-ptb-char": WORDS | MOGRIFIER | {
        "num_layers": 2, "parameters": 24_000_000, "mogrifier_rounds": 4, "mogrifier_rank": 24,
        "tie_weights": False, "input_dropout": 0.279, "dropout": 0.0738, "state_dropout": 0.171,
        "output_dropout": 0.235, "weight_decay": 2.56e-4 / 150, "clip_norm": 10 / 150,
        "learning_rate": 0.00374,
        "batch_size": 64, "bptt": 150, "steps": 100_000, "evals": 500, "average_trigger": 25,
    },
    "mogrifier-enwik8": BYTES | MOGRIFIER | {
        "num_layers": 4, "parameters": 48_000_000, "mogrifier_rounds": 6, "mogrifier_rank": 79,
        "tie_weights": False, "input_dropout": 0.0155, "dropout": 0.0086, "state_dropout": 0.0437,
        "output_dropout": 0.138, "weight_decay": 9.93e-4 / 500, "clip_norm": 10 / 500,
        "learning_rate": 0.00102,
        "batch_size": 128, "bptt": 500, "steps": 40_000, "evals": 100, "average_trigger": 10,
    },
}  # fmt: skip

every_preset = pytest.mark.parametrize("name", PRESETS)


def flat(name: str) -> dict:
    return {k: v for values in PRESETS[name].settings.values() for k, v in values.items()}


@every_preset
def test_every_number_is_the_published_one(name: str) -> None:
    """No other setting is set, and each value is in its section."""
    assert flat(name) == pytest.approx(PUBLISHED[name])
    sections = {"corpus": CorpusSettings, "vocabulary": VocabularySettings,
                "model": ModelSettings, "training": TrainingSettings}  # fmt: skip
    for section, values in PRESETS[name].settings.items():
        assert values.keys() <= {f.name for f in fields(sections[section])}


@pytest.mark.parametrize(
    ("name", "vocab_size", "millions"),
    [("zaremba-small", 10_000, 4.65), ("zaremba-medium", 10_000, 19.8),
     ("zaremba-large", 10_000, 66.0), ("awd-ptb", 10_000, 24.2), ("awd-wt2", 33_278, 33.6),
     ("awd-ptb-char", 50, 13.8), ("awd-enwik8", 205, 47.0)],
)  # fmt: skip
def test_models_have_the_published_number_of_weights(name, vocab_size, millions) -> None:
    """24, 33, 13.8 and 47 million of the AWD papers, 66 of Zaremba's large model, within 2 %."""
    settings = settings_from(PRESETS[name].settings).model
    assert count_parameters(settings, vocab_size) / 1e6 == pytest.approx(millions, rel=0.02)


SMALL = {"hidden_size": 8, "embedding_size": 8, "last_hidden_size": None, "batch_size": 2,
         "bptt": 5, "steps": 3, "evals": 1}  # fmt: skip
TEXT = "to be or not to be\nthat is the question\n" * 60


@every_preset
def test_each_trains_and_flags_win(name: str, tmp_path: Path) -> None:
    """Small sizes and a length from flags replace those of the preset."""
    sizes = dict(SMALL)
    if name == "char-rnn":
        sizes["embedding_size"] = None
    evals = {"evals": 7} if "awd" in name and PUBLISHED[name]["optimizer"] == "nt-asgd" else {}
    list(charlm.train(text=TEXT, checkpoints=tmp_path, preset=name, **sizes | evals))
    model = charlm.load(checkpoints=tmp_path)
    kept = model.config["model"]
    assert kept["hidden_size"] == 8
    for key in {"num_layers", "cell", "weight_drop", "mogrifier_rank"} & flat(name).keys():
        assert kept[key] == flat(name)[key]


def test_a_layer_wins_with_its_choice_among_alternatives() -> None:
    """Steps remove the epochs of the layer below; a size removes the number of weights."""
    low = {"model": {"parameters": 5, "cell": "gru"}, "training": {"epochs": 3.0, "seed": 1}}
    high = {"model": {"hidden_size": 4}, "training": {"steps": 7}}
    assert overlay(low, high) == {
        "model": {"cell": "gru", "hidden_size": 4}, "training": {"seed": 1, "steps": 7},
    }  # fmt: skip
    assert overlay(low, {}) == low


def test_an_unknown_preset_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(UsageError, match=r"'awd'; expected one of char-rnn, .*enwik8"):
        preset_settings("awd")


def test_rates_fall_as_published() -> None:
    """torch-rnn halves after 4, 9, 14 passes; char-rnn begins at 10; AWD divides by ten twice."""

    def rates(name: str, passes: list[float]) -> list[float]:
        settings = settings_from(PRESETS[name].settings).training
        return [rate_factor(settings, 0.5, at) for at in passes]

    assert rates("torch-rnn", [0, 3.99, 4, 8.9, 9, 14]) == [1, 1, 0.5, 0.5, 0.25, 0.125]
    assert rates("char-rnn", [9.9, 10, 11]) == pytest.approx([1, 0.97, 0.97**2])
    assert rates("zaremba-small", [4.9, 5, 6]) == [1, 0.5, 0.25]
    assert rates("awd-enwik8", [24, 25, 34, 35, 45, 50]) == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01, 0.01]
    )


@pytest.mark.parametrize(
    ("name", "given", "gone"),
    [
        ("char-rnn", {"training": {"clip_norm": 1.0}}, {"clip_value"}),
        ("char-rnn", {"model": {"embedding_size": 64}}, {"one_hot"}),
        ("zaremba-small", {"model": {"one_hot": True}}, {"embedding_size"}),
        ("awd-ptb", {"training": {"optimizer": "adamw"}}, {"learning_rate"}),
        ("mogrifier-ptb", {"model": {"hidden_size": 99}}, {"parameters"}),
    ],
)  # fmt: skip
def test_a_flag_removes_contradicting_values_of_a_preset(name: str, given: dict, gone: set) -> None:
    """A preset's clipping of single gradients once won over --clip-norm without a message."""
    nested, origins = layered([(f"preset {name}", preset_settings(name)), ("flag", given)])
    assert not gone & {key for values in nested.values() for key in values}
    settings_from(nested)
    assert not any(origin.rpartition(".")[2] in gone for origin in origins)
    ((section, values),) = given.items()
    assert {origins[f"{section}.{key}"] for key in values} == {"flag"}


def test_tied_sizes_go_together() -> None:
    """AWD-LSTM with a narrower embedding has a narrower last layer."""
    nested = overlay(preset_settings("awd-ptb"), {"model": {"embedding_size": 200}})
    assert nested["model"]["last_hidden_size"] == 200
    settings_from(nested)
    both = {"model": {"embedding_size": 200, "last_hidden_size": 100, "tie_weights": False}}
    assert overlay(preset_settings("awd-ptb"), both)["model"]["last_hidden_size"] == 100


def test_the_origin_of_a_setting_is_recorded_for_presets_too(tmp_path: Path) -> None:
    """The origin is the preset, the argument of the library, or the rule."""
    list(charlm.train(text=TEXT, checkpoints=tmp_path, preset="zaremba-small", **SMALL))
    origins = read_record(next(tmp_path.iterdir()))["origins"]
    assert origins["training.decay"] == "preset zaremba-small"
    assert origins["training.steps"] == "argument"
    assert origins["training.epochs"] == "default"
