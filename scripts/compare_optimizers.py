"""Compare weight decays, Muon and schedule-free AdamW at equal steps and at equal time.

    CHARLM_DATA=folder python scripts/compare_optimizers.py [--only WORDS] [--threads 1]

Each row is trained for a fixed number of steps, so results do not depend on other load; its
processor time says what a step costs. `--only` takes the rows whose line contains these words.
Training texts are cut to their first tokens, so that small networks read them as often as large
ones read all of it. "2 x 192 of 334k" is two layers of 192 units on the first 334,000 tokens.
"""

import argparse
import contextlib
import copy
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from charlm.config.model import ModelSettings
from charlm.config.settings import settings_from
from charlm.config.training import TrainingSettings
from charlm.inference.adapt.calibration import sample_of, text_logits
from charlm.inference.likelihood import evaluate
from charlm.nn.devices import Precision, choose_precision
from charlm.nn.encoder import Encoder
from charlm.nn.heap import keep_freed_memory
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.tasks.language_model import language_model_task
from charlm.text.dataset import load_dataset
from charlm.training.plan.planner import plan
from charlm.training.plan.speed import PlanInputs
from charlm.training.pretrained import set_output_bias
from charlm.training.trainer import Trainer
from plan_points import TEXTS

CPU = torch.device("cpu")
CALIBRATION_TOKENS = 40_000
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration, as in torch.optim.Muon."""


@dataclass(frozen=True)
class Row:
    """One training: a text, a shape and what is changed."""

    text: str
    layers: int
    hidden: int
    steps: int
    tokens: int = 0
    """Tokens that the training text is cut to; 0 = all."""
    valid: int = 0
    shape: tuple[int, int] = (32, 64)
    """Sequences side by side, and window."""
    dropout: float = 0.1
    decay: float = 0.01
    rate: float = 0.008
    optimizer: str = "adamw"
    factor: float = 1.0
    """Factor on the rate of Muon."""
    gates: bool = False
    """True if Muon takes each gate of an LSTM as a matrix."""
    schedule: str = "cosine"


SHAKESPEARE = Row("shakespeare", 2, 384, 3000)
CUT = Row("shakespeare", 2, 192, 1000, tokens=334_000)
JAPANESE = Row("japanese", 1, 192, 600, tokens=200_000, valid=30_000)
WORDS = Row("ptb-word", 1, 128, 540, tokens=200_000, valid=20_000, shape=(32, 70))
RUSSIAN = Row("russian", 1, 192, 3000, shape=(16, 32), dropout=0.3)
MUON = replace(CUT, optimizer="muon", factor=2.0)
ROWS = [
    *(replace(SHAKESPEARE, decay=decay) for decay in (0.01, 0.1)),
    *(replace(CUT, decay=decay) for decay in (0.01, 0.1, 0.3)),
    *(replace(CUT, tokens=tokens, decay=d) for tokens in (501_000, 0) for d in (0.01, 0.1)),
    *(replace(CUT, tokens=222_000, dropout=0.15, decay=decay) for decay in (0.01, 0.1)),
    *(replace(JAPANESE, decay=decay) for decay in (0.01, 0.1)),
    *(replace(WORDS, decay=decay) for decay in (0.01, 0.1)),
    *(replace(RUSSIAN, decay=decay) for decay in (0.01, 0.1)),
    replace(MUON, factor=1.0), replace(MUON, factor=1.0, gates=True), MUON,
    replace(MUON, decay=0.1), replace(MUON, decay=0.2, steps=680),
    replace(CUT, optimizer="schedule-free", schedule="constant", decay=0.1),
    replace(CUT, decay=0.1, dropout=0.2),
]  # fmt: skip


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) for the matrices of the recurrent layers, AdamW for all other weights.

    An update of Muon is the nearest orthogonal matrix to the momentum, times 0.2 sqrt(larger side),
    which is the usual size of an update of AdamW (Liu et al. 2025).
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, row: Row) -> None:
        named = list(model.named_parameters())
        matrices = [w for name, w in named if w.ndim == 2 and name.startswith("layers")]
        rest = [w for _, w in named if all(w is not matrix for matrix in matrices)]
        decay = settings.weight_decay or 0.0
        super().__init__(matrices, {"lr": 0.0})
        self.adamw = torch.optim.AdamW(
            rest, betas=(settings.beta1, settings.beta2), weight_decay=0.01, fused=True
        )
        self.row, self.decay = row, decay

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients."""
        rate = float(self.param_groups[0]["lr"])
        self.adamw.param_groups[0]["lr"] = rate
        self.adamw.step()
        self.adamw.zero_grad()
        for weight in self.param_groups[0]["params"]:
            momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
            momentum.lerp_(weight.grad, 0.05)
            update = weight.grad.lerp(momentum, 0.95)
            if self.row.gates:
                update = update.view(4, -1, update.shape[1])
            size = 0.2 * math.sqrt(max(update.shape[-2:]))
            weight.mul_(1.0 - rate * self.decay)
            change = orthogonal(update).reshape(weight.shape).float()
            weight.add_(change, alpha=-rate * self.row.factor * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return approximately the nearest orthogonal matrix, by five steps of Newton-Schulz."""
    a, b, c = NEWTON_SCHULZ
    x: Tensor = matrix.bfloat16()
    is_tall = x.shape[-2] > x.shape[-1]
    x = x.mT if is_tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if is_tall else x


class ScheduleFree(torch.optim.Optimizer):
    """Schedule-free AdamW (Defazio et al. 2024); the weights are y while training."""

    def __init__(self, model: nn.Module, settings: TrainingSettings) -> None:
        super().__init__(model.parameters(), {"lr": 0.0})
        self.settings, self.number, self.sum, self.most = settings, 0, 0.0, 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change y and z by the gradients at y."""
        first, second = self.settings.beta1, self.settings.beta2
        rate = float(self.param_groups[0]["lr"])
        self.number, self.most = self.number + 1, max(rate, self.most)
        self.sum += self.most**2
        weight_of_z = self.most**2 / self.sum
        for y in self.param_groups[0]["params"]:
            state = self.state[y]
            z = state.setdefault("z", y.clone())
            square = state.setdefault("square", torch.zeros_like(y))
            square.mul_(second).addcmul_(y.grad, y.grad, value=1.0 - second)
            scale = (square / (1.0 - second**self.number)).sqrt_().add_(1e-8)
            update = y.grad / scale + (self.settings.weight_decay or 0.0) * y
            y.lerp_(z, weight_of_z).add_(update, alpha=rate * (first * (1.0 - weight_of_z) - 1.0))
            z.sub_(update, alpha=rate)

    @contextlib.contextmanager
    def average(self) -> Iterator[None]:
        """Put x into the weights until the context ends; y = first * x + (1 - first) * z."""
        first = self.settings.beta1
        self._move(1.0 - 1.0 / first)
        try:
            yield
        finally:
            self._move(1.0 - first)

    @torch.no_grad()
    def _move(self, fraction: float) -> None:
        for weight in self.param_groups[0]["params"]:
            weight.lerp_(self.state[weight]["z"], fraction)


def trainer_of(row: Row) -> tuple[Trainer, Any]:
    """Return a trainer of a row, and its dataset."""
    corpus = TEXTS[row.text].settings()
    dataset = load_dataset(corpus.corpus, corpus.vocabulary)
    assert dataset.valid is not None
    if row.tokens:
        dataset = replace(dataset, train=sample_of(dataset.train, row.tokens))
    if row.valid and dataset.valid is not None:
        dataset = replace(dataset, valid=sample_of(dataset.valid, row.valid))
    model = {
        "num_layers": row.layers, "hidden_size": row.hidden, "dropout": row.dropout,
        "embedding_size": 128,
    }  # fmt: skip
    training = {
        "steps": row.steps, "batch_size": row.shape[0], "bptt": row.shape[1], "evals": 1,
        "learning_rate": row.rate, "weight_decay": row.decay, "seed": 1, "ngram": 0,
        "schedule": row.schedule,
    }  # fmt: skip
    settings = settings_from(corpus.to_dict() | {"model": model, "training": training})
    size = len(dataset.vocabulary)

    def precision(model: ModelSettings, rows: int) -> Precision:
        """Return the precision that `charlm train` would choose."""
        return choose_precision("auto", [model], size, CPU, rows=rows)

    chosen = plan(settings, dataset, PlanInputs(device=CPU, choose_precision=precision)).settings
    network = RecurrentLanguageModel(chosen.model, size)
    network.reset_parameters(torch.Generator().manual_seed(1))
    set_output_bias(network, dataset.train)
    task = language_model_task(dataset, chosen.training, precision(chosen.model, row.shape[0]))
    return Trainer(network, task, chosen.training), dataset


def measured(row: Row) -> str:
    """Train a row and return its line."""
    trainer, dataset = trainer_of(row)
    state = cast(Any, trainer.state)
    if row.optimizer == "muon":
        state.optimizer = Muon(trainer.model, trainer.settings, row)
    elif row.optimizer == "schedule-free":
        state.optimizer = ScheduleFree(trainer.model, trainer.settings)
        state.kept_weights = state.optimizer.average
    best: list[RecurrentLanguageModel] = []

    def keep(model: Encoder) -> None:
        """Keep the best weights so far."""
        best[:] = [cast(RecurrentLanguageModel, copy.deepcopy(model))]

    trainer.on_best, start = keep, time.process_time()
    for _ in trainer.run():
        pass
    seconds = time.process_time() - start
    part = sample_of(dataset.valid, CALIBRATION_TOKENS)
    scale = text_logits(TorchBackend(best[0]), part).best_factor()
    nats = evaluate(TorchBackend(best[0], scale), dataset.valid).nats_per_token
    return (
        f"{described(row)} | {trainer.passes:.1f} | {nats:.4f} | {scale:.2f} "
        f"| {1000 * seconds / row.steps:.0f} |"
    )


def described(row: Row) -> str:
    """Return what identifies a row, as the first cells of its line."""
    cut = f" of {row.tokens // 1000}k" if row.tokens else ""
    optimizer = row.optimizer
    if row.optimizer == "muon":
        optimizer += f" x {row.factor:g}" + (", gates" if row.gates else "")
    return (
        f"| {row.text} | {row.layers} x {row.hidden}{cut} | {row.shape[0]} x {row.shape[1]} "
        f"| {row.dropout:g} | {optimizer}, {row.schedule} | {row.decay:g} | {row.steps:,}"
    )


def chosen_rows(words: Iterable[str]) -> list[Row]:
    """Return the rows whose line contains all words."""
    return [row for row in ROWS if all(word in described(row) for word in words)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    cells = (
        "text | size | batch | dropout | optimiser | decay | steps | passes | nats | factor | ms"
    )
    print(f"| {cells} |\n|{'---|' * 5}{'---:|' * 6}")
    for row in chosen_rows(options.only):
        print(measured(row), flush=True)


if __name__ == "__main__":
    main()
