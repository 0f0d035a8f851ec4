"""Options and steps that several commands share."""

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from charlm import api
from charlm.cli.output import say
from charlm.commands import command
from charlm.config.corpus import ReadSettings
from charlm.config.flags import words_of
from charlm.config.settings import Setting, table
from charlm.errors import UsageError, check_choice, named

if TYPE_CHECKING:
    from charlm.api.model import Model

H = TypeVar("H")
Run = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="NAME|PATH",
        help="Run to use; hf:org/name is one on a hub. (default: CHARLM_RUN, or the newest)",
    ),
]
Checkpoints = Annotated[
    Path | None,
    typer.Option(
        "--checkpoints",
        metavar="DIR",
        envvar="CHARLM_CHECKPOINTS",
        help="Folder of the runs. (default: checkpoints)",
    ),
]
Engine = Annotated[
    str,
    typer.Option("--engine", help="Backend: auto, native (compiled kernels), numpy or torch."),
]
Device = Annotated[
    str,
    typer.Option("--device", help="Device that computes: cpu, cuda, mps or auto (CUDA if there)."),
]
Weights = Annotated[
    str,
    typer.Option("--weights", help="Format of the weights in the kernels: fp32, bf16 or int8."),
]
Condition = Annotated[
    str | None,
    typer.Option(
        "--condition",
        metavar="VALUE",
        help="Value with which texts begin, of a run trained with --condition.",
    ),
]
With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="RUN[=WEIGHT]",
        help="Mix the probabilities with those of another run of the same vocabulary, or of the "
        "run's n-gram companion (--with ngram); may be repeated. (default weight: fitted on the "
        "validation text)",
    ),
]
WithLabels = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="RUN[=WEIGHT]",
        help="Average the probabilities with those of another run of the same labels; may be "
        "repeated. WEIGHT is a fraction, such as 0.3; the run itself has the rest. (default "
        "weight: equal)",
    ),
]
WithAny = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="RUN[=WEIGHT]",
        help="Also mix with another run: a language model of the same vocabulary, the run's n-gram "
        "companion (ngram), or for a classifier, one of the same labels; may be repeated. WEIGHT "
        "is a fraction, such as 0.3; the run itself has the rest. (default weight: fitted on the "
        "validation text, or equal for classifiers)",
    ),
]


def _check_penalty(value: float | None) -> float | None:
    if value is not None and not 0.0 <= value < math.inf:
        raise UsageError(
            f"--unk-penalty is {value}; expected nats, a number from 0 on. 0 switches it off"
        )
    return value


UnkPenalty = Annotated[
    float | None,
    typer.Option(
        "--unk-penalty",
        metavar="NATS",
        callback=_check_penalty,
        help="Cost of each unknown token (UNK) beyond -ln P(UNK); 0 is off. "
        "(default: ln of the number of types that UNK stands for)",
    ),
]
Theme = Annotated[
    str | None,
    typer.Option(
        "--theme",
        help="Background of the terminal: light or dark. (default: by COLORFGBG, else dark)",
    ),
]
WithData = Annotated[
    bool,
    typer.Option(
        "--with-data", help="Include the training text, and the n-grams beside a network."
    ),
]
WithStates = Annotated[
    bool, typer.Option("--with-states", help="Include the checkpoints, to resume training.")
]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
SettingFlags = Mapping[str, Any]
"""Values of the settings whose flags were typed, by the settings' names."""
NO_FLAGS: SettingFlags = MappingProxyType({})
"""Default for a parameter of this kind: no flag was typed."""
ALIAS = "_alias"
"""Ending of the parameter for another spelling of a flag."""


@dataclass(frozen=True)
class SettingOptions:
    """Marker of a command's parameter that collects the typed flags of several settings."""

    names: Callable[[], Iterable[str]]

    def options(self) -> dict[str, Any]:
        """Return an annotated option for each flag of the settings; aliases are hidden."""
        settings = table()
        return {
            f"{name}{ALIAS * number}": _option_of(settings[name], flag, hidden=number > 0)
            for name in self.names()
            for number, flag in enumerate(settings[name].flags)
        }

    def flags(self, pairs: Iterable[str] | None) -> dict[str, str]:
        """Return the flags of the settings, but of none that was typed as a pair of --set."""
        in_pairs = {pair.partition("=")[0].rpartition(".")[2] for pair in pairs or ()}
        settings = table()
        flags = {name: settings[name].flag for name in self.names() if name not in in_pairs}
        return {name: flag for name, flag in flags.items() if flag}

    def typed(self, values: dict[str, Any]) -> dict[str, Any]:
        """Remove the options of settings from a command's values; return those that were typed."""
        given: dict[str, Any] = {}
        for option in self.options():
            value, name = values.pop(option), option.removesuffix(ALIAS)
            if value is not None and name in given:
                flags = " and ".join(table()[name].flags)
                raise UsageError(f"{flags} are names of one setting; give one of them")
            given |= {name: value} if value is not None else {}
        return given


