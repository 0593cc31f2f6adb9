"""What a model is trained to do, and how well it does it.

Shapes: B rows, T time, V vocabulary. A target of -100 is not counted.
"""

from typing import Any

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
        minimised, reported = self.compare(model(tokens), targets)
        return minimised + auxiliary_loss(model), reported

    def compare(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What logits [B, T, V] are worth: with the targets smoothed, and plain."""
        logits, targets = logits.flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits, targets)
        if not self.label_smoothing:
            return loss, loss
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing), loss

    def score(self, model: nn.Module, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the counted targets: loss [nats], correct guesses, targets."""
        logits, targets = model(tokens).flatten(0, 1), targets.flatten()
        loss = F.cross_entropy(logits.float(), targets, reduction="sum")
        return loss, (logits.argmax(dim=-1) == targets).sum(), (targets != -100).sum()


class MultiToken(NextToken):
    """Predict the tokens that follow each position, the next and those after it (arXiv 2404.19737, section 2).

    For a `MultiTokenGPT`. What is reported is the next token's loss alone.

    Args:
        ahead_weight: of the losses of the tokens after the next; the paper's is 1.
    """

    def __init__(self, *, ahead_weight: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.ahead_weight = ahead_weight

    def loss(self, model: nn.Module, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        first, *others = model(tokens, ahead=True)
        minimised, reported = self.compare(first, targets)
        ahead = sum(self.compare(logits[:, :-n], targets[:, n:])[0] for n, logits in enumerate(others, start=1))
        return minimised + self.ahead_weight * ahead + auxiliary_loss(model), reported


def auxiliary_loss(model: nn.Module) -> Tensor | int:
    """What the parts of a model add to what is minimised, such as the balance of experts."""
    return sum(m.auxiliary_loss for m in model.modules() if hasattr(m, "auxiliary_loss"))
