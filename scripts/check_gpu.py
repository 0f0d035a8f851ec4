"""Checks of training on a GPU: the stage `check` of measure_gpu.

Each cell must compute on the GPU what it does on the CPU. Captured steps must have the bits of the
same steps uncaptured, and a resumed training those of one that never stopped.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.backends.interface import Ids, Nats, State
from charlm.config.cells import CELLS
from charlm.config.corpus import VocabularySettings
from charlm.config.model import ModelSettings
from charlm.config.training import TrainingSettings
from charlm.inference.likelihood import stream_nats
from charlm.nn.chunked_softmax import chunked_nats
from charlm.nn.devices import Precision, choose_precision
from charlm.nn.low_precision import MAX_SCALE, LowCopy
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.output import MIN_CHUNKED
from charlm.nn.side_by_side import PIECES
from charlm.nn.torch_backend import TorchBackend
from charlm.runs.checkpoints import Checkpoint
from charlm.tasks.language_model import language_model_task
from charlm.tasks.task import Task
from charlm.text.batches import PADDING
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.text.tokenizers.building import build_vocabulary
from charlm.text.tokenizers.vocabulary import Vocabulary
from charlm.training.graphs import Graphs
from charlm.training.static_step import StaticStep
from charlm.training.step import Step
from charlm.training.train_state import TrainState
from charlm.training.trainer import LOG_EVERY, Trainer

MEMORY = 1.5e9
"""Bytes of the GPU to which the check of full memory limits itself."""
TYPES = ("fp32", "bf16", "fp16")
ENTRIES = 65
"""Entries of the vocabulary of models that are checked."""
OF_TORCH = ("lstm", "gru", "rnn")
"""Cells that cuDNN computes."""
RECURRENT = tuple(cell for cell, spec in CELLS.items() if spec.learns_recurrence)
"""Cells with weights that can be dropped."""
LARGE = (512, (64, 64))
"""Units, and steps and rows, of the layers of cuDNN that are checked as they are trained."""
UNEVEN = (650, (64, 64))
"""The same with units that a copy pads."""
MANY = MIN_CHUNKED
"""Entries of a vocabulary whose loss is computed in chunks of targets."""

Row = dict[str, Any]
Measurement = tuple[str, Callable[[], Row]]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The device, the seconds of each speed, the texts, and a folder for runs."""

    device: torch.device
    seconds: float
    text: Path
    ptb: Path | None
    folder: Path

    @property
    def tiny(self) -> bool:
        """True if the script itself is what is tested."""
        return self.device.type == "cpu"


@dataclass
class Captures:
    """Makes training steps on static tensors, captured on a GPU."""

    graphs: list[Graphs] = field(default_factory=list)

    def step(self, state: TrainState, task: Task) -> Step:
        """Return a step whose functions are captured."""
        if state.generator.device.type == "cpu":
            return StaticStep(state, task)
        self.graphs.append(Graphs(state.generator))
        return StaticStep(state, task, graphs=self.graphs[-1])

    def failures(self) -> Row:
        """Return why functions were not captured, if that is so."""
        problems = {graphs.failure for graphs in self.graphs if graphs.failure}
        return {"not captured": "; ".join(sorted(problems))} if problems else {}


def check(setup: Setup) -> Iterator[Measurement]:
    """Yield the comparison of each cell with the CPU and with itself, then other checks."""
    small = (8, (4, 3)) if setup.tiny else (128, (16, 16))
    for cell in CELLS:
        yield f"{cell} as on the CPU", partial(agreement, cell, setup)
    for cell in CELLS:
        for name in TYPES[:1] if setup.tiny else TYPES:
            yield f"{cell}, {name}", partial(bits, cell, name, small, setup)
    for cell in () if setup.tiny else OF_TORCH:
        for name in TYPES:
            yield f"{cell} 2x512, {name}", partial(bits, cell, name, LARGE, setup)
        yield f"{cell} 2x650, bf16", partial(bits, cell, "bf16", UNEVEN, setup)
        yield f"{cell} 2x512 at once, bf16", partial(bits, cell, "bf16", LARGE, setup, dropout=0.0)
    for hidden in (8,) if setup.tiny else (512, 650, 1024, 2048):
        yield f"gradients 2x{hidden}", partial(low_errors, hidden, setup)
    yield "loss in chunks as on the CPU", partial(chunked_loss, setup)
    for name in TYPES[:1] if setup.tiny else TYPES:
        yield (
            f"lstm, {MANY:,} entries, {name}",
            partial(bits, "lstm", name, small, setup, many=True),
        )
    yield "reading a text", partial(reading, setup)
    for cell in ("lstm",) if setup.tiny else ("lstm", "lstm-layernorm"):
        yield f"too little memory, {cell}", partial(full_memory, cell, setup)