def _option_of(setting: Setting, flag: str, *, hidden: bool) -> Any:
    kind: Any = list[str] if setting.type is tuple else setting.type
    if setting.spec.parse or setting.spec.unit == "file":
        kind = Path if setting.spec.unit == "file" else str
    return Annotated[
        kind | None,
        typer.Option(
            f"{flag}/--no-{flag[2:]}" if setting.spec.has_no else flag,
            help=help_line(setting),
            rich_help_panel=setting.panel,
            hidden=hidden,
        ),
    ]


def help_line(setting: Setting) -> str:
    """Return the help of a setting: its meaning, the names it takes, its default."""
    default = f" (default: {setting.default_text})" if setting.default_text else ""
    return f"{setting.meaning}.{default}"


def reading_settings() -> list[str]:
    """Return the settings that every command that reads a text takes."""
    return [each.name for each in fields(ReadSettings)]


def _every_setting() -> list[str]:
    reading = reading_settings()
    return [*(name for name in table() if name not in reading), *reading]


def _vocabulary_settings() -> list[str]:
    return [name for name, setting in table().items() if setting.section == "vocabulary"]


def _text_settings() -> list[str]:
    corpus = [name for name, setting in table().items() if setting.section == "corpus"]
    reading = reading_settings()
    own = [name for name in corpus if name not in reading and table()[name].flag]
    return [*own, *_vocabulary_settings(), *reading]


def _pair_settings() -> list[str]:
    only_texts = ("column", "keep_cr", "glue")
    return [name for name in reading_settings() if name not in only_texts]


def _search_settings() -> list[str]:
    return ["document", "valid", "unit", *reading_settings()]


Reading = Annotated[SettingFlags, SettingOptions(reading_settings)]
"""Flags that say how a text is read."""
PairReading = Annotated[SettingFlags, SettingOptions(_pair_settings)]
"""Flags that say how files of pairs are read."""
Beam = Annotated[
    int | None,
    typer.Option(
        "--beam",
        metavar="N",
        min=1,
        max=50,
        help="Translations that are followed side by side. (default: 5)",
    ),
]
LabelledReading = Annotated[SettingFlags, SettingOptions(lambda: [*reading_settings(), "target"])]
"""Flags that say how texts are read, beside which there may be labels."""
Decoding = Annotated[SettingFlags, SettingOptions(lambda: ["encoding", "errors"])]
"""Flags that say how the bytes of files are read as text."""
Every = Annotated[SettingFlags, SettingOptions(_every_setting)]
"""Flags of all settings; those for reading a text come last."""
Vocabulary = Annotated[SettingFlags, SettingOptions(_vocabulary_settings)]
"""Flags of the vocabulary."""
Text = Annotated[SettingFlags, SettingOptions(_text_settings)]
"""Flags of a text and of its vocabulary."""
Search = Annotated[SettingFlags, SettingOptions(_search_settings)]
"""Flags that say which text a search reads, and how."""


def reading_flags(reading: SettingFlags) -> set[str]:
    """Return the typed flags, such as "--column"."""
    return {words_of(name, value)[0] for name, value in reading.items()}


def reads_table(reading: SettingFlags) -> bool:
    """Return whether the format that was typed is that of a table."""
    return reading.get("input_format", "auto") not in ("auto", "text")


def table_flags(reading: SettingFlags) -> set[str]:
    """Return the typed flags that only a table needs."""
    settings = table()
    needed = {
        name: value
        for name, value in reading.items()
        if name == "target" or any(need.fact == "input_format" for need in settings[name].needs)
    }
    return reading_flags(needed)


def locate(
    run: str | None, checkpoints: Path | None, *, trained: bool = True, verb: str = ""
) -> Path:
    """Return the folder of the run; report on stderr which run it is, if it was not named.

    Without a name it is the newest run, with `verb` the newest one that this command uses.
    """
    from charlm.runs.built_in import is_built_in
    from charlm.runs.locate import best_trial, checkpoints_folder, find_run, run_name

    path = find_run(run, checkpoints_folder(checkpoints), trained=trained, verb=verb)
    if best_trial(path.parent) == path:
        if run is None or Path(run).name != path.name:
            say(f"run {run_name(path)} (the best trial of a search)")
    elif run is None:
        kind = "the built-in model" if is_built_in(path) else "the newest run"
        say(f"run {path.name} ({kind})")
    return path


