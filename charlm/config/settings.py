"""Settings: frozen dataclasses, one for each concern, with TOML in and plain dictionaries out.

A field's `doc` gives meaning, unit and special value. `None` means "decide from the corpus": the
rule is in `training.plan.planner`, and the value that it chose is saved with the run.
"""

import contextlib
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from charlm.config.cells import CELLS
from charlm.config.text_units import UNITS
from charlm.errors import UsageError

WORD_RULES = ("text", "whitespace")
NORMAL_FORMS = ("none", "nfc", "nfkc")
FORMAT_NAMES = ("auto", "text", "csv", "tsv", "jsonl", "json", "parquet")
QUOTING_NAMES = ("auto", "csv", "none")
DOCUMENT_NAMES = ("auto", "stream", "line", "paragraph", "file")
OPTIMIZER_NAMES = ("adamw", "adam", "sgd", "nt-asgd", "rmsprop")
SCHEDULE_NAMES = ("cosine", "linear", "constant", "step", "plateau", "decay")
DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")
PRECISION_NAMES = ("auto", "fp32", "bf16")
NONFINITE_NAMES = ("stop", "skip", "rewind")
LENGTHS = ("epochs", "steps", "minutes")
"""Settings that give the length of a training, of which one is set."""
INIT_NAMES = ("orthogonal", "xavier", "he", "identity")
MAX_LAYERS, MAX_COUNT = 256, 2**31
LARGE = 2**31  # bounds from here on are named only where they are passed
TINY = 1e-12  # the least of numbers that must be above zero
DIRECTION_NAMES = ("forward", "backward", "both")

T = TypeVar("T")


def setting(default: Any, doc: str, choices: Collection[str] = ()) -> Any:
    """A dataclass field with its one-line documentation and, for names, the choices."""
    return field(default=default, metadata={"doc": doc, "choices": choices})


def _check(problems: list[str]) -> None:
    if problems:
        raise UsageError("; ".join(problems))


def _choice_problems(settings: Any) -> list[str]:
    problems = []
    for f in fields(settings):
        choices = f.metadata.get("choices")
        value = getattr(settings, f.name)
        if choices and value is not None and value not in choices:
            problems.append(f"{f.name} is {value!r}; expected one of {', '.join(choices)}")
    return problems


