"""Cells whose recurrence is linear in their state, so that all steps can be computed at once."""

import torch
from torch import Tensor
from torch.nn import functional as F

from charlm.config.model import ModelSettings
from charlm.nn.layers import LayerState, RecurrentLayer, empty_parameter


def scanned(keep: Tensor, add: Tensor, start: Tensor) -> Tensor:
    """h_t = keep_t h_{t-1} + add_t for all t, from h_0 = start; shapes (T, B, H) and (B, H).

    Hillis & Steele 1986: in log2 T rounds every step takes in the span before its own. Products of
    factors below one only shrink, so nothing overflows (in log space as in Feng et al. 2024,
    appendix B, signs would have to be carried along).
    """
    add = torch.cat([(add[:1] + keep[:1] * start), add[1:]])
    reach = 1
    while reach < len(keep):
        add = torch.cat([add[:reach], add[reach:] + keep[reach:] * add[:-reach]])
        keep = torch.cat([keep[:reach], keep[reach:] * keep[:-reach]])
        reach *= 2
    return add


class _LinearLayer(RecurrentLayer):
    """A layer whose blocks depend on the inputs alone."""

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        rows = len(self.spec.blocks) * hidden_size
        self.weight_ih = empty_parameter(rows, input_size)
        self.bias = empty_parameter(rows)


def wide(x: Tensor) -> Tensor:
    """At least float32: a scan in bfloat16 would lose what it adds up."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def positive(x: Tensor) -> Tensor:
    """The g of Feng et al. 2024 (appendix B.3): x + 1/2 above zero, sigmoid(x) below."""
    return torch.where(x >= 0, x + 0.5, torch.sigmoid(x))


class MinGru(_LinearLayer):
    """h' = (1 - z) h + z g(W_h x), z = sigmoid(W_z x) (Feng et al. 2024, section 3.1)."""

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        z, candidate = wide(F.linear(x, self.weight_ih, self.bias)).chunk(2, dim=-1)
        z = torch.sigmoid(z)
        h = scanned(1.0 - z, z * positive(candidate), wide(state[0]))
        return h.to(x.dtype), (h[-1],)


class MinLstm(_LinearLayer):
    """h' = f' h + i' g(W_h x), f' = f / (f + i), i' = i / (f + i).

    Feng et al. 2024, section 3.2.
    """

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        f, i, candidate = wide(F.linear(x, self.weight_ih, self.bias)).chunk(3, dim=-1)
        # f / (f + i) = sigmoid(ln f - ln i), which does not divide small numbers by each other
        keep = torch.sigmoid(F.logsigmoid(f) - F.logsigmoid(i))
        h = scanned(keep, (1.0 - keep) * positive(candidate), wide(state[0]))
        return h.to(x.dtype), (h[-1],)


class Qrnn(_LinearLayer):
    """Quasi-recurrent layer with fo-pooling (Bradbury et al. 2017).

    z = tanh(W [x_{t-1}; x_t]), f, o = sigmoid(...), c' = f c + (1 - f) z, h = o c'. The state is
    (c, x of the step before); with a window of one, W reads x_t alone and the state is (c,).
    """

    def __init__(self, input_size: int, hidden_size: int, settings: ModelSettings) -> None:
        super().__init__(input_size, hidden_size, settings)
        if settings.qrnn_window == 2:
            self.weight_before = empty_parameter(3 * hidden_size, input_size)

    def initial_state(self, batch_size: int) -> LayerState:
        """Zeros: c (B, H) and, with a window of two, the input before (B, E)."""
        sizes = (self.hidden_size, self.input_size)[: self.settings.qrnn_window]
        return tuple(self.bias.new_zeros(batch_size, size) for size in sizes)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """See `RecurrentLayer.forward`."""
        side = F.linear(x, self.weight_ih, self.bias)
        if self.settings.qrnn_window == 2:
            before = torch.cat([state[1][None].to(x.dtype), x[:-1]])
            side = side + F.linear(before, self.weight_before)
        z, f, o = wide(side).chunk(3, dim=-1)
        f = torch.sigmoid(f)
        cells = scanned(f, (1.0 - f) * torch.tanh(z), wide(state[0]))
        after = (cells[-1], wide(x[-1]))[: self.settings.qrnn_window]
        return (torch.sigmoid(o) * cells).to(x.dtype), after
