"""Measure how far back the gradient of a loss reaches, which is what gates are for.

For the loss at token t and the state s of a layer k tokens earlier, ||d loss_t / d s_{t-k}|| falls
with k if gradients vanish and grows if they explode
(Bengio et al. 1994; Pascanu et al. 2013).
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from charlm.config.cells import CANDIDATE, CELLS
from charlm.config.settings import Settings
from charlm.errors import CorpusError
from charlm.nn.encoder import State
from charlm.nn.layers import Call, RecurrentLayer, recorded_calls
from charlm.nn.model import RecurrentLanguageModel
from charlm.phases import phase
from charlm.runs.layout import METRICS, read_metrics
from charlm.runs.run import load_run, torch_model
from charlm.text.corpus import Corpus
from charlm.text.sources.names import check_read_again
from charlm.training.start import start

WARM_UP = 64
"""Tokens read before measuring, so that the states are typical."""
PLACES = 32
"""Places in the text to average over."""
NEAR_ZERO, NEAR_ONE = 0.1, 0.9
"""Bounds beyond which a gate counts as saturated (Karpathy et al. 2015, section 4.3)."""
FAINT = 0.01
"""Fraction of the largest gradient below which a token is out of reach."""
VANISHED = 1e-6
"""Fraction of the largest gradient below which nothing is learned in practice."""
SHORT_REACH = 8
"""Least reach, in tokens, of a network that learns words from letters."""
GROWTH = 10.0


@dataclass(frozen=True, kw_only=True)
class LayerFlow:
    """Gradient flow of one layer.

    `norms[k]` is the mean of ||d loss_t / d s_{t-k}||, where s is the whole state.
    `norms[0]` is 0: the loss of a step does not depend on the state after it.

    `hidden_norms` are the norms for h alone. `gates`: the fractions of each gate's values below 0.1
    and above 0.9. `radii`: the largest absolute eigenvalue of each block of recurrent weights.
    """

    norms: list[float]
    hidden_norms: list[float]
    gates: dict[str, tuple[float, float]]
    radii: list[float]

    @property
    def reach(self) -> int:
        """Largest lag at which the gradient is at least a hundredth of the largest gradient."""
        least = FAINT * max(self.norms)
        return max(lag for lag, norm in enumerate(self.norms) if norm >= least)

    @property
    def growth(self) -> float:
        """Ratio of the largest gradient further back to the gradient at lag 1."""
        nearest = self.norms[min(1, len(self.norms) - 1)]
        return max(self.norms[1:], default=nearest) / max(nearest, 1e-300)


@dataclass(frozen=True, kw_only=True)
class GradientFlow:
    """Gradient flow of one model; `clipped` is the fraction of training steps that were clipped."""

    name: str
    cell: str
    layers: list[LayerFlow]
    clipped: float | None = None
    recalled: float | None = None
    """Fraction of letters recalled in the task of `inspect.recall`; None for real text."""
    guessed: float | None = None
    """Largest fraction of letters that a guess may recall by chance."""

    @property
    def left(self) -> float:
        """Gradient at the largest lag, as a fraction of the largest gradient, in the best layer."""
        return max(layer.norms[-1] / max(*layer.norms, 1e-300) for layer in self.layers)

    @property
    def diagnosis(self) -> str:
        """Sentence: vanishing, exploding, not learned or healthy, and the setting to change."""
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
            if guesses := self.guessed is not None and self.recalled <= self.guessed:
                left += ", which is guessing"
            if self.left < FAINT:
                return f"vanishing: {left}. {knob}"
            if guesses:
                return f"not learned: {left}. Train for longer (--minutes)"
            return f"healthy: {left}"
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
    """Return the gradient flow of a run on a text, by default the run's held-out or training text.

    Documents are read as one stream. Raises CorpusError if the text is missing or too short.
    """
    run = load_run(path)
    if corpus:
        text = run.encode(corpus)
    else:
        texts = [split for name in ("valid", "train") if (split := run.kept(name)) is not None]
        if not texts:
            raise CorpusError("the run keeps no text; give one to measure on")
        enough = (split for split in texts if len(split.ids) >= needed_tokens(lags))
        text = next(enough, texts[-1])
    model = torch_model(path).double()  # far back, float32 has no numbers small enough
    layers = gradient_flow(model, np.asarray(text.ids, np.int64), lags)
    cell, clipped = model.settings.cell, clip_rate(path)
    return GradientFlow(name=path.name, cell=cell, layers=layers, clipped=clipped)


def needed_tokens(lags: int) -> int:
    """Return the tokens needed for one place: warm-up, a state for each lag, and the target."""
    return WARM_UP + lags + 2


def gradient_flow(
    model: RecurrentLanguageModel, ids: NDArray[np.int64], lags: int, places: int = PLACES
) -> list[LayerFlow]:
    """Return the flow of each layer, averaged over places spread over a text of ids (N,).

    Raises CorpusError if the text is too short for one place.
    """
    length = needed_tokens(lags)
    if len(ids) < length:
        raise CorpusError(
            f"the text has {len(ids)} tokens; lags up to {lags} need at least {length}. Give a "
            "longer text or fewer --lags"
        )
    begins = np.linspace(0, len(ids) - length, places).astype(np.int64)
    windows = torch.from_numpy(ids[begins[:, None] + np.arange(length)].T.copy())  # (T, B)
    with torch.no_grad():
        _, state = model(windows[:WARM_UP])
    return window_flows(model, windows[WARM_UP:], state)


def window_flows(model: RecurrentLanguageModel, windows: Tensor, state: State) -> list[LayerFlow]:
    """Return the flow of each layer for the loss at the last tokens of windows (T, B).

    The windows start from `state`; the largest lag, T - 2, is the state after their first tokens.
    """
    layers = model.recurrent_layers()
    with recorded_calls(layers) as calls:
        states, logits = _stepped(model, windows[:-1], state)
    loss = F.cross_entropy(logits[-1], windows[-1], reduction="sum")
    flat = [tensor for state in states for layer in state for tensor in layer]
    gradients = torch.autograd.grad(loss, flat, allow_unused=True)
    remaining = iter(g if g is not None else torch.zeros(1) for g in gradients)
    by_step = [[[next(remaining) for _ in layer] for layer in state] for state in states]
    return [
        LayerFlow(
            norms=[_norm(step[number]) for step in reversed(by_step)],
            hidden_norms=[_norm(step[number][:1]) for step in reversed(by_step)],
            gates=_saturation(layer, calls[number]),
            radii=spectral_radii(layer),
        )
        for number, layer in enumerate(layers)
    ]


def _stepped(
    model: RecurrentLanguageModel, windows: Tensor, state: State
) -> tuple[list[State], Tensor]:
    """Return the state after each step, as nodes of one graph, and the last logits.

    States are copied, so that nothing in the same step is computed from them: some cells compute h
    from the c that they return.
    """
    states: list[State] = []
    logits = torch.empty(0)
    for ids in windows.unbind(0):
        logits, after = model(ids[None], state)
        state = tuple(tuple(_node(tensor) for tensor in layer) for layer in after)
        if not states:  # the oldest states are where the gradient ends
            state = tuple(tuple(p.detach().requires_grad_() for p in layer) for layer in after)
        states.append(state)
    return states, logits


def _node(tensor: Tensor) -> Tensor:
    """Return a copy of a state tensor; one that depends on no weight becomes a leaf."""
    copied = tensor.clone()
    return copied if copied.requires_grad else copied.requires_grad_()


def _norm(gradients: Sequence[Tensor]) -> float:
    """Return the norm of the gradients of state tensors together, averaged over the batch."""
    squares = sum(gradient.double().pow(2).sum(dim=-1) for gradient in gradients)
    return float(torch.as_tensor(squares).sqrt().mean())


@torch.no_grad()
def _saturation(layer: RecurrentLayer, calls: list[Call]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[Tensor]] = {}
    for x, state, _ in calls:
        for name, gate in layer.gate_values(x[0], state).items():
            values.setdefault(name, []).append(gate)
    values.pop(CANDIDATE, None)
    fractions = {}
    for name, gates in values.items():
        stacked = torch.stack(gates)
        below, above = stacked < NEAR_ZERO, stacked > NEAR_ONE
        fractions[name] = (float(below.float().mean()), float(above.float().mean()))
    return fractions


@torch.no_grad()
def spectral_radii(layer: RecurrentLayer) -> list[float]:
    """Return the largest absolute eigenvalue of each block of recurrent weights, if any."""
    weight = dict(layer.state_dict()).get(layer.recurrent_weight)
    if weight is None:
        return []
    blocks = weight.double().chunk(len(weight) // layer.hidden_size)
    return [float(torch.linalg.eigvals(block).abs().max()) for block in blocks]


def clip_rate(path: Path) -> float | None:
    """Return the fraction of a run's steps that were clipped, or None if no step was logged."""
    if not (path / METRICS).exists():
        return None
    values = [record.get("clipped") for record in read_metrics(path) if record["kind"] == "step"]
    known = [value for value in values if isinstance(value, float)]
    return float(np.mean(known)) if known else None


def compared_flows(settings: Sequence[Settings], lags: int = 200) -> Iterator[GradientFlow]:
    """Train a model for each settings in a temporary folder, and yield its gradient flow.

    Raises UsageError for texts that can be read only once.
    """
    for chosen in settings:
        check_read_again(chosen.corpus.sources, "a comparison of cells")
    with tempfile.TemporaryDirectory() as folder:
        for chosen in settings:
            yield run_flow(trained(chosen, Path(folder)), lags=lags)


def trained(settings: Settings, folder: Path, corpus: Corpus | None = None) -> Path:
    """Train a run that is named after its cell, and return its path. Arguments as in `start`."""
    cell = settings.model.cell
    session = start(settings, folder, name=cell, corpus=corpus)
    session.may_wait = False  # nobody waits for the run itself
    with phase(f"training {cell}") as training:
        for _ in session.records():
            training.reached = session.trainer.progress
    return session.path
