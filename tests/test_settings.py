"""Settings: all mistakes in one message; TOML and plain values in and out."""

import math
from dataclasses import Field, fields
from typing import Any

import pytest

from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.fields import plain_number
from charlm.config.flags import settings_in
from charlm.config.model import ModelSettings
from charlm.config.settings import SECTIONS, Settings, merge, read_toml, settings_from, table
from charlm.config.training import TrainingSettings
from charlm.errors import UsageError
from charlm.inference.samplers import RULES, Sampling

FIELDS = [(name, field) for name, cls in SECTIONS.items() for field in fields(cls)]


@pytest.mark.parametrize(("section", "field"), FIELDS)
def test_every_setting_says_what_it_means(section: str, field: Field[Any]) -> None:
    """One line of help, and what it means if nothing is given."""
    spec = field.metadata["spec"]
    assert spec.help[0].isupper() and "\n" not in spec.help and not spec.help.endswith(".")
    assert getattr(SECTIONS[section](), field.name) == field.default
    optional = ("column", "test", "parameters", "vectors", "condition")  # nothing, by default
    assert field.default not in (None, ()) or spec.default_note or field.name in optional


def test_every_number_has_a_range() -> None:
    """A size of -3 or a rate of infinity is refused before anything is read."""
    for setting in table().values():
        if setting.type in (int, float):
            assert setting.spec.range_text(), setting.name


def test_a_wrong_choice_of_any_setting_is_refused_with_the_choices() -> None:
    """Also if a rule about several settings looks the name up in a table."""
    for setting in table().values():
        if setting.spec.choices:
            with pytest.raises(UsageError, match=rf"{setting.name} is 'nothing'; expected"):
                settings_from({setting.section: {setting.name: "nothing"}})


def test_names_of_sampling_rules_are_fields() -> None:
    """A rule without its field could not be asked for."""
    assert set(RULES) < set(Sampling.__dataclass_fields__)


@pytest.mark.parametrize(
    ("value", "text"),
    [(2**31, "2147483648"), (1e-6, "0.000001"), (0.95, "0.95"), (3e9, "3000000000"), (-2.0, "-2"),
     (math.inf, "inf")],
)  # fmt: skip
def test_numbers_have_no_exponent(value: float, text: str) -> None:
    """No `at most 2.14748e+09`."""
    assert plain_number(value) == text


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"modle": {}}, ["'modle'", "did you mean 'model'?"]),
        ({"model": {"hiden_size": 3}}, ["[model]", "'hiden_size'", "did you mean 'hidden_size'?"]),
        ({"model": {"zzz": 3}}, ["'zzz'", "expected one of cell, nonlinearity"]),
        ({"model": 3}, ["model is 3", "table [model]"]),
        (
            {"model": {"hidden_size": "3"}},
            ["hidden_size is '3'", "expected a whole number"],
        ),
        ({"model": {"hidden_size": 3.0}}, ["hidden_size is 3.0", "expected a whole number"]),
        ({"model": {"hidden_size": True}}, ["hidden_size is True", "expected a whole number"]),
        ({"model": {"tie_weights": 1}}, ["tie_weights is 1", "expected true or false"]),
        ({"model": {"dropout": True}}, ["dropout is True", "expected a number"]),
        ({"model": {"cell": None}}, ["cell is None", "expected a text"]),
        ({"model": {"cell": "lstmm"}}, ["cell is 'lstmm'", "rnn, lstm, gru"]),
        ({"model": {"cell": "lstn"}}, ["rnn, lstm, gru", "(did you mean 'lstm'?)"]),
        ({"corpus": {"sources": [1]}}, ["sources is [1]", "list of texts"]),
        ({"corpus": {"sources": 1}}, ["sources is 1", "list of texts"]),
    ],
)
def test_a_mistake_in_a_file_is_named_with_what_was_expected(values, words) -> None:
    """The message has the nearest name for an unknown key, and the right type for a wrong one."""
    with pytest.raises(UsageError) as caught:
        settings_from(values, "my.toml")
    for word in ["my.toml", *words]:
        assert word in str(caught.value)


def test_all_problems_are_in_one_message() -> None:
    """Four mistakes are four parts of the message."""
    with pytest.raises(UsageError) as caught:
        ModelSettings(cell="tree", hidden_size=0, dropout=1.5, embedding_size=8, tie_weights=True)
    message = str(caught.value)
    for word in ["cell is 'tree'", "hidden_size is 0", "dropout is 1.5", "tie_weights needs"]:
        assert word in message


def test_tied_weights_need_equal_sizes_once_both_are_known() -> None:
    """The message has both unequal sizes; equal or open ones are accepted."""
    with pytest.raises(
        UsageError, match=r"embedding_size is 4 and the last layer.s hidden_size is 3"
    ):
        ModelSettings(tie_weights=True, embedding_size=4, hidden_size=3)
    ModelSettings(tie_weights=True, embedding_size=3, hidden_size=3)
    ModelSettings(tie_weights=True, embedding_size=3)


