"""The engine that runs torch's layers: on any device, for every cell."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.backends.interface import Array, Ids, Logits, Nats, State
from charlm.nn import encoder
from charlm.nn.model import RecurrentLanguageModel

Found = TypeVar("Found")


class TorchBackend:
    """Computes with a model where its weights lie. No gradient is kept.

    All logits are multiplied by `logit_scale`.
    """

    def __init__(self, model: RecurrentLanguageModel, logit_scale: float = 1.0) -> None:
        self.model, self.logit_scale = model, logit_scale
        self.device = model.embedding.weight.device
        self.name = f"torch {self.device.type}"
        self.vocab_size = model.vocab_size
        self.logits_each = model.vocab_size * model.settings.mixture

    def initial_state(self, rows: int) -> State:
        """The state that rows begin with."""
        return _arrays(self.model.initial_state(rows))

    def nats(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, State]:
        """-ln P of the targets and the state after the inputs; the softmax is in float32."""
        return self._read(inputs, state, lambda _, logits: _nats(logits, self._tensor(targets)))

    def ranks(self, inputs: Ids, targets: Ids, state: State) -> tuple[Nats, Ids, State]:
        """As `nats`, and the rank of each target."""
        wanted = self._tensor(targets)

        def both(_: Tensor, logits: Tensor) -> tuple[Nats, Ids]:
            """Nats and ranks of the targets."""
            own = logits.gather(-1, wanted[..., None])
            ranks = (logits > own).sum(dim=-1) + 1
            return _nats(logits, wanted), ranks.cpu().numpy()

        (nats, ranks), after = self._read(inputs, state, both)
        return nats, ranks, after

    def logits(self, inputs: Ids, state: State) -> tuple[Logits, State]:
        """Logits of the token after the inputs."""
        return self._read(inputs, state, lambda _, found: found[-1].cpu().double().numpy(), last=1)

    def contexts(self, inputs: Ids, targets: Ids, state: State) -> tuple[Array, Nats, State]:
        """What the output layer sees (T, B, H), the nats of the targets, and the state after."""
        wanted = self._tensor(targets)

        def both(shown: Tensor, logits: Tensor) -> tuple[Array, Nats]:
            """Contexts and nats."""
            return shown.float().cpu().numpy(), _nats(logits, wanted)

        (contexts, nats), after = self._read(inputs, state, both)
        return contexts, nats, after

    @torch.inference_mode()
    def _read(
        self,
        inputs: Ids,
        state: State,
        wanted: Callable[[Tensor, Tensor], Found],
        last: int = 0,
    ) -> tuple[Found, State]:
        """What is wanted of the output layer's input and the logits, and the state after.

        With `last`, only so many of the last steps have logits.
        """
        before = tuple(tuple(self._tensor(part) for part in layer) for layer in state)
        _, shown, after = self.model.read(self._tensor(inputs), before)
        shown = shown[-last:]
        logits = self.model.output(shown).float() * self.logit_scale
        return wanted(shown, logits), _arrays(after)

    def _tensor(self, array: Ids | np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _nats(logits: Tensor, targets: Tensor) -> Nats:
    nats = F.cross_entropy(logits.flatten(0, 1), targets.reshape(-1), reduction="none")
    return nats.view_as(targets).cpu().double().numpy()


def _arrays(state: encoder.State) -> State:
    return tuple(tuple(part.detach().float().cpu().numpy() for part in layer) for layer in state)
