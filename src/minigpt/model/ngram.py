"""A count-based n-gram baseline.

Shapes: N order, B batch, T time, V vocabulary, K slots of the hash table, P probes.
"""

from typing import Annotated

import torch
import torch.distributed as dist
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from minigpt.bounds import PositiveInt
from minigpt.model.kv_cache import KVCache

EMPTY, TOO_SHORT = -1, -2  # in place of a context's key, which is at least 0
PROBES = 32  # slots that a context may occupy


class Ngram(nn.Module):
    """Interpolated n-gram model with Witten-Bell smoothing (Chen and Goodman, TR-10-98, section 2.5).

        p_n(w | h) = (c(h w) + a_n t(h) p_{n-1}(w | h')) / (c(h) + a_n t(h)),   p_0 = 1 / V

    for a context h of n - 1 tokens, where h' is h without its first token, c(h) the number of times that h was seen and
    t(h) the number of different tokens that followed it. Witten-Bell has a_n = 1. Here the a_n start at 1 and are all
    that gradient descent learns. During training each batch is predicted before it is counted, so that the training
    loss is one on unseen text as long as the text is read once; a second epoch would count it twice.

    Contexts of all lengths share one hash table with open addressing, so counts are exact. A context whose `PROBES`
    slots are all taken is not counted; predictions then rely on shorter contexts.

    Args:
        vocab_size: number of token ids.
        block_size: longest training sequence [tokens].
        order: length of the longest n-gram, the predicted token included, N.
        table_size: slots of the hash table, K, each of 4 V + 8 bytes. Twice the number of contexts is enough.

    Raises:
        ValueError: contexts of that order do not fit into 64 bits.
    """

    contexts: Tensor
    counts: Tensor
    steps: Tensor

    def __init__(
        self,
        *,
        vocab_size: PositiveInt,
        block_size: PositiveInt,
        order: Annotated[int, Ge(1), Le(63)],
        table_size: PositiveInt,
    ) -> None:
        super().__init__()
        if (vocab_size + 1) ** (order - 1) >= 2**63:
            raise ValueError(f"contexts of {order - 1} among {vocab_size} tokens do not fit 64 bits: lower model.order")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.order = order
        self.table_size = table_size
        self.log_weights = nn.Parameter(torch.zeros(order))  # ln a_n
        self.register_buffer("contexts", torch.full((table_size,), EMPTY))
        self.register_buffer("counts", torch.zeros(table_size, vocab_size, dtype=torch.int32))
        self.register_buffer("steps", torch.arange(min(PROBES, table_size)), persistent=False)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T], after those in the cache -> log-probabilities [B, T, V] of the token that follows each.

        In training mode the tokens are counted afterwards.
        """
        known = tokens if cache is None else cache.advance(tokens, keep=self.block_size)
        log_p = self.predict(self.context_keys(known)[..., -tokens.shape[1] :])
        if self.training:
            self.add_counts(all_gather(tokens))
        return log_p

    def context_keys(self, tokens: Tensor) -> Tensor:
        """Return the keys [N, B, T] of the contexts of 0, 1, ..., N - 1 tokens that end at each of tokens [B, T]."""
        digits, base = tokens + 1, self.vocab_size + 1  # without a digit 0, keys of different lengths differ
        keys = [torch.zeros_like(tokens)]
        for n in range(1, self.order):
            first = F.pad(digits, (n - 1, 0))[:, : tokens.shape[1]]
            longer = keys[-1] + first * base ** (n - 1)
            keys.append(torch.where(first > 0, longer, TOO_SHORT))
        return torch.stack(keys)

    def predict(self, contexts: Tensor) -> Tensor:
        """Return log-probabilities [B, T, V] after contexts with keys [N, B, T]."""
        slots, found = self.find(contexts)
        p = self.log_weights.new_tensor(1 / self.vocab_size)
        for slot, is_known, log_weight in zip(slots, found, self.log_weights, strict=True):
            counts = self.counts[slot] * is_known[..., None]
            kinds = (counts > 0).sum(dim=-1, keepdim=True)
            weight = kinds.clamp(min=1) * log_weight.exp()  # an unknown context leaves p unchanged
            p = (counts + weight * p) / (counts.sum(dim=-1, keepdim=True) + weight)
        return p.log()

    @torch.no_grad()
    def add_counts(self, tokens: Tensor) -> None:
        """Count all n-grams within the sequences [B, T]."""
        contexts, following = self.context_keys(tokens[:, :-1]), tokens[:, 1:]
        self.insert(contexts)
        slots, found = self.find(contexts)
        cells = slots * self.vocab_size + following
        self.counts.view(-1).index_add_(0, cells.flatten(), found.int().flatten())

    def insert(self, contexts: Tensor) -> None:
        """Store each new context in the first of its slots that is free."""
        new = contexts[~self.find(contexts)[1] & (contexts >= 0)].unique()
        for step in self.steps:
            slots = self.probe(new)[:, step]
            candidates = torch.where(self.contexts[slots] == EMPTY, new, EMPTY)
            self.contexts.scatter_reduce_(0, slots, candidates, "amax")  # of several contexts one gets the slot
            new = new[self.contexts[slots] != new]

    def find(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slot of each context, or 0, and whether it has one; both of the shape of `contexts`."""
        slots = self.probe(contexts)
        held = self.contexts[slots] == contexts[..., None]
        return (slots * held).sum(dim=-1), held.any(dim=-1)

    def probe(self, contexts: Tensor) -> Tensor:
        """Return the slots [..., P] that each context may occupy."""
        first = contexts * 2_654_435_761 % 2_147_483_647
        return (first[..., None] + self.steps) % self.table_size

    def make_cache(self) -> KVCache:
        """Return an empty cache for generation; it keeps the newest tokens."""
        return KVCache(num_layers=0)


def all_gather(tokens: Tensor) -> Tensor:
    """Concatenate the sequences [B, T] of all devices, so that each device has the same counts."""
    if not dist.is_available() or not dist.is_initialized():
        return tokens
    shards = [torch.empty_like(tokens) for _ in range(dist.get_world_size())]
    dist.all_gather(shards, tokens.contiguous())
    return torch.cat(shards)
