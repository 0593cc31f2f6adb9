"""Drawing text from a model, one token at a time. Shapes: B sequences, T time, V vocabulary."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


@torch.inference_mode()
def generate(
    model: nn.Module,
    prompt: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Continue prompts [B, T], yielding the next token ids [B] as they are drawn.

    Keys and values of what was read are kept, so a token costs one position of work. When the context is full, its
    second half is read again as a new context, and the first half forgotten.

    Args:
        temperature: divides the logits; 0 takes the likeliest token.
        top_k: draw from the k likeliest tokens alone.
        top_p: draw from the fewest tokens whose probabilities reach p (arXiv 1904.09751).
        generator: the source of randomness, on the model's device.
    """
    model.eval()
    context = prompt[:, -model.block_size :]
    cache = model.make_cache()
    unread = context
    for _ in range(max_new_tokens):
        if cache.length + unread.shape[1] > model.block_size:
            cache.clear()
            unread = context = context[:, -max(1, model.block_size // 2) :]
        logits = model(unread, cache)[:, -1].float()
        token = draw(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        yield token
        unread = token[:, None]
        context = torch.cat((context, unread), dim=1)[:, -model.block_size :]


def draw(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token id a row from logits [B, V]."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = probabilities.topk(top_k, dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < smallest, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # of the likelier tokens; 0 for the likeliest, which always stays
        probabilities = torch.zeros_like(ordered).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
