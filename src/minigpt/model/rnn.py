"""Recurrent networks. Shapes: B batch, T time, D dim, V vocabulary, L layers."""

from typing import Literal

from torch import Tensor, nn

from minigpt.bounds import DropProbability, NumModules, PositiveInt
from minigpt.model.kv_cache import KVCache
from minigpt.model.layers import Dropout

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class StateCache(KVCache):
    """The recurrent state after the newest token, in place of keys and values.

    Attributes:
        state: of an LSTM (h, c), of others h, each [L, B, D]; None before the first token.
    """

    def __init__(self) -> None:
        super().__init__(num_layers=0)
        self.state: Tensor | tuple[Tensor, Tensor] | None = None

    def reorder(self, sequences: Tensor) -> None:
        super().reorder(sequences)
        if isinstance(self.state, tuple):
            hidden, cell = self.state
            self.state = hidden[:, sequences], cell[:, sequences]
        elif self.state is not None:
            self.state = self.state[:, sequences]

    def clear(self) -> None:
        super().clear()
        self.state = None


class RNN(nn.Module):
    """A stack of torch's recurrent layers between an embedding and a head (arXiv 1409.2329, section 3).

    Args:
        vocab_size: number of token ids.
        block_size: longest training sequence [tokens]; the state itself has no limit.
        num_layers: number of recurrent layers.
        dim: model width.
        cell: lstm (Hochreiter and Schmidhuber, 1997), gru (arXiv 1406.1078) or rnn (Elman, 1990).
        dropout: probability of dropping an input of a layer or of the head during training.
        tie_head: use the embedding matrix as the head (arXiv 1608.05859).
    """

    def __init__(
        self,
        *,
        vocab_size: PositiveInt,
        block_size: PositiveInt,
        num_layers: NumModules,
        dim: PositiveInt,
        cell: Literal["lstm", "gru", "rnn"],
        dropout: DropProbability = 0.0,
        tie_head: bool = False,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embedding = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(dropout)
        between = dropout if num_layers > 1 else 0.0  # torch warns about dropout between the layers of a single one
        self.layers = CELLS[cell](dim, dim, num_layers, dropout=between, batch_first=True)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        if tie_head:
            nn.init.normal_(self.embedding.weight, std=dim**-0.5)  # logits of size 1 for a state of size 1
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, cache: StateCache | None = None) -> Tensor:
        """Token ids [B, T], after those in the cache -> logits [B, T, V] of the token that follows each."""
        x, state = self.layers(self.dropout(self.embedding(tokens)), None if cache is None else cache.state)
        if cache is not None:
            cache.state = state
            cache.advance(tokens)
        return self.head(self.dropout(x))

    def make_cache(self) -> StateCache:
        """Return an empty cache for generation."""
        return StateCache()
