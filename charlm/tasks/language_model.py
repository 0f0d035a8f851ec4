"""Language modelling: predict each token from the tokens before it."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.config.training import TrainingSettings
from charlm.inference.likelihood import evaluate
from charlm.nn.devices import Precision
from charlm.nn.dropout import for_rows
from charlm.nn.encoder import State, select_rows
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.phases import phase
from charlm.tasks.task import Sums, Task, real_rows, take_rows
from charlm.text.batches import PADDING, Batch, Batches, BatchSpec
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.units import Tally


def language_model_task(dataset: Dataset, settings: TrainingSettings, precision: Precision) -> Task:
    """Return the task of a dataset under complete settings."""
    assert settings.batch_size and settings.bptt, "planned settings have sizes"
    spec = BatchSpec(
        batch_size=settings.batch_size,
        bptt=settings.bptt,
        stateless=settings.stateless,
        seed=settings.seed or 0,
        line_end=dataset.vocabulary.line_end,
        random_bptt=settings.random_bptt,
    )
    return Task(
        batches=Batches(dataset.train, spec),
        loss=LanguageModelLoss(settings, precision),
        evaluate=None if dataset.valid is None else Validation(dataset.valid),
        low_precision=precision.copy_type,
    )


@dataclass(frozen=True)
class LanguageModelLoss:
    """Cross-entropy of the next token, with the label smoothing and penalties of the settings."""

    settings: TrainingSettings
    precision: Precision

    def __call__(
        self,
        model: RecurrentLanguageModel,
        batch: Batch,
        state: State | None,
        generator: torch.Generator,
    ) -> Sums:
        """Return the sums of a batch (see `Loss`)."""
        device = generator.device
        inputs = torch.from_numpy(batch.inputs).to(device)  # (T, B)
        targets = torch.from_numpy(batch.targets).to(device)  # (T, B)
        state = self.state_before(model, batch, state, generator)
        rows = real_rows(batch.targets != PADDING)
        return self._sums(model, inputs, targets, state, generator, rows)

    def of_window(
        self,
        model: RecurrentLanguageModel,
        inputs: Tensor,
        targets: Tensor,
        state: State | None,
        generator: torch.Generator,
    ) -> Sums:
        """Return the sums of a window; see `WindowLoss`."""
        return self._sums(model, inputs, targets, state, generator, None)

    def _sums(
        self,
        model: RecurrentLanguageModel,
        inputs: Tensor,
        targets: Tensor,
        state: State | None,
        generator: torch.Generator,
        rows: NDArray[np.int64] | None,
    ) -> Sums:
        """Return the sums of inputs and targets (T, B); padding may be left out by `rows`."""
        smoothing = self.settings.label_smoothing
        with self.precision.autocast(generator.device):
            raw, dropped, after = model.read(inputs, state, generator)  # (T, B, H), (T, B, H)
            shown, real = take_rows(dropped, rows), take_rows(targets, rows)
            loss = model.output.nats(shown, real, smoothing)
            nats = loss.detach()
            if smoothing:
                with torch.no_grad():
                    nats = model.output.nats(shown, real)
        after = tuple(tuple(tensor.detach().float() for tensor in layer) for layer in after)
        size = model.settings.output_size  # the outputs of a padded copy have more
        return Sums(loss + self._penalties(raw, dropped, targets, size), nats, after)

    def state_before(
        self,
        model: RecurrentLanguageModel,
        batch: Batch,
        state: State | None,
        generator: torch.Generator,
    ) -> State | None:
        """Return the state that the sequences of a batch begin with; None is the initial state.

        With `state_reset`, each carried state is replaced by the initial one with this probability.
        """
        if batch.first or state is None:
            return None
        device = generator.device
        carried = select_rows(state, torch.from_numpy(batch.kept).to(device))
        probability = self.settings.state_reset
        if not probability:
            return carried
        initial = model.initial_state(len(batch.kept))
        draws = for_rows(
            lambda like: torch.rand(like.shape, generator=generator, device=device),
            torch.empty(len(batch.kept), 1, device=device), generator, axis=0,
        )  # fmt: skip
        return tuple(
            tuple(
                torch.where(draws < probability, new, old) for new, old in zip(*layers, strict=True)
            )
            for layers in zip(initial, carried, strict=True)
        )

    def _penalties(
        self, raw: Tensor, dropped: Tensor, targets: Tensor, size: int
    ) -> Tensor | float:
        """Return the sums of AR and TAR (Merity et al. 2017) over the targets (T, B).

        AR is the mean square of the output after dropout, TAR that of its change before dropout;
        both are means over `size` units, and padding is left out. There are T - 1 changes for T
        targets, so their sum is multiplied by T / (T - 1): in a full window TAR is the mean over
        all changes, and parts of a batch add up.
        """
        settings, steps = self.settings, len(raw)
        penalty: Tensor | float = 0.0
        if not settings.activation_penalty and not settings.slowness_penalty:
            return penalty
        real = targets != PADDING
        if settings.activation_penalty:
            squares = dropped.float().pow(2).sum(-1) * real  # (T, B)
            penalty = settings.activation_penalty / size * squares.sum()
        if settings.slowness_penalty and steps > 1:
            changes = raw[1:].float() - raw[:-1].float()
            squares = changes.pow(2).sum(-1) * (real[1:] & real[:-1])  # (T - 1, B)
            weight = settings.slowness_penalty * steps / (steps - 1)
            penalty = penalty + weight / size * squares.sum()
        return penalty


@dataclass(frozen=True)
class Validation:
    """Likelihood of one text, without dropout."""

    text: EncodedText

    @property
    def tokens(self) -> int:
        """Number of tokens that are scored."""
        return len(self.text.ids)

    def __call__(self, model: RecurrentLanguageModel) -> Tally:
        """Return the figures of a model."""
        with phase("validating", total=self.tokens):
            return evaluate(TorchBackend(model), self.text)
