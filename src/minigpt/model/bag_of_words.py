"""What the characters alone tell, without their order. Shapes: B batch, T time, D dim, V vocabulary."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from minigpt.model.dropout import Dropout
from minigpt.model.kv_cache import KVCache
from minigpt.model.mlp import MLP


class BagOfWords(nn.Module):
    """Predicts from the mean of the embeddings of all tokens up to a position (arXiv 1607.01759, section 2).

    Args:
        mlp: constructor of what reads the mean before the head.
        dropout: probability of dropping a number of the mean while training.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        block_size: int,
        dim: int,
        mlp: Callable[..., nn.Module] = MLP,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(dropout)
        self.mlp = mlp(dim=dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T] -> logits [B, T, V] of the token that follows each. A cache holds what came before."""
        known = tokens
        if cache is not None:
            cache.advance(tokens, keep=self.block_size)
            known = cache.recent
        counts = torch.arange(1, known.shape[1] + 1, device=known.device)[:, None]
        means = self.embedding(known).cumsum(dim=1) / counts
        return self.head(self.mlp(self.dropout(means[:, -tokens.shape[1] :])))

    def make_cache(self) -> KVCache:
        """An empty cache for one generation with this model; it keeps the tokens."""
        return KVCache(num_layers=0)
