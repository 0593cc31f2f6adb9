"""Token embeddings that also look at earlier tokens. Shapes: B batch, T time, D dim, P earlier tokens."""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from minigpt.bounds import DropProbability, NumModules, PositiveInt
from minigpt.model.embeddings import TokenEmbedding


class NgramEmbedding(TokenEmbedding):
    """Adds a vector for each n-gram that ends with the token, found by its hash (arXiv 2501.16975, section 3.2).

    The model looks up the statistics of short n-grams instead of computing them. This is nearly free, and most of what
    a short training learns. Different n-grams may share a slot; the layers above tell them apart.

    Args:
        vocab_size: number of token ids.
        dim: model width.
        table_sizes: slots of the hash table for n = 2, 3, ...; with (vocab_size + 1)^n or more there are no collisions.
        table_dims: width of each table's vectors, which a matrix projects to `dim`.
        dropout: probability of dropping a token's n-grams of one length during training.

    Raises:
        ValueError: `table_sizes` and `table_dims` differ in length, or have elements below 1.
    """

    def __init__(
        self,
        *,
        vocab_size: PositiveInt,
        dim: PositiveInt,
        table_sizes: list[int],
        table_dims: list[int],
        dropout: DropProbability = 0.0,
    ) -> None:
        super().__init__(vocab_size=vocab_size, dim=dim)
        if len(table_sizes) != len(table_dims):
            raise ValueError(
                f"model.embedding needs as many table_dims as table_sizes, not {len(table_dims)} and {len(table_sizes)}"
            )
        if min((*table_sizes, *table_dims), default=1) < 1:
            raise ValueError("model.embedding.table_sizes and model.embedding.table_dims must be at least 1")
        self.context_size = len(table_sizes)
        self.dropout = dropout
        self.table_sizes = list(table_sizes)
        sizes = zip(table_sizes, table_dims, strict=True)
        self.tables = nn.ModuleList(nn.Embedding(size, table_dim) for size, table_dim in sizes)
        self.projections = nn.ModuleList(nn.Linear(table_dim, dim, bias=False) for table_dim in table_dims)

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        x = super().forward(tokens)
        tables = zip(self.find_slots(tokens, earlier), self.tables, self.projections, strict=True)
        for slots, table, projection in tables:
            vectors = table(slots)
            if self.dropout and self.training:
                vectors = vectors * F.dropout(vectors.new_ones(*slots.shape, 1), self.dropout)
            x = x + projection(vectors)
        return x

    def find_slots(self, tokens: Tensor, earlier: Tensor | None) -> list[Tensor]:
        """Return the slot [B, T] in each table of the n-gram that ends at each token."""
        base = self.num_embeddings + 1  # 0 stands for the positions before the text
        num_earlier = 0 if earlier is None else earlier.shape[1]
        known = tokens if earlier is None else torch.cat((earlier, tokens), dim=1)
        known = F.pad(known + 1, (self.context_size, 0))  # every token has `context_size` tokens before it
        first = self.context_size + num_earlier
        ngram, found = known[:, first:], []
        for back, size in enumerate(self.table_sizes, start=1):
            ngram = ngram + known[:, first - back : -back] * base**back
            found.append(ngram if size >= base ** (back + 1) else ngram * 2_654_435_761 % 2_147_483_647 % size)
        return found


class SuffixMatchEmbedding(TokenEmbedding):
    """Adds a vector for the token that followed the longest earlier occurrence of the current suffix in the context.

    This is the match model of data compression (Mahoney, "Adaptive Weighing of Context Models for Lossless Data
    Compression", 2005), and an induction head (arXiv 2209.11895) that needs no learning: it spells names and rare
    words as the context does. A candidate has one vector for each length of its match. Of several matches of the same
    length the most recent one counts.

    Args:
        vocab_size: number of token ids.
        dim: model width.
        max_match_length: longest match that is told apart [tokens].
        num_candidates: number of different candidates for the next token, those with the longest matches first.

    Raises:
        ValueError: `max_match_length` is not from 1 to 127.
    """

    context_size = 2**40  # the whole context

    def __init__(
        self,
        *,
        vocab_size: PositiveInt,
        dim: PositiveInt,
        max_match_length: Annotated[int, Ge(1), Le(127)] = 16,
        num_candidates: NumModules = 1,
    ) -> None:
        if not 1 <= max_match_length <= 127:  # `match` counts in bytes
            raise ValueError(f"model.embedding.max_match_length must be 1 to 127 tokens, not {max_match_length}")
        super().__init__(vocab_size=vocab_size, dim=dim)
        self.max_match_length = max_match_length
        self.no_match = vocab_size * max_match_length  # the last vector of each table
        self.tables = nn.ModuleList(nn.Embedding(self.no_match + 1, dim) for _ in range(num_candidates))

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        x = super().forward(tokens)
        for candidates, table in zip(self.find_candidates(tokens, earlier), self.tables, strict=True):
            x = x + table(candidates)
        return x

    def find_candidates(self, tokens: Tensor, earlier: Tensor | None) -> list[Tensor]:
        """For each table, return the index [B, T] of the vector for each token's candidate and its match length."""
        known = (tokens if earlier is None else torch.cat((earlier, tokens), dim=1)).int()  # faster to compare
        following = F.pad(known, (0, 1))[:, 1:]
        lengths = self.match(known, tokens.shape[1])
        positions = torch.arange(known.shape[1], dtype=torch.int32, device=known.device)
        scores = lengths.int().mul_(known.shape[1]).add_(positions)
        found, candidate = [], None
        for _ in self.tables:
            if candidate is not None:  # leave out the candidate of the table before
                scores.masked_fill_(following[:, None] == candidate[..., None], 0)
            score, position = scores.max(dim=-1)
            length, candidate = score // known.shape[1], following.gather(1, position)
            index = candidate * self.max_match_length + length - 1
            found.append(torch.where(length > 0, index, self.no_match))
        return found

    def match(self, known: Tensor, num_newest: int) -> Tensor:
        """Count the tokens, up to `max_match_length`, that end alike at each newest token and at each known one.

        Returns:
            int8 [B, num_newest, known]; 0 for the token itself and those after it.
        """
        total, back = known.shape[1], self.max_match_length - 1
        first = max(0, total - num_newest - back)
        equal = (known[:, first:, None] == known[:, None]).tril(first - 1)
        equal = F.pad(equal.view(torch.int8), (back, 0, back - (total - num_newest - first), 0))
        alike = equal[:, back:, back:].clone()
        lengths = alike.clone()
        for ago in range(1, self.max_match_length):
            start = back - ago
            alike &= equal[:, start : start + num_newest, start : start + total]
            lengths += alike
        return lengths