def agreement(cell: str, setup: Setup) -> Row:
    """Return the relative differences to the CPU, without TF32, of loss and worst gradient."""
    settings, ids = settings_of(cell, 8 if setup.tiny else 128), random_ids(ENTRIES, (40, 5))
    with exact_products():
        here, there = (
            gradients(new_model(settings, ENTRIES), ids, torch.device(device))
            for device in ("cpu", setup.device)
        )
    nats, *worst = (relative(a, b) for a, b in zip(there, here, strict=True))
    return {"loss": nats, "gradients": max(worst)}


def gradients(
    model: RecurrentLanguageModel, ids: Tensor, device: torch.device, low: str = "fp32"
) -> list[Tensor]:
    """Return the mean loss and its gradients, computed on a device, in a copy if not in fp32.

    Layers work side by side as in training.
    """
    dtype, model = Precision(name=low, reason="").copy_type, model.to(device)
    lower = LowCopy(model, dtype) if dtype else None
    computed, scale = (lower.model, lower.scale) if lower else (model, 1.0)
    with computed.in_pieces(PIECES):
        logits, _ = computed(ids[:-1].to(device))
    nats = F.cross_entropy(logits.float().flatten(0, 1), ids[1:].flatten().to(device))
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found: Sequence[Tensor | None] = (
        lower.gradients(nats * scale)
        if lower
        else torch.autograd.grad(nats, weights, allow_unused=True)
    )
    pairs = [(new, weight) for new, weight in zip(found, weights, strict=True) if new is not None]
    rows = (new.reshape(weight.shape).float().cpu() / scale for new, weight in pairs)
    return [nats.detach().cpu(), *rows]


def chunked_loss(setup: Setup) -> Row:
    """Return the relative differences to the CPU, without TF32, of the loss and its gradients.

    The loss is computed for three targets at a time, of which some are padding.
    """
    random = torch.Generator().manual_seed(0)
    targets = random_ids(MANY, (8,)).masked_fill(torch.arange(8) % 3 == 0, PADDING)
    shapes = (8, 16), (MANY, 16), (MANY,)
    given = [torch.randn(shape, generator=random) for shape in shapes]

    def computed(device: torch.device) -> list[Tensor]:
        """Return the loss and its gradients."""
        tensors = [tensor.to(device).detach().requires_grad_() for tensor in given]
        hidden, weight, bias = tensors
        loss = chunked_nats(hidden, weight, bias, targets.to(device), 0.1, rows=3)
        found = torch.autograd.grad(loss, tensors)
        return [tensor.detach().cpu() for tensor in (loss, *found)]

    with exact_products():
        here, there = (computed(torch.device(device)) for device in ("cpu", setup.device))
    nats, *worst = (relative(a, b) for a, b in zip(there, here, strict=True))
    return {"loss": nats, "gradients": max(worst)}


def bits(
    cell: str,
    name: str,
    size: tuple[int, tuple[int, int]],
    setup: Setup,
    dropout: float = 0.2,
    *,
    many: bool = False,
) -> Row:
    """Return whether captured steps equal uncaptured ones, and a resumed training a whole one.

    Without dropout, cuDNN computes both layers at once. `many` is for a large vocabulary.
    """
    captures, saved = Captures(), dict[int, Checkpoint]()
    settings, shape = settings_of(cell, size[0], dropout=dropout), size[1]
    if size not in (LARGE, UNEVEN) and cell in RECURRENT:
        settings = replace(settings, weight_drop=0.2)  # torch may move weights that are replaced
    whole, plain, resumed = (
        new_trainer(settings, name, shape, step_class, setup, many=many)
        for step_class in (captures.step, StaticStep, captures.step)
    )
    for trainer in (whole, plain):
        if scale := trainer.state.loss_scale:  # so large that it must be halved at first
            scale.factor.fill_(MAX_SCALE)
    for record in whole.run():
        saved.setdefault(record.step, copy.deepcopy(whole.checkpoint()))
    for _ in plain.run():
        pass
    resumed.restore(saved[LOG_EVERY])
    for _ in resumed.run():
        pass
    return {
        "captured": compared(whole.model, plain.model),
        "resumed": compared(whole.model, resumed.model),
        **captures.failures(),
    }


def low_errors(hidden: int, setup: Setup) -> Row:
    """Return the largest relative error of a gradient in each number type, and the choice."""
    settings, ids = settings_of("lstm", hidden), random_ids(ENTRIES, (33, 16))
    model = new_model(settings, ENTRIES)
    with exact_products():
        _, *exact = gradients(model, ids, setup.device)
    row: Row = {}
    for name in TYPES:
        _, *rough = gradients(model, ids, setup.device, name)
        row[name] = max(relative(a, b) for a, b in zip(rough, exact, strict=True))
    chosen = choose_precision("auto", [settings], ENTRIES, setup.device, static=True)
    return row | {"auto": chosen.name, "reason": chosen.reason}


