"""The likeliest continuations, several at a time. Shapes: B prompts, K beams, T time, V vocabulary."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minigpt.model.kv_cache import KVCache


def score(log_probability: Tensor, length: Tensor, length_penalty: float) -> Tensor:
    """What hypotheses of `length` tokens are ranked by: log p / ((5 + length) / 6)^penalty.

    Without a penalty the shorter one wins, since each further token costs probability (arXiv 1609.08144, equation 14).
    """
    return log_probability / ((5 + length) / 6) ** length_penalty


@torch.inference_mode()
def beam_search(
    model: Callable[[Tensor, KVCache], Tensor],
    cache: KVCache,
    prompts: Tensor,
    *,
    block_size: int,
    beam: int,
    length_penalty: float,
    max_new_tokens: int,
    end: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The best of those continuations that are left when only the `beam` best are kept at each token.

    With one beam it takes the likeliest token each time. When the context is full, its second half is read again, as
    `minigpt.inference.sampling.generate` does.

    Args:
        model: token ids [B * K, T] and a cache that holds those before them -> logits [B * K, T, V].
        cache: an empty one of the model.
        prompts: token ids [B, T].
        block_size: the model's longest context.
        beam: K, hypotheses kept for each prompt.
        length_penalty: see `score`; it matters only where hypotheses can end.
        max_new_tokens: longest continuation.
        end: the token that ends one.

    Returns:
        The continuations [B, K, up to max_new_tokens], best first, filled up with `end`; and their scores [B, K].
    """
    count, device = len(prompts), prompts.device
    tokens = prompts.repeat_interleave(beam, dim=0)
    unread = tokens[:, -block_size:]
    first_row = beam * torch.arange(count, device=device)[:, None]
    # All beams of a prompt begin alike, so that only one may be continued at first.
    log_p = torch.full((count, beam), -math.inf, device=device)
    log_p[:, 0] = 0.0
    length, ended = torch.zeros_like(log_p), torch.zeros_like(log_p, dtype=torch.bool)
    scores = log_p
    for _ in range(max_new_tokens):
        if cache.length + unread.shape[1] > block_size:
            cache.clear()
            unread = tokens[:, -max(1, block_size // 2) :]
        steps = torch.log_softmax(model(unread, cache)[:, -1].float(), dim=-1).unflatten(0, (count, beam))
        if end is not None:  # what has ended stays as it is, which is one hypothesis: its end again, for nothing
            steps = steps.masked_fill(ended[..., None], -math.inf)
            steps[..., end] = steps[..., end].masked_fill(ended, 0.0)
        length = length + ~ended
        candidates = log_p[..., None] + steps  # [B, K, V]
        ranked = score(candidates, length[..., None], length_penalty).flatten(1)
        scores, best = ranked.topk(beam)
        origin, token = best // steps.shape[-1], best % steps.shape[-1]
        log_p = candidates.flatten(1).gather(1, best)
        length, ended = length.gather(1, origin), ended.gather(1, origin) | (token == end)
        rows, unread = (first_row + origin).flatten(), token.view(-1, 1)
        tokens = torch.cat((tokens[rows], unread), dim=1)
        cache.reorder(rows)
        if ended.all():
            break
    return tokens[:, prompts.shape[1] :].unflatten(0, (count, beam)), scores
