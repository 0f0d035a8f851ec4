"""Settings of training: length, optimiser, schedule, averages, checkpoints, machine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from charlm.config.fields import (
    MAX_COUNT,
    PARENT,
    Need,
    above,
    check,
    field_problems,
    one_of,
    row_with,
    setting,
    validation_text,
    without,
)
from charlm.config.model import LEARNS_INPUT
from charlm.config.optimizers import OPTIMIZERS, SCHEDULES
from charlm.errors import assigned, named

LENGTHS = {
    "epochs": ("pass", "passes"), "steps": ("step", "steps"), "minutes": ("minute", "minutes"),
}  # fmt: skip
"""Settings that give the length of the run, with their nouns; one of them is set."""
RUN = "Run"
"""Panel of settings that belong to the machine or to checkpoints."""
ADAM = (row_with("optimizer", OPTIMIZERS, lambda row: row.has_betas),)
DECAY = (one_of("schedule", "decay", open_holds=False),)
MAX_ORDER = 32
"""Highest order of n-grams that are fitted or read."""
DECAYS_AGAIN = Need(
    fact="decay_times",
    holds=lambda times: times != 1,
    describe=lambda write: f"{write('decay_times')} 0 or above 1",
)
WITH_PARENT = Need(fact=PARENT, holds=bool, describe=lambda _: "--from RUN, in Python start_from")
NO_CLIP_VALUE = without("clip_value", "clip_value takes the place of clip_norm")


def length_of(training: Mapping[str, Any]) -> tuple[str, float]:
    """Return the setting that gives the length of a run, and its value."""
    return next((unit, float(training[unit])) for unit in LENGTHS if training[unit])


def counted_length(unit: str, value: float, more: str = "") -> str:
    """Return a length with its noun: "1 step", "2.5 passes", with `more` "3,000 more steps"."""
    number = f"{value:,.0f}" if value == round(value) else f"{value:g}"
    return f"{number} {more}{LENGTHS[unit][value != 1.0]}"


def precision_text(precision: Mapping[str, Any]) -> str:
    """Return the number type of training and what computes in it: "bf16 in amx kernels".

    If only the softmax is computed in kernels: "bf16, its softmax in amx kernels".
    """
    name, kernels, softmax = (precision.get(part) for part in ("name", "kernels", "softmax"))
    if kernels:
        return f"{name} in {kernels} kernels"
    return f"{name}, its softmax in {softmax} kernels" if softmax else f"{name}"


def _count(default: int | None, help_text: str, **facts: Any) -> Any:
    return setting(default, help_text, at_least=1, limit=MAX_COUNT, **facts)


def _number(default: float | None, help_text: str, **facts: Any) -> Any:
    """Return the field of a number that is at least 0."""
    return setting(default, help_text, at_least=0, **facts)


def _positive(help_text: str, **facts: Any) -> Any:
    return setting(None, help_text, above=0, default_note="by rule", **facts)


def _fraction(default: float | None, help_text: str, at_most: float = 1, **facts: Any) -> Any:
    return setting(default, help_text, at_least=0, at_most=at_most, **facts)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Fitting: length, batches, optimiser, schedule, checkpoints and the machine."""

    panel: ClassVar[str] = "Optimisation"

    epochs: float | None = _positive("Passes over the training text", unit="passes")
    steps: int | None = _count(
        None, "Length in optimiser steps", unit="steps", default_note="by --epochs"
    )
    minutes: float | None = setting(
        None,
        "Length in minutes, which also decides the sizes",
        above=0,
        unit="minutes",
        default_note="by --epochs",
    )
    stateless: bool = setting(False, "Shuffle windows and carry no state over")
    batch_size: int | None = _count(
        None, "Sequences processed side by side", flag="--batch", default_note="by rule"
    )
    bptt: int | None = _count(
        None, "Length of a back-propagation window", unit="tokens", default_note="by rule"
    )
    random_bptt: bool = setting(
        False, "Vary the length of each window around bptt", source="Merity et al. 2018", flag=None
    )
    state_reset: float = _fraction(
        0.0, "Probability that a sequence starts a window from the initial state", flag=None
    )
    accumulate: int = _count(1, "Windows for each optimiser step", flag=None, unit="windows")
    optimizer: str = setting("adamw", "Optimiser", choices=OPTIMIZERS)
    learning_rate: float | None = _positive("Highest learning rate")
    weight_decay: float | None = _number(
        None, "Weight decay: decoupled for adamw, else L2", default_note="by rule for adamw, else 0"
    )
    momentum: float = _fraction(
        0.0, "Momentum", needs=(row_with("optimizer", OPTIMIZERS, lambda row: not row.has_betas),)
    )
    beta1: float = _fraction(
        0.9, "Decay of the first moment; 0 = none", 0.999999, flag=None, needs=ADAM
    )
    beta2: float = _fraction(0.99, "Decay of the second moment", 0.999999, flag=None, needs=ADAM)
    label_smoothing: float = _fraction(0.0, "Fraction of each target spread over all entries", 0.9)
    average: float | None = _fraction(
        None, "Decay of a kept average of weights; 0 = none", 0.999999, default_note="by rule"
    )
    average_trigger: int = _number(
        0,
        "Start averaging weights after N validations without a gain; 0 = never",
        flag=None,
        unit="validations",
        needs=(validation_text(),),
    )
    average_latest: float = _fraction(
        1.0,
        "Fraction of the run after which averaging starts at the latest",
        flag=None,
        needs=(above("average_trigger", 0),),
    )
    vectors: str | None = setting(
        None, "Start from vectors: GloVe, word2vec, fastText", panel="Model", unit="file"
    )
    frequency_bias: bool = setting(
        True, "Start the output bias at the log frequencies of tokens", flag=None
    )
    freeze_layers: int = _number(
        0,
        "Do not train the embedding and the first N layers of the run that --from names",
        panel=RUN,
        limit=256,
        unit="layers",
        needs=(WITH_PARENT,),
    )
    freeze_vectors: bool = setting(False, "Do not train the embedding given by vectors", flag=None)
    calibrate: bool = setting(
        True, "Fit one factor on all logits at the end, on the validation text", has_no=True
    )
    ngram: int | None = setting(
        None,
        "Order of the n-grams fitted beside the network for mixtures; 0 = none",
        at_least=0,
        limit=MAX_ORDER,
        default_note="by rule",
        needs=(validation_text(),),
    )
    activation_penalty: float = _number(
        0.0, "Penalty on large outputs (AR)", source="Merity et al. 2017", needs=LEARNS_INPUT
    )
    slowness_penalty: float = _number(
        0.0,
        "Penalty on changes of the output (TAR)",
        source="Merity et al. 2017",
        needs=LEARNS_INPUT,
    )
    schedule: str | None = setting(
        None,
        "Learning rate over the run",
        choices=SCHEDULES,
        default_note="by rule",
        needs=(validation_text(*(s for s, row in SCHEDULES.items() if row.follows_validation)),),
    )
    decay: float = _fraction(0.5, "Factor on the learning rate", flag=None, needs=DECAY)
    decay_from: float = _number(
        1.0, "Passes before the first decay", flag=None, unit="passes", needs=DECAY
    )
    decay_every: float = setting(
        1.0,
        "Passes between decays",
        flag=None,
        at_least=1e-6,
        unit="passes",
        needs=(*DECAY, DECAYS_AGAIN),
    )
    decay_times: int = _number(0, "Number of decays; 0 = until the end", flag=None, needs=DECAY)
    warmup: float = _fraction(0.02, "Fraction of the run with a rising learning rate")
    final_rate: float = _fraction(
        0.02,
        "Last learning rate, as a fraction of the highest",
        flag=None,
        needs=(row_with("schedule", SCHEDULES, lambda row: row.ends_at_final_rate),),
    )
    clip_norm: float = _number(
        1.0, "Largest gradient norm; 0 = no clipping", needs=(NO_CLIP_VALUE,)
    )
    clip_value: float = _number(
        0.0, "Largest gradient of one weight, instead of clip_norm; 0 = off", flag=None
    )
    on_nonfinite: str = setting(
        "stop", "Response to NaN or infinity", choices=("stop", "skip", "rewind")
    )
    evals: int = _count(
        8,
        "Validations during the run",
        unit="validations",
        default_note="or one for each pass over labels, tags, translations or numbers",
        needs=(validation_text(),),
    )
    valid_tokens: int | None = _count(
        None,
        "Tokens of the validation text that are read, spread over it",
        unit="tokens",
        default_note="all, or what the length of the run allows",
        needs=(validation_text(),),
    )
    patience: int = _number(
        0,
        "Stop after N validations without a gain; 0 = never",
        unit="validations",
        needs=(validation_text(),),
    )
    save_minutes: float = _number(2.0, "Minutes between checkpoints", panel=RUN, unit="minutes")
    keep: int = _count(2, "Checkpoints kept for resuming", flag=None, panel=RUN)
    log: str | None = setting(
        None,
        "Second log beside metrics.jsonl",
        panel=RUN,
        choices=("tensorboard",),
        default_note="no second log",
    )
    seed: int | None = setting(
        None, "Random seed", panel=RUN, at_least=0, limit=2**63 - 1, default_note="a new one"
    )
    device: str = setting("auto", "Device", panel=RUN, choices=("auto", "cpu", "cuda", "mps"))
    precision: str = setting(
        "auto",
        "Number format",
        default_note="bf16 if faster; fp16 needs CUDA",
        panel=RUN,
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    engine: str = setting(
        "auto",
        "Backend of layers (native = compiled kernels, in bf16)",
        default_note="the fastest",
        panel=RUN,
        choices=("auto", "torch", "native"),
    )
    threads: int | None = _count(None, "CPU threads", panel=RUN, default_note="by rule")

    def __post_init__(self) -> None:
        lengths = [named(name) for name in LENGTHS if getattr(self, name)]
        average, trigger, stateless = named("average"), named("average_trigger"), named("stateless")
        averaging = self.optimizer in OPTIMIZERS and OPTIMIZERS[self.optimizer].averages
        contradictions = {
            f"{' and '.join(lengths)} were given; expected one length of the run. Give one": (
                len(lengths) > 1
            ),
            f"{named('freeze_vectors')} without {named('vectors')}; give a file of vectors": (
                self.freeze_vectors and not self.vectors
            ),
            f"{assigned('engine', 'native')} with {assigned('precision', 'fp32')}; its kernels "
            f"compute in bf16. Use {assigned('precision', 'bf16')}, or leave out "
            f"{named('engine')}": (self.engine == "native" and self.precision == "fp32"),
            f"{named('random_bptt')} with {stateless}, whose windows have one length; give one": (
                self.random_bptt and self.stateless
            ),
            f"{named('state_reset')} with {stateless}, which carries no state; give one": (
                self.state_reset and self.stateless
            ),
            f"{trigger} with {average} or nt-asgd, which average too; give one": (
                self.average_trigger and (self.average or averaging)
            ),
            f"{average} with nt-asgd, which has one of its own; give one": (
                self.average and averaging
            ),
        }
        check(field_problems(self) + [text for text, holds in contradictions.items() if holds])
