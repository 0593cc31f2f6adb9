"""Generate text one token at a time. Shapes: B sequences, T time, V vocabulary."""

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.inference.logit_filters import filter_logits, penalize_repetition
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
    repetition_penalty: float = 1.0,
    generator: torch.Generator | None = None,
    **filters: Any,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Continue prompts [B, T], yielding the next token ids [B] and the logits [B, V] of the model that they follow.

    With cached keys and values, a token costs one position of work. When the context is full, its second half is read
    again as a new context and the first half is dropped.

    Args:
        model: a `CausalModel`.
        prompt: token ids; the last `block_size` of them are read.
        max_new_tokens: tokens to yield.
        temperature: divides the logits; 0 takes the most likely token.
        repetition_penalty: lowers the logits of the tokens of the prompt and of those yielded, see
            `penalize_repetition`; 1 for none.
        generator: random number generator on the model's device; None for the default one.
        filters: `top_k`, `top_p` and `min_p`, see `minigpt.inference.logit_filters`, which has their order.
    """
    causal = cast(CausalModel, model.eval())
    block_size, cache, seen = causal.block_size, causal.make_cache(), None
    unread = context = prompt[:, -block_size:]
    for _ in range(max_new_tokens):
        if cache.length + unread.shape[1] > block_size:
            cache.clear()
            unread = context = context[:, -max(1, block_size // 2) :]
        logits = adjusted = causal(unread, cache)[:, -1].float()
        if repetition_penalty != 1:
            seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, prompt, True) if seen is None else seen
            adjusted = penalize_repetition(logits, seen, repetition_penalty)
        token = sample_token(adjusted, temperature=temperature, generator=generator, **filters)
        yield token, logits
        unread = token[:, None]
        context = torch.cat((context, unread), dim=1)[:, -block_size:]
        if seen is not None:
            seen.scatter_(1, unread, True)


def sample_token(
    logits: Tensor, *, temperature: float, generator: torch.Generator | None = None, **filters: Any
) -> Tensor:
    """Sample one token id per sequence [B] from logits [B, V]; for the options see `generate_with_logits`."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = token_probabilities(logits, temperature=temperature, **filters)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(1)


def token_probabilities(logits: Tensor, *, temperature: float, **filters: Any) -> Tensor:
    """Return the distribution [B, V] that `sample_token` samples from."""
    if temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).float()
    return torch.softmax(filter_logits(logits, temperature=temperature, **filters), dim=-1)
