"""Settings of the model: its cell, sizes, initial weights and dropout."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from charlm.config.cells import CELLS
from charlm.config.fields import (
    DROPPED,
    Need,
    above,
    cell_with,
    check,
    embedding_width,
    field_problems,
    scaled_number,
    setting,
)
from charlm.errors import named

INIT_NAMES = ("orthogonal", "xavier", "he", "identity")
MAX_SIZE = 65536
LEARNS_INPUT = (cell_with(lambda cell: cell.learns_input),)
DROPOUT = Need(fact=DROPPED, holds=bool, describe=lambda write: f"{write('dropout')} above 0")


def _size(help_text: str, limit: int = MAX_SIZE, **facts: Any) -> Any:
    return setting(None, help_text, at_least=1, at_most=limit, **facts)


def _drop(default: float | None, help_text: str, **facts: Any) -> Any:
    return setting(default, help_text, at_least=0.0, at_most=0.95, only_training=True, **facts)


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """Architecture of a recurrent language model. Sizes that are None follow from the text."""

    panel: ClassVar[str] = "Model"

    cell: str = setting("lstm", "Recurrent cell", choices=CELLS)
    nonlinearity: str = setting(
        "tanh", "Activation of cell rnn", flag=None, choices=("tanh", "relu")
    )
    mogrifier_rounds: int = setting(
        5, "Rounds in which input and state gate each other", flag=None, at_least=0, at_most=64
    )
    mogrifier_rank: int | None = _size(
        "Rank of the gating matrices",
        flag=None,
        default_note="full rank",
        needs=(above("mogrifier_rounds", 0),),
    )
    cap_input_gate: bool = setting(False, "Limit the input gate to 1 - forget gate", flag=None)
    qrnn_window: int = setting(
        2, "Tokens read by one step", flag=None, at_least=1, at_most=2, unit="tokens"
    )
    spectral_radius: float = setting(
        0.95, "Largest absolute eigenvalue of the reservoir", flag=None, at_least=0.0, at_most=100.0
    )
    sparsity: float = setting(
        0.9, "Fraction of recurrent weights that are zero", flag=None, at_least=0.0, at_most=1.0
    )
    num_layers: int | None = _size("Stacked layers", 256, flag="--layers", default_note="by rule")
    hidden_size: int | None = _size(
        "Units in each layer", flag="--hidden", unit="units", default_note="by rule"
    )
    last_hidden_size: int | None = _size(
        "Units in the last layer", flag=None, unit="units", default_note="as the others"
    )
    embedding_size: int | None = _size(
        "Width of the token embedding, or one-hot",
        flag="--embedding",
        parse=embedding_width,
        default_note="by rule",
    )
    one_hot: bool = setting(
        False, "One-hot input instead of an embedding", flag="--embedding one-hot"
    )
    parameters: int | None = _size(
        "Maximum number of weights, such as 2M; sets --hidden",
        2**40,
        flag="--params",
        unit="weights",
        parse=scaled_number,
    )
    skip: bool = setting(
        False, "Add each layer's input to its output (residual)", needs=(above("num_layers", 1),)
    )
    learned_state: bool = setting(False, "Learn the initial state of documents", needs=LEARNS_INPUT)
    mixture: int = setting(
        1,
        "Number of softmaxes to mix",
        source="Yang et al. 2018",
        flag="--mos",
        at_least=1,
        at_most=256,
    )
    adaptive_softmax: bool = setting(
        False, "Output layer with clusters of rare entries", source="Grave et al. 2017", flag=None
    )
    direction: str = setting(
        "forward", "Reading direction", choices=("forward", "backward", "both")
    )
    recurrent_init: str | None = setting(
        None,
        "Initial recurrent weights: orthogonal, xavier, he, identity, uniform:R",
        flag="--init",
        default_note="by cell",
        needs=(cell_with(lambda cell: cell.learns_recurrence),),
    )
    input_init: str | None = setting(
        None,
        "Initial input weights, named as for --init",
        flag=None,
        default_note="by cell",
        needs=LEARNS_INPUT,
    )
    forget_bias: float = setting(
        1.0,
        "Initial bias of forget gates",
        source="Jozefowicz et al. 2015",
        flag=None,
        at_least=-100.0,
        at_most=100.0,
        needs=(cell_with(lambda cell: cell.forget_gate is not None),),
    )
    dropout: float | None = _drop(None, "Fraction dropped between layers", default_note="by rule")
    input_dropout: float | None = _drop(
        None, "Fraction dropped after the embedding", default_note="half of --dropout"
    )
    output_dropout: float | None = _drop(
        None, "Fraction dropped before the output", default_note="as --dropout"
    )
    embedding_dropout: float = _drop(0.0, "Fraction of whole embedding entries dropped")
    weight_drop: float = _drop(
        0.0, "Fraction of recurrent weights dropped in each window (DropConnect)"
    )
    variational: bool = setting(
        False,
        "One dropout mask for all steps of a window",
        source="Gal & Ghahramani 2016",
        needs=(DROPOUT,),
        only_training=True,
    )
    state_dropout: float = _drop(
        0.0,
        "Fraction of the state dropped, one mask per window",
        source="Gal & Ghahramani 2016",
        flag=None,
    )
    zoneout: float = _drop(
        0.0, "Probability that a unit keeps its last h", source="Krueger et al. 2017", flag=None
    )
    zoneout_cell: float = _drop(0.0, "Probability that a unit keeps its last c", flag=None)
    tie_weights: bool | None = setting(
        None,
        "Use the embedding as the output matrix",
        source="Press & Wolf 2017",
        flag="--tie",
        has_no=True,
        default_note="for words and bpe",
    )

    @property
    def output_size(self) -> int:
        """Units of the last layer; 0 if they are not known."""
        return self.last_hidden_size or self.hidden_size or 0

    def __post_init__(self) -> None:
        problems = field_problems(self) + self._pair_problems()
        for name in ("recurrent_init", "input_init"):
            value = getattr(self, name)
            if value is not None and init_range(value) is None and value not in INIT_NAMES:
                problems.append(
                    f"{named(name)} is {value!r}; expected {', '.join(INIT_NAMES)} or one like "
                    "uniform:0.1"
                )
        check(problems)

    def _pair_problems(self) -> list[str]:
        """Return the contradictions between settings."""
        hidden, width = self.last_hidden_size or self.hidden_size, self.embedding_size
        unequal = None not in (hidden, width) and hidden != width
        tie, adaptive = named("tie_weights"), named("adaptive_softmax")
        contradictions = {
            f"{named('hidden_size')} is {self.hidden_size} and {named('parameters')} is "
            f"{self.parameters}; each of them decides the other, give one": (
                self.parameters and self.hidden_size
            ),
            f"{tie} needs equal sizes, but {named('embedding_size')} is {width} and the last "
            f"layer's {named('hidden_size')} is {hidden}": (
                self.tie_weights and unequal and self.mixture == 1
            ),
            f"{named('skip')} with {named('last_hidden_size')}, whose layer has another size than "
            "its input; give one of them": self.skip and self.last_hidden_size,
            f"{tie} with {named('one_hot')}, which has no embedding; give one of them": (
                self.tie_weights and self.one_hot
            ),
            f"{tie} with {adaptive}, whose output matrices have other shapes; give one of them": (
                self.tie_weights and self.adaptive_softmax
            ),
            f"{named('mixture')} with {adaptive}; give one of them": (
                self.mixture > 1 and self.adaptive_softmax
            ),
        }
        return [problem for problem, holds in contradictions.items() if holds]


def init_range(name: str) -> float | None:
    """Return R of `uniform:R`; None for any other name."""
    kind, _, bound = name.partition(":")
    try:
        radius = float(bound)
    except ValueError:
        return None
    return radius if kind == "uniform" and 0.0 < radius < math.inf else None
