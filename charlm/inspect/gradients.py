"""How far back the gradient of a loss reaches: why gates were invented, measured.

For a loss at token t and the state s that a layer carried on k tokens before,
||d loss_t / d s_{t-k}|| falls with k where gradients vanish and grows where they explode
(Bengio et al. 1994; Pascanu et al. 2013).
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.config.cells import CELLS
from charlm.config.settings import Settings
from charlm.errors import CorpusError
from charlm.nn.encoder import State
from charlm.nn.layers import RecurrentLayer
from charlm.nn.model import RecurrentLanguageModel
from charlm.phases import phase
from charlm.runs.layout import METRICS, read_metrics
from charlm.runs.run import load_run, torch_model
from charlm.text.corpus import Corpus
from charlm.text.sources.names import check_read_again
from charlm.training.start import start

WARM_UP = 64
"""Tokens that are read before, so that no state is the zero state."""
ROWS = 32
"""Places in the text that are averaged over."""
NEAR_ZERO, NEAR_ONE = 0.1, 0.9
"""Where a gate counts as saturated (Karpathy et al. 2015, section 4.3)."""
FAINT = 0.01
"""Share of the largest gradient below which a token is out of reach."""
VANISHED = 1e-6
"""Share of the largest gradient below which nothing is learned from a token in practice."""
SHORT_REACH = 8
"""Tokens that a gradient reaches at least in a network that learns words from letters."""
GROWTH = 10.0


@dataclass(frozen=True, kw_only=True)
class LayerFlow:
    """One layer. `norms[k]` is the mean of ||d loss_t / d s_{t-k}||, s being the whole state.

    `norms[0]` is 0: what is carried on after a step has no part in the loss at that step.

    `hidden_norms` are those of h alone. `gates`: for each gate the shares of its values below 0.1
    and above 0.9. `radii`: the largest absolute eigenvalue of each block of recurrent weights.
    """

    norms: list[float]
    hidden_norms: list[float]
    gates: dict[str, tuple[float, float]]
    radii: list[float]

    @property
    def reach(self) -> int:
        """The largest lag at which the gradient is at least a hundredth of the largest."""
        least = FAINT * max(self.norms)
        return max(lag for lag, norm in enumerate(self.norms) if norm >= least)

    @property
    def growth(self) -> float:
        """How many times the gradient at lag 1 the largest further back is."""
        nearest = self.norms[min(1, len(self.norms) - 1)]
        return max(self.norms[1:], default=nearest) / max(nearest, 1e-300)


@dataclass(frozen=True, kw_only=True)
class GradientFlow:
    """Of one model; `clipped` is the share of its training steps whose gradient was clipped."""

    name: str
    cell: str
    layers: list[LayerFlow]
    clipped: float | None = None
    recalled: float | None = None
    """Fraction of letters recalled in the task of `training.recall`; None for real text."""

    @property
    def left(self) -> float:
        """The gradient at the largest lag as a fraction of the largest one, in the best layer."""
        return max(layer.norms[-1] / max(*layer.norms, 1e-300) for layer in self.layers)

    @property
    def diagnosis(self) -> str:
        """One sentence: vanishing, exploding or healthy, and which knob to turn."""
        worst = max(self.layers, key=lambda layer: layer.growth)
        if not worst.growth <= GROWTH:
            return (
                f"exploding: further back, the gradient is up to {worst.growth:.3g} times the "
                "gradient at the newest token. Lower --learning-rate or --clip-norm, or start with "
                "--init orthogonal"
            )
        reach = max(layer.reach for layer in self.layers)
        lags = len(self.layers[0].norms) - 1
        knob = CELLS[self.cell].gradient_advice
        amount = f"{100 * self.left:.0f} %" if self.left >= FAINT else f"{self.left:.1g}"
        left = f"{amount} of the gradient is left {lags} tokens back"
        if self.recalled is not None:
            left += f", where the letter is; {100 * self.recalled:.0f} % of letters recalled"
            return f"healthy: {left}" if self.left >= FAINT else f"vanishing: {left}. {knob}"
        if reach < min(SHORT_REACH, lags):
            return (
                f"vanishing: more than {reach} tokens back, the gradient is below a hundredth of "
                f"its largest value. {knob}"
            )
        if self.left < VANISHED:
            return (
                f"vanishing: {left}, and a hundredth {reach} tokens back. If the text needs a "
                f"longer memory: {knob}"
            )
        more = " or more" if reach == lags else ""
        return (
            "healthy: the gradient is above a hundredth of its largest value for "
            f"{reach} tokens{more}"
        )


def run_flow(path: Path, corpus: Corpus | None = None, lags: int = 200) -> GradientFlow:
    """The gradient flow of a trained run, on a text or on what it keeps, held-out text first.

    Documents are read as one stream. Raises CorpusError when the text is missing or too short.
    """
    run = load_run(path)
    if corpus:
        text = run.encode(corpus)
    else:
        parts = [part for name in ("valid", "train") if (part := run.kept(name)) is not None]
        if not parts:
            raise CorpusError("the run keeps no text; give one to measure on")
        long = [part for part in parts if len(part.ids) >= needed(lags)]
        text = long[0] if long else parts[-1]
    model = torch_model(path).double()  # far back, float32 has no numbers small enough
    layers = gradient_flow(model, np.asarray(text.ids, np.int64), lags)
    cell, clipped = model.settings.cell, clip_rate(path)
    return GradientFlow(name=path.name, cell=cell, layers=layers, clipped=clipped)


def needed(lags: int) -> int:
    """Tokens that one place needs: warm-up, one state for each lag, and the target."""
    return WARM_UP + lags + 2


def gradient_flow(
    model: RecurrentLanguageModel, ids: NDArray[np.int64], lags: int, rows: int = ROWS
) -> list[LayerFlow]:
    """One `LayerFlow` for each layer, from `rows` places spread over a text of ids (N,).

    Raises CorpusError when the text is shorter than one such place.
    """
    length = needed(lags)
    if len(ids) < length:
        raise CorpusError(
            f"the text has {len(ids)} tokens; lags up to {lags} need at least {length}. Give a "
            "longer text or fewer --lags"
        )
    begins = np.linspace(0, len(ids) - length, rows).astype(np.int64)
    windows = torch.from_numpy(ids[begins[:, None] + np.arange(length)].T.copy())  # (T, B)
    with torch.no_grad():
        _, state = model(windows[:WARM_UP])
    return window_flows(model, windows[WARM_UP:], state)


def window_flows(model: RecurrentLanguageModel, windows: Tensor, state: State) -> list[LayerFlow]:
    """Return one `LayerFlow` for each layer, of the loss at the last tokens of windows (T, B).

    They are read from `state`; the last lag, T - 2, is that of the state after their first tokens.
    """
    with _watched(model) as seen:
        states, logits = _stepped(model, windows[:-1], state)
    loss = F.cross_entropy(logits[-1], windows[-1], reduction="sum")
    flat = [part for state in states for layer in state for part in layer]
    gradients = torch.autograd.grad(loss, flat, allow_unused=True)
    found = iter(g if g is not None else torch.zeros(1) for g in gradients)
    by_step = [[[next(found) for _ in layer] for layer in state] for state in states]
    return [
        LayerFlow(
            norms=[_norm(step[number]) for step in reversed(by_step)],
            hidden_norms=[_norm(step[number][:1]) for step in reversed(by_step)],
            gates=_saturation(layer, seen[number]),
            radii=spectral_radii(layer),
        )
        for number, layer in enumerate(model.recurrent_layers())
    ]


class _watched:  # noqa: N801
    """Inside, what each layer reads is kept: for each layer a list of (x, state)."""

    def __init__(self, model: RecurrentLanguageModel) -> None:
        self.layers = model.recurrent_layers()
        self.seen: list[list[Any]] = [[] for _ in self.layers]

    def __enter__(self) -> list[list[Any]]:
        self.handles = [
            layer.register_forward_pre_hook(lambda _, read, kept=kept: kept.append(read))
            for layer, kept in zip(self.layers, self.seen, strict=True)
        ]
        return self.seen

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


def _stepped(
    model: RecurrentLanguageModel, windows: Tensor, state: State
) -> tuple[list[State], Tensor]:
    """The state after each step, as nodes of one graph, and the last logits.

    Copies of what is carried on, so that nothing of the same step is computed from them: some
    cells compute h from the c that they carry.
    """
    states: list[State] = []
    logits = torch.empty(0)
    for ids in windows.unbind(0):
        logits, after = model(ids[None], state)
        state = tuple(tuple(_node(part) for part in layer) for layer in after)
        if not states:  # the oldest states are where the gradient ends
            state = tuple(tuple(p.detach().requires_grad_() for p in layer) for layer in after)
        states.append(state)
    return states, logits


def _node(part: Tensor) -> Tensor:
    """Return a copy of a part of a state; one that no weight made, such as a token's, is a leaf."""
    copied = part.clone()
    return copied if copied.requires_grad else copied.requires_grad_()


