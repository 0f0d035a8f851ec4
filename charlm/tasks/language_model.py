"""Language modelling: predict each token from the tokens before it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from charlm.config.training import TrainingSettings
from charlm.inference.likelihood import evaluate
from charlm.nn.devices import Precision
from charlm.nn.encoder import State, select_rows
from charlm.nn.model import RecurrentLanguageModel
from charlm.nn.torch_backend import TorchBackend
from charlm.phases import phase
from charlm.tasks.task import Task
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
    ) -> tuple[Tensor, Tensor, State]:
        """Return the loss, the nats per token, and the state after the batch (see `Loss`)."""
        device = generator.device
        inputs = torch.from_numpy(batch.inputs).to(device)  # (T, B)
        targets = torch.from_numpy(batch.targets).to(device)  # (T, B)
        state = self.state_before(model, batch, state, generator)
        real = targets != PADDING
        smoothing = self.settings.label_smoothing
        with self.precision.autocast(device):
            raw, dropped, after = model.read(inputs, state, generator)  # (T, B, H), (T, B, H)
            loss = model.output.nats(dropped[real], targets[real], smoothing)
            nats = loss.detach()
            if smoothing:
                with torch.no_grad():
                    nats = model.output.nats(dropped[real], targets[real])
        after = tuple(tuple(tensor.detach().float() for tensor in layer) for layer in after)
        return loss + self._penalties(raw.float(), dropped.float(), real), nats, after

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
        draws = torch.rand(len(batch.kept), 1, generator=generator, device=device)
        return tuple(
            tuple(
                torch.where(draws < probability, new, old) for new, old in zip(*layers, strict=True)
            )
            for layers in zip(initial, carried, strict=True)
        )

    def _penalties(self, raw: Tensor, dropped: Tensor, real: Tensor) -> Tensor | float:
        """Return AR and TAR (Merity et al. 2017): mean squares of the output and of its change.

        AR is computed after the dropout of the output, TAR before it; padding is left out.
        """
        settings = self.settings
        penalty: Tensor | float = 0.0
        if settings.activation_penalty:
            penalty = settings.activation_penalty * dropped[real].pow(2).mean()
        if settings.slowness_penalty and len(raw) > 1:
            change = (raw[1:] - raw[:-1])[real[1:] & real[:-1]]
            if len(change):
                penalty = penalty + settings.slowness_penalty * change.pow(2).mean()
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
