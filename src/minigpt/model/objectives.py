"""What a model is trained to do, and how well it does it.

Shapes: B rows, T time, V vocabulary. A target of -100 is not counted.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100


class NextToken:
    """Predict the token that follows each position.

    Args:
        label_smoothing: the share of each target's weight that is spread over all tokens (arXiv 1706.03762,
            section 5.4). It changes what is minimised; the loss that is reported stays the plain one.

    Attributes:
        extra_tokens: how many token ids the model needs after those of the text.
        generates: whether a model that is trained so can continue a text.
    """

    extra_tokens = 0
    generates = True

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
        return loss, (logits.argmax(dim=-1) == targets).sum(), (targets != IGNORED).sum()


class MaskedTokens:
    """Say what stood at positions that are hidden, from both sides of them (arXiv 1810.04805, section 3.1).

    Each token is chosen by itself, with probability `mask_fraction`; of the chosen, 80 % become [MASK], the last id
    of the vocabulary, 10 % a random token, and 10 % stay. The next tokens that a batch brings are not looked at, but
    that a position without one is no part of the text. While training the choice is new in each step; a row that is
    scored always has the same one, in whichever batch and on whichever device.
    """

    extra_tokens = 1
    generates = False

    def __init__(self, *, mask_fraction: float = 0.15) -> None:
        self.mask_fraction = mask_fraction

    def loss(self, model: nn.Module, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What to minimise and what to report [nats per chosen token], for token ids and targets [B, T]."""
        inputs, targets = self.hide(tokens, targets, torch.rand(2, *tokens.shape, device=tokens.device), model)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
        loss = loss / (targets != IGNORED).sum().clamp(min=1)
        return loss + auxiliary_loss(model), loss

    def score(self, model: nn.Module, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over the chosen tokens: loss [nats], correct guesses, how many."""
        inputs, targets = self.hide(tokens, targets, numbers_of_rows(tokens), model)
        return NextToken().score(model, inputs, targets)

    def hide(self, tokens: Tensor, targets: Tensor, numbers: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """What the model reads and what it has to say, each [B, T], as two numbers [2, B, T] in [0, 1) decide."""
        choice, other = numbers
        mask = model.vocab_size - 1
        read = torch.where(choice < 0.9 * self.mask_fraction, (other * mask).long(), tokens)
        read = torch.where(choice < 0.8 * self.mask_fraction, mask, read)
        chosen = (choice < self.mask_fraction) & (targets != IGNORED)
        return read, torch.where(chosen, tokens, IGNORED)


def numbers_of_rows(tokens: Tensor) -> Tensor:
    """Two numbers [2, B, T] in [0, 1) for each position, a pure function of its row's tokens [B, T].

    They look drawn.
    """
    places = stir(torch.arange(2 * tokens.shape[1], device=tokens.device))
    row = stir(tokens + places[: tokens.shape[1]]).sum(dim=1, keepdim=True)
    numbers = stir(row + places) >> 8  # float32 has 24 bits
    return numbers.unflatten(1, (2, -1)).movedim(1, 0) / 2**24


def stir(x: Tensor) -> Tensor:
    """The lower 32 bits of each number, well mixed: MurmurHash3's finaliser (Appleby, 2011)."""
    x = x & 0xFFFFFFFF
    x = (x ^ (x >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ (x >> 16)


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
