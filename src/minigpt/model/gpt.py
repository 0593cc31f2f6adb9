"""The GPT: embed, `num_layers` blocks of attention and MLP on a residual stream, norm, logits.

      x = embed(tokens)  -->  x + attention(norm(x))  -->  x + mlp(norm(x))  -->  ...  -->  head(norm(x))
                              |________________ one block _______________|

Shapes: B batch, T time, D dim, V vocabulary.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn

from minigpt.model.attention import CausalSelfAttention
from minigpt.model.context import Context
from minigpt.model.dropout import Dropout
from minigpt.model.embeddings import TokenEmbedding
from minigpt.model.experts import Experts
from minigpt.model.kv_cache import KVCache, LayerCache
from minigpt.model.positions import Positions

OUTPUTS = ("projection.weight", "down.weight")  # the matrices of a block that write to the residual stream


class GPT(nn.Module):
    """A decoder-only transformer whose parts are injected.

    Args:
        vocab_size: number of token ids.
        block_size: longest context, in tokens.
        num_layers: number of blocks.
        num_heads: attention heads of each block.
        dim: model width.
        attention, mlp, norm, positions, embedding, block: constructors of the parts, which get `dim` and what else is
            the model's.
        dropout: probability of dropping an embedding, an attention weight or a block's output while training.
        tie_head: use the embedding matrix as the head (arXiv 1608.05859).
        zero_init: start the head and each block's output at zero, so that the model starts as the identity and
            predicts all tokens alike; else GPT-2's: N(0, 0.02), block outputs N(0, 0.02 / sqrt(2 num_layers)).
        final_norm: normalise what the head reads; post-norm blocks have done so.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        block_size: int,
        num_layers: int,
        num_heads: int,
        dim: int,
        attention: Callable[..., nn.Module],
        mlp: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        positions: Callable[..., Positions],
        embedding: Callable[..., TokenEmbedding] = TokenEmbedding,
        block: Callable[..., "Block"] | None = None,
        dropout: float = 0.0,
        tie_head: bool = False,
        zero_init: bool = False,
        final_norm: bool = True,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.embedding = embedding(vocab_size=vocab_size, dim=dim)
        self.positions = positions(block_size=block_size, dim=dim, head_dim=dim // num_heads)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(
            (block or Block)(
                attention=attention(dim=dim, num_heads=num_heads, block_size=block_size, dropout=dropout),
                mlp=mlp(dim=dim),
                norm=lambda: norm(dim=dim),
                dropout=dropout,
            )
            for _ in range(num_layers)
        )
        self.norm = norm(dim=dim) if final_norm else nn.Identity()
        self.head = nn.Linear(dim, vocab_size, bias=False)
        self.init_weights(zero_init)
        if tie_head:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T] -> logits [B, T, V] of the token that follows each. A cache holds what came before."""
        return self.head(self.hidden(tokens, cache))

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T] -> what the head reads [B, T, D]."""
        start, earlier = (0, None) if cache is None else (cache.length, cache.recent)
        context = Context(self.positions, start)
        x = self.dropout(self.positions.add(self.embedding(tokens, earlier), start))
        for layer, block in enumerate(self.blocks):
            x = block(x, context, None if cache is None else cache.layers[layer])
        if cache is not None:
            cache.advance(tokens, self.embedding.context)
        return self.norm(x)

    def make_cache(self) -> KVCache:
        """An empty cache for one generation with this model."""
        return KVCache(num_layers=len(self.blocks))

    def attention_weights(self, tokens: Tensor) -> list[Tensor]:
        """The attention weights [B, H, T, T] of each layer for token ids [B, T]."""
        context = Context(self.positions)
        x = self.positions.add(self.embedding(tokens), 0)
        weights = []
        for block in self.blocks:
            weights.append(block.attention.weights(block.attention_norm(x), context))
            x = block(x, context)
        return weights

    def init_weights(self, zero_init: bool) -> None:
        """Draw all matrices anew; see `zero_init` of the class."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(OUTPUTS):
                nn.init.normal_(weight, std=0.0 if zero_init else 0.02 / math.sqrt(2 * len(self.blocks)))
        if zero_init:
            nn.init.zeros_(self.head.weight)


class Block(nn.Module):
    """Pre-norm block: attention, then MLP, each added to the residual stream."""

    def __init__(self, *, attention: nn.Module, mlp: nn.Module, norm: Callable[[], nn.Module], dropout: float) -> None:
        super().__init__()
        self.attention_norm = norm()
        self.attention = attention
        self.mlp_norm = norm()
        self.mlp = mlp
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        x = x + self.dropout(self.attention(self.attention_norm(x), context, cache))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class PostNormBlock(Block):
    """The paper's block: each half is added first and normalised after (arXiv 1706.03762, section 3.1)."""

    def forward(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> Tensor:
        x = self.attention_norm(x + self.dropout(self.attention(x, context, cache)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class NoResidualBlock(Block):
    """Attention, then MLP, with nothing to lead around them: hard to train when stacked."""

    def forward(self, x: Tensor, context: Context, cache: LayerCache | None = None) -> Tensor:
        x = self.dropout(self.attention(self.attention_norm(x), context, cache))
        return self.dropout(self.mlp(self.mlp_norm(x)))


class Bigram(nn.Module):
    """The lecture's first model: a table of the next token's logits for each token; it sees one token of context."""

    def __init__(self, *, vocab_size: int, block_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T] -> logits [B, T, V]."""
        if cache is not None:
            cache.advance(tokens)
        return self.table(tokens)

    def make_cache(self) -> KVCache:
        """An empty cache: nothing before the last token counts."""
        return KVCache(num_layers=0)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model; tied weights count once, position tables too."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def count_active_parameters(model: nn.Module) -> int:
    """Those that one token uses: all but the experts that it does not go through."""
    return count_parameters(model) - count_idle_parameters(model)


def count_idle_parameters(model: nn.Module) -> int:
    """Numbers in the experts that a token does not go through."""
    mixtures = (m for m in model.modules() if isinstance(m, Experts))
    return sum((len(m.experts) - m.top_k) * count_parameters(m.experts[0]) for m in mixtures)


def flops_per_token(model: nn.Module, block_size: int) -> int:
    """Floating-point operations of one token's forward and backward pass (arXiv 2204.02311, appendix B).

    6 per active weight of a matrix product (2 forward, 4 backward) and 12 * H * C * T per attention layer; the causal
    half is counted in full, as is the custom. A head that predicts several tokens counts once.
    """
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear)) - count_idle_parameters(model)
    attention = sum(m.num_heads * m.head_dim for m in model.modules() if isinstance(m, CausalSelfAttention))
    return 6 * weights + 12 * attention * block_size
