"""Cells whose recurrence is linear in the state, so that all steps are computed at once."""

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.config.cells import CANDIDATE
from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, RecurrentLayer, empty_parameter


def scanned(keep: Tensor, add: Tensor, start: Tensor) -> Tensor:
    """Return h_t = keep_t h_{t-1} + add_t for all t, with h_0 = start (B, H); all others (T, B, H).

    The scan of Hillis & Steele 1986 in log2 T rounds, each of which doubles the span that a step
    covers. Factors are below one, so nothing overflows. (Feng et al. 2024, appendix B, work in log
    space, which would need the signs as well.)
    """
    add = torch.cat([(add[:1] + keep[:1] * start), add[1:]])
    span = 1
    while span < len(keep):
        add = torch.cat([add[:span], add[span:] + keep[span:] * add[:-span]])
        keep = torch.cat([keep[:span], keep[span:] * keep[:-span]])
        span *= 2
    return add


class LinearLayer(RecurrentLayer):
    """A layer whose blocks depend on the inputs alone."""

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        size = len(self.spec.blocks) * hidden_size
        self.weight_ih = empty_parameter(size, input_size)
        self.bias = empty_parameter(size)


def widened(x: Tensor) -> Tensor:
    """Return x in at least float32: a scan in bfloat16 would lose what it adds up."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def positive(x: Tensor) -> Tensor:
    """Return g(x) of Feng et al. 2024 (appendix B.3): x + 1/2 above zero, sigmoid(x) below."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


class MinGru(LinearLayer):
    """h' = (1 - z) h + z g(W_h x), z = sigmoid(W_z x) (Feng et al. 2024, section 3.1)."""

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        z, candidate = self.gate_values(x, state).values()
        h = scanned(1.0 - z, z * candidate, widened(state[0]))
        return h.to(x.dtype), (h[-1],)

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """See `RecurrentLayer.gate_values`; x may also be all steps (T, B, E)."""
        z, candidate = widened(F.linear(x, self.weight_ih, self.bias)).chunk(2, dim=-1)
        return {"update": torch.sigmoid(z), CANDIDATE: positive(candidate)}


class MinLstm(LinearLayer):
    """h' = f' h + i' g(W_h x), f' = f / (f + i), i' = i / (f + i).

    Feng et al. 2024, section 3.2.
    """

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        keep, add, candidate = self.gate_values(x, state).values()
        h = scanned(keep, add * candidate, widened(state[0]))
        return h.to(x.dtype), (h[-1],)

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """See `RecurrentLayer.gate_values`; x may also be all steps (T, B, E)."""
        f, i, candidate = widened(F.linear(x, self.weight_ih, self.bias)).chunk(3, dim=-1)
        # f / (f + i) = sigmoid(ln f - ln i), which does not divide small numbers by each other
        keep = torch.sigmoid(F.logsigmoid(f) - F.logsigmoid(i))
        return {"forget": keep, "input": 1.0 - keep, CANDIDATE: positive(candidate)}


class Qrnn(LinearLayer):
    """Quasi-recurrent layer with fo-pooling (Bradbury et al. 2017).

    z = tanh(W [x_{t-1}; x_t]), f, o = sigmoid(...), c' = f c + (1 - f) z, h = o c'. The state is
    (c, x of the previous step); with a window of one, W reads x_t alone and the state is (c,).
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        if settings.qrnn_window == 2:
            self.weight_before = empty_parameter(3 * hidden_size, input_size)

    def initial_state(self, batch_size: int) -> LayerState:
        """Return zeros: c (B, H) and, with a window of two, the previous input (B, E)."""
        sizes = (self.hidden_size, self.input_size)[: self.settings.qrnn_window]
        return tuple(self.bias.new_zeros(batch_size, size) for size in sizes)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        before = [torch.cat([part[None].to(x.dtype), x[:-1]]) for part in state[1:]]
        z, f, o = self.gate_values(x, (state[0], *before)).values()
        cells = scanned(f, (1.0 - f) * z, widened(state[0]))
        after = (cells[-1], widened(x[-1]))[: self.settings.qrnn_window]
        return (o * cells).to(x.dtype), after

    def gate_values(self, x: Tensor, state: LayerState) -> dict[str, Tensor]:
        """See `RecurrentLayer.gate_values`; x may also be all steps (T, B, E)."""
        blocks = F.linear(x, self.weight_ih, self.bias)
        for before in state[1:]:
            blocks = blocks + F.linear(before, self.weight_before)
        z, f, o = widened(blocks).chunk(3, dim=-1)
        return {CANDIDATE: torch.tanh(z), "forget": torch.sigmoid(f), "output": torch.sigmoid(o)}
