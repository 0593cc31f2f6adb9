"""Beam search. Shapes: B prompts, K beams, T time, V vocabulary."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigpt.model.kv_cache import KVCache


@dataclass(frozen=True)
class Beams:
    """The K best hypotheses of each of B prompts, best first.

    Attributes:
        tokens: prompts and continuations [B * K, T].
        log_p: log-probabilities of the continuations [B, K].
        length: tokens of the continuations, up to and including the stop token [B, K].
        ended: whether a continuation has ended [B, K].
        scores: the values of `score` that they are ranked by [B, K].
    """

    tokens: Tensor
    log_p: Tensor
    length: Tensor
    ended: Tensor
    scores: Tensor


@torch.inference_mode()
def beam_search(
    model: Callable[[Tensor, KVCache], Tensor],
    cache: KVCache,
    prompts: Tensor,
    *,
    block_size: int,
    num_beams: int,
    length_penalty: float,
    max_new_tokens: int,
    stop_token: int | None = None,
    ends: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the most likely continuations of prompts; one beam is greedy decoding.

    Args:
        model: token ids [B * K, T], and a cache of those before them -> logits [B * K, T, V].
        cache: an empty cache of the model.
        prompts: token ids [B, T].
        block_size: the model's longest context; when it is full, its second half is read again, as in `generate`.
        num_beams: K, hypotheses kept for each prompt.
        length_penalty: see `score`; it matters only where hypotheses can end.
        max_new_tokens: longest continuation.
        stop_token: the token that ends a continuation; None for none.
        ends: continuations [B * K, T] -> whether the last token of each ends it [B * K]; None for `stop_token` alone.

    Returns:
        The continuations [B, K, up to max_new_tokens], best first, padded with `stop_token` (or 0), and their scores
        [B, K].
    """
    beams = start_beams(prompts, num_beams)
    unread = beams.tokens[:, -block_size:]
    for _ in range(max_new_tokens):
        if cache.length + unread.shape[1] > block_size:
            cache.clear()
            unread = beams.tokens[:, -max(1, block_size // 2) :]
        log_probs = torch.log_softmax(model(unread, cache)[:, -1].float(), dim=-1)
        beams, origin = extend_beams(beams, log_probs, length_penalty, stop_token)
        if ends is not None:
            beams = replace(beams, ended=beams.ended | ends(beams.tokens[:, prompts.shape[1] :]).view_as(beams.ended))
        cache.reorder(origin)
        unread = beams.tokens[:, -1:]
        if beams.ended.all():
            break
    return beams.tokens[:, prompts.shape[1] :].unflatten(0, (len(prompts), num_beams)), beams.scores


def start_beams(prompts: Tensor, num_beams: int) -> Beams:
    """Return the beams before the first token, for prompts [B, T]."""
    # All beams of a prompt start alike, so only one of them may be continued at first.
    log_p = torch.full((len(prompts), num_beams), -math.inf, device=prompts.device)
    log_p[:, 0] = 0.0
    length, ended = torch.zeros_like(log_p), torch.zeros_like(log_p, dtype=torch.bool)
    return Beams(prompts.repeat_interleave(num_beams, dim=0), log_p, length, ended, scores=log_p)


def extend_beams(
    beams: Beams, log_probs: Tensor, length_penalty: float, stop_token: int | None
) -> tuple[Beams, Tensor]:
    """Extend hypotheses by one token, given its log-probabilities [B * K, V].

    Returns:
        The new beams, and for each of them the old one that it continues [B * K], as an index into `beams.tokens`.
    """
    count, num_beams = beams.log_p.shape
    log_probs = log_probs.unflatten(0, (count, num_beams))
    # A hypothesis that has ended stays as it is: only its padding is repeated, for free.
    padding = stop_token or 0
    log_probs = log_probs.masked_fill(beams.ended[..., None], -math.inf)
    log_probs[..., padding] = log_probs[..., padding].masked_fill(beams.ended, 0.0)
    length = beams.length + ~beams.ended
    candidates = beams.log_p[..., None] + log_probs  # [B, K, V]
    scores, best = score(candidates, length[..., None], length_penalty).flatten(1).topk(num_beams)
    beam, token = best // log_probs.shape[-1], best % log_probs.shape[-1]
    origin = (num_beams * torch.arange(count, device=beam.device)[:, None] + beam).flatten()
    extended = Beams(
        tokens=torch.cat((beams.tokens[origin], token.view(-1, 1)), dim=1),
        log_p=candidates.flatten(1).gather(1, best),
        length=length.gather(1, beam),
        ended=beams.ended.gather(1, beam) | (token == stop_token),
        scores=scores,
    )
    return extended, origin


def score(log_p: Tensor, length: Tensor, length_penalty: float) -> Tensor:
    """Return the scores of hypotheses of `length` tokens: log p / ((5 + length) / 6)^penalty.

    Without a penalty shorter hypotheses win, since each further token costs probability (arXiv 1609.08144,
    equation 14).
    """
    divisor = ((5 + length) / 6) ** length_penalty
    return log_p / divisor.clamp(max=torch.finfo(divisor.dtype).max)  # infinity / infinity is NaN
