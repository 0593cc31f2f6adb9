"""The GPT: token embedding, `num_layers` blocks of attention and MLP on a residual stream, norm, head.

      x = embed(tokens)  -->  x + attention(norm(x))  -->  x + mlp(norm(x))  -->  ...  -->  head(norm(x))
                              |________________ one block _______________|

Shapes: B batch, T time, D dim, H heads, V vocabulary.
"""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from minigpt.bounds import DropProbability, NumModules, PositiveFloat, PositiveInt
from minigpt.model.attention import CausalSelfAttention, divide_heads
from minigpt.model.embeddings import Positions, TokenEmbedding
from minigpt.model.forward_context import ForwardContext
from minigpt.model.kv_cache import KVCache, LayerCache
from minigpt.model.layers import Dropout
from minigpt.model.lora import LoRA

RESIDUAL_PROJECTIONS = ("out_proj.weight", "down.weight")  # the matrices of a block that write to the residual stream


class GPT(nn.Module):
    """A decoder-only Transformer built from injected components.

    Args:
        vocab_size: number of token ids.
        block_size: longest context [tokens].
        num_layers: number of blocks.
        num_heads: number of attention heads of each block.
        dim: model width.
        attention, mlp, norm, positions, embedding, block: constructors of the components. The model passes them its
            sizes as keyword arguments.
        dropout: probability of dropping an embedding, an attention weight or a block's output during training.
        attention_dropout: the same for attention weights; `dropout` when None.
        tie_head: use the embedding matrix as the head (arXiv 1608.05859).
        zero_init: initialise the head and the residual projections with zeros: the blocks start as the identity, and
            all tokens are equally likely.
        init_std: standard deviation of the initial weights; divided by sqrt(2 num_layers) for residual projections, as
            in GPT-2. None keeps torch's initialisation.
        adapter: constructor of an adapter, such as `minigpt.model.lora.LoRA`, which is then all that is trained.
        final_norm: normalise the input of the head; the output of post-norm blocks is normalised already.

    Raises:
        ValueError: `dim` is not divisible by `num_heads`.
    """

    # More than 10 arguments: each is an option of the command line, documented and checked by its own name.
    def __init__(
        self,
        *,
        vocab_size: PositiveInt,
        block_size: PositiveInt,
        num_layers: NumModules,
        num_heads: PositiveInt,
        dim: PositiveInt,
        attention: Callable[..., nn.Module],
        mlp: Callable[..., nn.Module],
        norm: Callable[..., nn.Module],
        positions: Callable[..., Positions],
        embedding: Callable[..., TokenEmbedding] = TokenEmbedding,
        block: Callable[..., "Block"] | None = None,
        dropout: DropProbability = 0.0,
        attention_dropout: DropProbability | None = None,
        tie_head: bool = False,
        zero_init: bool = False,
        init_std: PositiveFloat | None = 0.02,
        final_norm: bool = True,
        adapter: Callable[..., LoRA] | None = None,
    ) -> None:
        super().__init__()
        head_dim = divide_heads(dim, num_heads)
        block = Block if block is None else block
        attention_dropout = dropout if attention_dropout is None else attention_dropout
        self.vocab_size, self.block_size = vocab_size, block_size
        self.embedding = embedding(vocab_size=vocab_size, dim=dim)
        self.positions = positions(block_size=block_size, dim=dim, head_dim=head_dim)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList()
        for _ in range(num_layers):
            self_attention = attention(dim=dim, num_heads=num_heads, block_size=block_size, dropout=attention_dropout)
            self.blocks.append(block(dim=dim, attention=self_attention, mlp=mlp(dim=dim), norm=norm, dropout=dropout))
        self.norm = norm(dim=dim) if final_norm else nn.Identity()
        self.head = nn.Linear(dim, vocab_size, bias=False)
        if init_std is not None:
            self.init_weights(init_std, zero_init)
        if tie_head:
            self.head.weight = self.embedding.weight
        if adapter is not None:
            adapter().add_to(self, self.blocks)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T], after those in the cache -> logits [B, T, V] of the token that follows each."""
        return self.head(self.hidden(tokens, cache))

    def hidden(
        self,
        tokens: Tensor,
        cache: KVCache | None = None,
        *,
        padding: Tensor | None = None,
        memory: Tensor | None = None,
        memory_padding: Tensor | None = None,
    ) -> Tensor:
        """Token ids [B, T] -> the input of the head [B, T, D]. See `ForwardContext` for the keyword arguments."""
        start, earlier = (0, None) if cache is None else (cache.length, cache.recent)
        context = ForwardContext(self.positions, start, padding=padding, memory=memory, memory_padding=memory_padding)
        x = self.dropout(self.positions.add(self.embedding(tokens, earlier), start))
        for layer, block in enumerate(self.blocks):
            x = block(x, context, None if cache is None else cache.layers[layer])
        if cache is not None:
            cache.advance(tokens, self.embedding.context_size)
        return self.norm(x)

    def make_cache(self) -> KVCache:
        """Return an empty cache for generation."""
        return KVCache(num_layers=len(self.blocks))

    def attention_maps(self, tokens: Tensor) -> list[Tensor]:
        """Return the self-attention weights [B, H, T, T] of each layer for token ids [B, T]."""
        maps: list[Tensor] = []

        def record(attention: nn.Module, inputs: tuple[Any, ...]) -> None:
            assert isinstance(attention, CausalSelfAttention)
            x, context, *_ = inputs
            maps.append(attention.attention_map(x, context))

        blocks = (block for block in self.blocks if isinstance(block, Block))
        hooks = [block.attention.register_forward_pre_hook(record) for block in blocks]
        try:
            self(tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return maps

    def init_weights(self, std: float, zero_init: bool) -> None:
        """Initialise all matrices; see `init_std` and `zero_init` of the class."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(RESIDUAL_PROJECTIONS):
                nn.init.normal_(weight, std=0.0 if zero_init else std / math.sqrt(2 * len(self.blocks)))
        if zero_init:
            nn.init.zeros_(self.head.weight)


