"""Presets: model sizes and schedules as published; each preset trains."""

from pathlib import Path

import pytest

import charlm
from charlm.config.presets import PRESETS, layered, overlay, preset_settings
from charlm.config.settings import settings_from
from charlm.errors import UsageError
from charlm.nn.model import count_parameters
from charlm.runs.layout import read_record
from charlm.training.schedule import rate_factor

every_preset = pytest.mark.parametrize("name", PRESETS)


def flat(name: str) -> dict:
    return {k: v for values in PRESETS[name].settings.values() for k, v in values.items()}


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
TEXT = "to be or not to be\nthat is the question\n" * 20


@every_preset
def test_each_trains_and_flags_win(name: str, tmp_path: Path) -> None:
    """Small sizes and a length from flags replace those of the preset."""
    sizes = dict(SMALL)
    if name == "char-rnn":
        sizes["embedding_size"] = None
    evals = {"evals": 7} if "awd" in name and flat(name)["optimizer"] == "nt-asgd" else {}
    list(charlm.train(text=TEXT, checkpoints=tmp_path, preset=name, **sizes | evals))
    model = charlm.load(checkpoints=tmp_path)
    kept = model.config["model"]
    assert kept["hidden_size"] == 8
    for key in {"num_layers", "cell", "weight_drop", "mogrifier_rank"} & flat(name).keys():
        assert kept[key] == flat(name)[key]


def test_an_upper_layer_removes_the_alternatives_of_its_settings() -> None:
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
