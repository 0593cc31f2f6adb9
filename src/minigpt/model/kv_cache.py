"""Keys and values of the tokens already read, so that each new token costs one position of work.

Shapes: B batch, K key-value heads, T time, C head_dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerCache:
    """Keys and values of one layer's attention, with room for `block_size` positions.

    `memory` holds those of its cross-attention, which stay the same; `tails` what its convolutions read last.
    """

    def __init__(self) -> None:
        self.tails: dict[nn.Module, Tensor] = {}
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.memory: tuple[Tensor, Tensor] | None = None

    def extend(self, keys: Tensor, values: Tensor, start: int, block_size: int) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, K, T, C] at position `start`; return all up to start + T."""
        if self.keys is None or self.values is None:
            shape = (*keys.shape[:2], block_size, keys.shape[3])
            self.keys, self.values = keys.new_empty(shape), values.new_empty(shape)
        end = start + keys.shape[2]
        self.keys[:, :, start:end] = keys
        self.values[:, :, start:end] = values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def precede(self, reader: nn.Module, x: Tensor, count: int) -> Tensor:
        """x [B, T, D] with the `count` positions before it that a module has read, zeros at the text's beginning."""
        tail = self.tails.get(reader)
        known = F.pad(x, (0, 0, count, 0)) if tail is None else torch.cat((tail, x), dim=1)
        self.tails[reader] = known[:, known.shape[1] - count :]
        return known

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what row rows[i] has read; both must have the same memory."""
        if self.keys is not None and self.values is not None:
            self.keys, self.values = self.keys[rows], self.values[rows]
        self.tails = {reader: tail[rows] for reader, tail in self.tails.items()}


class KVCache:
    """One `LayerCache` a layer, how many positions they hold, and the newest token ids [B, P] where they are needed."""

    def __init__(self, *, num_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]
        self.length = 0
        self.recent: Tensor | None = None

    def advance(self, tokens: Tensor, keep: int = 0) -> None:
        """Count new positions with their tokens [B, T], once all layers have written them; keep the newest tokens."""
        self.length += tokens.shape[1]
        if keep:
            known = tokens if self.recent is None else torch.cat((self.recent, tokens), dim=1)
            self.recent = known[:, -keep:]

    def reorder(self, rows: Tensor) -> None:
        """Row i goes on from what row rows[i] has read, for rows [B]."""
        for layer in self.layers:
            layer.reorder(rows)
        if self.recent is not None:
            self.recent = self.recent[rows]

    def clear(self) -> None:
        """Forget all positions; the memory stays."""
        self.length, self.recent = 0, None
        for layer in self.layers:
            layer.tails.clear()
