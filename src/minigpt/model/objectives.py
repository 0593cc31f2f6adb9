"""What a model is trained to do, and how well it does it.

Shapes: B rows, T time, V vocabulary. A target of -100 is not counted.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class NextToken:
    """Predict the token that follows each position.

    Args:
        label_smoothing: the share of each target's weight that is spread over all tokens (arXiv 1706.03762,
            section 5.4). It changes what is minimised; the loss that is reported stays the plain one.
    """

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, model: nn.Module, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What to minimise and what to report [nats per token], for token ids and targets [B, T]."""
        logits, targets = model(tokens).flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits, targets)
        if not self.label_smoothing:
            return loss, loss
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing), loss

    def score(self, model: nn.Module, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the counted targets: loss [nats], correct guesses, targets."""
        logits, targets = model(tokens).flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits.float(), targets, reduction="sum")
        return loss, (logits.argmax(dim=-1) == targets).sum(), (targets != -100).sum()
