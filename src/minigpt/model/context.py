"""What the layers of one forward pass share."""

from dataclasses import dataclass

from torch import Tensor

from minigpt.model.positions import Positions


@dataclass
class Context:
    """Made anew for each forward pass and handed from layer to layer."""

    positions: Positions
    start: int = 0  # the position of the first token; more than 0 when a cache holds those before it
    first_values: Tensor | None = None  # of the first layer's attention [B, K, T, C], for layers that mix them in
