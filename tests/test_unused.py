"""Conditions of settings, compared with the effect of each setting on a tiny run."""

import hashlib
import itertools
import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from helpers import nested

from charlm.config.cells import CELLS
from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.fields import DROPPED, PARENT, VALIDATION
from charlm.config.presets import PRESETS, layered
from charlm.config.settings import Settings, find_setting, merge, settings_from, table
from charlm.config.text_units import TEXT_UNITS
from charlm.config.unused import drop_unused, facts_of, missing_need, origins_of_arguments
from charlm.errors import CharlmError, UsageError
from charlm.nn.devices import Precision
from charlm.nn.model import RecurrentLanguageModel
from charlm.tasks.language_model import language_model_task
from charlm.text.corpus import Corpus
from charlm.text.dataset import Dataset, load_dataset
from charlm.text.direction import mirrored_dataset
from charlm.training.plan.planner import plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.planned_run import plan_run
from charlm.training.pretrained import set_output_bias
from charlm.training.trainer import Trainer

CPU = torch.device("cpu")
Nested = dict[str, dict[str, Any]]
WORDS = ["The", "cat", "saw", "a", "dog", "and", "tHe", "e\u0301t\u00e9", "bird", "fish", "don't"]
ROWS = [" ".join((WORDS * 2)[at : at + 3]) for at in range(11)] + ["quiz \ufb01n", "ox"]
TEXT = "".join(f"{row}\n" + ("\n" if at % 4 == 3 else "") for at, row in enumerate(ROWS * 3))
TEXT += "jay kw\n"  # what comes once


BASE = nested(
    document="line", num_layers=2, hidden_size=6, dropout=0.2, tie_weights=False, steps=8, evals=4,
    batch_size=2, bptt=5, seed=1, learning_rate=0.3, weight_decay=0.01, average=0.0,
)  # fmt: skip
OTHERS: dict[str, Any] = {
    "valid_frac": 0.3, "hold_out": "random", "document": "paragraph", "unit": "word",
    "words": "whitespace", "min_count": 9, "max_size": 9, "lowercase": True, "normalize": "nfkc",
    "nonlinearity": "relu", "mogrifier_rounds": 2, "mogrifier_rank": 2, "cap_input_gate": True,
    "qrnn_window": 1, "spectral_radius": 0.5, "sparsity": 0.5, "num_layers": 3, "hidden_size": 7,
    "last_hidden_size": 5, "embedding_size": 7, "one_hot": True, "skip": True,
    "learned_state": True, "mixture": 2, "direction": "backward", "recurrent_init": "uniform:0.3",
    "input_init": "uniform:0.3", "forget_bias": 2.0, "dropout": 0.4, "input_dropout": 0.4,
    "output_dropout": 0.4, "embedding_dropout": 0.4, "weight_drop": 0.4, "variational": True,
    "state_dropout": 0.4, "zoneout": 0.4, "zoneout_cell": 0.4, "tie_weights": True,
    "stateless": True, "batch_size": 3, "bptt": 4, "random_bptt": True, "state_reset": 0.9,
    "accumulate": 2, "learning_rate": 0.2, "weight_decay": 0.3, "momentum": 0.7, "beta1": 0.5,
    "beta2": 0.5, "label_smoothing": 0.3, "average": 0.5, "average_latest": 0.2,
    "frequency_bias": False, "activation_penalty": 1.0,
    "slowness_penalty": 1.0, "decay": 0.3, "decay_from": 0.05, "decay_every": 0.05,
    "decay_times": 1, "warmup": 0.5, "final_rate": 0.5, "clip_norm": 1e-3, "clip_value": 1e-3,
    "steps": 6, "evals": 2, "seed": 2,
}  # fmt: skip
"""A value with a large effect for each setting."""
UNTRIED = {
    "errors", "encoding", "sources", "column", "header", "delimiter", "quoting", "input_format",
    "keep_cr", "glue", "valid", "test",  # of files; see test_sources and test_tables
    "parameters", "adaptive_softmax", "vectors", "freeze_vectors",  # of other models
    "freeze_layers",  # of other runs; see test_fine_tuning
    "optimizer", "cell", "schedule",  # modes themselves
    "patience", "average_trigger",  # of validations that gain nothing; see test_trainer
    "valid_tokens",  # of long texts; see test_valid_tokens
    "calibrate", "on_nonfinite", "epochs", "minutes", "save_minutes", "keep", "device",
    "precision", "engine", "threads", "ngram", "log",
    "task", "target", "condition", "pooling", "both_ways", "freeze", "bag_of_words", "balance",
    "max_tokens", "kept_part", "head", "characters",  # of labelled texts; see test_classify
}  # fmt: skip
NAMES = {name: setting.spec.names() for name, setting in table().items()}
MODES: dict[str, Nested] = {"base": {}}
for _name, _values in (
    ("unit", TEXT_UNITS), ("cell", CELLS), ("optimizer", NAMES["optimizer"]),
    ("schedule", NAMES["schedule"]),
):  # fmt: skip
    MODES |= {f"{_name} {value}": nested(**{_name: value}) for value in _values}