def _range_problems(settings: Any, **ranges: tuple[float, float]) -> list[str]:
    """Fields outside of low <= value <= high, or not finite; None is always allowed."""
    problems = []
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if value is None or (low <= value <= high and value != math.inf):
            continue
        lower = "more than 0" if low == TINY else f"at least {low:g}"
        upper = f" and at most {high:g}" if high < LARGE else ""
        upper = " and finite" if value == math.inf else upper
        upper = f" and at most {high:,}" if value > high and not upper else upper
        shown = f"{value:g}" if isinstance(value, float) else value
        problems.append(f"{name} is {shown}; expected {lower}{upper}")
    return problems


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Rules for reading a text from its sources: format, columns, encoding."""

    input_format: str = setting("auto", "what the source is; auto = by its suffix", FORMAT_NAMES)
    column: str | None = setting(None, "column of a table: its name, or its number from 1")
    header: bool | None = setting(None, "whether the first row holds names; None = yes, if it may")
    delimiter: str = setting("auto", "character between fields; auto = tab, or found in the csv")
    quoting: str = setting("auto", "csv: quotes enclose fields; none: they are text", QUOTING_NAMES)
    encoding: str = setting("utf-8", "encoding of the files; auto = the own one of each")
    errors: str = setting("strict", "what to do with invalid bytes", ("strict", "replace"))
    keep_cr: bool = setting(False, "keep the CR of CR LF in documents of lines and paragraphs")
    glue: bool = setting(False, "join the files of a stream with no line end put between them")

    def __post_init__(self) -> None:
        _check(self.problems())

    def problems(self) -> list[str]:
        """Say which values are not among the choices."""
        problems = _choice_problems(self)
        known = self.delimiter in ("auto", "tab", "\\t") or len(self.delimiter) == 1
        if not known or self.delimiter in '"\r\n':
            problems.append(f"delimiter is {self.delimiter!r}; expected one character, or tab")
        return problems


@dataclass(frozen=True, kw_only=True)
class CorpusSettings(Reading):
    """Which text, how it is read, where documents end, and what is held out."""

    sources: tuple[str, ...] = setting((), "files, folders, globs, -, hf:name; none = built-in")
    document: str = setting("auto", "what a document is", DOCUMENT_NAMES)
    valid: tuple[str, ...] = setting((), "validation text; empty = the tail of the corpus")
    test: tuple[str, ...] = setting((), "test text, evaluated once at the end")
    valid_frac: float | None = setting(
        None,
        "share held out; 0 = none, None = 0.1, at most 5 million characters",
    )
    hold_out: str = setting(
        "end", "what is held out: the end, or documents drawn at random", ("end", "random")
    )

    def __post_init__(self) -> None:
        problems = self.problems() + _range_problems(self, valid_frac=(0.0, 0.9))
        _check(problems)


@dataclass(frozen=True, kw_only=True)
class VocabularySettings:
    """What a token is and which tokens are kept."""

    unit: str = setting("char", "what a token is", UNITS)
    words: str = setting("text", "how words are cut: text is reversible", WORD_RULES)
    min_count: int | None = setting(None, "rarer tokens become UNK; None = by rule")
    max_size: int | None = setting(None, "most entries, UNK and EOS included; None = by rule")
    lowercase: bool = setting(False, "lower-case the text first")
    normalize: str = setting("none", "Unicode normal form applied first", NORMAL_FORMS)

    def __post_init__(self) -> None:
        problems = _choice_problems(self)
        problems += _range_problems(self, min_count=(1, math.inf), max_size=(3, 2**31))
        _check(problems)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Architecture of a recurrent language model. Sizes left None follow from the corpus."""

    cell: str = setting("lstm", "recurrent cell", CELLS)
    nonlinearity: str = setting("tanh", "of cell rnn", ("tanh", "relu"))
    mogrifier_rounds: int = setting(5, "gatings of input and state by each other, of mogrifier")
    mogrifier_rank: int | None = setting(None, "rank of its gating matrices; None = full")
    cap_input_gate: bool = setting(False, "its input gate at most 1 - forget gate")
    qrnn_window: int = setting(2, "tokens that a step of qrnn reads: 1 or 2")
    spectral_radius: float = setting(0.95, "largest absolute eigenvalue of the reservoir of esn")
    sparsity: float = setting(0.9, "share of recurrent weights of esn that are zero")
    num_layers: int | None = setting(None, "stacked recurrent layers")
    hidden_size: int | None = setting(None, "units in each recurrent layer")
    last_hidden_size: int | None = setting(None, "units in the last one; None = the same")
    embedding_size: int | None = setting(None, "width of the token embedding")
    one_hot: bool = setting(False, "one-hot input instead of an embedding")
    parameters: int | None = setting(None, "weights in all, at most: the hidden size follows")
    skip: bool = setting(False, "add the input of each layer but the first to its output")
    learned_state: bool = setting(False, "learn the state that documents begin with; else zero")
    mixture: int = setting(1, "softmaxes that are mixed (Yang et al. 2018)")
    adaptive_softmax: bool = setting(
        False, "frequent entries first, rare ones in clusters (Grave et al. 2017)"
    )
    direction: str = setting(
        "forward", "how the text is read; both = a backward model beside it", DIRECTION_NAMES
    )
    recurrent_init: str | None = setting(
        None, "orthogonal, xavier, he, identity or uniform:R; None = by cell"
    )
    input_init: str | None = setting(None, "the same for input weights; None = by cell")
    forget_bias: float = setting(1.0, "first bias of forget gates (Jozefowicz et al. 2015)")
    dropout: float | None = setting(None, "share dropped between layers")
    input_dropout: float | None = setting(None, "share dropped after the embedding; None = half")
    output_dropout: float | None = setting(None, "share dropped before the output; None = same")
    embedding_dropout: float = setting(0.0, "share of whole entries dropped from the embedding")
    weight_drop: float = setting(
        0.0, "share of recurrent weights dropped, one draw a window (DropConnect)"
    )
    variational: bool = setting(
        False, "one dropout mask for all steps of a window (Gal & Ghahramani 2016)"
    )
    state_dropout: float = setting(
        0.0, "share of the state that steps read dropped, one mask a window (same paper)"
    )
    zoneout: float = setting(
        0.0, "chance that a unit keeps its h of the step before (Krueger et al. 2017)"
    )
    zoneout_cell: float = setting(0.0, "the same for c")
    tie_weights: bool | None = setting(
        None, "output matrix = embedding (Press & Wolf 2017); None = for words and bpe"
    )

    def __post_init__(self) -> None:
        problems = _choice_problems(self) + self._size_problems() + self._pair_problems()
        for name in ("recurrent_init", "input_init"):
            value = getattr(self, name)
            if value is not None and init_range(value) is None and value not in INIT_NAMES:
                names = ", ".join(INIT_NAMES)
                problems.append(f"{name} is {value!r}; expected {names} or one like uniform:0.1")
        _check(problems)

    def _size_problems(self) -> list[str]:
        sizes = (
            "num_layers", "hidden_size", "last_hidden_size", "embedding_size", "mogrifier_rank",
        )  # fmt: skip
        shares = (
            "dropout", "input_dropout", "output_dropout", "embedding_dropout", "weight_drop",
            "state_dropout", "zoneout", "zoneout_cell",
        )  # fmt: skip
        return _range_problems(
            self,
            **dict.fromkeys(sizes, (1, 65536)) | {"num_layers": (1, MAX_LAYERS)},
            **dict.fromkeys(shares, (0.0, 0.95)),
            parameters=(1, 2**40),
            mixture=(1, 256),
            mogrifier_rounds=(0, 64),
            qrnn_window=(1, 2),
            spectral_radius=(0.0, 100.0),
            sparsity=(0.0, 1.0),
            forget_bias=(-100.0, 100.0),
        )

    def _pair_problems(self) -> list[str]:
        """Settings that contradict each other."""
        hidden, width = self.last_hidden_size or self.hidden_size, self.embedding_size
        unequal = None not in (hidden, width) and hidden != width
        found = {
            f"hidden_size is {self.hidden_size} and parameters {self.parameters}; one of them "
            "follows from the other, give one": bool(self.parameters and self.hidden_size),
            f"tie_weights needs equal sizes, but embedding_size is {width} and the last layer's "
            f"hidden_size is {hidden}": bool(self.tie_weights) and unequal and self.mixture == 1,
            "skip with last_hidden_size, whose layer has another size than its input; give one of "
            "them": self.skip and bool(self.last_hidden_size),
            "tie_weights with one_hot, which has no embedding; give one of them": bool(
                self.tie_weights and self.one_hot
            ),
            "tie_weights with adaptive_softmax, whose output matrices have other shapes; give one "
            "of them": bool(self.tie_weights and self.adaptive_softmax),
            "mixture with adaptive_softmax; give one of them": (
                self.mixture > 1 and self.adaptive_softmax
            ),
        }
        return [problem for problem, holds in found.items() if holds]


