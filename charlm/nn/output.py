"""Output layers: from hidden vectors to the probabilities of the next token.

Each has `forward`, the logits of every entry (log-probabilities are logits too), and `nats`, the
training loss, which may be cheaper.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from charlm.config.model import ModelSettings
from charlm.nn.chunked_softmax import chunked_nats
from charlm.nn.layers import empty_parameter, without_init
from charlm.text.batches import PADDING

SHORTLIST, MIDDLE = 0.08, 0.35
"""Fractions of the vocabulary, frequent entries first, at which the clusters of `Adaptive` end."""
MIN_ENTRIES, MIN_HIDDEN = 50, 16
"""Smallest sizes of `Adaptive`, whose rarest cluster has a sixteenth of the hidden units."""

MIN_CHUNKED = 4096
"""Fewest entries for which `Softmax` computes its loss in chunks."""


class Softmax(nn.Linear):
    """One softmax over all entries: W h + b, W (V, H)."""

    def nats(self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the sum of -ln P(target) for hidden (N, H) and targets (N,), without PADDING.

        The fraction `smoothing` of each target is spread over all entries.
        """
        if self.out_features >= MIN_CHUNKED:
            return chunked_nats(hidden, self.weight, self.bias, targets, smoothing)
        return summed_nats(self(hidden).float(), targets, smoothing)

    def initialise(self, generator: torch.Generator, tied: bool) -> None:
        """Initialise the weights; a tied matrix belongs to the embedding."""
        if not tied:
            nn.init.xavier_uniform_(self.weight, generator=generator)
        nn.init.zeros_(self.bias)


class Mixture(nn.Module):
    """A mixture of K softmaxes (Yang et al. 2018, arxiv.org/abs/1711.03953).

    P = sum_k pi_k softmax(W tanh(A_k h + a_k) + b), pi = softmax(C h); W is (V, E), which may be
    tied to an embedding of any width. Removes the limit that one softmax puts on the rank of the
    log-probabilities.
    """

    def __init__(self, hidden_size: int, vocab_size: int, width: int, number: int) -> None:
        super().__init__()
        self.width, self.number = width, number
        self.weight = empty_parameter(vocab_size, width)
        self.bias = empty_parameter(vocab_size)
        self.context_weight = empty_parameter(number * width, hidden_size)
        self.context_bias = empty_parameter(number * width)
        self.prior_weight = empty_parameter(number, hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ln P of every entry (..., V) for hidden (..., H), in float32."""
        context = torch.tanh(F.linear(hidden, self.context_weight, self.context_bias))
        context = context.view(*hidden.shape[:-1], self.number, self.width)  # (..., K, E)
        each = F.linear(context, self.weight, self.bias).float().log_softmax(-1)  # (..., K, V)
        prior = F.linear(hidden, self.prior_weight).float().log_softmax(-1)  # (..., K)
        return torch.logsumexp(each + prior[..., None], dim=-2)

    def nats(self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """See `Softmax.nats`."""
        return summed_nats(self(hidden), targets, smoothing)

    def initialise(self, generator: torch.Generator, tied: bool) -> None:
        """See `Softmax.initialise`."""
        weights = [self.context_weight, self.prior_weight] + ([] if tied else [self.weight])
        for weight in weights:
            nn.init.xavier_uniform_(weight, generator=generator)
        nn.init.zeros_(self.context_bias)
        nn.init.zeros_(self.bias)


class Adaptive(nn.Module):
    """Adaptive softmax (Grave et al. 2017, arxiv.org/abs/1609.04309), from torch.nn.

    Entries must be ordered by frequency, as words and characters are. Rare ones are in two clusters
    with smaller matrices, which training computes only for targets in them. Computed in float32:
    torch's layer does not mix number types.
    """

    def __init__(self, hidden_size: int, vocab_size: int) -> None:
        super().__init__()
        cutoffs = [round(fraction * vocab_size) for fraction in (SHORTLIST, MIDDLE)]
        self.softmax = without_init(
            nn.AdaptiveLogSoftmaxWithLoss, hidden_size, vocab_size, cutoffs=cutoffs
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Return ln P of every entry (..., V) for hidden (..., H), in float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            log_p = self.softmax.log_prob(hidden.reshape(-1, hidden.shape[-1]).float())
        return log_p.view(*hidden.shape[:-1], -1)

    def nats(self, hidden: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
        """See `Softmax.nats`; smoothing needs all entries. PADDING is not allowed."""
        if smoothing:
            return summed_nats(self(hidden), targets, smoothing)
        with torch.autocast(hidden.device.type, enabled=False):
            return -cast(Tensor, self.softmax(hidden.float(), targets).output).sum()

    def initialise(self, generator: torch.Generator, tied: bool) -> None:
        """See `Softmax.initialise`."""
        for weight in self.softmax.parameters():
            nn.init.xavier_uniform_(weight, generator=generator)


def summed_nats(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the sum of -ln P(target) for logits (N, V); see `Softmax.nats`."""
    return F.cross_entropy(
        logits, targets, ignore_index=PADDING, reduction="sum", label_smoothing=smoothing
    )


OutputLayer = Softmax | Mixture | Adaptive


def has_chunked_loss(settings: ModelSettings, vocab_size: int) -> bool:
    """Report whether the output layer is a softmax that computes its loss in chunks."""
    is_softmax = not settings.adaptive_softmax and settings.mixture == 1
    return is_softmax and vocab_size >= MIN_CHUNKED


def logits_of_a_target(settings: ModelSettings, vocab_size: int) -> float:
    """Return the number of logits that the training loss needs for each target."""
    return vocab_size * (SHORTLIST if settings.adaptive_softmax else settings.mixture)


def build_output(settings: ModelSettings, hidden: int, width: int, vocab_size: int) -> OutputLayer:
    """Return the output layer that the settings name, with unset weights."""
    if settings.adaptive_softmax:
        return Adaptive(hidden, vocab_size)
    if settings.mixture > 1:
        return Mixture(hidden, vocab_size, width, settings.mixture)
    return without_init(Softmax, hidden, vocab_size)