MODES["schedule decay"] = nested(schedule="decay", decay_from=0.02, decay_every=0.02)
MODES |= {
    "stream": nested(document="stream"),
    "paragraphs": nested(document="paragraph"),
    "nothing held out": nested(valid_frac=0.0),
    "one layer": nested(num_layers=1),
    "stateless": nested(stateless=True),
    "one-hot": nested(one_hot=True),
    "mixture": nested(mixture=2),
    "tied": nested(tie_weights=True),
    "backward": nested(direction="backward"),
    "no dropout": nested(dropout=0.0),
    "no rounds": nested(cell="mogrifier", mogrifier_rounds=0),
    "clip_value": nested(clip_value=0.01),
    "average_trigger": nested(average_trigger=100),
    "one decay": nested(schedule="decay", decay_from=0.02, decay_times=1),
    "narrow": nested(last_hidden_size=5),
    "skip": nested(skip=True),
}


def other_value(name: str, mode: Nested) -> Any:
    """Return the value to try: pieces of words need at least 258 entries."""
    if name == "max_size" and mode.get("vocabulary", {}).get("unit") in ("byte", "bpe"):
        return 260
    return OTHERS[name]


@cache
def dataset_of(corpus: CorpusSettings, vocabulary: VocabularySettings) -> Dataset:
    return load_dataset(corpus, vocabulary, corpus=Corpus.from_text(TEXT, corpus.document))


@dataclass(frozen=True)
class Trial:
    """A tiny run: a hash of everything that it shows, and its settings."""

    shown: str
    settings: Settings
    facts: dict[str, Any]

    def refuses(self, name: str) -> bool:
        """Return whether this setting of the run is refused."""
        try:
            drop_unused(self.settings, {f"{find_setting(name).section}.{name}": "flag"}, self.facts)
        except UsageError:
            return True
        return False


def trial(values: Nested) -> Trial:
    """Train for eight steps, and hash the text, the records and the weights."""
    settings = settings_from(values)
    data = dataset_of(settings.corpus, settings.vocabulary)
    fp32 = Precision(name="fp32", reason="test")
    inputs = PlanInputs(device=CPU, choose_precision=lambda *_: fp32, measure=lambda: 5e10)
    settings = plan(settings, data, inputs).settings
    model, training = settings.model, settings.training
    network = RecurrentLanguageModel(model, len(data.vocabulary))
    network.reset_parameters(torch.Generator().manual_seed(training.seed or 0))
    if training.frequency_bias:
        set_output_bias(network, data.train)
    read = mirrored_dataset(data) if model.direction == "backward" else data
    task = language_model_task(read, training, fp32)
    trainer = Trainer(network, task, training, clock=lambda: 0.0)
    digest = hashlib.sha256(read.train.ids.tobytes())
    for record in trainer.run():
        shown = record.to_dict() | {"seconds": 0.0, "tokens_per_second": 0.0}
        digest.update(repr(shown).encode())
    with trainer.state.kept_weights():
        for name, tensor in network.state_dict().items():
            digest.update(name.encode() + tensor.numpy().tobytes())
    facts = {VALIDATION: data.valid is not None, "document": data.boundaries.document}
    return Trial(digest.hexdigest(), settings, facts)


cached = cache(lambda mode: trial(merge(BASE, MODES[mode])))


def pairs() -> list[tuple[str, str]]:
    """Return all pairs of the base mode, those with a condition on the mode, and some others."""
    every = [
        (mode, name) for mode, name in itertools.product(MODES, OTHERS)
        if not any(name in values for values in MODES[mode].values())
    ]  # fmt: skip
    decided = {
        (mode, name) for mode, name in every
        if mode == "base"
        or {need.fact for need in find_setting(name).needs}
        & {f for v in MODES[mode].values() for f in v}
    }  # fmt: skip
    rest = [pair for pair in every if pair not in decided]
    return sorted(decided | set(random.Random(0).sample(rest, 150)))


@pytest.mark.parametrize(("mode", "name"), pairs())
def test_a_setting_is_refused_if_it_has_no_effect(mode: str, name: str) -> None:
    """A setting is refused if and only if it has no effect; impossible models are left out."""
    values = merge(BASE, MODES[mode], nested(**{name: other_value(name, MODES[mode])}))
    try:
        changed = trial(values)
    except CharlmError:
        return
    if name in ("nonlinearity", "learned_state") and changed.refuses(name):
        return  # they would do something else than they say
    assert (changed.shown == cached(mode).shown) is changed.refuses(name)


