"""A GPT that predicts several tokens ahead. Shapes: B batch, T time, V vocabulary, N tokens predicted."""

from typing import Any

import torch
from torch import Tensor

from minigpt.model.context import Context
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import KVCache


class MultiTokenGPT(GPT):
    """The last N blocks stand side by side, one for each of the next N tokens (arXiv 2404.19737, section 2).

    They read what the blocks below make, and share the norm and the head. With `num_layers` blocks in all it is as
    large as a GPT of that many layers. It generates with the next token's block alone, and so has fewer layers then.

    Args:
        num_tokens: how many tokens ahead are predicted, N.

    Raises:
        ValueError: for fewer than 1, or more than `num_layers`.
    """

    def __init__(self, *, num_tokens: int, num_layers: int, **options: Any) -> None:
        if not 1 <= num_tokens <= num_layers:
            raise ValueError(
                f"num_tokens={num_tokens} must be from 1 to num_layers={num_layers}: each has its own block"
            )
        super().__init__(num_layers=num_layers, **options)
        below = num_layers - num_tokens + 1
        self.blocks, self.ahead = self.blocks[:below], self.blocks[below:]

    def forward(self, tokens: Tensor, cache: KVCache | None = None, ahead: bool = False) -> Tensor:
        """Token ids [B, T] -> logits of the next token [B, T, V], or of the next N [N, B, T, V] with `ahead`."""
        if not ahead:
            return super().forward(tokens, cache)
        context = Context(self.positions)
        x = self.dropout(self.positions.add(self.embedding(tokens), 0))
        *trunk, last = self.blocks
        for block in trunk:
            x = block(x, context)
        return self.head(self.norm(torch.stack([block(x, context) for block in (last, *self.ahead)])))
