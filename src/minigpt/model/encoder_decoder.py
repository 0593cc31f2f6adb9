"""The encoder-decoder Transformer (arXiv 1706.03762, figure 1).

Shapes: B batch, S source time, T target time, D dim, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.bounds import DropProbability, PositiveInt
from minigpt.model.gpt import GPT, Block
from minigpt.model.kv_cache import KVCache


class EncoderDecoder(GPT):
    """A GPT whose blocks attend to the output of a second GPT, the encoder.

    Both have the same embedding and the same number of blocks. The last id of the vocabulary is padding: it fills up
    short sources, and nothing attends to it.

    Args:
        num_heads: number of attention heads of each block.
        dim: model width.
        block_size: longest source, and longest target [tokens].
        encoder_attention: constructor of the encoder's self-attention.
        cross_attention: constructor of the attention to the encoder's output, in each block of the decoder.
        block: constructor of a block of the encoder or decoder.
        dropout: as in `GPT`; also of the weights of cross-attention.
        options: as in `GPT`; `attention` is the decoder's self-attention.
    """

    def __init__(
        self,
        *,
        num_heads: PositiveInt,
        dim: PositiveInt,
        block_size: PositiveInt,
        encoder_attention: Callable[..., nn.Module],
        cross_attention: Callable[..., nn.Module],
        block: Callable[..., Block] = Block,
        dropout: DropProbability = 0.0,
        **options: Any,
    ) -> None:
        def decoder_block(
            *, dim: int, attention: nn.Module, mlp: nn.Module, norm: Callable[..., nn.Module], dropout: float
        ) -> Block:
            cross = cross_attention(dim=dim, num_heads=num_heads, block_size=block_size, dropout=dropout)
            return block(dim=dim, attention=attention, mlp=mlp, norm=norm, dropout=dropout, cross_attention=cross)

        # Its keywords are spelled out: the command line reads from them what the model sets itself.
        def encoder_self_attention(*, dim: int, num_heads: int, block_size: int, dropout: float) -> nn.Module:
            return encoder_attention(dim=dim, num_heads=num_heads, block_size=block_size, dropout=dropout)

        options |= {"num_heads": num_heads, "dim": dim, "block_size": block_size, "dropout": dropout}
        super().__init__(block=decoder_block, **options)
        options["attention"] = encoder_self_attention
        self.encoder = GPT(block=block, **options)
        self.encoder.embedding = self.embedding
        del self.encoder.head
        self.pad_id = self.vocab_size - 1

    # Takes a pair of sequences where a GPT takes one; the training loop passes on either as `tokens`.
    def forward(self, tokens: tuple[Tensor, Tensor], cache: KVCache | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Source ids [B, S] and the first target ids [B, T] -> logits [B, T, V] of the token that follows each."""
        source, target = tokens
        return self.decode(target, cache, **self.encode(source))

    def encode(self, source: Tensor) -> dict[str, Tensor]:
        """Source ids [B, S], each sequence with at least one that is not padding -> keyword arguments of `decode`."""
        padding = torch.zeros(source.shape, device=source.device).masked_fill(source == self.pad_id, -math.inf)
        padding = padding[:, None, None]
        return {"memory": self.encoder.hidden(source, padding=padding), "memory_padding": padding}

    def decode(
        self,
        target: Tensor,
        cache: KVCache | None = None,
        *,
        memory: Tensor | None = None,
        memory_padding: Tensor | None = None,
    ) -> Tensor:
        """Target ids [B, T], after those in the cache -> logits [B, T, V].

        Args:
            memory: from `encode`; not needed once the cache holds its keys and values.
            memory_padding: from `encode`.
        """
        return self.head(self.hidden(target, cache, memory=memory, memory_padding=memory_padding))