def test_a_run_has_one_length() -> None:
    """Epochs and minutes would contradict each other."""
    with pytest.raises(UsageError, match=r"epochs and minutes were given; .* Give one"):
        TrainingSettings(epochs=1, minutes=2)
    with pytest.raises(UsageError, match="epochs and steps and minutes"):
        TrainingSettings(epochs=1, steps=3, minutes=2)
    TrainingSettings(steps=3)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: CorpusSettings(valid_frac=0.95), "valid_frac is 0.95; .* at most 0.9"),
        (lambda: CorpusSettings(document="page"), "document is 'page'"),
        (lambda: VocabularySettings(max_size=2), "max_size is 2; expected at least 3"),
        (lambda: VocabularySettings(min_count=0), "min_count is 0"),
        (lambda: TrainingSettings(learning_rate=-1.0), "learning_rate is -1"),
        (lambda: TrainingSettings(learning_rate=0.0), "learning_rate is 0"),
        (lambda: TrainingSettings(learning_rate=math.nan), "learning_rate is nan"),
        (lambda: TrainingSettings(learning_rate=math.inf), "learning_rate is inf"),
        (lambda: TrainingSettings(seed=-1), "seed is -1"),
        (lambda: TrainingSettings(seed=10**400), "seed is 1000"),
    ],
)
def test_values_out_of_range_are_refused(make, word: str) -> None:
    """The message has the value and the nearest allowed one."""
    with pytest.raises(UsageError, match=word):
        make()


def test_settings_convert_to_plain_values_and_back() -> None:
    """settings -> dictionary -> settings; ints pass as floats, one text as a list of one."""
    values = {
        "corpus": {"sources": "a.txt", "valid_frac": 0},
        "vocabulary": {"unit": "word"},
        "model": {"hidden_size": 3, "dropout": 0},
        "training": {"steps": 7},
    }
    settings = settings_from(values)
    assert settings.corpus.sources == ("a.txt",)
    assert isinstance(settings.model.dropout, float)
    assert settings_from(settings.to_dict()) == settings
    assert settings_from(Settings().to_dict()) == Settings()
    assert settings.to_dict()["corpus"]["sources"] == ["a.txt"]


def test_toml_is_read_with_or_without_a_byte_order_mark(tmp_path) -> None:
    """Windows editors write the mark; it is not part of the first key."""
    path = tmp_path / "a.toml"
    for mark in ("", "\ufeff"):
        path.write_text(f'{mark}[model]\ncell = "gru"\n', encoding="utf-8")
        assert read_toml(path) == {"model": {"cell": "gru"}}


@pytest.mark.parametrize(
    ("content", "word"), [(b"[model\n", "line 1"), (b'a = "\xff"', "0xff"), (None, "No such file")]
)
def test_a_broken_toml_file_is_reported_with_its_place(tmp_path, content, word: str) -> None:
    """Syntax error, wrong encoding and missing file are usage errors with the path."""
    path = tmp_path / "a.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    assert word in str(caught.value)


def test_later_layers_win_key_by_key() -> None:
    """Preset, then file, then flags; no layer is changed by the merge."""
    preset = {"model": {"cell": "lstm", "hidden_size": 8}, "training": {"bptt": 4}}
    file = {"model": {"hidden_size": 16}}
    flags = {"model": {"cell": "gru"}, "corpus": {"sources": ["x"]}}
    assert merge(preset, file, flags) == {
        "model": {"cell": "gru", "hidden_size": 16},
        "training": {"bptt": 4},
        "corpus": {"sources": ["x"]},
    }
    assert preset["model"] == {"cell": "lstm", "hidden_size": 8}
    with pytest.raises(UsageError, match=r"model is 3; expected a table \[model\]"):
        merge(preset, {"model": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("pair", "section", "value"),
    [
        ("zoneout=0.5", "model", 0.5),
        ("zoneout=.5", "model", 0.5),
        ("random_bptt=true", "training", True),
        ("accumulate = 3", "training", 3),
        ("recurrent_init=uniform:.1", "model", "uniform:.1"),
        ('recurrent_init="he"', "model", "he"),
        ("sources=['a', 'b']", "corpus", ["a", "b"]),
        ("training.batch_size=9", "training", 9),
        (" model.zoneout = .5", "model", 0.5),
        ("column=2", "corpus", "2"),
    ],
)
def test_a_pair_is_a_setting_of_its_section(pair: str, section: str, value) -> None:
    """Values are TOML if they can be, else numbers, else text; names may have a section."""
    name = pair.partition("=")[0].strip().rpartition(".")[2]
    assert settings_in([pair]) == {section: {name: value}}
    settings_from(settings_in([pair]))


BOOLEAN_NAMES = [setting.name for setting in table().values() if setting.type is bool]


@pytest.mark.parametrize("name", BOOLEAN_NAMES)
def test_yes_and_no_may_be_written_in_several_ways(name: str) -> None:
    """In upper or lower case, for every setting of that type; other words are refused."""
    for value, texts in ((True, ["true", "yes", "1"]), (False, ["false", "no", "0"])):
        for text in (form for word in texts for form in (word, word.title(), word.upper())):
            (values,) = settings_in([f"{name}={text}"]).values()
            assert values == {name: value}
            assert values[name] is value
    with pytest.raises(UsageError, match="expected true or false"):
        settings_from(settings_in([f"{name}=2"]))


def test_the_names_that_info_prints_are_those_of_set() -> None:
    """Every setting under its section; under another section it is refused with the right one."""
    for section, cls in SECTIONS.items():
        for field in fields(cls):
            assert list(settings_in([f"{section}.{field.name}=1"])) == [section]
            for other in SECTIONS.keys() - {section}:
                with pytest.raises(UsageError, match=f"expected {section}.{field.name}, or"):
                    settings_in([f"{other}.{field.name}=1"])


@pytest.mark.parametrize("pair", ["zoneout", "zoneot=1", "=3", "", "model.zoneot=1", "model.=1"])
def test_malformed_pairs_are_refused(pair: str) -> None:
    """The message has the expected form, or the nearest name."""
    with pytest.raises(UsageError, match=r"expected|did you mean"):
        settings_in([pair])
