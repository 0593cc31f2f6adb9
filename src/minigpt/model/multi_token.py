"""A GPT that predicts several future tokens. Shapes: B batch, T time, V vocabulary, N predicted tokens."""

from typing import Any

import torch
from torch import Tensor

from minigpt.bounds import NumModules, PositiveInt
from minigpt.model.forward_context import ForwardContext
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import KVCache


class MultiTokenGPT(GPT):
    """A GPT whose last N blocks work in parallel, one for each of the next N tokens (arXiv 2404.19737, section 2).

    They read the output of the blocks below and share the norm and the head. The model has as many parameters as a GPT
    of `num_layers` blocks. It generates with the block of the next token alone, and so with fewer layers.

    Args:
        num_tokens: number of predicted tokens, N.
        num_layers: number of blocks, those in parallel included.
        options: as in `GPT`.

    Raises:
        ValueError: `num_tokens` is not from 1 to `num_layers`.
    """

    def __init__(self, *, num_tokens: PositiveInt, num_layers: NumModules, **options: Any) -> None:
        if not 1 <= num_tokens <= num_layers:
            raise ValueError(
                f"model.num_tokens={num_tokens} must be from 1 to model.num_layers={num_layers}: "
                "each token has its own block"
            )
        super().__init__(num_layers=num_layers, **options)
        self.num_tokens = num_tokens
        shared = num_layers - num_tokens + 1  # and the block of the next token
        self.blocks, self.future_blocks = self.blocks[:shared], self.blocks[shared:]

    def forward(self, tokens: Tensor, cache: KVCache | None = None, future_tokens: bool = False) -> Tensor:
        """Token ids [B, T] -> logits of the next token [B, T, V]; with `future_tokens` of the next N, [N, B, T, V]."""
        if not future_tokens:
            return super().forward(tokens, cache)
        context = ForwardContext(self.positions)
        x = self.dropout(self.positions.add(self.embedding(tokens), 0))
        *trunk, last = self.blocks
        for block in trunk:
            x = block(x, context)
        return self.head(self.norm(torch.stack([block(x, context) for block in (last, *self.future_blocks)])))
