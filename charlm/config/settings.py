"""All settings of a run: their sections, their table, and settings from plain values.

`None` means that the value is decided later, from the text and the machine: the rule is in
`training.plan.planner`, and the chosen value is saved with the run.
"""

import contextlib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from charlm.config.cells import CELLS
from charlm.config.corpus import CorpusSettings, VocabularySettings
from charlm.config.fields import Need, Spec, listed_names, plain_number, row_with
from charlm.config.model import ModelSettings
from charlm.config.task import TaskSettings
from charlm.config.tasks import TASKS
from charlm.config.text_units import UNITS
from charlm.config.training import TrainingSettings
from charlm.errors import UsageError, named, naming, nearest

Nested = dict[str, dict[str, Any]]
"""Settings by section and name."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run."""

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    vocabulary: VocabularySettings = field(default_factory=VocabularySettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    task: TaskSettings = field(default_factory=TaskSettings)

    def __post_init__(self) -> None:
        if self.model.tie_weights and self.training.freeze_vectors:
            raise UsageError(
                f"{named('tie_weights')} with {named('freeze_vectors')} would freeze the output "
                "too; give one of them"
            )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return nested plain values, ready for JSON; those of a language model name no task."""
        return {
            section: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
            for section, values in asdict(self).items()
            if section != "task" or self.task != TaskSettings()
        }


TABLES: dict[str, Mapping[str, Any]] = {"cell": CELLS, "unit": UNITS, "task": TASKS}
"""Tables of rows that name the settings which only they read."""
SECTIONS: dict[str, Any] = {each.name: each.type for each in fields(Settings)}
"""Classes of the sections; lists of settings are made from their fields."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Row of the table of settings: the facts of a field, and its section."""

    name: str
    section: str
    annotation: Any
    default: Any
    spec: Spec

    @property
    def type(self) -> type:
        """The type of values other than None."""
        options = typing.get_args(self.annotation) if self.is_optional else (self.annotation,)
        kind: Any = next(option for option in options if option is not type(None))
        bare: type = typing.get_origin(kind) or kind
        return bare

    @property
    def is_optional(self) -> bool:
        """True if None is a value."""
        return isinstance(self.annotation, types.UnionType)

    @property
    def needs(self) -> tuple[Need, ...]:
        """Conditions under which it has an effect; all must hold."""
        for fact, rows in TABLES.items():
            if any(self.name in row.settings for row in rows.values()):
                is_read = row_with(fact, rows, lambda row: self.name in row.settings)
                return (is_read, *self.spec.needs)
        return self.spec.needs

    @property
    def flag(self) -> str | None:
        """The option of the command line; None if only --set gives the setting."""
        spec = self.spec
        return None if spec.flag is None else spec.flag or f"--{self.name.replace('_', '-')}"

    @property
    def flags(self) -> tuple[str, ...]:
        """All spellings of the option; empty if it has none of its own."""
        own = self.flag
        return (own, *self.spec.aliases) if own and " " not in own else ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that --set and the library take."""
        keywords = (flag[2:].replace("-", "_") for flag in self.flags)
        return tuple(dict.fromkeys((self.name, *keywords)))

    @property
    def panel(self) -> str:
        """The heading in the help."""
        return self.spec.panel or str(SECTIONS[self.section].panel)

    @property
    def meaning(self) -> str:
        """The help with the names that are allowed."""
        names = [name for name in self.spec.names() if name != "auto"]
        return self.spec.help + (f": {listed_names(names)}" if names else "")

    @property
    def type_text(self) -> str:
        """The type of its values in words."""
        return TYPE_NAMES[self.type]

    @property
    def default_text(self) -> str:
        """The default in words; empty for off."""
        note = self.spec.default_note
        if self.default is None or self.default == ():
            return note
        if isinstance(self.default, bool):
            return "yes" if self.default else ""
        text = self.default if isinstance(self.default, str) else plain_number(self.default)
        return f"{text}, {note}" if note else text


def table() -> dict[str, Setting]:
    """Return every setting by its name, in the order of the sections."""
    return dict(_table(tuple(SECTIONS.items())))


@cache
def _table(sections: tuple[tuple[str, type], ...]) -> dict[str, Setting]:
    return {
        each.name: Setting(
            name=each.name,
            section=section,
            annotation=each.type,
            default=each.default,
            spec=each.metadata["spec"],
        )
        for section, cls in sections
        for each in fields(cls)
    }


def find_setting(name: str) -> Setting:
    """Return the setting of this name, or of the flag of this name.

    Raises UsageError for an unknown name, with the nearest one.
    """
    settings = table()
    if name in settings:
        return settings[name]
    by_name = {other: setting for setting in settings.values() for other in setting.names}
    if name not in by_name:
        hint = nearest(name, by_name) or "expected one of those that charlm settings lists"
        raise UsageError(f"setting {name!r} is not known; {hint}")
    return by_name[name]


def settings_from(values: Mapping[str, Mapping[str, Any]], where: str = "") -> Settings:
    """Return settings from nested values, as in a TOML file or a saved run.

    `where` names the file of the values. Raises UsageError for an unknown section or key (with the
    nearest known name), for a value of the wrong type, and for values that contradict each other.
    """
    if not where:
        return _settings_from(values)
    try:
        with naming({}):
            return _settings_from(values)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error.__cause__


def _settings_from(values: Mapping[str, Mapping[str, Any]]) -> Settings:
    for section, content in values.items():
        _check_known("section", section, SECTIONS)
        if not isinstance(content, Mapping):
            raise UsageError(f"{section} is {content!r}; expected a table [{section}]")
    rows: dict[str, dict[str, Setting]] = {section: {} for section in SECTIONS}
    for row in table().values():
        rows[row.section][row.name] = row
    sections = {}
    for section, cls in SECTIONS.items():
        converted = {}
        for key, value in values.get(section, {}).items():
            _check_known(f"[{section}] key", key, rows[section])
            converted[key] = _convert(value, rows[section][key])
        sections[section] = cls(**converted)
    return Settings(**sections)


def _check_known(kind: str, name: str, names: Mapping[str, Any]) -> None:
    if name not in names:
        hint = nearest(name, names) or f"expected one of {', '.join(names)}"
        raise UsageError(f"{kind} {name!r} is not known; {hint}")


TYPE_NAMES = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text",
    tuple: "a list of texts",
}  # fmt: skip
"""Types of values, in words."""


def _convert(value: Any, setting: Setting) -> Any:
    """Return a value as the type of its setting: an int as a float, a list as a tuple."""
    kind = setting.type
    if value is None and setting.is_optional:
        return None
    if kind is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(items)
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    elif isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise UsageError(f"{named(setting.name)} is {value!r:.80}; expected {TYPE_NAMES[kind]}")


def read_toml(path: Path) -> Nested:
    """Return the nested values of a TOML file. Raises UsageError with the place of an error."""
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Give a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} is not valid TOML: {error}. See: charlm guide settings"
        ) from error


def merge(*layers: Mapping[str, Mapping[str, Any]]) -> Nested:
    """Return the nested values of all layers; later ones win key by key."""
    merged: Nested = {}
    for layer in layers:
        for section, content in layer.items():
            if not isinstance(content, Mapping):
                raise UsageError(f"{section} is {content!r}; expected a table [{section}]")
            merged.setdefault(section, {}).update(content)
    return merged
