"""A worked example: one word, one small cell, and every intermediate number.

After the letters h, e, l, l a network should expect e, l, l, o (Karpathy, "The Unreasonable
Effectiveness of Recurrent Neural Networks", 2015). Formulas as in torch.nn, with one
bias; x is one-hot, so W x is a column of W.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.config.cells import CELLS
from charlm.errors import UsageError, check_choice

Named = dict[str, Tensor]
"""Vectors of one step by name, in the order of their computation."""


@dataclass(frozen=True, kw_only=True)
class ExampleStep:
    """One step: the letter read, the next letter, all vectors, and -ln P of the next letter."""

    letter: str
    target: str
    vectors: dict[str, list[float]]
    probabilities: list[float]
    nats: float


@dataclass(frozen=True, kw_only=True)
class WorkedExample:
    """A trained example: letters, weights, gradients of the mean nats, steps and losses."""

    cell: str
    letters: list[str]
    weights: dict[str, list[Any]]
    gradients: dict[str, list[Any]]
    steps: list[ExampleStep]
    losses: list[float]
    seconds: float


def _rnn(w: Named, x: Tensor, state: Named) -> Named:
    wx, uh = w["W"] @ x, w["U"] @ state["h"]
    return {"W x": wx, "U h": uh, "h = tanh(W x + U h + b)": torch.tanh(wx + uh + w["b"])}


def _lstm(w: Named, x: Tensor, state: Named) -> Named:
    i, f, g, o = (w["W"] @ x + w["U"] @ state["h"] + w["b"]).chunk(4)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    c = f * state["c"] + i * g
    return {
        "i = sigmoid(...)": i,
        "f = sigmoid(...)": f,
        "g = tanh(...)": g,
        "o = sigmoid(...)": o,
        "c = f c + i g": c,
        "h = o tanh(c)": o * torch.tanh(c),
    }


def _gru(w: Named, x: Tensor, state: Named) -> Named:
    h = state["h"]
    (rx, zx, nx), (rh, zh, nh) = (w["W"] @ x + w["b"]).chunk(3), (w["U"] @ h).chunk(3)
    r, z = torch.sigmoid(rx + rh), torch.sigmoid(zx + zh)
    n = torch.tanh(nx + r * nh)
    return {
        "r = sigmoid(...)": r,
        "z = sigmoid(...)": z,
        "n = tanh(W x + b + r (U h))": n,
        "h = (1 - z) n + z h": (1 - z) * n + z * h,
    }


STEPS: dict[str, Callable[[Named, Tensor, Named], Named]] = {
    "rnn": _rnn,
    "lstm": _lstm,
    "gru": _gru,
}
"""The vectors of one step, by cell."""


def worked_example(
    text: str = "hello", *, cell: str = "rnn", hidden: int = 3, updates: int = 100, seed: int = 1
) -> WorkedExample:
    """Train a cell to spell a word, from the zero state, and return every number of the last pass.

    Training is `updates` steps of Adam with learning rate 0.1 on the mean nats of all letters but
    the first. Raises UsageError for a text below two letters or a cell that is not in `CELLS`.
    """
    if len(text) < 2:
        raise UsageError(f"text is {text!r}; expected two letters or more")
    check_choice("cell", cell, STEPS)
    started = time.perf_counter()
    letters = list(dict.fromkeys(text))
    weights = _initial_weights(len(CELLS[cell].blocks), hidden, len(letters), seed)
    optimizer = torch.optim.Adam(weights.values(), lr=0.1)
    losses = []
    for _ in range(updates):
        optimizer.zero_grad()
        loss = _forward(text, letters, cell, weights)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(float(loss.detach()))
        optimizer.step()
    optimizer.zero_grad()
    loss, steps = _forward(text, letters, cell, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    return WorkedExample(
        cell=cell,
        letters=letters,
        weights={name: value.tolist() for name, value in weights.items()},
        gradients={name: _gradient(value).tolist() for name, value in weights.items()},
        steps=steps,
        losses=[*losses, float(loss.detach())],
        seconds=time.perf_counter() - started,
    )


def _gradient(weight: Tensor) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad


def _initial_weights(blocks: int, hidden: int, size: int, seed: int) -> Named:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "W": (blocks * hidden, size),
        "U": (blocks * hidden, hidden),
        "b": (blocks * hidden,),
        "V": (size, hidden),
        "d": (size,),
    }
    return {
        name: (0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()
        for name, shape in shapes.items()
    }


def _forward(
    text: str, letters: list[str], cell: str, weights: Named
) -> tuple[Tensor, list[ExampleStep]]:
    """Return the mean nats of all letters after the first, and the steps."""
    zero = weights["b"].new_zeros(weights["U"].shape[1])
    state = {"h": zero, "c": zero}
    steps, total = [], zero.sum()
    for letter, target in itertools.pairwise(text):
        index = torch.tensor(letters.index(letter))
        x = F.one_hot(index, len(letters)).to(weights["W"].dtype)
        vectors = {"x": x, **STEPS[cell](weights, x, state)}
        state = {name[0]: value for name, value in vectors.items() if name[:3] in ("h =", "c =")}
        logits = weights["V"] @ state["h"] + weights["d"]
        vectors["V h + d"] = logits
        surprise = -logits.log_softmax(dim=0)[letters.index(target)]
        total = total + surprise
        steps.append(
            ExampleStep(
                letter=letter,
                target=target,
                vectors={name: value.detach().tolist() for name, value in vectors.items()},
                probabilities=logits.detach().softmax(dim=0).tolist(),
                nats=float(surprise.detach()),
            )
        )
    return total / (len(text) - 1), steps
