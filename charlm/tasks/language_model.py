"""What training makes smaller: the nats of a window, smoothed and with penalties."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.config.training import TrainingSettings
from charlm.nn.devices import Precision
from charlm.nn.encoder import State
from charlm.nn.model import RecurrentLanguageModel
from charlm.text.batches import PADDING


class Objective:
    """The loss of a model on rows of a window; dropout is drawn from the generator."""

    def __init__(
        self,
        model: RecurrentLanguageModel,
        settings: TrainingSettings,
        *,
        device: torch.device,
        precision: Precision,
        generator: torch.Generator,
    ) -> None:
        self.model, self.settings, self.device = model, settings, device
        self.precision, self.generator = precision, generator

    def of(
        self, ids: NDArray[np.int64], wanted: NDArray[np.int64], before: State | None
    ) -> tuple[Tensor, Tensor, State]:
        """What is made smaller, the mean nats per token of some rows, both in float32.

        They are the same but for label smoothing and penalties. And the state after them, cut off
        from the past.
        """
        inputs, targets = torch.from_numpy(ids).to(self.device), torch.from_numpy(wanted)
        targets = targets.to(self.device)
        real = targets != PADDING
        smoothing = self.settings.label_smoothing
        with self.precision.autocast(self.device):
            raw, shown, state = self.model.read(inputs, before, self.generator)
            loss = self.model.output.nats(shown[real], targets[real], smoothing)
            plain = loss.detach()
            if smoothing:
                with torch.no_grad():
                    plain = self.model.output.nats(shown[real], targets[real])
        after = tuple(tuple(part.detach().float() for part in layer) for layer in state)
        return loss + self.penalties(raw.float(), shown.float(), real), plain, after

    def penalties(self, raw: Tensor, shown: Tensor, real: Tensor) -> Tensor | float:
        """AR and TAR (Merity et al. 2017): mean squares of the output and of its change.

        AR of the output after its dropout, TAR of that before it; padding is left out.
        """
        settings = self.settings
        penalty: Tensor | float = 0.0
        if settings.activation_penalty:
            penalty = settings.activation_penalty * shown[real].pow(2).mean()
        if settings.slowness_penalty and len(raw) > 1:
            change = (raw[1:] - raw[:-1])[real[1:] & real[:-1]]
            if len(change):
                penalty = penalty + settings.slowness_penalty * change.pow(2).mean()
        return penalty