def _norm(parts: Sequence[Tensor]) -> float:
    """Mean over the rows of the length of the gradient of some parts of a state."""
    squares = sum(part.double().pow(2).sum(dim=-1) for part in parts)
    return float(torch.as_tensor(squares).sqrt().mean())


@torch.no_grad()
def _saturation(layer: RecurrentLayer, read: list[Any]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[Tensor]] = {}
    for x, state in read:
        for name, gate in layer.gate_values(x[0], state).items():
            values.setdefault(name, []).append(gate)
    shares = {}
    for name, gates in values.items():
        every = torch.stack(gates)
        below, above = every < NEAR_ZERO, every > NEAR_ONE
        shares[name] = (float(below.float().mean()), float(above.float().mean()))
    return shares


@torch.no_grad()
def spectral_radii(layer: RecurrentLayer) -> list[float]:
    """The largest absolute eigenvalue of each block of recurrent weights; none without them."""
    weight = dict(layer.state_dict()).get(layer.recurrent_weight)
    if weight is None:
        return []
    blocks = weight.double().chunk(len(weight) // layer.hidden_size)
    return [float(torch.linalg.eigvals(block).abs().max()) for block in blocks]


def clip_rate(path: Path) -> float | None:
    """The share of a run's steps whose gradient was clipped; None where no step was logged."""
    if not (path / METRICS).exists():
        return None
    shares = [record.get("clipped") for record in read_metrics(path) if record["kind"] == "step"]
    known = [share for share in shares if isinstance(share, float)]
    return float(np.mean(known)) if known else None


def compared_flows(settings: Sequence[Settings], lags: int = 200) -> Iterator[GradientFlow]:
    """Train a model of each settings in a temporary folder, and yield its flow.

    Raises UsageError for texts that can be read only once.
    """
    for chosen in settings:
        check_read_again(chosen.corpus.sources, "a comparison of cells")
    with tempfile.TemporaryDirectory() as folder:
        for chosen in settings:
            yield run_flow(trained(chosen, Path(folder)), lags=lags)


def trained(settings: Settings, folder: Path, corpus: Corpus | None = None) -> Path:
    """Train a model that is named after its cell, and return its run. Arguments as in `start`."""
    cell = settings.model.cell
    session = start(settings, folder, name=cell, corpus=corpus)
    with phase(f"training {cell}") as training:
        for _ in session.records():
            training.reached = session.trainer.progress
    return session.path