def test_every_setting_is_tried_or_named() -> None:
    """A new setting must be added to one of the lists above."""
    assert {*OTHERS, *UNTRIED} == set(table())
    assert not UNTRIED & OTHERS.keys()


def test_conditions_are_on_settings_or_known_facts() -> None:
    """A misspelt fact would be a KeyError in the middle of a user's command."""
    facts = {need.fact for setting in table().values() for need in setting.needs}
    assert facts <= {*table(), VALIDATION, DROPPED, PARENT}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unit": "byte", "max_size": 100},
         "--max-size 100 has no effect with --unit byte; expected --unit char, word or bpe. Leave "
         "out --max-size"),
        ({"cell": "qrnn", "recurrent_init": "xavier"},
         "--init xavier has no effect with --cell qrnn; expected --cell rnn, lstm, gru, "
         "lstm-peephole, lstm-layernorm, lstm-capped, mlstm or mogrifier. Leave out --init"),
        ({"header": True, "input_format": "text"},
         "--header has no effect with --input-format text; expected --input-format auto, csv or "
         "tsv. Leave out --header"),
        ({"cell": "gru", "qrnn_window": 1},
         "--set qrnn_window=1 has no effect with --cell gru; expected --cell qrnn. Leave out "
         "qrnn_window"),
        ({"decay": 0.1},
         "--set decay=0.1 has no effect without --schedule; expected --schedule decay. Leave out "
         "decay"),
        ({"num_layers": 1, "skip": True},
         "--skip has no effect with --layers 1; expected --layers above 1. Leave out --skip"),
        ({"valid_frac": 0.0, "patience": 3},
         "--patience 3 has no effect without validation text; expected some: --valid, or "
         "--valid-fraction above 0. Leave out --patience"),
        ({"valid": ("a b",), "valid_frac": 0.2},
         "--valid-fraction 0.2 has no effect with --valid a b; expected one of them: a validation "
         "text takes the place of a held-out part. Leave out --valid-fraction"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_typed_expected_and_to_do(
    values: dict[str, Any], message: str
) -> None:
    settings = settings_from(nested(**values))
    origins = dict.fromkeys(origins_of_arguments(settings), "flag")
    with pytest.raises(UsageError) as caught:
        drop_unused(settings, origins)
    assert str(caught.value) == message
    name = next(name for name in values if missing_need(find_setting(name), facts_of(settings)))
    with pytest.raises(UsageError, match=rf"^{name} .* has no effect .*Leave out {name}$"):
        drop_unused(settings, dict.fromkeys(origins, "file my.toml"))


@pytest.mark.parametrize(
    "values", [{"clip_value": 1.0, "clip_norm": 0.0}, {"valid": ("a",), "valid_frac": 0.0}]
)
def test_zero_is_accepted_where_a_setting_is_off_already(values: dict[str, Any]) -> None:
    """A user writes `--clip-norm 0 --set clip_value=1` to be clear."""
    settings = settings_from(nested(**values))
    assert drop_unused(settings, origins_of_arguments(settings)) == settings


def test_all_unused_settings_are_in_one_message() -> None:
    settings = settings_from(nested(beta1=0.5, beta2=0.5, optimizer="sgd", max_size=9, unit="byte"))
    with pytest.raises(UsageError, match=r"max_size 9 .*; beta1 0.5 .*; beta2 0.5 "):
        drop_unused(settings, origins_of_arguments(settings))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    "flags", [{"cell": "gru"}, {"optimizer": "rmsprop"}, {"unit": "byte"}, {"num_layers": 1}]
)
def test_values_of_a_preset_are_never_refused(preset: str, flags: dict[str, Any]) -> None:
    """Values that lose their effect through an upper layer return to their defaults."""
    layers = [(f"preset {preset}", PRESETS[preset].settings), ("flag", nested(**flags))]
    values, origins = layered(layers)
    used = drop_unused(settings_from(values), origins)
    facts = facts_of(used)
    for name, setting in table().items():
        assert (
            facts[name] == setting.default
            or not missing_need(setting, facts)
            or (facts[name] is False)
        )
    assert drop_unused(settings_from(PRESETS[preset].settings), {}) == settings_from(
        PRESETS[preset].settings
    )


def test_settings_are_checked_again_after_the_plan() -> None:
    """The plan chose one layer; the documents were detected from the text."""
    for values, word in (
        ({"skip": True, "minutes": 0.01, "batch_size": 2, "bptt": 4}, "--skip .* with --layers 1"),
        ({"keep_cr": True, "steps": 1}, "--keep-cr .* with --document stream"),
    ):
        settings = settings_from(nested(**values))
        corpus = Corpus.from_text(TEXT * 30, "stream")
        with pytest.raises(UsageError, match=word):
            plan_run(
                settings,
                origins=dict.fromkeys(origins_of_arguments(settings), "flag"),
                corpus=corpus,
            )
