"""A bag-of-words baseline: token counts without their order. Shapes: B batch, T time, D dim, V vocabulary."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minigpt.bounds import DropProbability, PositiveInt
from minigpt.model.kv_cache import KVCache
from minigpt.model.layers import MLP, Dropout


class BagOfWords(nn.Module):
    """Predicts from the mean embedding of all tokens up to a position (arXiv 1607.01759, section 2).

    Args:
        vocab_size: number of token ids.
        block_size: longest context [tokens].
        dim: model width.
        mlp: constructor of the layer between the mean and the head.
        dropout: probability of dropping an element of the mean during training.
    """

    def __init__(
        self,
        *,
        vocab_size: PositiveInt,
        block_size: PositiveInt,
        dim: PositiveInt,
        mlp: Callable[..., nn.Module] = MLP,
        dropout: DropProbability = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(dropout)
        self.mlp = mlp(dim=dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T], after those in the cache -> logits [B, T, V] of the token that follows each."""
        known = tokens if cache is None else cache.advance(tokens, keep=self.block_size)
        counts = torch.arange(1, known.shape[1] + 1, device=known.device)[:, None]
        means = self.embedding(known).cumsum(dim=1) / counts
        return self.head(self.mlp(self.dropout(means[:, -tokens.shape[1] :])))

    def make_cache(self) -> KVCache:
        """Return an empty cache for generation; it keeps the tokens."""
        return KVCache(num_layers=0)
