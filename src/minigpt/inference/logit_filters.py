"""Filters of next-token logits, as pure functions. Shapes: B sequences, V vocabulary.

They are applied in the order of transformers: repetition penalty, temperature, top-k, top-p, min-p. Each sees the
distribution that those before it have left; a token that is left out has the logit -inf.
"""

import math

import torch
from torch import Tensor


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide the positive logits of the tokens `seen` [B, V] by `penalty`, and multiply their negative ones by it.

    Of arXiv 1909.05858, section 4.1, which divides all: that would favor a token with a negative logit.
    """
    penalized = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, penalized, logits)


def apply_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Divide logits [B, V] by a temperature above 0. The largest is 0 in the result."""
    # Without their maximum first, since logits divided by a tiny temperature would be infinite, and their softmax NaN.
    return (logits - logits.max(dim=-1, keepdim=True).values) / temperature


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each sequence [B, V], and those that equal the smallest of them; all if k > V."""
    smallest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens whose probabilities sum to at least p, of logits [B, V] (arXiv 1904.09751)."""
    ordered, order = torch.softmax(logits, dim=-1).sort(dim=-1, descending=True)
    before = ordered.cumsum(dim=-1) - ordered  # of the likelier tokens; 0 for the likeliest, so one always stays
    return logits.masked_fill(torch.empty_like(order, dtype=torch.bool).scatter(-1, order, before >= p), -math.inf)


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as likely as the likeliest one, of logits [B, V] (arXiv 2407.01082)."""
    probabilities = torch.softmax(logits, dim=-1)
    return logits.masked_fill(probabilities < p * probabilities.amax(dim=-1, keepdim=True), -math.inf)


def filter_logits(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Return the logits [B, V] of the distribution to sample from; see `minigpt.inference.sampling.generate`."""
    logits = apply_temperature(logits, temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None and top_p < 1:
        logits = keep_top_p(logits, top_p)
    return logits if min_p is None else keep_min_p(logits, min_p)
