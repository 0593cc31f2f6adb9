"""Generate text one token at a time. Shapes: B sequences, T time, V vocabulary."""

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from minigpt.model.kv_cache import KVCache


class CausalModel(Protocol):
    """The interface that generation needs of an `nn.Module`.

    Attributes:
        block_size: longest context, in tokens.
    """

    block_size: int

    def __call__(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Token ids [B, T], and a cache of those before them -> logits [B, T, V]."""
        ...

    def make_cache(self) -> KVCache:
        """Return an empty cache."""
        ...


def generate(model: nn.Module, prompt: Tensor, **options: Any) -> Iterator[Tensor]:
    """Continue prompts [B, T], yielding the next token ids [B] as they are sampled; for the options see below."""
    for token, _ in generate_with_logits(model, prompt, **options):
        yield token


@torch.inference_mode()
def generate_with_logits(
    model: nn.Module,
    prompt: Tensor,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue prompts [B, T], yielding the next token ids [B] and the logits [B, V] that they are sampled from.

    With cached keys and values, a token costs one position of work. When the context is full, its second half is read
    again as a new context and the first half is dropped.

    Args:
        model: a `CausalModel`.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: sample from the k most likely tokens only.
        top_p: sample from the fewest tokens whose probabilities sum to at least p (arXiv 1904.09751).
        generator: random number generator on the model's device; None for the default one.
    """
    causal = cast(CausalModel, model.eval())
    block_size, cache = causal.block_size, causal.make_cache()
    unread = context = prompt[:, -block_size:]
    for _ in range(max_new_tokens):
        if cache.length + unread.shape[1] > block_size:
            cache.clear()
            unread = context = context[:, -max(1, block_size // 2) :]
        logits = causal(unread, cache)[:, -1].float()
        token = sample_token(logits, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        yield token, logits
        unread = token[:, None]
        context = torch.cat((context, unread), dim=1)[:, -block_size:]


def sample_token(
    logits: Tensor,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Sample one token id per sequence [B] from logits [B, V]; for the options see `generate`."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    # Without its maximum first, since logits divided by a tiny temperature would be infinite, and their softmax NaN.
    logits = logits - logits.max(dim=-1, keepdim=True).values
    probabilities = torch.softmax(logits / temperature, dim=-1)
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = probabilities.topk(top_k, dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < smallest, 0.0)
        probabilities = probabilities / probabilities.sum(dim=-1, keepdim=True)
    if top_p is not None and top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered  # of the likelier tokens; 0 for the likeliest, so one always stays
        probabilities = torch.zeros_like(ordered).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)
