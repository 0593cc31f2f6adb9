"""Recurrent networks: what is known of the past is one vector a layer. Shapes: B batch, T time, D dim, V vocabulary."""

from torch import Tensor, nn

from minigpt.model.dropout import Dropout
from minigpt.model.kv_cache import KVCache


class StateCache(KVCache):
    """The recurrent state after the newest token, in place of keys and values."""

    def __init__(self) -> None:
        super().__init__(num_layers=0)
        self.state: Tensor | tuple[Tensor, Tensor] | None = None

    def clear(self) -> None:
        super().clear()
        self.state = None


class RNN(nn.Module):
    """A stack of torch's recurrent layers between an embedding and a head (arXiv 1409.2329, section 3).

    Args:
        cell: lstm (Hochreiter and Schmidhuber, 1997), gru (arXiv 1406.1078) or rnn (Elman, 1990).
        dropout: probability of dropping what goes into each layer and into the head while training.
        tie_head: use the embedding matrix as the head (arXiv 1608.05859).
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        block_size: int,
        num_layers: int,
        dim: int,
        cell: str,
        dropout: float = 0.0,
        tie_head: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(dropout)
        between = dropout if num_layers > 1 else 0.0  # torch warns of a dropout that has nothing to act on
        layers = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell]
        self.layers = layers(dim, dim, num_layers, dropout=between, batch_first=True)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        if tie_head:
            nn.init.normal_(self.embedding.weight, std=dim**-0.5)  # logits of size 1 for a state of size 1
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, cache: StateCache | None = None) -> Tensor:
        """Token ids [B, T] -> logits [B, T, V] of the token that follows each. A cache holds what came before."""
        x, state = self.layers(self.dropout(self.embedding(tokens)), None if cache is None else cache.state)
        if cache is not None:
            cache.state = state
            cache.advance(tokens)
        return self.head(self.dropout(x))

    def make_cache(self) -> StateCache:
        """An empty cache for one generation with this model."""
        return StateCache()