def reading(setup: Setup) -> Row:
    """Return the steps in which a text is read, and the differences to the CPU in nats."""
    hidden, count = (8, 2_000) if setup.tiny else (384, 50_000)
    model = new_model(settings_of("lstm", hidden), ENTRIES)
    ids, steps = random_ids(ENTRIES, (count,)).numpy(), 0
    expected, _ = stream_nats(TorchBackend(model), ids)
    backend = TorchBackend(model.to(setup.device))
    nats_of = backend.nats

    def counted(inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """Count the steps of a window."""
        nonlocal steps
        steps += len(inputs)
        return nats_of(inputs, targets, state)

    backend.nats = counted  # type: ignore[method-assign]
    nats, _ = stream_nats(backend, ids)
    errors = nats - expected
    return {"steps": steps, "mean": float(errors.mean()), "worst": float(np.abs(errors).max())}


def full_memory(cell: str, setup: Setup) -> Row:
    """Return the parts into which a batch is split that is too large for the memory."""
    hidden, shape = (8, (5, 4)) if setup.tiny else (512, (256 if cell in OF_TORCH else 64, 512))
    if not setup.tiny:
        total = torch.cuda.get_device_properties(setup.device).total_memory
        torch.cuda.set_per_process_memory_fraction(MEMORY / total)
    try:
        settings = settings_of(cell, hidden)
        trainer = new_trainer(settings, "fp32", shape, Captures().step, setup, steps=4)
        for _ in trainer.run():
            pass
        finite = all(bool(weight.isfinite().all()) for weight in trainer.model.parameters())
        return {"parts": trainer.counters.parts, "steps": trainer.counters.step, "finite": finite}
    finally:
        if not setup.tiny:
            torch.cuda.set_per_process_memory_fraction(1.0)


def settings_of(cell: str, hidden: int, *, dropout: float = 0.0) -> ModelSettings:
    """Return a model of two layers."""
    return ModelSettings(
        cell=cell, num_layers=2, hidden_size=hidden, embedding_size=hidden, dropout=dropout
    )


def new_model(settings: ModelSettings, vocab_size: int) -> RecurrentLanguageModel:
    """Return a model with the random weights of seed 0."""
    model = RecurrentLanguageModel(settings, vocab_size)
    model.reset_parameters(torch.Generator().manual_seed(0))
    return model


def new_trainer(
    model: ModelSettings,
    precision: str,
    shape: tuple[int, int],
    step_class: Callable[[TrainState, Task], Step],
    setup: Setup,
    steps: int = 2 * LOG_EVERY,
    *,
    many: bool = False,
) -> Trainer:
    """Return a trainer on random letters, or words if many, with windows of a shape (T, B)."""
    settings = TrainingSettings(
        steps=steps, bptt=shape[0], batch_size=shape[1], learning_rate=0.003, clip_norm=0.3, seed=5
    )
    text, kind = "abcdefgh", VocabularySettings()
    if many:
        text, kind = (
            " ".join(f"w{number}" for number in range(MANY)),
            VocabularySettings(unit="word"),
        )
    vocabulary = build_vocabulary(lambda: [text], kind).vocabulary
    return trainer_on_random_ids(vocabulary, model, settings, precision, step_class, setup)


def trainer_on_random_ids(
    vocabulary: Vocabulary,
    model: ModelSettings,
    settings: TrainingSettings,
    precision: str,
    step_class: Callable[[TrainState, Task], Step],
    setup: Setup,
) -> Trainer:
    """Return a trainer on eight windows of random tokens."""
    assert settings.bptt and settings.batch_size
    count = 8 * settings.bptt * settings.batch_size + 1
    ids = random_ids(len(vocabulary), (count,)).numpy().astype(np.uint16)
    dataset = Dataset(
        name="random", vocabulary=vocabulary, train=EncodedText.stream(ids), valid=None,
        test=None, fingerprint="",
    )  # fmt: skip
    task = language_model_task(dataset, settings, Precision(name=precision, reason="measured"))
    trainer = Trainer(new_model(model, len(vocabulary)).to(setup.device), task, settings)
    trainer.gradient_step = trainer.recovery.step = step_class(trainer.state, task)
    return trainer


def random_ids(vocab_size: int, shape: tuple[int, ...]) -> Tensor:
    """Return random tokens of seed 1, without special symbols."""
    return torch.randint(2, vocab_size, shape, generator=torch.Generator().manual_seed(1))


def relative(a: Tensor, b: Tensor) -> float:
    """Return the size of the difference of two tensors, relative to the second."""
    return float((a - b).norm() / b.norm().clamp_min(1e-30))


def compared(one: torch.nn.Module, other: torch.nn.Module) -> str:
    """Return `equal` if all weights of two models are, else the largest difference."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    worst = max(float((a - b).detach().abs().max()) for a, b in pairs)
    return "equal" if worst == 0.0 else f"differs by {worst:.1e}"


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Compute products in whole float32, without TF32."""
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = False
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.allow_tf32 = value