def init_range(name: str) -> float | None:
    """R of `uniform:R`; None for any other name."""
    kind, _, reach = name.partition(":")
    try:
        found = float(reach)
    except ValueError:
        return None
    return found if kind == "uniform" and 0.0 < found < math.inf else None


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a model is fitted: batches, optimiser, schedule, length of the run, where it runs."""

    stateless: bool = setting(False, "shuffled windows from the zero state, nothing carried over")
    batch_size: int | None = setting(None, "streams or documents side by side")
    bptt: int | None = setting(None, "tokens in a window of truncated back-propagation")
    random_bptt: bool = setting(
        False, "draw the length of each window around bptt (Merity et al. 2018)"
    )
    state_reset: float = setting(0.0, "chance that a row begins a window from the first state")
    accumulate: int = setting(1, "windows whose gradients make one step")
    optimizer: str = setting("adamw", "optimiser", OPTIMIZER_NAMES)
    learning_rate: float | None = setting(None, "highest learning rate")
    weight_decay: float | None = setting(
        None, "decoupled for adamw, L2 for the others; None = 0.01 for adamw, 0 for the others"
    )
    momentum: float = setting(0.0, "of sgd and rmsprop")
    beta1: float = setting(0.9, "first-moment decay of adamw and adam; 0 = none")
    beta2: float = setting(0.99, "second-moment decay of adamw and adam")
    label_smoothing: float = setting(
        0.0, "share of each target spread over all entries (Szegedy et al. 2016)"
    )
    average: float | None = setting(
        None, "decay of the average of weights that is evaluated and kept; 0 = none, None = by rule"
    )
    average_trigger: int = setting(
        0, "validations without a gain that begin a mean of weights (Melis et al. 2020); 0 = none"
    )
    average_latest: float = setting(1.0, "share of the run after which it begins in any case")
    vectors: str | None = setting(
        None, "file of word vectors (GloVe, word2vec, fastText) that the embedding begins with"
    )
    frequency_bias: bool = setting(
        True, "the output's bias begins at the logarithms of the tokens' frequencies"
    )
    freeze_vectors: bool = setting(False, "do not train the embedding that vectors gave")
    calibrate: bool = setting(True, "fit one factor on all logits on the validation text")
    activation_penalty: float = setting(0.0, "AR of Merity et al. 2017, on the last layer's output")
    slowness_penalty: float = setting(0.0, "TAR of the same paper: on its change between steps")
    schedule: str | None = setting(
        None, "learning rate over the run; None = by rule", SCHEDULE_NAMES
    )
    decay: float = setting(0.5, "factor on the rate, of schedule decay")
    decay_from: float = setting(1.0, "passes after which it comes first")
    decay_every: float = setting(1.0, "passes after which it comes again")
    decay_times: int = setting(0, "how often it comes; 0 = to the end")
    warmup: float = setting(0.02, "share of the run in which the learning rate rises linearly")
    final_rate: float = setting(0.02, "where cosine and linear end, as a share of the highest")
    clip_norm: float = setting(1.0, "largest global gradient norm; 0 = no clipping")
    clip_value: float = setting(
        0.0, "largest gradient of a single weight, instead of clip_norm; 0 = off"
    )
    on_nonfinite: str = setting(
        "stop", "a loss or gradient that is not finite: stop, skip the step, or rewind to the "
        "newest checkpoint at half the rate", NONFINITE_NAMES,
    )  # fmt: skip
    epochs: float | None = setting(None, "passes over the training text; None = by rule")
    steps: int | None = setting(None, "optimiser steps instead of epochs")
    minutes: float | None = setting(None, "wall-clock minutes instead of epochs")
    evals: int = setting(8, "validations during the run, evenly spread")
    patience: int = setting(0, "stop after this many validations without a gain; 0 = never")
    save_minutes: float = setting(2.0, "minutes between checkpoints")
    keep: int = setting(2, "checkpoints kept for resuming")
    seed: int | None = setting(None, "seed of every random draw; None = drawn and recorded")
    device: str = setting("auto", "where to compute", DEVICE_NAMES)
    precision: str = setting(
        "auto", "auto uses bf16 where the processor has it, for large models", PRECISION_NAMES
    )
    threads: int | None = setting(
        None, "CPU threads; None = by the size of the model, at most the cores"
    )

    def __post_init__(self) -> None:
        problems = _choice_problems(self)
        least_one = ("batch_size", "bptt", "steps", "threads", "evals", "keep", "accumulate")
        positive = ("learning_rate", "epochs", "minutes")
        problems += _range_problems(
            self,
            **dict.fromkeys(least_one, (1, MAX_COUNT)),
            **dict.fromkeys(positive, (TINY, math.inf)),
            **dict.fromkeys(
                ("weight_decay", "clip_norm", "clip_value", "save_minutes"), (0.0, math.inf)
            ),
            **dict.fromkeys(("activation_penalty", "slowness_penalty"), (0.0, math.inf)),
            **dict.fromkeys(("momentum", "warmup", "final_rate", "state_reset"), (0.0, 1.0)),
            **dict.fromkeys(("beta1", "beta2"), (0.0, 0.999999)),
            **dict.fromkeys(("decay", "average_latest"), (0.0, 1.0)),
            decay_from=(0.0, math.inf),
            decay_every=(1e-6, math.inf),
            **dict.fromkeys(("decay_times", "average_trigger"), (0, math.inf)),
            label_smoothing=(0.0, 0.9),
            average=(0.0, 0.999999),
            patience=(0, math.inf),
            seed=(0, 2**63 - 1),
        )
        lengths = [name for name in LENGTHS if getattr(self, name)]
        if len(lengths) > 1:
            problems.append(
                f"{' and '.join(lengths)} were given; expected one length of the run. Give one"
            )
        if self.freeze_vectors and not self.vectors:
            problems.append("freeze_vectors without vectors; give a file of vectors")
        if self.random_bptt and self.stateless:
            problems.append("random_bptt with stateless, whose windows have one length; give one")
        if self.state_reset and self.stateless:
            problems.append("state_reset with stateless, which carries no state; give one")
        if self.average_trigger and (self.average or self.optimizer == "nt-asgd"):
            problems.append("average_trigger with average or nt-asgd, which average too; give one")
        if self.average and self.optimizer == "nt-asgd":
            problems.append("average with nt-asgd, which has one of its own; give one")
        _check(problems)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that `charlm train` can be told."""

    corpus: CorpusSettings = CorpusSettings()
    vocabulary: VocabularySettings = VocabularySettings()
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()

    def __post_init__(self) -> None:
        if self.model.tie_weights and self.training.freeze_vectors:
            raise UsageError(
                "tie_weights with freeze_vectors would freeze the output too; give one of them"
            )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Nested plain values, ready for JSON."""
        return {
            section: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
            for section, values in asdict(self).items()
        }


SECTIONS: dict[str, type] = {f.name: typing.cast(type, f.type) for f in fields(Settings)}
HOMES = {f.name: section for section, cls in SECTIONS.items() for f in fields(cls)}
"""The section that each setting belongs to."""


def settings_from(values: Mapping[str, Mapping[str, Any]], where: str = "settings") -> Settings:
    """Settings from nested values, as in a TOML file or a saved run.

    Raises UsageError for an unknown section or key (with the nearest known name), for a value of
    the wrong type, and for values that contradict each other.
    """
    sections: dict[str, Any] = {}
    for section, content in values.items():
        _known(section, SECTIONS, f"{where}: section")
        if not isinstance(content, Mapping):
            raise UsageError(f"{where}: {section} is {content!r}; expected a table [{section}]")
        sections[section] = _build(SECTIONS[section], content, f"{where}: [{section}]")
    return Settings(**sections)


def section_of(key: str) -> str:
    """The section of the settings that a name belongs to. Raises UsageError with a near name."""
    if key not in HOMES:
        near = difflib.get_close_matches(key, HOMES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "expected one of the README's tables"
        raise UsageError(f"setting {key!r} is not known; {hint}")
    return HOMES[key]


def read_toml(path: Path) -> dict[str, dict[str, Any]]:
    """The nested values of a TOML file. Raises UsageError with the place of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}). Give a TOML file.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from error


