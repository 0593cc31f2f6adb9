"""Keys and values of the tokens read so far, so that a new token costs one position of work.

Shapes: B batch, K key-value heads, T time, D dim, C head_dim, P kept tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerCache:
    """Keys and values of one layer's attention, preallocated for `block_size` positions.

    Attributes:
        keys, values: of self-attention [B, K, block_size, C].
        memory: keys and values of cross-attention, which do not change.
        conv_state: for each convolution, the newest positions that it has read.
    """

    def __init__(self) -> None:
        self.conv_state: dict[nn.Module, Tensor] = {}
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.memory: tuple[Tensor, Tensor] | None = None

    def update(self, keys: Tensor, values: Tensor, start: int, block_size: int) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, K, T, C] at position `start`; return all up to start + T."""
        if self.keys is None or self.values is None:
            shape = (*keys.shape[:2], block_size, keys.shape[3])
            self.keys, self.values = keys.new_empty(shape), values.new_empty(shape)
        end = start + keys.shape[2]
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def prepend(self, convolution: nn.Module, x: Tensor, count: int) -> Tensor:
        """Return x [B, T, D] after the `count` positions that `convolution` read before it; zeros before the text."""
        state = self.conv_state.get(convolution)
        known = F.pad(x, (0, 0, count, 0)) if state is None else torch.cat((state, x), dim=1)
        self.conv_state[convolution] = known[:, known.shape[1] - count :]
        return known

    def reorder(self, sequences: Tensor) -> None:
        """Continue sequence i from sequence sequences[i], for indices [B]; both must have the same memory."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[sequences], self.values[sequences]
        self.conv_state = {convolution: state[sequences] for convolution, state in self.conv_state.items()}


class KVCache:
    """The caches of all layers.

    Attributes:
        layers: one `LayerCache` per layer.
        length: number of positions that the layers hold.
        recent: the newest token ids [B, P], for models that need them.
    """

    def __init__(self, *, num_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]
        self.length = 0
        self.recent: Tensor | None = None

    def advance(self, tokens: Tensor, keep: int = 0) -> Tensor:
        """Count the positions of new tokens [B, T], once all layers have written them, and keep the newest token ids.

        Returns:
            The newest `keep` token ids; `tokens` when `keep` is 0.
        """
        self.length += tokens.shape[1]
        if not keep:
            return tokens
        known = tokens if self.recent is None else torch.cat((self.recent, tokens), dim=1)
        self.recent = known[:, -keep:]
        return self.recent

    def reorder(self, sequences: Tensor) -> None:
        """Continue sequence i from sequence sequences[i], for indices [B], as beam search does."""
        for layer in self.layers:
            layer.reorder(sequences)
        if self.recent is not None:
            self.recent = self.recent[sequences]

    def clear(self) -> None:
        """Forget all positions, but not the memory of cross-attention."""
        self.length, self.recent = 0, None
        for layer in self.layers:
            layer.conv_state.clear()
