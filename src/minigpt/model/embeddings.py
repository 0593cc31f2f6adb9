"""How token ids become vectors. Shapes: B batch, T time, D dim, P earlier tokens."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TokenEmbedding(nn.Embedding):
    """One learned vector a token."""

    context = 0  # how many tokens before a token its vector depends on

    def __init__(self, *, vocab_size: int, dim: int) -> None:
        super().__init__(vocab_size, dim)

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        """Token ids [B, T], and those before them [B, P] -> [B, T, D]."""
        return super().forward(tokens)


class ScaledEmbedding(TokenEmbedding):
    """Times sqrt(D), so that the small vectors of a tied head are not drowned by positions (arXiv 1706.03762, 3.4)."""

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        return super().forward(tokens) * math.sqrt(self.embedding_dim)


class NgramEmbedding(TokenEmbedding):
    """Adds to a token's vector one for each n-gram that ends with it, found by hash (arXiv 2501.16975, section 3.2).

    What follows the last two, three, four characters is looked up instead of computed: nearly free, and most of what a
    short training learns. Different n-grams may share a row; the layers above tell them apart.

    Args:
        rows: of the table for n = 2, 3, ...; with (vocab_size + 1)^n or more, no two n-grams share one.
        widths: of its vectors, which a matrix brings to D.
        dropout: probability of leaving out a token's n-grams of one length while training.
    """

    def __init__(self, *, vocab_size: int, dim: int, rows: list[int], widths: list[int], dropout: float = 0.0) -> None:
        super().__init__(vocab_size=vocab_size, dim=dim)
        if len(rows) != len(widths):
            raise ValueError(f"an n-gram embedding needs as many widths as rows, not {len(widths)} and {len(rows)}")
        self.context = len(rows)
        self.dropout = dropout
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count, width in zip(rows, widths, strict=True))
        self.projections = nn.ModuleList(nn.Linear(width, dim, bias=False) for width in widths)

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        x = super().forward(tokens)
        for rows, table, projection in zip(self.find_rows(tokens, earlier), self.tables, self.projections, strict=True):
            vectors = table(rows)
            if self.dropout and self.training:
                vectors = vectors * F.dropout(vectors.new_ones(*rows.shape, 1), self.dropout)
            x = x + projection(vectors)
        return x

    def find_rows(self, tokens: Tensor, earlier: Tensor | None) -> list[Tensor]:
        """The row [B, T] of each table that belongs to the n-gram ending at each token."""
        base = self.num_embeddings + 1  # 0 stands for what comes before the text
        count = 0 if earlier is None else earlier.shape[1]
        known = tokens if earlier is None else torch.cat((earlier, tokens), dim=1)
        known = F.pad(known + 1, (self.context, 0))  # so that every token has `context` tokens before it
        first = self.context + count
        ngram, found = known[:, first:], []
        for back, table in enumerate(self.tables, start=1):
            ngram = ngram + known[:, first - back : -back] * base**back
            size = table.num_embeddings
            found.append(ngram if size >= base ** (back + 1) else ngram * 2_654_435_761 % 2_147_483_647 % size)
        return found


class MatchEmbedding(TokenEmbedding):
    """Adds to a token's vector one for what followed when the last few tokens were in the context before.

    The longest ending that has been there already is looked up, as a match model of data compression does (Mahoney,
    "Adaptive Weighing of Context Models for Lossless Data Compression", 2005). It is an induction head
    (arXiv 2209.11895) that needs no learning: names and rare words are spelt as the context spells them. Each guess has
    a vector for each length of its match; of two guesses with the same length the newer one counts.

    Args:
        longest: tokens of a match that are counted.
        guesses: how many different guesses a token gets, the one with the longest match first.

    Raises:
        ValueError: for a `longest` that is not from 1 to 127.
    """

    context = 2**40  # all of them

    def __init__(self, *, vocab_size: int, dim: int, longest: int = 16, guesses: int = 1) -> None:
        if not 1 <= longest <= 127:  # a byte holds it
            raise ValueError(f"the longest match of an embedding must be 1 to 127 tokens, not {longest}")
        super().__init__(vocab_size=vocab_size, dim=dim)
        self.longest = longest
        rows = vocab_size * longest + 1  # the last one is for no match
        self.tables = nn.ModuleList(nn.Embedding(rows, dim) for _ in range(guesses))

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        x = super().forward(tokens)
        for rows, table in zip(self.find_rows(tokens, earlier), self.tables, strict=True):
            x = x + table(rows)
        return x

    def find_rows(self, tokens: Tensor, earlier: Tensor | None) -> list[Tensor]:
        """The row [B, T] of each table that belongs to a guess and its length at each token."""
        known = (tokens if earlier is None else torch.cat((earlier, tokens), dim=1)).int()  # cheaper to compare
        following = F.pad(known, (0, 1))[:, 1:]
        lengths = self.match(known, tokens.shape[1])
        places = torch.arange(known.shape[1], dtype=torch.int32, device=known.device)
        scores = lengths.int().mul_(known.shape[1]).add_(places)
        found, guess = [], None
        for table in self.tables:
            if guess is not None:  # the next table gets another guess
                scores.masked_fill_(following[:, None] == guess[..., None], 0)
            score, place = scores.max(dim=-1)
            length, guess = score // known.shape[1], following.gather(1, place)
            none = table.num_embeddings - 1
            found.append(torch.where(length > 0, guess * self.longest + length - 1, none))
        return found

    def match(self, known: Tensor, count: int) -> Tensor:
        """How many tokens, up to `longest`, end alike at each of the newest `count` tokens and at each one known.

        Returns:
            [B, count, known] of bytes; 0 for the token itself and those after it.
        """
        total, back = known.shape[1], self.longest - 1
        first = max(0, total - count - back)
        equal = (known[:, first:, None] == known[:, None]).tril(first - 1)
        equal = F.pad(equal.view(torch.int8), (back, 0, back - (total - count - first), 0))
        alike = equal[:, back:, back:].clone()
        lengths = alike.clone()
        for ago in range(1, self.longest):
            start = back - ago
            alike &= equal[:, start : start + count, start : start + total]
            lengths += alike
        return lengths
