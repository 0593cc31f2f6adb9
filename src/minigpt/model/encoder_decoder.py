"""The whole Transformer: an encoder reads a source, a decoder writes a target (arXiv 1706.03762, figure 1).

Shapes: B batch, S source time, T target time, D dim, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.model.gpt import GPT, Block
from minigpt.model.kv_cache import KVCache


class EncoderDecoder(GPT):
    """A GPT whose blocks look at what a second one, the encoder, has made of a source.

    Both have the same embedding, and as many blocks. The last id of the vocabulary is padding: it fills up short
    sources, and nothing looks at it.

    Args:
        encoder_attention: constructor of the encoder's attention; it sees the whole source.
        cross_attention: constructor of what looks at the encoder's result, in each block of the decoder.
        block, options: as of a `GPT`; `attention` is the decoder's.
    """

    def __init__(
        self,
        *,
        encoder_attention: Callable[..., nn.Module],
        cross_attention: Callable[..., nn.Module],
        block: Callable[..., Block] = Block,
        **options: Any,
    ) -> None:
        sizes = {name: options[name] for name in ("dim", "num_heads", "block_size")}
        sizes["dropout"] = options.get("dropout", 0.0)
        super().__init__(block=lambda **parts: block(cross_attention=cross_attention(**sizes), **parts), **options)
        self.encoder = GPT(block=block, **options | {"attention": encoder_attention})
        self.encoder.embedding, self.encoder.head = self.embedding, nn.Identity()
        self.padding = self.vocab_size - 1

    def forward(self, tokens: tuple[Tensor, Tensor], cache: KVCache | None = None) -> Tensor:
        """Source ids [B, S] and the first target ids [B, T] -> logits [B, T, V] of the one that follows each."""
        source, target = tokens
        return self.decode(target, cache, **self.encode(source))

    def encode(self, source: Tensor) -> dict[str, Tensor]:
        """Source ids [B, S], each with at least one that is not padding -> what `decode` wants to know of them."""
        padding = torch.zeros(source.shape, device=source.device).masked_fill(source == self.padding, -math.inf)
        padding = padding[:, None, None]
        return {"memory": self.encoder.hidden(source, padding=padding), "memory_padding": padding}

    def decode(self, target: Tensor, cache: KVCache | None = None, **source: Tensor) -> Tensor:
        """Target ids [B, T] after those that the cache holds -> logits [B, T, V]; for what `encode` returned."""
        return self.head(self.hidden(target, cache, **source))
