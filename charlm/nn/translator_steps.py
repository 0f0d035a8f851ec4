"""Steps of a translator in torch, for cells that only torch computes.

`TorchSteps` has the methods of the protocol `charlm.inference.search.Steps`, where letters are
explained.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm.backends.interface import Array, State
from charlm.nn.encoder import State as TorchState
from charlm.nn.translator import Translator
from charlm.text.encoded import EncodedText
from charlm.text.groups import padded

Int64 = NDArray[np.int64]


class TorchSteps:
    """A translator on the device of its weights, in float32 and without dropout."""

    def __init__(self, model: Translator) -> None:
        self.model = model
        self.device, self.name = model.device, model.engine

    @torch.inference_mode()
    def begin(self, text: EncodedText, rows: Int64) -> tuple[Array, Int64, State]:
        """Read the sources with these row numbers (B,)."""
        inputs, lengths = padded(text, rows)
        with torch.autocast(self.device.type, enabled=False):
            memory, state = self.model.memory(self._tensor(inputs), self._tensor(lengths))
        return _array(memory.transpose(0, 1)), lengths, _arrays(state)

    @torch.inference_mode()
    def step(
        self, ids: Int64, state: State, vectors: Array, steps: Int64
    ) -> tuple[Array, Array, State]:
        """Read the last token of each beam (B, K), with states of B K rows."""
        beams, shape = ids.shape[1], ids.shape
        memory = self._tensor(np.repeat(vectors, beams, axis=0)).transpose(0, 1)  # (T, B K, D)
        lengths = self._tensor(np.repeat(steps, beams))
        before = tuple(tuple(map(self._tensor, layer)) for layer in state)
        with torch.autocast(self.device.type, enabled=False):
            flat = self._tensor(ids.reshape(1, -1))
            read, weights, after = self.model.decode(flat, before, memory, lengths)
            log_p = self.model.logits(read).log_softmax(dim=-1)
        return (
            _array(log_p).reshape(*shape, -1),
            _array(weights).reshape(*shape, -1),
            _arrays(after),
        )

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.float().cpu().numpy())


def _arrays(state: TorchState) -> State:
    return tuple(tuple(map(_array, layer)) for layer in state)