class Block(nn.Module):
    """Pre-norm block: attention, then MLP, each added to the residual stream.

    With `cross_attention`, a decoder attends to the output of its encoder between the two.
    """

    def __init__(
        self,
        *,
        dim: PositiveInt,
        attention: nn.Module,
        mlp: nn.Module,
        norm: Callable[..., nn.Module],
        dropout: DropProbability,
        cross_attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.attention_norm = norm(dim=dim)
        self.attention = attention
        self.cross_norm = None if cross_attention is None else norm(dim=dim)
        self.cross_attention = cross_attention
        self.mlp_norm = norm(dim=dim)
        self.mlp = mlp
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, context: ForwardContext, cache: LayerCache | None = None) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        x = self.apply_sublayer(x, self.attention, self.attention_norm, context, cache)
        if self.cross_attention is not None and self.cross_norm is not None:
            x = self.apply_sublayer(x, self.cross_attention, self.cross_norm, context, cache)
        return self.apply_sublayer(x, self.mlp, self.mlp_norm)

    def apply_sublayer(self, x: Tensor, sublayer: nn.Module, norm: nn.Module, *context: Any) -> Tensor:
        """Apply attention or MLP with its norm: x [B, T, D] -> [B, T, D]."""
        return x + self.dropout(sublayer(norm(x), *context))


class PostNormBlock(Block):
    """The block of the original Transformer, which normalises after the addition (arXiv 1706.03762, section 3.1)."""

    def apply_sublayer(self, x: Tensor, sublayer: nn.Module, norm: nn.Module, *context: Any) -> Tensor:
        return norm(x + self.dropout(sublayer(x, *context)))


class NoResidualBlock(Block):
    """Attention, then MLP, without residual connections: hard to train when stacked."""

    def apply_sublayer(self, x: Tensor, sublayer: nn.Module, norm: nn.Module, *context: Any) -> Tensor:
        return self.dropout(sublayer(norm(x), *context))


class Bigram(nn.Module):
    """A table of next-token logits for each token.

    The first model of Andrej Karpathy's lecture "Let's build GPT: from scratch, in code, spelled out"
    (https://www.youtube.com/watch?v=kCc8FmEb1nY).
    """

    def __init__(self, *, vocab_size: PositiveInt, block_size: PositiveInt) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.table = nn.Embedding(vocab_size, vocab_size)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T] -> logits [B, T, V] of the token that follows each."""
        if cache is not None:
            cache.advance(tokens)
        return self.table(tokens)

    def make_cache(self) -> KVCache:
        """Return an empty cache for generation; the last token is all that counts."""
        return KVCache(num_layers=0)
