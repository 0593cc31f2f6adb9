"""What followed the last few tokens before, counted. Shapes: N order, B batch, T time, V vocabulary, K contexts."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.model.kv_cache import KVCache

EMPTY, TOO_SHORT = -1, -2  # in the place of a context's number, which is 0 or more
PROBES = 32  # rows that a context may stand in


class Ngram(nn.Module):
    """Interpolated n-gram model with Witten-Bell smoothing (Chen and Goodman, TR-10-98, section 2.5).

        p_n(w | h) = (c(h w) + a_n t(h) p_{n-1}(w | h')) / (c(h) + a_n t(h)),   p_0 = 1 / V

    for a context h of n - 1 tokens, h' without its first one, c how often it was seen and t how many different tokens
    followed it. Witten-Bell has a_n = 1; here they start there and are all that gradient descent learns. While
    training, each batch is predicted before it is counted, so the training loss is that of tokens not seen before,
    for as long as the text is read once; a second pass would count it double.

    Contexts of all lengths share one hash table with open addressing, so that counts are exact. A context that finds
    its `PROBES` rows taken is left out, and predictions rest on its shorter ones.

    Args:
        order: N, tokens of the longest n-gram, whose last one is predicted.
        rows: K, room for contexts; each takes 4 V + 8 bytes. Twice as many as there are contexts is enough.

    Raises:
        ValueError: contexts of that order do not fit a number of 64 bits.
    """

    def __init__(self, *, vocab_size: int, block_size: int, order: int, rows: int) -> None:
        super().__init__()
        if (vocab_size + 1) ** (order - 1) >= 2**63:
            raise ValueError(f"contexts of {order - 1} among {vocab_size} tokens do not fit 64 bits: lower model.order")
        self.vocab_size = vocab_size
        self.block_size = block_size
        self.order = order
        self.rows = rows
        self.log_weights = nn.Parameter(torch.zeros(order))  # ln a_n
        self.register_buffer("contexts", torch.full((rows,), EMPTY))
        self.register_buffer("counts", torch.zeros(rows, vocab_size, dtype=torch.int32))
        self.register_buffer("steps", torch.arange(min(PROBES, rows)), persistent=False)

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T] -> log-probabilities [B, T, V] of the token that follows each; in training, count them."""
        known = tokens
        if cache is not None:
            cache.advance(tokens, keep=self.block_size)
            known = cache.recent
        contexts = self.number(known)[..., -tokens.shape[1] :]
        log_p = self.predict(contexts)
        if self.training:
            self.count(gather(tokens))
        return log_p

    def number(self, tokens: Tensor) -> Tensor:
        """The contexts of 0, 1, ..., N - 1 tokens that end at each position, as numbers [N, B, T]."""
        digits, base = tokens + 1, self.vocab_size + 1  # no digit is 0, so contexts of different lengths differ
        numbers = [torch.zeros_like(tokens)]
        for n in range(1, self.order):
            first = F.pad(digits, (n - 1, 0))[:, : tokens.shape[1]]
            longer = numbers[-1] + first * base ** (n - 1)
            numbers.append(torch.where(first > 0, longer, TOO_SHORT))
        return torch.stack(numbers)

    def predict(self, contexts: Tensor) -> Tensor:
        """Log-probabilities [B, T, V] after contexts [N, B, T]."""
        rows, found = self.find(contexts)
        p = self.log_weights.new_tensor(1 / self.vocab_size)
        for row, known, log_weight in zip(rows, found, self.log_weights, strict=True):
            counts = self.counts[row] * known[..., None]
            kinds = (counts > 0).sum(dim=-1, keepdim=True)
            weight = kinds.clamp(min=1) * log_weight.exp()  # after an unknown context this leaves p as it is
            p = (counts + weight * p) / (counts.sum(dim=-1, keepdim=True) + weight)
        return p.log()

    @torch.no_grad()
    def count(self, tokens: Tensor) -> None:
        """Add all n-grams within rows [B, T] to the counts."""
        contexts, following = self.number(tokens[:, :-1]), tokens[:, 1:]
        self.add(contexts)
        rows, found = self.find(contexts)
        cells = rows * self.vocab_size + following
        self.counts.view(-1).index_add_(0, cells.flatten(), found.int().flatten())

    def add(self, contexts: Tensor) -> None:
        """Give each new context the first of its rows that is free."""
        new = contexts[~self.find(contexts)[1] & (contexts >= 0)].unique()
        for step in self.steps:
            rows = self.probe(new)[:, step]
            wanted = torch.where(self.contexts[rows] == EMPTY, new, EMPTY)
            self.contexts.scatter_reduce_(0, rows, wanted, "amax")  # of several that want a row, one gets it
            new = new[self.contexts[rows] != new]

    def find(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """The row of each context, of the same shape, and whether it has one; 0 when not."""
        rows = self.probe(contexts)
        held = self.contexts[rows] == contexts[..., None]
        return (rows * held).sum(dim=-1), held.any(dim=-1)

    def probe(self, contexts: Tensor) -> Tensor:
        """The rows [..., PROBES] that a context may stand in."""
        first = contexts * 2_654_435_761 % 2_147_483_647
        return (first[..., None] + self.steps) % self.rows

    def make_cache(self) -> KVCache:
        """An empty cache for one generation with this model; it keeps the newest tokens."""
        return KVCache(num_layers=0)


def gather(tokens: Tensor) -> Tensor:
    """The rows [B, T] of all devices, so that each counts the same."""
    if not dist.is_available() or not dist.is_initialized():
        return tokens
    parts = [torch.empty_like(tokens) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tokens.contiguous())
    return torch.cat(parts)
