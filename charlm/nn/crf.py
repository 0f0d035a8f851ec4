"""The loss of a linear-chain CRF (Lample et al. 2016, arxiv.org/abs/1603.01360).

A path of tags has as score the first tag's score of beginning, the emission of each tag, the score
of each step from tag to tag, and the last tag's score of ending. Letters: W words, B sentences, K
tags.
"""

import torch
from torch import Tensor


def crf_nats(
    emissions: Tensor, targets: Tensor, counts: Tensor, between: Tensor, first: Tensor, last: Tensor
) -> Tensor:
    """Return the negative log-likelihood (B,) of the tags (W, B) of sentences of these words (B,).

    `emissions` has shape (W, B, K), `between` (K, K) is from tag to tag, `first` and `last` are
    (K,). Words from a sentence's number on are padding: they have no effect. Every sentence has a
    word.
    """
    words, sentences = targets.shape
    inside = torch.arange(words, device=targets.device)[:, None] < counts  # (W, B)
    tags = targets.clamp(min=0)
    columns = torch.arange(sentences, device=targets.device)
    own = emissions.gather(2, tags[..., None])[..., 0] * inside
    steps = between[tags[:-1], tags[1:]] * inside[1:]
    ends = first[tags[0]] + last[tags[counts - 1, columns]]
    score = own.sum(dim=0) + steps.sum(dim=0) + ends
    return log_partition(emissions, counts, between, first, last) - score


def log_partition(
    emissions: Tensor, counts: Tensor, between: Tensor, first: Tensor, last: Tensor
) -> Tensor:
    """Return the logarithm (B,) of the sum of exp(score) over all paths of each sentence."""
    alpha = first + emissions[0]  # (B, K)
    for word in range(1, len(emissions)):
        after = torch.logsumexp(alpha[:, :, None] + between, dim=1) + emissions[word]
        alpha = torch.where((counts > word)[:, None], after, alpha)
    return torch.logsumexp(alpha + last, dim=1)
