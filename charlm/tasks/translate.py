"""Translation: predict each token of a text's translation, from the text and the tokens before."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.config.settings import Settings
from charlm.config.tasks import TASKS
from charlm.inference.translation_counts import TranslationCounts
from charlm.nn.devices import Precision
from charlm.nn.encoder import State
from charlm.nn.translator import Translator
from charlm.phases import phase
from charlm.tasks.task import Sums, Task, real_rows, take_rows
from charlm.text.batches import PADDING, Batch
from charlm.text.dataset import Dataset
from charlm.text.encoded import EncodedText
from charlm.text.groups import READ_TOGETHER, groups_by_length
from charlm.text.pair_batches import PairBatch, PairGroups, pair_batch, pair_lengths
from charlm.text.parallel import Parallel
from charlm.text.task_text import gold_of


def translate_task(dataset: Dataset, settings: Settings, precision: Precision) -> Task:
    """Return the task of a parallel dataset under complete settings."""
    training, targets = settings.training, gold_of(dataset, Parallel).texts
    validation = None
    if dataset.valid is not None:
        validation = TranslateValidation(dataset.valid, targets["valid"])
    return Task(
        batches=PairGroups(
            dataset.train, targets["train"], training.batch_size or 1, training.seed or 0
        ),
        loss=TranslateLoss(precision=precision, smoothing=training.label_smoothing),
        evaluate=validation,
        target=TASKS[settings.task.task].target,
    )


@dataclass(frozen=True, kw_only=True)
class TranslateLoss:
    """Cross-entropy of the tokens of known translations, with label smoothing."""

    precision: Precision
    smoothing: float = 0.0

    def __call__(
        self, model: Translator, batch: Batch, state: State | None, generator: torch.Generator
    ) -> Sums:
        """Return the sums over the tokens, and no state (see `Loss`)."""
        assert isinstance(batch, PairBatch), "batches of pairs"
        with self.precision.autocast(generator.device):
            logs = _log_probabilities(model, batch, generator)  # (N, V')
        nats = F.nll_loss(logs, _real_targets(batch).to(logs.device), reduction="sum")
        loss = nats
        if self.smoothing:  # the mean over entries is the cross-entropy with equal probabilities
            loss = (1.0 - self.smoothing) * nats - self.smoothing / logs.shape[1] * logs.sum()
        return Sums(loss, nats.detach(), ())


@dataclass(frozen=True)
class TranslateValidation:
    """Nats of known translations, without dropout; outputs are only made at the end of a run."""

    sources: EncodedText
    targets: EncodedText

    @property
    def tokens(self) -> int:
        """Number of target tokens, with an EOS for each text."""
        return len(self.targets.ids)

    @torch.inference_mode()
    def __call__(self, model: Translator) -> TranslationCounts:
        """Return the figures of a model."""
        nats = 0.0
        lengths = pair_lengths(self.sources, self.targets)
        with phase("validating"):
            for rows in groups_by_length(lengths, READ_TOGETHER):
                batch = pair_batch(self.sources, self.targets, rows)
                logs = _log_probabilities(model, batch, None)
                targets = _real_targets(batch).to(logs.device)
                known = logs.gather(1, targets[:, None]).cpu()  # the GPU of a Mac has no float64
                nats -= float(known.double().sum())
        return TranslationCounts(nats=nats, tokens=self.tokens)


def _log_probabilities(
    model: Translator, batch: PairBatch, generator: torch.Generator | None
) -> Tensor:
    """Return the log-probability of every entry at each real target (N, V'), in float32."""
    device = model.device
    arrays = (batch.inputs, batch.lengths, batch.target_inputs)
    inputs, lengths, target_inputs = (torch.from_numpy(array).to(device) for array in arrays)
    read = model.read(inputs, lengths, target_inputs, generator)  # (T', B, E)
    rows = real_rows(batch.targets != PADDING)
    return model.logits(take_rows(read, rows)).float().log_softmax(dim=-1)


def _real_targets(batch: PairBatch) -> Tensor:
    """Return the targets that are no padding, shape (N,)."""
    return torch.from_numpy(batch.targets[batch.targets != PADDING])