def merge(*layers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Nested values of all layers, later ones winning key by key."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, content in layer.items():
            if not isinstance(content, Mapping):
                raise UsageError(f"{section} is {content!r}; expected a table [{section}]")
            merged.setdefault(section, {}).update(content)
    return merged


def _known(name: str, names: typing.Iterable[str], where: str) -> None:
    names = list(names)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}"
        raise UsageError(f"{where} {name!r} is not known; {hint}")


def _build(cls: type[T], content: Mapping[str, Any], where: str) -> T:
    kinds = typing.get_type_hints(cls)
    converted = {}
    for name, value in content.items():
        _known(name, kinds, f"{where} key")
        converted[name] = _convert(value, kinds[name], f"{where} {name}")
    return cls(**converted)


KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
"""Kinds of values, for people."""


def _convert(value: Any, kind: Any, where: str) -> Any:
    """The value as its annotated type: ints pass as floats, lists as tuples, bools as bools."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if value is None and type(None) in options:
        return None
    wanted = next(option for option in options if option is not type(None))
    if typing.get_origin(wanted) is tuple:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(items)
    elif wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    elif isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool)):
        return value
    expected = "a list of texts" if typing.get_origin(wanted) is tuple else KIND_NAMES[wanted]
    raise UsageError(f"{where} is {value!r:.80}; expected {expected}")
