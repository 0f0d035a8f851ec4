"""Training of classifiers: settings of the task."""

from typing import Any

import pytest
from helpers import nested

from charlm.config.presets import combined, layered
from charlm.config.settings import Settings, find_setting, settings_from
from charlm.config.task import TaskSettings
from charlm.config.tasks import CLASSIFY, TASKS, task_name
from charlm.config.unused import drop_unused, origins_of_arguments
from charlm.errors import UsageError

ROW = TASKS[CLASSIFY]


def test_defaults_of_a_task_are_the_lowest_layer() -> None:
    """The user, a preset and a file win; a task without defaults has no layer."""
    values, origins = combined(nested(task="classify", hidden_size=7), "flag")
    assert values["model"]["hidden_size"] == 7 and origins["model.hidden_size"] == "flag"
    for section, defaults in ROW.defaults.items():
        for key, value in defaults.items():
            if key != "hidden_size":
                assert values[section][key] == value
                assert origins[f"{section}.{key}"] == "task classify"
    values, origins = combined(nested(task="classify"), "flag", preset="zaremba-small")
    assert values["model"]["hidden_size"] == 200
    assert origins["model.hidden_size"] == "preset zaremba-small"
    assert combined(nested(hidden_size=7), "flag")[0] == nested(hidden_size=7)


@pytest.mark.parametrize("name", ROW.settings)
def test_settings_of_labelled_texts_are_refused_without_a_task(name: str) -> None:
    others: dict[str, Any] = {"target": "x", "pooling": "last", "max_tokens": 5, "kept_part": "end"}
    default = find_setting(name).default
    settings = settings_from(nested(**{name: others.get(name, not default)}))
    if settings.task.both_ways:  # off is accepted
        with pytest.raises(UsageError, match=f"{name} .*task language-model; expected task class"):
            drop_unused(settings, origins_of_arguments(settings))


@pytest.mark.parametrize("values", [{"stateless": True}, {"mixture": 2}, {"direction": "backward"}])
def test_settings_of_language_models_are_refused_with_a_task(values: dict[str, Any]) -> None:
    """With both names; values of a preset return to their defaults."""
    values = nested(task="classify", **values)
    settings = settings_from(values)
    with pytest.raises(UsageError, match="task classify; expected task language-model"):
        drop_unused(settings, origins_of_arguments(settings))
    kept, origins = layered([("preset x", values)])
    assert drop_unused(settings_from(kept), origins) == Settings(task=TaskSettings(task=CLASSIFY))


def test_no_default_of_a_task_belongs_to_another_task() -> None:
    """It would return to the default of the setting as soon as it is checked."""
    own = {name for row in TASKS.values() for name in row.settings}
    assert not own & {key for values in ROW.defaults.values() for key in values}


def test_plain_settings_name_the_task_only_if_it_has_labels() -> None:
    """Records of language models stay as they were, and are read as such."""
    assert "task" not in Settings().to_dict() and task_name(Settings().to_dict()) != CLASSIFY
    settings = settings_from(nested(task="classify", target="stars"))
    plain = settings.to_dict()
    assert task_name(plain) == CLASSIFY and settings_from(plain) == settings