def check_network(path: Path, flag: str) -> None:
    """Raise UsageError for a flag, if one was typed, with an n-gram run."""
    from charlm.runs.locate import is_ngram_run
    from charlm.runs.run import no_network

    if flag and is_ngram_run(path):
        raise no_network(path, flag)


def on_device(device: str, engine: str) -> str:
    """Return the engine that computes on a device; see `runs.engines.engine_on`."""
    if device == "cpu":
        return engine
    from charlm.runs.engines import engine_on

    return engine_on(device, engine)


def open_model(
    run: str | None,
    checkpoints: Path | None,
    engine: str = "auto",
    weights: str = "fp32",
    with_: list[str] | None = None,
    threads: int | None = None,
    condition: str | None = None,
) -> "Model":
    """Return the model of the run, mixed with others; report the weights of a mixture."""
    path = locate(run, checkpoints)
    model = api.loading.load_model(
        path,
        engine=engine,
        weights=weights,
        threads=threads,
        with_=with_ or (),
        checkpoints=checkpoints,
        condition=condition,
    )
    if model.mixture:
        say(str(model.mixture))
    say(f"engine {model.run.backend.name}", level=2)
    return model


def reported_seed(seed: int | None) -> int:
    """Return the seed as given, or a fresh one, which is reported so that it can be repeated."""
    if seed is None:
        from charlm.inference.samplers import fresh_seed

        seed = fresh_seed()
        say(f"seed {seed}")
    return seed


def checked_theme(theme: str | None) -> str:
    """Return the theme of the terminal, by default the one that its environment names."""
    from charlm.report.heat import THEMES, default_theme

    if theme is not None:
        check_choice(named("theme"), theme, THEMES)
    return theme or default_theme(os.environ)


def hints_of(annotation: Any, kind: type[H]) -> list[H]:
    """Return the hints of a kind that the annotation of a parameter has."""
    return [hint for hint in getattr(annotation, "__metadata__", ()) if isinstance(hint, kind)]


def flag_of(annotation: Any) -> str:
    """Return the flag of an annotated option, or "" for an argument."""
    options = hints_of(annotation, typer.models.OptionInfo)
    words = (str(word) for one in options for word in (one.default, *(one.param_decls or ())))
    flags = [word.partition("/")[0] for word in words if word.startswith("-")]
    return max(flags, key=len, default="")


def typed_values(asked: Any, *flags: str) -> dict[str, Any]:
    """Return the values of flags of a command, in this order, without those at their default.

    `asked` is the dataclass of its options.
    """
    own = {flag_of(each.type): each for each in fields(asked)}
    values = {flag: getattr(asked, own[flag].name) for flag in flags}
    return {flag: value for flag, value in values.items() if value != own[flag].default}


def check_meant(typed: Collection[str], needed: str) -> None:
    """Raise UsageError for a typed flag, since it has no effect without another one."""
    if typed:
        flag = min(typed)
        raise UsageError(
            f"{flag} has no effect without {needed}. Add {needed}, or leave out {flag}"
        )


def warn_of_slips(verb: str, texts: list[str], act: str, done: str) -> None:
    """Warn if texts are the name of a file, or one sentence without quotes.

    `act` and `done` are what the command does to a text, such as score and scored.
    """
    from charlm.runs.locate import is_file

    if len(texts) == 1 and is_file(Path(texts[0])):
        lines = command(verb, "--file", texts[0])
        say(f"{texts[0]} is {done} as a sentence; to {act} the lines of this file: {lines}")
    if len(texts) > 2 and not any(map(str.isspace, "".join(texts))):
        say(f"{len(texts)} texts are {done}; put a sentence into quotes to {act} it as one")


def name_unknown(model: "Model", texts: Iterable[str], what: str) -> None:
    """Report which pieces of the texts are not in the vocabulary."""
    from charlm.report.text import unknown_note
    from charlm.text.documents import END

    mark = model.run.boundaries.mark
    documents = (document for text in texts for document in mark(text).split(END))
    pieces = (piece for document in documents for piece in model.vocabulary.unknown(document))
    if unknown := list(pieces):
        say(unknown_note(what, unknown))
