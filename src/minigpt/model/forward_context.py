"""State shared by the layers during one forward pass.

Shapes: B batch, T time, S source time, D dim, K key-value heads, C head_dim.
"""

from dataclasses import dataclass

from torch import Tensor

from minigpt.model.embeddings import Positions


@dataclass
class ForwardContext:
    """Created for each forward pass and passed from layer to layer.

    Attributes:
        positions: the model's position scheme.
        start: position of the first token; greater than 0 when a cache holds the tokens before it.
        first_values: values of the first layer's attention [B, K, T, C]; see `ValueResidualAttention`.
        padding: added to the attention scores [B, 1, 1, T]; 0, or -inf at padding tokens.
        memory: output of the encoder [B, S, D], read by cross-attention.
        memory_padding: `padding` of the memory [B, 1, 1, S].
    """

    positions: Positions
    start: int = 0
    first_values: Tensor | None = None
    padding: Tensor | None = None
    memory: Tensor | None = None
    memory_padding: Tensor | None = None
