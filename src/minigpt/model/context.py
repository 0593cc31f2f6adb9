"""What the layers of one forward pass share.

Shapes: B batch, T time, S source time, D dim, K key-value heads, C head_dim.
"""

from dataclasses import dataclass

from torch import Tensor

from minigpt.model.positions import Positions


@dataclass
class Context:
    """Made anew for each forward pass and handed from layer to layer."""

    positions: Positions
    start: int = 0  # the position of the first token; more than 0 when a cache holds those before it
    first_values: Tensor | None = None  # of the first layer's attention [B, K, T, C], for layers that mix them in
    padding: Tensor | None = None  # added to the scores with each position [B, 1, 1, T]: 0, or -inf where it is padding
    memory: Tensor | None = None  # what an encoder made of its source [B, S, D], for cross-attention
    memory_padding: Tensor | None = None  # the same as `padding`, of the memory [B, 1, 1, S]
